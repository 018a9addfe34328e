"""Rules that a directory keeps with its users and groups: the ends of their layers, read once for each entry.

They come with the identity, as text. Inside a layer the store's rules are asked first, so there the proxy's own
administrator has the first word. Where they say nothing each entry votes by itself, and one deny denies: whoever may
write one entry does not undo what another of the same name forbids. A text that is no rule is left out: it neither
allows nor denies anything, and `rule_problems` tells of it.
"""

from collections.abc import Iterable
from typing import Any, Final
from weakref import WeakValueDictionary

import attrs

from auth import EntryRules, Identity
from trioproxy.policy.grammar import RuleSyntaxError, parse_rule
from trioproxy.policy.hours import Hours
from trioproxy.policy.index import LayerIndex
from trioproxy.policy.leaves import Votes
from trioproxy.policy.ranges import address_number, within
from trioproxy.policy.request import IPAddress, RuleProtocol
from trioproxy.policy.rules import Question, Rule, check_scope, host_ranges
from trioproxy.policy.ruleset import RuleSet
from trioproxy.policy.scope import Scope, ScopeKind

__all__ = [
    "PROBLEMS_MAX",
    "TEXTS_MAX",
    "DirectoryLayer",
    "add_votes",
    "ask_findings",
    "directory_layers",
    "have_hours",
    "rule_problems",
]

PROBLEMS_MAX: Final = 3  # told of one entry; whoever mends these sees the next
TEXTS_MAX: Final = 1_000  # of one entry: reading them takes 25 ms
SHOWN_MAX: Final = 512  # characters of a DN or of a wrong text in a message


@attrs.frozen(eq=False)
class DirectoryLayer:
    """What one entry of the directory adds to a layer.

    Attributes:
        scope: the layer.
        name: the same as text.
        origin: the DN of the entry.
        rules: those of its texts that are rules, in their order.
        problems: a line about each of the first others, and how many more there are.
        wrong: how many others there are.
        hours: those of its rules.
        asks: whether one of them asks what a flow is.
    """

    scope: Scope
    origin: str
    rules: RuleSet
    problems: tuple[str, ...]
    wrong: int
    hours: frozenset[Hours] = attrs.field(init=False, repr=False)
    asks: bool = attrs.field(init=False, repr=False)
    name: str = attrs.field(init=False, repr=False)
    _index: LayerIndex = attrs.field(init=False, repr=False)

    @hours.default
    def _hours_of_rules(self) -> frozenset[Hours]:
        return frozenset(rule.hours for rule in self.rules if rule.hours is not None)

    @asks.default
    def _has_asking_rules(self) -> bool:
        return any(rule.asks for rule in self.rules)

    @name.default
    def _name_of_scope(self) -> str:
        return str(self.scope)

    @_index.default
    def _index_of_rules(self) -> LayerIndex:
        return LayerIndex(self.scope, self.rules, self.origin)

    def votes(self, question: Question) -> Votes:
        """The first of its rules that matches, and what may match, if it is not known what the flow is."""
        votes: Votes = {}
        self._index.collect(question, votes)
        return votes

    def may_ever(self, client_address: IPAddress, protocol: RuleProtocol) -> bool:
        """Could any destination be permitted? See `Policy.may_ever`."""
        number = address_number(client_address)
        return any(
            rule.allow and protocol in rule.protocols and within(host_ranges(rule.source), number)
            for rule in self.rules
        )


# By entry and not by user: the rules of a group are read once for all its members who are online. They live with the
# identities, so that no number of entries makes them be read again for each request.
_SHARED: Final[WeakValueDictionary[tuple[Any, ...], DirectoryLayer]] = WeakValueDictionary()


def directory_layers(identity: Identity) -> list[DirectoryLayer]:
    """The rules that come with an identity, in the order in which they are asked.

    Somebody outside the proxy group has none, and nobody has those of a group without being in it. The first call for
    an identity reads its rules, which takes up to 25 ms; the authenticator makes it where nobody else waits.
    """
    if not identity.member:
        return []
    return [
        _read(identity.tenant, owner, entry)
        for entry in identity.rules
        if (owner := _owner(identity, entry)) is not None
    ]


def add_votes(layers: Iterable[DirectoryLayer], question: Question, votes: Votes) -> None:
    """Let the entries vote for each layer that has no vote yet; of several for one layer a deny counts.

    Where several allow, the terms of each hold: their votes stand beside that of the layer.
    """
    voted = frozenset(votes)
    for layer in layers:
        entry = layer.votes(question).get(layer.name)
        if entry is None or layer.name in voted:
            continue
        known = votes.get(layer.name)
        if known is None or entry.rank < known.rank:
            votes[layer.name] = entry
        elif entry.rule.has_terms:
            votes[f"{layer.name} {layer.origin}"] = entry


def have_hours(layers: Iterable[DirectoryLayer]) -> bool:
    """Does one of these rules have hours?"""
    for layer in layers:  # noqa: SIM110 - a loop costs half of any() with a generator, and this is asked per verdict
        if layer.hours:
            return True
    return False


def ask_findings(layers: Iterable[DirectoryLayer]) -> bool:
    """Does one of these rules ask what a flow is?"""
    for layer in layers:  # noqa: SIM110 - as above
        if layer.asks:
            return True
    return False


def rule_problems(identity: Identity) -> tuple[str, ...]:
    """A line for each of the first texts of an entry that are no rules, and how many more there are, fit for a log.

    It names the entry of the directory, the text, and the column with what was expected there.
    """
    return tuple(problem for layer in directory_layers(identity) for problem in layer.problems)


def _owner(identity: Identity, entry: EntryRules) -> str | None:
    if entry.group is None:
        return identity.user
    return entry.group if entry.group in identity.groups else None


def _read(tenant: str, owner: str, entry: EntryRules) -> DirectoryLayer:
    layer: DirectoryLayer | None = entry.readings.get((tenant, owner))
    if layer is None:
        key = (tenant, owner, entry.group is None, entry.entry, entry.texts)
        layer = _SHARED.get(key)
        if layer is None:
            layer = _SHARED[key] = _parse(tenant, owner, entry)
        entry.readings[tenant, owner] = layer
    return layer


def _parse(tenant: str, owner: str, entry: EntryRules) -> DirectoryLayer:
    scope = Scope(ScopeKind.USER if entry.group is None else ScopeKind.GROUP, tenant, owner)
    origin = _shown(entry.entry)
    rules: list[Rule] = []
    problems: list[str] = []
    wrong = 0
    for text in entry.texts[:TEXTS_MAX]:
        try:
            rule = parse_rule(text)
            check_scope(rule, scope)
        except ValueError as error:
            wrong += 1
            if wrong <= PROBLEMS_MAX:
                problems.append(_shown_problem(origin, text, error))
        else:
            rules.append(rule)
    if wrong > PROBLEMS_MAX:
        problems.append(f"{origin}: {wrong - PROBLEMS_MAX} more are left out")
    if len(entry.texts) > TEXTS_MAX:
        # What is not read may be a deny; so where those that are read say nothing, the answer is no.
        rules.append(parse_rule(f'deny any:*(*)->*(*) note="only {TEXTS_MAX} rules of one entry are read"'))
        problems.append(f"{origin}: {len(entry.texts)} rules, of which only the first {TEXTS_MAX} allow anything")
        wrong += len(entry.texts) - TEXTS_MAX
    return DirectoryLayer(scope, origin, RuleSet(rules), tuple(problems), wrong)


def _shown_problem(origin: str, text: str, error: ValueError) -> str:
    # What `check_scope` says is about the rule as a whole.
    place = str(error) if isinstance(error, RuleSyntaxError) else f"column 1: {error}"
    return f'{origin}: the rule "{_shown(text)}" is left out; {_shown(place)}'


def _shown(text: str) -> str:
    """A stranger's text on one line, without anything that could move the cursor or turn the text around."""
    if len(text) > SHOWN_MAX:
        text = text[:SHOWN_MAX] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
