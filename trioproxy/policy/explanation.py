"""Why a verdict is what it is: each layer's vote, what was asked on the way, and which hours play a part."""

import enum
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo

import attrs

from trioproxy.policy.hours import next_change
from trioproxy.policy.request import IPAddress, Verdict
from trioproxy.policy.rules import Question, Rule
from trioproxy.policy.scope import Scope

__all__ = ["Explanation", "LayerVote", "RuleHours", "RuleList", "Vote", "asking_rules", "hours_of_rules"]


class Vote(enum.Enum):
    """What a layer says."""

    ALLOW = "allow"
    DENY = "deny"
    NONE = "none"


@attrs.frozen
class LayerVote:
    """One layer's vote, or what one of its rules would vote.

    Attributes:
        scope: the layer.
        vote: what it says.
        rule: the text of the rule that cast the vote; empty if none did.
        origin: the entry of a directory (its DN) in which that rule stands; empty for a rule of the store.
    """

    scope: Scope
    vote: Vote
    rule: str = ""
    origin: str = ""


@attrs.frozen
class RuleHours:
    """The hours of a rule that fits in everything else, and that no earlier rule of its layer keeps from speaking.

    Attributes:
        vote: what it says in its hours, and where it stands.
        speaks: whether this is in them.
        change: when they end, or begin again; None: never.
    """

    vote: LayerVote
    speaks: bool
    change: datetime | None


@attrs.frozen
class Explanation:
    """Why a verdict is what it is.

    Attributes:
        verdict: what `judge` answers, with its terms.
        address: the address that decided: the one asked about, or an IPv4 address inside it.
        floor: the part of the floor that forbids the address; empty if none does.
        votes: all layers of the identity; each votes even where the floor has decided. As long as nobody has looked
            what the flow is, by the rules that do not ask for it.
        asking: the rules that ask what the flow is and may decide; none where that is known.
        hours: the hours of rules that play a part, or would at other times.
    """

    verdict: Verdict
    address: IPAddress
    floor: str
    votes: tuple[LayerVote, ...]
    asking: tuple[LayerVote, ...] = ()
    hours: tuple[RuleHours, ...] = ()


@attrs.frozen
class RuleList:
    """Rules of one layer of which the first that fits decides.

    Attributes:
        scope: the layer.
        rules: in their order.
        origin: where they are written, if that is not the store.
    """

    scope: Scope
    rules: Sequence[Rule]
    origin: str = ""

    def vote(self, rule: Rule) -> LayerVote:
        """What one of them votes."""
        return LayerVote(self.scope, Vote.ALLOW if rule.allow else Vote.DENY, str(rule), self.origin)


def asking_rules(lists: Iterable[RuleList], question: Question) -> Iterator[LayerVote]:
    """The rules that ask what the flow is before a layer has decided."""
    for rules, rule in _until_decided(lists, question):
        if rule.asks and question.finding is None and rule.matches(question):
            yield rules.vote(rule)


def hours_of_rules(lists: Iterable[RuleList], question: Question, now: datetime, zone: tzinfo) -> Iterator[RuleHours]:
    """The hours of the rules that fit, or would at other times, before a layer has decided."""
    for rules, rule in _until_decided(lists, question):
        if rule.hours is not None and attrs.evolve(rule, hours=None, grace_s=None).matches(question):
            yield RuleHours(rules.vote(rule), rule.matches(question), next_change([rule.hours], now, zone))


def _until_decided(lists: Iterable[RuleList], question: Question) -> Iterator[tuple[RuleList, Rule]]:
    """Each rule up to the one that decides: of the store, and where those say nothing, of each entry of a directory."""
    decided: set[Scope] = set()
    for rules in lists:
        if rules.scope in decided:
            continue
        for rule in rules.rules:
            yield rules, rule
            if rule.matches(question) and not (rule.asks and question.finding is None):
                if not rules.origin:
                    decided.add(rules.scope)
                break
