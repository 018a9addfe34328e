"""Listening sockets: opening them with errors a reader understands, and accepting without ever dying or spinning."""

import errno
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial

import attrs
import trio

from trioproxy.config import Listener, SocketAddress
from trioproxy.dial import KeepAlive
from trioproxy.engine import Channel, Engine
from trioproxy.log import get_log

__all__ = ["ListenError", "OpenListener", "accept_clients", "open_listener"]

BACKLOG = 4_096  # Linux cuts it to net.core.somaxconn, which is 4096 since 5.4
ACCEPTED_AT_ONCE = 32  # some 4 ms of work
EXHAUSTED_PAUSE_S = 0.1  # when there are no descriptors: long enough not to spin, short enough not to be noticed
COMPLAINT_INTERVAL_S = 5.0  # one line of the log tells as much as a thousand

# accept(2): these are the new connection's trouble, not ours.
PASSING = {errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH,
           errno.ETIMEDOUT, errno.EPERM, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENONET}  # fmt: skip


class ListenError(Exception):
    """A listening socket cannot be opened; the text says which, why, and what to do."""


@attrs.define(eq=False)
class OpenListener:
    """A listening socket with the settings in force for those who come in now.

    Attributes:
        name: `address:port` as bound.
        address: what the configuration asked for (its port may be 0).
        closed: cancelling it ends the accepting task.
    """

    settings: Listener
    address: SocketAddress
    sock: socket.socket
    name: str
    closed: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @property
    def family(self) -> socket.AddressFamily:
        """Of its clients' addresses."""
        return socket.AF_INET6 if self.address.host.version == 6 else socket.AF_INET  # noqa: PLR2004 - the IP version

    @property
    def bound(self) -> SocketAddress:
        """As the kernel knows it."""
        return SocketAddress(self.address.host, int(self.sock.getsockname()[1]))


def open_listener(settings: Listener, keep_alive: KeepAlive) -> OpenListener:
    """Bind and listen.

    Raises:
        ListenError: that is not possible.
    """
    address = settings.address
    is_v6 = address.host.version == 6  # noqa: PLR2004 - the IP version
    try:
        sock = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_v6:
                # One family for each listener: a client's address then has one form, and so have the rules about it.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            keep_alive.apply(sock)  # this and the next is inherited by accepted sockets
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind((str(address.host), address.port))
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        raise ListenError(f"cannot listen on {address}: {exc.strerror or exc}{_advice(exc)}") from exc
    bound = SocketAddress(address.host, sock.getsockname()[1])
    return OpenListener(settings, address, sock, str(bound))


def _advice(exc: OSError) -> str:
    match exc.errno:
        case errno.EADDRINUSE:
            return " (is another trioproxy or SOCKS server running? `ss -ltnp` shows it; or choose another port)"
        case errno.EACCES:
            return " (ports below 1024 need root or CAP_NET_BIND_SERVICE)"
        case errno.EADDRNOTAVAIL:
            return " (this machine has no such address; `ip addr` shows those it has)"
        case _:
            return ""


async def accept_clients(
    engine: Engine,
    listener: OpenListener,
    start: Callable[[OpenListener, socket.socket, str, int], None],
    counters: Counter[str],
) -> None:
    """Hand every client to `start`, until the listener's scope is cancelled.

    Running out of descriptors is waited out: accepting goes on as soon as one is free.
    """
    complained_s = -COMPLAINT_INTERVAL_S
    channel: Channel | None = None
    try:
        with listener.closed:
            while True:
                try:
                    channel = channel or engine.open(listener.sock)
                    problem = await engine.until_problem(channel, partial(_accept_some, listener, start))
                except OSError as exc:  # epoll has no room (max_user_watches)
                    problem = str(exc.strerror)
                counters["accept_failed"] += 1
                if trio.current_time() - complained_s >= COMPLAINT_INTERVAL_S:
                    complained_s = trio.current_time()
                    get_log().error("cannot accept", listener=listener.name, problem=problem, hint="ulimit -n")
                await trio.sleep(EXHAUSTED_PAUSE_S)
    finally:
        if channel is not None:
            engine.forget(channel)


def _accept_some(listener: OpenListener, start: Callable[[OpenListener, socket.socket, str, int], None]) -> str | bool:
    """Accept who waits, but not for so long that others would: what is wrong with us, or whether more may wait."""
    for _ in range(ACCEPTED_AT_ONCE):
        try:
            fd, (host, port, *_) = listener.sock._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - see below
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno not in PASSING:
                return str(exc.strerror)
        else:
            # `accept` asks for family, type and protocol and for the default time-out: 4 us for each client.
            sock = socket.socket(listener.family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fd)
            sock.setblocking(False)
            start(listener, sock, host, port)
    return True
