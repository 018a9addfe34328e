"""The ends of the index: rules in their order, and the table of those that ask what a flow is."""

import enum
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

import attrs

from trioproxy.policy.rules import Domain, Question, Rule
from trioproxy.policy.scope import Scope

if TYPE_CHECKING:
    from trioproxy.sniff import App

__all__ = ["Entry", "Maybe", "NameTree", "Node", "Row", "Slot", "Votes", "have_maybes", "leaf"]


@attrs.frozen(eq=False)
class Entry:
    """A rule in its place.

    Attributes:
        rule: what is asked.
        number: its place in its layer.
        rank: the lowest of several votes decides: a deny before each allow, outer layers before inner ones.
        scope: the text of the layer.
        text: the text of the rule.
        audience: whom it is about: `user=alice` in the global layer is about as many as the layer `user:alice`.
        origin: where it is written, if that is not the store.
    """

    rule: Rule
    number: int
    rank: tuple[bool, int, str, str]
    scope: str
    text: str
    audience: Scope
    origin: str = ""


class Maybe(enum.Enum):
    """What rules would do that may match, as long as it is not known what a flow is."""

    ALLOW = "allow"
    LIMIT = "allow, under terms"
    DENY = "deny"

    __hash__ = object.__hash__  # there is one of each

    @classmethod
    def of(cls, rule: Rule) -> Self:
        """What this rule would do."""
        if not rule.allow:
            return cls.DENY
        return cls.LIMIT if rule.has_terms else cls.ALLOW


# The text of a layer, for the first entry that matches; with a `Maybe` beside it, for the first of those that may.
Slot: TypeAlias = str | tuple[str, Maybe]
Votes: TypeAlias = dict[Slot, Entry]


def have_maybes(votes: Votes) -> bool:
    """Is there a rule that may match?"""
    for slot in votes:  # noqa: SIM110 - a loop costs half of any() with a generator, and this is asked per verdict
        if not isinstance(slot, str):
            return True
    return False


class Node(Protocol):
    """A table, or the row of rules at the end."""

    def collect(self, question: Question, votes: Votes) -> None:
        """Note for each layer the first matching entry below this node, unless an earlier one is known."""
        ...


def leaf(entries: Sequence[Entry]) -> Node:
    """Rules of one layer; where none asks what a flow is, nothing is paid for those that would."""
    return FindingTable(entries) if any(entry.rule.asks for entry in entries) else Row(entries)


class Row:
    """Rules of one layer in their order.

    Args:
        entries: at least one.
        slot: under which the first that matches is noted; left out: as the vote of the layer.
    """

    __slots__ = ("_entries", "_slot")

    def __init__(self, entries: Sequence[Entry], slot: Slot | None = None) -> None:
        # Unpacked once, because this loop is most of what a verdict costs.
        self._entries = tuple((entry.number, entry.rule.matches, entry) for entry in entries)
        self._slot = entries[0].scope if slot is None else slot

    def collect(self, question: Question, votes: Votes) -> None:
        """Note the first that matches."""
        known = votes.get(self._slot)
        for number, matches, entry in self._entries:
            if known is not None and number >= known.number:
                return
            if matches(question):
                votes[self._slot] = entry
                return


class NameTree:
    """A name in the tree of names, from the last label to the first."""

    __slots__ = ("below", "children", "here")

    def __init__(self) -> None:
        self.here: Node | None = None
        self.below: Node | None = None
        self.children: dict[str, NameTree] = {}

    def add(self, domain: Domain, node: Node) -> None:
        """Hang a node under a name, or under all that are below it."""
        name = self
        for label in reversed(domain.name.split(".")):
            if label not in name.children:
                name.children[label] = NameTree()
            name = name.children[label]
        if domain.below:
            name.below = node
        else:
            name.here = node

    def collect(self, question: Question, votes: Votes, asked: str) -> None:
        """Note what hangs under the name that is asked for."""
        # Leaves as soon as no rule ends like the name: a name of 127 labels costs no more than the rules are deep.
        name = self
        for label in reversed(asked.split(".")):
            if name.below is not None:
                name.below.collect(question, votes)
            child = name.children.get(label)
            if child is None:
                return
            name = child
        if name.here is not None:
            name.here.collect(question, votes)


class FindingTable:
    """Rules of one layer of which some ask what a flow is.

    Where that is known, it leads to those that may fit: by the name in it, or else by its protocol. Where it is not,
    the first that would allow, the first that would allow under terms, and the first that would deny are noted beside
    the vote of the others: more is not needed to tell what may come out.
    """

    __slots__ = ("_apps", "_http_hosts", "_possible", "_server_names", "_sure")

    def __init__(self, entries: Sequence[Entry]) -> None:
        sure = [entry for entry in entries if not entry.rule.asks]
        asking = [entry for entry in entries if entry.rule.asks]
        possible: defaultdict[Maybe, list[Entry]] = defaultdict(list)
        apps: defaultdict[App, list[Entry]] = defaultdict(list)
        for entry in asking:
            possible[Maybe.of(entry.rule)].append(entry)
            for app in () if entry.rule.sni or entry.rule.http_host else entry.rule.apps:
                apps[app].append(entry)
        scope = entries[0].scope
        self._sure = Row(sure) if sure else None
        self._possible = [Row(some, (scope, maybe)) for maybe, some in possible.items()]
        self._apps = {app: Row(some) for app, some in apps.items()}
        self._server_names = _by_name((name, entry) for entry in asking for name in entry.rule.sni)
        self._http_hosts = _by_name((name, entry) for entry in asking for name in entry.rule.http_host)

    def collect(self, question: Question, votes: Votes) -> None:
        """Note the first that matches, or those that may."""
        if self._sure is not None:
            self._sure.collect(question, votes)
        finding = question.finding
        if finding is None:
            for possible in self._possible:
                possible.collect(question, votes)
            return
        row = self._apps.get(finding.app)
        if row is not None:
            row.collect(question, votes)
        if finding.sni is not None:
            self._server_names.collect(question, votes, finding.sni)
        if finding.http_host is not None:
            self._http_hosts.collect(question, votes, finding.http_host)


def _by_name(entries: Iterable[tuple[Domain, Entry]]) -> NameTree:
    rows: defaultdict[Domain, list[Entry]] = defaultdict(list)
    for name, entry in entries:
        rows[name].append(entry)
    tree = NameTree()
    for name, row in rows.items():
        tree.add(name, Row(row))
    return tree
