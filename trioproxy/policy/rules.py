"""One rule: what it says, how it is written, and whether it fits a question."""

import enum
from typing import Final, Self, TypeAlias

import attrs

from auth import Identity
from trioproxy.policy.networks import INTERNET, PRIVATE
from trioproxy.policy.ranges import ADDRESS_LAST, IPNetwork, Ranges, address_number, network_range, within
from trioproxy.policy.request import AccessRequest, IPAddress, RuleProtocol
from trioproxy.policy.scope import Scope, ScopeKind

__all__ = [
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


@attrs.frozen
class Question:
    """An AccessRequest made ready to be compared with many rules: its addresses as numbers on one line."""

    identity: Identity
    protocol: RuleProtocol
    source: int
    source_port: int
    destination: int
    destination_port: int
    name: str | None

    @classmethod
    def of(cls, request: AccessRequest, address: IPAddress) -> Self:
        """The question about this one address (the request's own, or one that is embedded in it)."""
        return cls(
            request.identity,
            request.protocol,
            address_number(request.client_address),
            request.client_port,
            address_number(address),
            request.port,
            request.name,
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
    _source_ranges: Ranges = attrs.field(init=False, eq=False, repr=False)
    _destination_ranges: Ranges = attrs.field(init=False, eq=False, repr=False)

    @_source_ranges.default
    def _ranges_of_source(self) -> Ranges:
        return host_ranges(self.source)

    @_destination_ranges.default
    def _ranges_of_destination(self) -> Ranges:
        return host_ranges(self.destination)

    def __str__(self) -> str:
        words = [] if self.allow else ["deny"]
        source = f"{host_text(self.source)}({ports_text(self.source_ports)})"
        destination = f"{host_text(self.destination)}({ports_text(self.destination_ports)})"
        words.append(f"{self.protocol.value if self.protocol else 'any'}:{source}->{destination}")
        if self.user is not None:
            words.append(f"user={_quoted(self.user.owner)}")
        if self.group is not None:
            words.append(f"group={_quoted(self.group.owner)}")
        if self.log is not None:
            words.append("log=yes" if self.log else "log=no")
        if self.note:
            words.append(f"note={_quoted(self.note)}")
        return " ".join(words)

    def matches(self, question: Question) -> bool:
        """Does this rule speak about the question? What most often differs is compared first."""
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
        return (self.user is None and self.group is None) or self._is_about(question.identity)

    def _names(self, name: str | None) -> bool:
        return isinstance(self.destination, Domain) and self.destination.covers(name)

    def _is_about(self, identity: Identity) -> bool:
        user, group = self.user, self.group
        if user is not None and (user.tenant, user.name) != (identity.tenant, identity.user):
            return False
        return group is None or (group.tenant == identity.tenant and group.name in identity.groups)


def check_scope(rule: Rule, scope: Scope) -> None:
    """May this rule live in this layer?

    Raises:
        ValueError: it has an option that only the global layer knows.
    """
    if scope.kind is not ScopeKind.GLOBAL and (rule.user is not None or rule.group is not None):
        raise ValueError(f"user= and group= are for the global layer, not for {scope}")


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
