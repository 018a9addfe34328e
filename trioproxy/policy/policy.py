"""The one place that says yes or no: every path that lets bytes flow asks `Policy.judge`."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from ipaddress import IPv6Address
from itertools import islice
from operator import attrgetter
from types import MappingProxyType
from typing import Final, Self

import attrs

from auth import Identity
from trioproxy.policy.blocks import NO_BLOCKS, Blocks
from trioproxy.policy.directory import DirectoryLayer, add_votes, ask_findings, directory_layers, have_hours
from trioproxy.policy.explanation import Explanation, LayerVote, RuleList, Vote, asking_rules, hours_of_rules
from trioproxy.policy.floor import Floor
from trioproxy.policy.hours import TimeZones, minute_of_week
from trioproxy.policy.index import Index
from trioproxy.policy.leaves import Entry, have_maybes
from trioproxy.policy.networks import embedded_addresses
from trioproxy.policy.outlook import forecast, outlooks
from trioproxy.policy.reach import Reach
from trioproxy.policy.request import AccessRequest, IPAddress, Permit, Reason, Refusal, RuleProtocol, Term, Verdict
from trioproxy.policy.rules import Question, check_scope
from trioproxy.policy.ruleset import RuleSet
from trioproxy.policy.scope import Scope
from trioproxy.policy.timetable import Timetable

__all__ = ["Policy"]

HOURS_TRIED_MAX: Final = 100  # times of the week tried to say whether another would do: some 0.5 ms

_RANK: Final = attrgetter("rank")
_UTC_ZONES: Final = TimeZones()


class Policy:
    """The blocks, the floor and the rules of all layers. Immutable: changed rules are a new Policy.

    A block outweighs everything; then comes the floor. Inside a layer the first matching rule of the store decides;
    where none matches each entry that comes with the identity votes by its own first match, and one deny counts. Then
    the layers vote: one deny denies, otherwise one allow allows, otherwise it is denied. An IPv6 address that carries
    an IPv4 address is permitted only if each of the two is.

    Attributes:
        rule_sets: the rules of the store.
        floor: what no rule can allow.
        blocks: what is cut off now.
        zones: by whose clock hours are read.
        has_hours: whether one of these rules has hours; see `wants_time`.
        has_apps: whether one of them asks what a flow is; see `wants_finding`.
    """

    def __init__(
        self,
        rule_sets: Mapping[Scope, RuleSet],
        floor: Floor,
        zones: TimeZones = _UTC_ZONES,
        *,
        blocks: Blocks = NO_BLOCKS,
    ) -> None:
        """Build the index.

        Args:
            rule_sets: the rules of each layer.
            floor: what no rule can allow.
            blocks: those in force; whoever holds the policy replaces it when one of them ends.
            zones: by whose clock hours are read.

        Raises:
            ValueError: a rule may not live in its layer (`check_scope`).
        """
        for scope, rules in rule_sets.items():
            for rule in rules:
                check_scope(rule, scope)
        self.rule_sets: Mapping[Scope, RuleSet] = MappingProxyType(dict(rule_sets))
        self.floor = floor
        self.blocks = blocks
        self._blocked = bool(blocks)
        self.zones = zones
        self._index = Index(rule_sets)
        self._reach = Reach(rule_sets)
        self._timetable = Timetable(rule_sets, zones)
        self.has_hours = bool(self._timetable)
        self.has_apps = any(rule.asks for rules in rule_sets.values() for rule in rules)
        self._has_terms = any(rule.has_terms for rules in rule_sets.values() for rule in rules)

    def with_blocks(self, blocks: Blocks) -> Self:
        """The same floor and rules below other blocks; costs next to nothing."""
        changed = copy.copy(self)
        changed.blocks = blocks
        changed._blocked = bool(blocks)  # noqa: SLF001 - its own
        return changed

    def judge(self, request: AccessRequest, now: datetime | None = None) -> Verdict:
        """May these bytes flow?

        As long as nobody has looked what the flow is (`request.finding` is None), a rule that asks for it may match or
        not. A refusal then is final, a Permit with `sniff` means: look, and ask again; any other Permit holds whatever
        the flow is.

        Args:
            request: who wants what.
            now: an aware time; may be left out where `wants_time` says so.

        Raises:
            AssertionError: rules have hours, and there is no time.
        """
        if self._blocked:
            block = self.blocks.deciding(request)
            if block is not None:
                return Refusal(request, Reason.BLOCKED, rule=str(block))
        layers = directory_layers(request.identity) if request.identity.rules else ()
        minute = self._minute(request.identity, layers, now) if self.has_hours or layers else None
        verdict = self._judge(request, minute, layers)
        if isinstance(verdict, Refusal) and (minute is not None or request.finding is not None):
            return self._with_cause(verdict, minute, layers)
        return verdict

    def wants_time(self, identity: Identity) -> bool:
        """Whether rules that may be about this identity have hours, so that `judge` has to know the time."""
        return self.has_hours or (bool(identity.rules) and have_hours(directory_layers(identity)))

    def wants_finding(self, identity: Identity) -> bool:
        """Whether rules that may be about this identity ask what a flow is."""
        return self.has_apps or (bool(identity.rules) and ask_findings(directory_layers(identity)))

    def next_border(self, now: datetime, identities: Iterable[Identity] = ()) -> datetime | None:
        """The next moment at which any rule's hours begin or end, in UTC; None if none ever do.

        Until then no verdict changes by time alone.

        Args:
            now: an aware time.
            identities: those with live sessions, for the rules that come with them.
        """
        return self._timetable.next_border(now, identities)

    def grace_s(self, permits: Iterable[Permit], refusal: Refusal, now: datetime) -> float:
        """How many seconds what runs by these permits may go on although it is refused now.

        Only where a rule that permits it still stands and its own hours are over; whatever else stands against it,
        there is no grace.

        Args:
            permits: by which it runs.
            refusal: of now.
            now: an aware time.
        """
        if refusal.reason is not Reason.HOURS:
            return 0
        identity = refusal.request.identity
        minute = minute_of_week(now, self.zones.of(identity.tenant))
        return max(
            (
                term.rule.grace_s or 0
                for permit in permits
                for term in permit.terms
                if term.rule.hours is not None and not term.rule.hours.cover(minute) and self._stands(term, identity)
            ),
            default=0,
        )

    def _stands(self, term: Term, identity: Identity) -> bool:
        lists = self._rule_lists([Scope.parse(term.scope)], directory_layers(identity))
        return any(term.rule in rules.rules for rules in lists)

    def explain(self, request: AccessRequest, now: datetime | None = None) -> Explanation:
        """The verdict, with each layer's vote, the rule that cast it, and what else plays a part.

        Raises:
            AssertionError: rules have hours, and there is no time.
        """
        identity, address = request.identity, request.address
        layers = directory_layers(identity)
        minute = self._minute(identity, layers, now)
        inside = embedded_addresses(address) if isinstance(address, IPv6Address) else ()
        deciding = (at for at in (address, *inside) if isinstance(self._judge_at(request, at, minute, layers), Refusal))
        decided_at: IPAddress = next(deciding, address)
        question = Question.of(request, decided_at, minute)
        votes = self._sure_votes(question, layers)
        scopes = Scope.layers_of(identity)
        lists = [*self._rule_lists(scopes, layers)]
        zone = self.zones.of(identity.tenant)
        return Explanation(
            verdict=self.judge(request, now),
            address=decided_at,
            floor=self.floor.part_of(decided_at, request.port, request.protocol) or "",
            votes=tuple(_layer_vote(scope, votes.get(str(scope))) for scope in scopes),
            asking=tuple(asking_rules(lists, question)),
            hours=() if now is None else tuple(hours_of_rules(lists, question, now, zone)),
        )

    def may_ever(self, identity: Identity, client_address: IPAddress, protocol: RuleProtocol) -> bool:
        """Could any destination be permitted? An upper bound: False is final, True promises nothing.

        Asked before a name is resolved or an association opened, so that a client without any right costs no look-up.
        """
        if self._blocked and self.blocks.of_identity(identity, client_address) is not None:
            return False
        return self._reach.may_ever(identity, client_address, protocol) or any(
            layer.may_ever(client_address, protocol) for layer in directory_layers(identity)
        )

    def _minute(self, identity: Identity, layers: Sequence[DirectoryLayer], now: datetime | None) -> int | None:
        if not self.has_hours and not have_hours(layers):
            return None
        if now is None:
            raise AssertionError("rules have hours, and nobody said what time it is")
        return minute_of_week(now, self.zones.of(identity.tenant))

    def _judge(self, request: AccessRequest, minute: int | None, layers: Sequence[DirectoryLayer]) -> Verdict:
        address = request.address
        verdict = self._judge_at(request, address, minute, layers)
        if isinstance(address, IPv6Address) and isinstance(verdict, Permit):
            for embedded in embedded_addresses(address):
                inner = self._judge_at(request, embedded, minute, layers)
                if isinstance(inner, Refusal):
                    return inner
                verdict = _joined(verdict, inner)
        return verdict

    def _judge_at(
        self, request: AccessRequest, address: IPAddress, minute: int | None, layers: Sequence[DirectoryLayer]
    ) -> Verdict:
        part = self.floor.part_of(address, request.port, request.protocol)
        if part is not None:
            return Refusal(request, Reason.FLOOR, rule=part)
        question = Question.of(request, address, minute)
        votes = self._index.votes(question)
        if request.finding is None and (ask_findings(layers) or (self.has_apps and have_maybes(votes))):
            foreseen = forecast(outlooks(votes, layers, question))
            if foreseen.permitted and foreseen.entry is not None:
                return _permit(request, foreseen.entry, foreseen.terms, sniff=foreseen.look)
            return _refusal(request, foreseen.entry)
        if layers:  # most identities have none, and pay nothing
            add_votes(layers, question, votes)
        entry = min(votes.values(), key=_RANK, default=None)
        if entry is None or not entry.rule.allow:
            return _refusal(request, entry)
        if self._has_terms or layers:
            return _permit(request, entry, votes.values())
        return Permit(request, entry.scope, entry.text, entry.rule.log)

    def _with_cause(self, refusal: Refusal, minute: int | None, layers: Sequence[DirectoryLayer]) -> Refusal:
        """The same refusal, recognisable if only what the traffic is, or only the time, stands against it."""
        request = refusal.request
        if refusal.reason is Reason.FLOOR:
            return refusal
        if request.finding is not None and (self.has_apps or ask_findings(layers)):
            unknown = attrs.evolve(request, finding=None)
            if isinstance(self._judge(unknown, minute, layers), Permit):
                return attrs.evolve(refusal, reason=Reason.APP)
        if minute is not None:
            tried = islice(self._timetable.other_times(request.identity, minute), HOURS_TRIED_MAX)
            if any(isinstance(self._judge(request, other, layers), Permit) for other in tried):
                return attrs.evolve(refusal, reason=Reason.HOURS)
        return refusal

    def _sure_votes(self, question: Question, layers: Sequence[DirectoryLayer]) -> Mapping[str, Entry]:
        """What each layer votes, by rules that do not ask what is not known."""
        votes = self._index.votes(question)
        found = outlooks(votes, layers, question)
        return {name: outlook.sure for name, outlook in found.items() if outlook.sure is not None}

    def _rule_lists(self, scopes: Iterable[Scope], layers: Iterable[DirectoryLayer]) -> Iterator[RuleList]:
        for scope in scopes:
            yield RuleList(scope, self.rule_sets.get(scope, ()))
            for layer in layers:
                if layer.scope == scope:
                    yield RuleList(scope, layer.rules, layer.origin)


def _refusal(request: AccessRequest, entry: Entry | None) -> Refusal:
    if entry is None:
        return Refusal(request, Reason.NO_RULE)
    return Refusal(request, Reason.RULE, entry.scope, entry.text, entry.rule.log)


def _permit(request: AccessRequest, entry: Entry, votes: Iterable[Entry], *, sniff: bool = False) -> Permit:
    limiting = [vote for vote in votes if vote.rule.has_terms]
    if not limiting:
        return Permit(request, entry.scope, entry.text, entry.rule.log, (), sniff)
    limiting.sort(key=attrgetter("rank", "text"))
    terms = tuple(dict.fromkeys(Term(vote.scope, vote.text, vote.rule) for vote in limiting))
    return Permit(request, entry.scope, entry.text, entry.rule.log, terms, sniff)


def _joined(permit: Permit, inside: Permit) -> Permit:
    """Both at once: what holds for the address inside holds too."""
    if not permit.sniff and not inside.sniff and not inside.terms:
        return permit
    sniff = permit.sniff or inside.sniff
    terms = () if sniff else tuple(dict.fromkeys((*permit.terms, *inside.terms)))
    return attrs.evolve(permit, sniff=sniff, terms=terms)


def _layer_vote(scope: Scope, entry: Entry | None) -> LayerVote:
    if entry is None:
        return LayerVote(scope, Vote.NONE)
    return LayerVote(scope, Vote.ALLOW if entry.rule.allow else Vote.DENY, entry.text, entry.origin)
