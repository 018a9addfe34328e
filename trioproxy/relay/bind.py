"""BIND: listen first, then say where, accept one target, let it be judged, and close the listening socket."""

import socket
from collections.abc import Hashable

import trio

from trioproxy.policy import IPAddress
from trioproxy.relay.ports import RelayPorts

__all__ = ["accept_target", "egress_address", "listen_for_target"]

BACKLOG = 1  # one target is expected; a second one is reset when the listening socket closes


def egress_address(target: IPAddress) -> str:
    """The address of this machine from which it would talk to `target`; no packet is sent.

    Raises:
        OSError: there is no way to it.
    """
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6  # noqa: PLR2004 - the IP version
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((str(target), 9))  # "discard"; connecting a datagram socket only asks the routing table
        return str(probe.getsockname()[0])


def listen_for_target(
    host: IPAddress, ports: RelayPorts, port_range: range | None, owner: Hashable, now_s: float
) -> socket.socket:
    """A listening socket, ready before the first reply is sent: a target may connect right after it.

    Raises:
        OSError: no port is free.
    """
    sock = ports.bind(socket.SOCK_STREAM, host, port_range, owner, now_s)
    sock.listen(BACKLOG)
    return sock


async def accept_target(listening: socket.socket) -> tuple[socket.socket, str, int]:
    """Wait for one connection: its socket, non-blocking, and the address and port it comes from.

    Raises:
        OSError: accepting failed.

    **Cancellation**: nothing is accepted.
    """
    while True:
        await trio.lowlevel.wait_readable(listening)
        try:
            sock, (host, port, *_) = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it went away before we came
            continue
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock, str(host), int(port)
