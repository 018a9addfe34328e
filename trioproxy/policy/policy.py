"""The one place that says yes or no: every path that lets bytes flow asks `Policy.judge`."""

import copy
import enum
from collections.abc import Mapping
from ipaddress import IPv6Address
from operator import attrgetter
from types import MappingProxyType
from typing import Final, Self

import attrs

from auth import Identity
from trioproxy.policy.blocks import NO_BLOCKS, Blocks
from trioproxy.policy.directory import add_votes, directory_layers
from trioproxy.policy.floor import Floor
from trioproxy.policy.index import Entry, Index, Votes
from trioproxy.policy.networks import embedded_addresses
from trioproxy.policy.reach import Reach
from trioproxy.policy.request import AccessRequest, IPAddress, Permit, Reason, Refusal, RuleProtocol, Verdict
from trioproxy.policy.rules import Question, check_scope
from trioproxy.policy.ruleset import RuleSet
from trioproxy.policy.scope import Scope

__all__ = ["Explanation", "LayerVote", "Policy", "Vote"]

_RANK: Final = attrgetter("rank")


class Vote(enum.Enum):
    """What a layer says."""

    ALLOW = "allow"
    DENY = "deny"
    NONE = "none"


@attrs.frozen
class LayerVote:
    """One layer's vote.

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
class Explanation:
    """Why a verdict is what it is.

    Attributes:
        verdict: what `judge` answers.
        address: the address that decided: the one asked about, or an IPv4 address inside it.
        floor: the part of the floor that forbids the address; empty if none does.
        votes: all layers of the identity; each votes even where the floor has decided.
    """

    verdict: Verdict
    address: IPAddress
    floor: str
    votes: tuple[LayerVote, ...]


class Policy:
    """The blocks, the floor and the rules of all layers. Immutable: changed rules are a new Policy.

    A block outweighs everything; then comes the floor. Inside a layer the first matching rule of the store decides;
    where none matches each entry that comes with the identity votes by its own first match, and one deny counts. Then
    the layers vote: one deny denies, otherwise one allow allows, otherwise it is denied. An IPv6 address that carries
    an IPv4 address is permitted only if each of the two is.
    """

    def __init__(self, rule_sets: Mapping[Scope, RuleSet], floor: Floor, blocks: Blocks = NO_BLOCKS) -> None:
        """Build the index.

        Args:
            rule_sets: the rules of each layer.
            floor: what no rule can allow.
            blocks: those in force; whoever holds the policy replaces it when one of them ends.

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
        self._index = Index(rule_sets)
        self._reach = Reach(rule_sets)

    def with_blocks(self, blocks: Blocks) -> Self:
        """The same floor and rules below other blocks; costs next to nothing."""
        changed = copy.copy(self)
        changed.blocks = blocks
        changed._blocked = bool(blocks)  # noqa: SLF001 - its own
        return changed

    def judge(self, request: AccessRequest) -> Verdict:
        """May these bytes flow?"""
        if self._blocked:
            block = self.blocks.deciding(request)
            if block is not None:
                return Refusal(request, Reason.BLOCKED, rule=str(block))
        address = request.address
        verdict = self._judge_at(request, address)
        if isinstance(address, IPv6Address) and isinstance(verdict, Permit):
            for embedded in embedded_addresses(address):
                inner = self._judge_at(request, embedded)
                if isinstance(inner, Refusal):
                    return inner
        return verdict

    def explain(self, request: AccessRequest) -> Explanation:
        """The verdict, with each layer's vote and the rule that cast it."""
        address = request.address
        inside = embedded_addresses(address) if isinstance(address, IPv6Address) else ()
        deciding = (at for at in (address, *inside) if isinstance(self._judge_at(request, at), Refusal))
        decided_at: IPAddress = next(deciding, address)
        votes = self._votes_at(request, decided_at)
        return Explanation(
            verdict=self.judge(request),
            address=decided_at,
            floor=self.floor.part_of(decided_at, request.port, request.protocol) or "",
            votes=tuple(_layer_vote(scope, votes.get(str(scope))) for scope in Scope.layers_of(request.identity)),
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

    def _judge_at(self, request: AccessRequest, address: IPAddress) -> Verdict:
        part = self.floor.part_of(address, request.port, request.protocol)
        if part is not None:
            return Refusal(request, Reason.FLOOR, rule=part)
        entry = min(self._votes_at(request, address).values(), key=_RANK, default=None)
        if entry is None:
            return Refusal(request, Reason.NO_RULE)
        if entry.rule.allow:
            return Permit(request, entry.scope, entry.text, entry.rule.log)
        return Refusal(request, Reason.RULE, entry.scope, entry.text, entry.rule.log)

    def _votes_at(self, request: AccessRequest, address: IPAddress) -> Votes:
        question = Question.of(request, address)
        votes = self._index.votes(question)
        if request.identity.rules:  # most have none, and pay nothing
            add_votes(request.identity, question, votes)
        return votes


def _layer_vote(scope: Scope, entry: Entry | None) -> LayerVote:
    if entry is None:
        return LayerVote(scope, Vote.NONE)
    return LayerVote(scope, Vote.ALLOW if entry.rule.allow else Vote.DENY, entry.text, entry.origin)
