"""Short ways to write identities, requests and policies in tests."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network

from auth import Identity
from trioproxy.policy import (
    AccessRequest,
    Floor,
    IPAddress,
    OwnEndpoints,
    Permit,
    Policy,
    Reason,
    Refusal,
    RuleProtocol,
    RuleSet,
    Scope,
    TimeZones,
    Verdict,
    parse_rule,
)
from trioproxy.sniff import Finding

ANYTHING = "any:*(*)->*(*)"


def identity(user: str | None = "alice", groups: Iterable[str] = (), tenant: str = "main") -> Identity:
    """An identity as the local backend answers it."""
    return Identity(tenant, user, frozenset(groups), "local" if user else "")


def request(
    destination: str | IPAddress,
    port: int = 443,
    *,
    name: str | None = None,
    who: Identity | None = None,
    source: str = "10.1.2.3",
    source_port: int = 50_000,
    protocol: RuleProtocol = RuleProtocol.TCP,
    finding: Finding | None = None,
) -> AccessRequest:
    """A request of alice for TCP, if nothing else is said."""
    address = ip_address(destination) if isinstance(destination, str) else destination
    return AccessRequest(who or identity(), ip_address(source), source_port, protocol, name, address, port, finding)


def rule_set(*rules: str) -> RuleSet:
    """A layer from texts."""
    return RuleSet([parse_rule(rule) for rule in rules])


def policy(
    layers: Mapping[str, Iterable[str]],
    *,
    opened: Iterable[str] = (),
    own: OwnEndpoints | None = None,
    zones: TimeZones | None = None,
) -> Policy:
    """A policy from texts: scope to rules."""
    rule_sets = {Scope.parse(scope): rule_set(*rules) for scope, rules in layers.items()}
    return Policy(rule_sets, Floor([ip_network(network) for network in opened], own), zones or TimeZones())


def decided(verdict: Verdict) -> tuple[str, str, str]:
    """The same without the cause that an hour or a finding is."""
    what, scope, rule = outcome(verdict)
    causes = {Reason.HOURS.value, Reason.APP.value}
    plain = Reason.RULE if rule else Reason.NO_RULE
    return plain.value if what in causes else what, scope, rule


def outcome(verdict: Verdict) -> tuple[str, str, str]:
    """A verdict without its request: what, scope and rule."""
    match verdict:
        case Permit():
            return "permit", verdict.scope, verdict.rule
        case Refusal():
            return verdict.reason.value, verdict.scope, verdict.rule
