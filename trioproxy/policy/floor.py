"""The floor: what no rule can allow. Only the configuration opens parts of it, and our own endpoints never."""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from ipaddress import ip_network
from typing import Final, TypeAlias, assert_never

import attrs

from trioproxy.policy.networks import FLOOR_NETWORKS
from trioproxy.policy.ranges import IPV6_FIRST, IPNetwork, Ranges, RangeTable, address_number, network_range, within
from trioproxy.policy.request import IPAddress, RuleProtocol

__all__ = ["Floor", "OwnEndpoints"]

OWN_LISTENER: Final = "a listener of this proxy"
OWN_SERVER: Final = "a directory or database server of this proxy"

_UNSPECIFIED: Final = (0, IPV6_FIRST)  # 0.0.0.0 and ::
_LOOPBACK: Final[Ranges] = (network_range(ip_network("127.0.0.0/8")), network_range(ip_network("::1/128")))

_Endpoint: TypeAlias = tuple[IPAddress | None, int]


def _frozen(endpoints: AbstractSet[_Endpoint]) -> frozenset[_Endpoint]:
    return frozenset(endpoints)


def _nowhere(_address: IPAddress) -> bool:
    return False


def _nothing() -> AbstractSet[_Endpoint]:
    return frozenset()


@attrs.frozen
class OwnEndpoints:
    """The TCP endpoints that belong to this installation and are nobody's target (CVE-2021-21382).

    Attributes:
        listeners: address and port of each of our listeners (SOCKS, admin, metrics, other nodes, what a NAT in front of
            us forwards); None as address listens everywhere.
        endpoints: address and port of the servers that we ourselves rely on (a database).
        servers: the same for those whose addresses change while we run (directories); asked for each verdict.
        is_local: whether an address belongs to this machine; asked only about a port on which we listen everywhere.
    """

    listeners: AbstractSet[_Endpoint] = attrs.field(default=frozenset(), converter=_frozen)
    endpoints: AbstractSet[_Endpoint] = attrs.field(default=frozenset(), converter=_frozen)
    servers: Callable[[], AbstractSet[_Endpoint]] = _nothing
    is_local: Callable[[IPAddress], bool] = _nowhere
    _ports: frozenset[int] = attrs.field(init=False, repr=False, eq=False)

    @_ports.default
    def _ports_of_listeners(self) -> frozenset[int]:
        return frozenset(port for _, port in self.listeners)

    def part_of(self, address: IPAddress, port: int) -> str | None:
        """Which of our endpoints this is, or None."""
        if port in self._ports and self._is_listener(address, port):
            return OWN_LISTENER
        return self.server(address, port)

    def server(self, address: IPAddress, port: int) -> str | None:
        """The same for the servers that we rely on alone."""
        endpoints, servers = self.endpoints, self.servers()
        if not endpoints and not servers:  # most sites rely on nobody, and hashing an address costs 0.5 us
            return None
        endpoint = (address, port)
        return OWN_SERVER if endpoint in endpoints or endpoint in servers else None

    def _is_listener(self, address: IPAddress, port: int) -> bool:
        if (address, port) in self.listeners:
            return True
        number = address_number(address)
        if number in _UNSPECIFIED:  # the kernel connects it to this machine, whatever the listener is bound to
            return True
        return (None, port) in self.listeners and (within(_LOOPBACK, number) or self.is_local(address))


class Floor:
    """Which destinations are refused before any rule is asked. Immutable."""

    def __init__(self, open_networks: Iterable[IPNetwork] = (), own: OwnEndpoints | None = None) -> None:
        """Build the floor.

        Args:
            open_networks: what the configuration opens (`policy.open_floor`), e.g. 127.0.0.0/8 in a test.
            own: our own endpoints; they stay closed even inside an opened network.
        """
        self._closed = RangeTable(((network_range(network),), part) for network, part in FLOOR_NETWORKS)
        self._open = RangeTable(((network_range(network),), network) for network in open_networks)
        self._own = own if own is not None else OwnEndpoints()

    def part_of(self, address: IPAddress, port: int, protocol: RuleProtocol) -> str | None:
        """The name of the part of the floor that forbids this destination, or None.

        Args:
            address: canonical. For IPv4 addresses inside IPv6 ones ask again (`embedded_addresses`).
            port: the destination's port.
            protocol: our listeners speak TCP, the servers we rely on may speak UDP too; BIND connects to nobody.
        """
        number = address_number(address)
        parts = self._closed.at(number)
        if parts and not self._open.at(number):
            return parts[0]
        match protocol:
            case RuleProtocol.TCP:
                return self._own.part_of(address, port)
            case RuleProtocol.UDP:  # directories and name servers speak it too; our listeners do not
                return self._own.server(address, port)
            case RuleProtocol.BIND:  # who connects to us is not reached by us
                return None
            case _:
                assert_never(protocol)
