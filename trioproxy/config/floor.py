"""The floor as the configuration makes it: what it opens, what it closes, and our own listeners."""

import errno
import socket
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv6Address

from trioproxy.config.model import Config, SocketAddress
from trioproxy.policy.floor import Floor, OwnEndpoints

__all__ = ["build_floor", "is_local"]


def build_floor(
    config: Config,
    listening: Iterable[SocketAddress] = (),
    servers: Callable[[], AbstractSet[tuple[IPv4Address | IPv6Address, int]]] = frozenset,
) -> Floor:
    """The floor that server and `rule explain` share.

    Args:
        config: `policy.open_floor`, `policy.closed` and the listeners with their `advertise`.
        listening: where the server listens in truth, if a listener took any free port.
        servers: where the backends' servers are now.
    """
    listeners: set[tuple[IPv4Address | IPv6Address | None, int]] = set()
    for listener in config.listener:
        # The address in front of a NAT leads back to us.
        listeners |= {(address, listener.address.port) for address in listener.advertise}
    for address in (*(listener.address for listener in config.listener), *listening):
        listeners.add((None if address.host.is_unspecified else address.host, address.port))
    endpoints = {(closed.host, closed.port) for closed in config.policy.closed}
    own = OwnEndpoints(listeners=listeners, endpoints=endpoints, servers=servers, is_local=is_local)
    return Floor(config.policy.open_floor, own)


def is_local(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address belongs to this machine now: whether a socket could be bound to it. Sends nothing.

    Where the kernel lets sockets be bound to foreign addresses (`ip_nonlocal_bind`), every address counts as ours: too
    much is refused then, never too little.
    """
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as exc:
        # Where even trying fails (no descriptor is left, say), nobody can tell: then it counts as ours, and is refused.
        return exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True
