"""What `rule explain` knows about one question; `trioproxy.cli.explanation_text` says it to people."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from ipaddress import IPv6Address

import attrs

from auth import Identity
from auth.throttle import source_key
from trioproxy.allowances import Allowances, QuotaState
from trioproxy.cli.accounts import limits_as_json
from trioproxy.cli.block import describe_block
from trioproxy.policy import (
    AccessRequest,
    Block,
    DirectoryLayer,
    Explanation,
    IPAddress,
    LayerVote,
    LimitBook,
    Permit,
    Policy,
    Refusal,
    Rule,
    RuleHours,
    RuleProtocol,
    Scope,
    ScopeKind,
    Term,
    Vote,
)
from trioproxy.policy.hours import minute_of_week
from trioproxy.policy.networks import embedded_addresses
from trioproxy.policy.rules import EVERY_PORT, Area, Question
from trioproxy.sniff import Finding
from trioproxy.store import StoredRule

__all__ = ["Case", "Layers"]


@attrs.frozen
class Layers:
    """The rules in force.

    Attributes:
        policy: judges.
        stored: the rules of the store, and their ids.
        directory: those that come with the identity.
    """

    policy: Policy
    stored: Mapping[Scope, tuple[StoredRule, ...]]
    directory: Sequence[DirectoryLayer] = ()

    def size(self, scope: Scope) -> int:
        """How many rules a layer has."""
        written = sum(len(layer.rules) for layer in self.directory if layer.scope == scope)
        return len(self.stored.get(scope, ())) + written

    def find(self, vote: LayerVote) -> StoredRule | None:
        """The stored rule that cast this vote; None if another one did, or none, or the layer cannot be read."""
        if vote.origin:
            return None
        return next((rule for rule in self.stored.get(vote.scope, ()) if rule.text == vote.rule), None)

    def place(self, scope: Scope, rule: StoredRule) -> int:
        """Which rule of its layer this is, from 1 on."""
        return self.stored[scope].index(rule) + 1

    def name(self, vote: LayerVote) -> str:
        """How people speak of the rule that cast this vote."""
        stored = self.find(vote)
        if stored is not None:
            return f"rule {stored.id} of {vote.scope}"
        return f"a rule of {vote.scope} in {vote.origin}" if vote.origin else f"an unreadable rule of {vote.scope}"

    def vote_of(self, term: Term) -> LayerVote:
        """The vote of the rule that set these terms."""
        scope = Scope.parse(term.scope)
        origins = [origin for rule, origin in self._rules(scope) if rule == term.rule]
        return LayerVote(scope, Vote.ALLOW, term.text, origins[0])

    def near_misses(self, explanation: Explanation, now: datetime) -> Iterator[tuple[LayerVote, str]]:
        """Rules that would have allowed it but for one thing, and what that is."""
        request = explanation.verdict.request
        minute = minute_of_week(now, self.policy.zones.of(request.identity.tenant))
        question = Question.of(request, explanation.address, minute)
        for scope in Scope.layers_of(request.identity):
            for rule, origin in self._rules(scope):
                aspect = _only_obstacle(rule, question) if rule.allow else None
                if aspect is not None:
                    yield LayerVote(scope, Vote.NONE, str(rule), origin), aspect

    def _rules(self, scope: Scope) -> Iterator[tuple[Rule, str]]:
        for rule in self.policy.rule_sets.get(scope, ()):
            yield rule, ""
        for layer in self.directory:
            if layer.scope == scope:
                for rule in layer.rules:
                    yield rule, layer.origin


def _only_obstacle(rule: Rule, question: Question) -> str | None:
    relaxed = {
        "the protocol": attrs.evolve(rule, protocol=None),
        "the destination port": attrs.evolve(rule, destination_ports=EVERY_PORT),
        "the source address": attrs.evolve(rule, source=Area.EVERYWHERE),
        "the source port": attrs.evolve(rule, source_ports=EVERY_PORT),
        "whom it is for": attrs.evolve(rule, user=None, group=None),
        "what the traffic is": attrs.evolve(rule, apps=(), sni=(), http_host=()),
    }
    return next((aspect for aspect, other in relaxed.items() if other.matches(question)), None)


@attrs.frozen
class Case:
    """One question to explain.

    Attributes:
        identity: who asks.
        client: from where.
        client_port: 0 if it does not matter.
        protocol: by which command.
        host: the canonical name or address asked for.
        port: of the target.
        refused: why the login is refused, if it is.
        layers: the rules in force.
        addresses: what the name means; all of them are judged.
        limits: the limits in force.
        allowances: what was used of quotas.
        finding: what the traffic is; None: nobody has looked.
        now: when, an aware time.
    """

    identity: Identity
    client: IPAddress
    client_port: int
    protocol: RuleProtocol
    host: str | IPAddress
    port: int
    refused: tuple[str, ...]
    layers: Layers
    addresses: tuple[IPAddress, ...]
    limits: LimitBook
    allowances: Allowances
    finding: Finding | None
    now: datetime

    @property
    def asker(self) -> str:
        """The user, or what stands for a client without login."""
        return self.user.owner if self.user else f"a client of tenant {self.identity.tenant} without login"

    @property
    def user(self) -> Scope | None:
        """The user's own layer, whether it votes or not; None for a client without login."""
        user = self.identity.user
        return None if user is None else Scope(ScopeKind.USER, self.identity.tenant, user)

    @property
    def innermost(self) -> Scope:
        """The innermost layer that votes."""
        return Scope.layers_of(self.identity)[-1]

    @property
    def zone(self) -> tzinfo:
        """By whose clock hours are read."""
        return self.layers.policy.zones.of(self.identity.tenant)

    @property
    def target(self) -> str:
        """As it was asked for."""
        host = f"[{self.host}]" if ":" in str(self.host) else str(self.host)
        return f"{self.protocol.value} {host}:{self.port}"

    def explanations(self) -> list[Explanation]:
        """One for each address."""
        name = self.host if isinstance(self.host, str) else None
        return [self.layers.policy.explain(self._request(name, address), self.now) for address in self.addresses]

    def _request(self, name: str | None, address: IPAddress) -> AccessRequest:
        return AccessRequest(
            self.identity, self.client, self.client_port, self.protocol, name, address, self.port, self.finding
        )

    def quotas(self, explanation: Explanation) -> list[QuotaState]:
        """How the quotas stand that would count."""
        verdict = explanation.verdict
        if isinstance(verdict, Refusal):
            return []
        return self.allowances.quotas(self.identity, source_key(self.client), verdict.terms)

    def is_over_quota(self, explanation: Explanation) -> bool:
        """Whether it is refused because a quota is used up, although the rules allow it."""
        return any(not state.left and state.over_quota_rate is None for state in self.quotas(explanation))

    def is_certain(self, explanation: Explanation) -> bool:
        """Whether it is permitted whatever the traffic is: rules that ask add their limits, and no more.

        Where IPv4 addresses are inside the address, the votes are about one of them alone, so it is not said.
        """
        verdict = explanation.verdict
        if isinstance(verdict, Refusal):
            return False
        address = verdict.request.address
        votes = {vote.vote for vote in explanation.votes}
        return not verdict.sniff or (
            Vote.ALLOW in votes
            and Vote.DENY not in votes
            and all(vote.vote is Vote.ALLOW for vote in explanation.asking)
            and not (isinstance(address, IPv6Address) and any(embedded_addresses(address)))
        )

    def block(self, explanation: Explanation) -> Block | None:
        """The block that decided."""
        return self.layers.policy.blocks.deciding(explanation.verdict.request)

    def as_json(self) -> dict[str, object]:
        """The whole explanation for programs."""
        explanations = self.explanations()
        permitted = any(
            isinstance(explanation.verdict, Permit) and not self.is_over_quota(explanation)
            for explanation in explanations
        )
        return {
            "tenant": self.identity.tenant,
            "user": self.identity.user,
            "groups": sorted(self.identity.groups),
            "member": self.identity.member,
            "source": str(self.client),
            "protocol": self.protocol.value,
            "host": str(self.host),
            "port": self.port,
            "app": self.finding.app.value if self.finding else None,
            "sni": self.finding.sni if self.finding else None,
            "http_host": self.finding.http_host if self.finding else None,
            "at": self._moment(self.now),
            "allowed": permitted and not self.refused,
            "login_refused": list(self.refused),
            "addresses": [self._address_as_json(explanation) for explanation in explanations],
            "limits": limits_as_json(self.limits, self.identity),
        }

    def _address_as_json(self, explanation: Explanation) -> dict[str, object]:
        verdict, block = explanation.verdict, self.block(explanation)
        return {
            "address": str(verdict.request.address),
            "judged": str(explanation.address),
            "allowed": isinstance(verdict, Permit),
            "block": describe_block(block) if block is not None else None,
            "sniff": isinstance(verdict, Permit) and verdict.sniff,
            "reason": verdict.reason.name.lower() if isinstance(verdict, Refusal) else None,
            "floor": explanation.floor or None,
            "decided_by": verdict.scope or None,
            "rule": (verdict.rule if verdict.scope else None),
            "layers": [self._vote_as_json(vote) for vote in explanation.votes],
            "asking": [self._vote_as_json(vote) for vote in explanation.asking],
            "terms": [self._term_as_json(term) for term in verdict.terms] if isinstance(verdict, Permit) else [],
            "hours": [self._hours_as_json(hours) for hours in explanation.hours],
            "quotas": [self._quota_as_json(state) for state in self.quotas(explanation)],
        }

    def _vote_as_json(self, vote: LayerVote) -> dict[str, object]:
        found = self.layers.find(vote)
        return {
            "scope": str(vote.scope),
            "vote": vote.vote.value,
            "rule": vote.rule or None,
            "id": found.id if found else None,
            "entry": vote.origin or None,
        }

    def _term_as_json(self, term: Term) -> dict[str, object]:
        rule, vote = term.rule, self._vote_as_json(self.layers.vote_of(term))
        return {key: vote[key] for key in ("scope", "rule", "id", "entry")} | {
            "rate_down_bytes_per_s": rule.rate.down if rule.rate else None,
            "rate_up_bytes_per_s": rule.rate.up if rule.rate else None,
            "burst_bytes": rule.burst,
            "quota_bytes": rule.quota.size if rule.quota else None,
            "quota_period": rule.quota.period.value if rule.quota else None,
            "when": str(rule.hours) if rule.hours else None,
            "grace_s": rule.grace_s,
            "scan_ignored": rule.scan_ignored,
        }

    def _quota_as_json(self, state: QuotaState) -> dict[str, object]:
        return {
            "scope": state.scope or None,
            "rule": state.rule,
            "quota": str(state.quota),
            "left_bytes": state.left,
            "until": self._moment(state.ends_at),
            "over_quota_rate": str(state.over_quota_rate) if state.over_quota_rate else None,
        }

    def _hours_as_json(self, hours: RuleHours) -> dict[str, object]:
        return self._vote_as_json(hours.vote) | {
            "speaks": hours.speaks,
            "change": self._moment(hours.change) if hours.change else None,
        }

    def _moment(self, moment: datetime) -> str:
        return moment.astimezone(self.zone).isoformat(timespec="seconds")
