"""One rule: what it says, how it is written, and whether it fits a question."""

import enum
from collections.abc import Container, Iterator
from typing import Final, Self, TypeAlias

import attrs

from auth import Identity
from trioproxy.policy.hours import Hours, grace_text
from trioproxy.policy.networks import INTERNET, PRIVATE
from trioproxy.policy.ranges import ADDRESS_LAST, IPNetwork, Ranges, address_number, network_range, within
from trioproxy.policy.request import AccessRequest, IPAddress, RuleProtocol
from trioproxy.policy.scope import Scope, ScopeKind
from trioproxy.policy.units import Quota, Rates, size_text
from trioproxy.sniff import App, Finding

__all__ = [
    "DATAGRAM_APPS",
    "EVERYWHERE",
    "EVERY_PORT",
    "Area",
    "Domain",
    "Host",
    "Ports",
    "Question",
    "Rule",
    "check_scope",
    "host_ranges",
    "host_text",
    "ports_text",
]

Ports: TypeAlias = Ranges

EVERY_PORT: Final[Ports] = ((0, 65535),)  # `*`; port 0 ("not known" in BIND and UDP ASSOCIATE) fits no other list
EVERYWHERE: Final[Ranges] = ((0, ADDRESS_LAST),)
DATAGRAM_APPS: Final = frozenset({App.QUIC, App.DNS, App.STUN})  # what is told apart in datagrams; the rest is in TCP

_UNCOUNTED: Final = frozenset({"rate", "burst", "quota", "grace", "scan", "log", "note"})
_EVERY_PROTOCOL: Final = frozenset(RuleProtocol)
_SINGLE: Final = {protocol: frozenset({protocol}) for protocol in RuleProtocol}
_TCP: Final = _SINGLE[RuleProtocol.TCP]
_UDP: Final = _SINGLE[RuleProtocol.UDP]


class Area(enum.Enum):
    """The words that stand for many addresses."""

    EVERYWHERE = "*"
    INTERNET = "internet"
    PRIVATE = "private"

    def __str__(self) -> str:
        return self.value


@attrs.frozen
class Domain:
    """A canonical name, or every name below one (`*.example.org`, which is not example.org itself)."""

    name: str
    below: bool = False

    def __str__(self) -> str:
        return f"*.{self.name}" if self.below else self.name

    def covers(self, name: str | None) -> bool:
        """Does the name the client asked for fit? A client that gave an address fits no domain."""
        if name is None:
            return False
        return name.endswith(f".{self.name}") if self.below else name == self.name


Host: TypeAlias = Area | IPNetwork | Domain


def host_ranges(host: Host) -> Ranges:
    """The addresses that a host covers; none for a domain."""
    match host:
        case Area.EVERYWHERE:
            return EVERYWHERE
        case Area.INTERNET:
            return INTERNET
        case Area.PRIVATE:
            return PRIVATE
        case Domain():
            return ()
        case network:
            return (network_range(network),)


@attrs.define(eq=False)  # frozen would cost 0.4 us, as much as asking two rules
class Question:
    """An AccessRequest made ready to be compared with many rules: its addresses as numbers on one line.

    Nobody changes one.

    Attributes:
        minute: of the week, where the identity's tenant is; None: no rule that may be asked has hours.
        finding: what the flow is; None: nobody has looked.
    """

    identity: Identity
    protocol: RuleProtocol
    source: int
    source_port: int
    destination: int
    destination_port: int
    name: str | None
    minute: int | None = None
    finding: Finding | None = None

    @classmethod
    def of(cls, request: AccessRequest, address: IPAddress, minute: int | None = None) -> Self:
        """The question about this one address (the request's own, or one that is embedded in it), at this time."""
        return cls(
            request.identity,
            request.protocol,
            address_number(request.client_address),
            request.client_port,
            address_number(address),
            request.port,
            request.name,
            minute,
            request.finding,
        )


@attrs.frozen
class Rule:
    """One line of a layer. Equal rules have the same text; `grammar.parse_rule` reads it back.

    Attributes:
        allow: False for `deny`.
        protocol: None for `any`.
        source: never a Domain: reverse DNS decides nothing.
        source_ports: ports of the client.
        destination: names are compared with what was asked, networks with the address that would be contacted.
        destination_ports: for `bind` the ports of the host that connects.
        user: fits this user alone; only in the global layer.
        group: fits members of this group alone; only in the global layer.
        log: `log=yes` or `log=no`; None if the rule does not say.
        note: for people.
        rate: how fast the flows together may be that it permits to one user.
        burst: how many bytes may come at once above the rate; None: whoever shapes decides.
        quota: how much they may move in a period.
        hours: it speaks in these hours only; None: always.
        grace_s: how long a flow that it permits may go on when its hours are over; None: not at all.
        apps: it speaks about flows that are one of these; empty: about every flow.
        sni: about TLS to one of these names.
        http_host: about HTTP to one of these; an address stands in them by its canonical text.
        scan_ignored: what it permits is no scan, however many ports and targets there are.
        asks: whether it has to be known what the flow is.
        counted_as: what its quota is known by: the rule without what may change meanwhile (rates, sizes, notes); empty
            where there is no quota.
        has_terms: whether it puts its flows under terms: a rate, a quota, hours, no look for scans.
        protocols: what it can speak about: `any:` with `app=tls` is about TCP alone, and nobody looks into what BIND
            carries.
    """

    allow: bool
    protocol: RuleProtocol | None
    source: Host
    source_ports: Ports
    destination: Host
    destination_ports: Ports
    user: Scope | None = None
    group: Scope | None = None
    log: bool | None = None
    note: str = ""
    rate: Rates | None = None
    burst: int | None = None
    quota: Quota | None = None
    hours: Hours | None = None
    grace_s: int | None = None
    apps: tuple[App, ...] = ()
    sni: tuple[Domain, ...] = ()
    http_host: tuple[Domain, ...] = ()
    scan_ignored: bool = False
    asks: bool = attrs.field(init=False, eq=False, repr=False)
    has_terms: bool = attrs.field(init=False, eq=False, repr=False)
    counted_as: str = attrs.field(init=False, eq=False, repr=False)
    protocols: frozenset[RuleProtocol] = attrs.field(init=False, eq=False, repr=False)
    _plain: bool = attrs.field(init=False, eq=False, repr=False)
    _source_ranges: Ranges = attrs.field(init=False, eq=False, repr=False)
    _destination_ranges: Ranges = attrs.field(init=False, eq=False, repr=False)

    @asks.default
    def _is_about_findings(self) -> bool:
        return bool(self.apps or self.sni or self.http_host)

    @has_terms.default
    def _puts_under_terms(self) -> bool:
        terms = (self.rate, self.quota, self.hours)
        return self.allow and (self.scan_ignored or any(term is not None for term in terms))

    @counted_as.default
    def _what_it_is_about(self) -> str:
        return self._text(_UNCOUNTED) if self.quota is not None else ""

    @protocols.default
    def _protocols_of_word_and_apps(self) -> frozenset[RuleProtocol]:
        protocols = _EVERY_PROTOCOL if self.protocol is None else _SINGLE[self.protocol]
        if not self.asks:
            return protocols
        return protocols & (_TCP if self.sni or self.http_host else frozenset().union(*map(_carriers, self.apps)))

    @_plain.default
    def _is_about_addresses_alone(self) -> bool:
        return self.user is None and self.group is None and self.hours is None and not self.asks

    @_source_ranges.default
    def _ranges_of_source(self) -> Ranges:
        return host_ranges(self.source)

    @_destination_ranges.default
    def _ranges_of_destination(self) -> Ranges:
        return host_ranges(self.destination)

    def __str__(self) -> str:
        return self._text()

    def _text(self, without: Container[str] = ()) -> str:
        """As it is written, but for these options."""
        words = [] if self.allow else ["deny"]
        source = f"{host_text(self.source)}({ports_text(self.source_ports)})"
        destination = f"{host_text(self.destination)}({ports_text(self.destination_ports)})"
        words.append(f"{self.protocol.value if self.protocol else 'any'}:{source}->{destination}")
        words += (f"{key}={_quoted(value)}" for key, value in self._options() if value and key not in without)
        return " ".join(words)

    def _options(self) -> Iterator[tuple[str, str]]:
        """The keys of all options with their texts, empty where there is none."""
        yield "user", self.user.owner if self.user else ""
        yield "group", self.group.owner if self.group else ""
        yield "rate", str(self.rate or "")
        yield "burst", size_text(self.burst) if self.burst else ""
        yield "quota", str(self.quota or "")
        yield "when", str(self.hours or "")
        yield "grace", grace_text(self.grace_s) if self.grace_s else ""
        yield "app", ",".join(app.value for app in self.apps)
        yield "sni", ",".join(map(str, self.sni))
        yield "http-host", ",".join(map(str, self.http_host))
        yield "scan", "ignore" if self.scan_ignored else ""
        yield "log", "" if self.log is None else "yes" if self.log else "no"
        yield "note", self.note

    def matches(self, question: Question) -> bool:
        """Does this rule speak about the question? What most often differs is compared first.

        A rule that asks what the flow is may speak about every flow of which that is not known.
        """
        ports = self.destination_ports
        if ports is not EVERY_PORT and not within(ports, question.destination_port):
            return False
        if self.protocol is not None and self.protocol is not question.protocol:
            return False
        ranges = self._destination_ranges
        if ranges is not EVERYWHERE and not within(ranges, question.destination) and not self._names(question.name):
            return False
        ranges = self._source_ranges
        if ranges is not EVERYWHERE and not within(ranges, question.source):
            return False
        ports = self.source_ports
        if ports is not EVERY_PORT and not within(ports, question.source_port):
            return False
        return self._plain or self._applies(question)

    def _applies(self, question: Question) -> bool:
        """Compare what few rules have."""
        return (
            question.protocol in self.protocols
            and self._is_about(question.identity)
            and self._is_open(question.minute)
            and (question.finding is None or not self.asks or self._fits(question.finding))
        )

    def _names(self, name: str | None) -> bool:
        return isinstance(self.destination, Domain) and self.destination.covers(name)

    def _is_about(self, identity: Identity) -> bool:
        user, group = self.user, self.group
        if user is not None and (user.tenant, user.name) != (identity.tenant, identity.user):
            return False
        return group is None or (group.tenant == identity.tenant and group.name in identity.groups)

    def _is_open(self, minute: int | None) -> bool:
        if self.hours is None:
            return True
        if minute is None:
            raise AssertionError(f"{self} was asked without a time")
        return self.hours.cover(minute)

    def _fits(self, finding: Finding) -> bool:
        if self.sni:
            return finding.app is App.TLS and any(name.covers(finding.sni) for name in self.sni)
        if self.http_host:
            return finding.app is App.HTTP and any(name.covers(finding.http_host) for name in self.http_host)
        return finding.app in self.apps


def check_scope(rule: Rule, scope: Scope) -> None:
    """May this rule live in this layer?

    Raises:
        ValueError: it has an option that only the global layer knows.
    """
    if scope.kind is not ScopeKind.GLOBAL and (rule.user is not None or rule.group is not None):
        raise ValueError(f"user= and group= are for the global layer, not for {scope}")


def _carriers(app: App) -> frozenset[RuleProtocol]:
    if app is App.UNKNOWN:
        return _TCP | _UDP
    return _UDP if app in DATAGRAM_APPS else _TCP


def host_text(host: Host) -> str:
    """A host as a rule has it."""
    if isinstance(host, Area | Domain) or host.prefixlen < host.max_prefixlen:
        return str(host)
    return str(host.network_address)


def ports_text(ports: Ports) -> str:
    """Ports as a rule has them, without the brackets."""
    if ports == EVERY_PORT:
        return "*"
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ports)


def _quoted(value: str) -> str:
    if value and not any(character in ' "\\' for character in value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
