"""Connect to exactly an address that was judged, in the manner of RFC 8305, and say in a Reply why that failed."""

import errno
import os
import socket
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address
from itertools import chain, zip_longest

import attrs
import trio

from trioproxy.engine import Channel, Engine, Fiber
from trioproxy.limits import keep_reserve
from trioproxy.policy import Permit
from trioproxy.protocol import Reply

__all__ = ["DialError", "KeepAlive", "candidates", "dial", "dial_first", "reply_for"]

CANDIDATES_MAX = 4  # each may hold a socket until the time is over: a name with many dead addresses takes no more
ATTEMPT_DELAY_S = 0.25  # RFC 8305 section 8: "Connection Attempt Delay", recommended 250 ms

# The one table from errno to Reply. What is missing is our own trouble (EMFILE, EADDRNOTAVAIL ...): a general failure.
REPLIES = {
    errno.ECONNREFUSED: Reply.CONNECTION_REFUSED,
    errno.ECONNRESET: Reply.CONNECTION_REFUSED,  # accepted and reset before we saw it: nobody serves there
    errno.ENETUNREACH: Reply.NETWORK_UNREACHABLE,
    errno.EAFNOSUPPORT: Reply.NETWORK_UNREACHABLE,  # no IPv6 on this machine
    errno.EHOSTUNREACH: Reply.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Reply.HOST_UNREACHABLE,
    errno.ETIMEDOUT: Reply.HOST_UNREACHABLE,  # not TTL_EXPIRED: no client explains that to its user
    errno.EACCES: Reply.CONNECTION_NOT_ALLOWED_BY_RULESET,  # the machine's own packet filter, or a broadcast address
    errno.EPERM: Reply.CONNECTION_NOT_ALLOWED_BY_RULESET,
}


@attrs.frozen
class KeepAlive:
    """After how many seconds a connection whose other end no longer answers is given up."""

    dead_after_s: float

    def apply(self, sock: socket.socket) -> None:
        """Set it on a socket; a listener's accepted sockets inherit it."""
        idle_s = min(32_767, max(1, int(self.dead_after_s / 2)))  # MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL
        interval_s = min(32_767, max(1, int(self.dead_after_s / 8)))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        # Keep-alive says nothing while data is unacknowledged; this does.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(2**31 - 1, int(self.dead_after_s * 1000)))


class DialError(Exception):
    """No candidate could be connected. `reply` is what the client is told."""

    def __init__(self, failures: Sequence[OSError]) -> None:
        super().__init__("; ".join(f.strerror or str(f) for f in failures))
        self.reply = _most_telling([reply_for(failure) for failure in failures])


def reply_for(failure: OSError) -> Reply:
    """The Reply for a failed system call of the network."""
    return REPLIES.get(failure.errno or 0, Reply.GENERAL_SOCKS_SERVER_FAILURE)


def _most_telling(replies: Sequence[Reply]) -> Reply:
    """Of several addresses that failed, the failure that proves most: a refusal shows that the host is there."""
    order = (
        Reply.CONNECTION_REFUSED,
        Reply.HOST_UNREACHABLE,
        Reply.NETWORK_UNREACHABLE,
        Reply.CONNECTION_NOT_ALLOWED_BY_RULESET,
    )
    return next((reply for reply in order if reply in replies), Reply.GENERAL_SOCKS_SERVER_FAILURE)


async def dial(engine: Engine, fiber: Fiber, permit: Permit, *, timeout_s: float, descriptors_max: int) -> Channel:
    """Connect to the only candidate, without a task.

    Args:
        engine: registers the socket.
        fiber: that calls, and waits.
        permit: the judged candidate.
        timeout_s: for the connection.
        descriptors_max: a socket whose descriptor would eat into the reserve is not opened.

    Raises:
        DialError: it could not be connected.

    **Cancellation**: the attempt is closed.
    """
    target = (str(permit.request.address), permit.request.port)
    try:
        sock = _open(permit, descriptors_max)
        try:
            code = sock.connect_ex(target)
            if code == errno.EINPROGRESS and not _is_connected(sock, target):
                return await _wait_until_connected(engine, fiber, sock, target, timeout_s)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))  # noqa: TRY301 - one way out for every failure
            return engine.open(sock)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        raise DialError([exc]) from exc


async def _wait_until_connected(
    engine: Engine, fiber: Fiber, sock: socket.socket, target: tuple[str, int], timeout_s: float
) -> Channel:
    channel = engine.open(sock)
    too_late = partial(fiber.interrupt, OSError(errno.ETIMEDOUT, "time-out"))
    engine.timers.begin(timeout_s, fiber, too_late)
    try:
        while True:
            await fiber.writable(channel)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))  # noqa: TRY301 - one way out for every failure
            if _is_connected(sock, target):
                return channel
    except BaseException:
        engine.forget(channel)
        raise
    finally:
        engine.timers.end(timeout_s, fiber)


def _is_connected(sock: socket.socket, target: tuple[str, int]) -> bool:
    try:
        host, port = sock.getpeername()[:2]
    except OSError as exc:
        if exc.errno == errno.ENOTCONN:
            return False
        raise
    # Law 1, never to be broken. The kernel writes a few IPv6 addresses in another way than we do.
    assert port == target[1]  # noqa: S101
    assert host == target[0] or ip_address(host.partition("%")[0]) == ip_address(target[0])  # noqa: S101
    return True


async def dial_first(
    permits: Sequence[Permit], *, timeout_s: float, descriptors_max: int
) -> tuple[socket.socket, Permit]:
    """Connect to the first candidate that answers. In a task.

    The next one is tried when the one before failed or has not answered for 250 ms; all but the first to succeed are
    closed. A socket whose descriptor would eat into the reserve is not opened.

    Args:
        permits: at least one judged candidate.
        timeout_s: for all of them together.
        descriptors_max: the highest descriptor that may be used.

    Raises:
        DialError: none could be connected.

    **Cancellation**: every attempt is closed.
    """
    attempts = _Attempts(descriptors_max)
    try:
        with trio.move_on_after(timeout_s):
            async with trio.open_nursery() as nursery:
                for permit in candidates(permits):
                    failed = trio.Event()
                    nursery.start_soon(attempts.attempt, permit, failed, nursery.cancel_scope)
                    with trio.move_on_after(ATTEMPT_DELAY_S):
                        await failed.wait()
    except BaseException:
        if attempts.connected is not None:  # it succeeded in the moment in which nobody wanted it any more
            attempts.connected[0].close()
        raise
    if attempts.connected is not None:
        return attempts.connected
    raise DialError(attempts.failures or [OSError(errno.ETIMEDOUT, "time-out")])


def candidates(permits: Sequence[Permit]) -> list[Permit]:
    """Those that are tried. RFC 8305 section 4: the families take turns, the first address's first; four at most."""
    if len(permits) == 1:
        return [*permits]
    first_version = permits[0].request.address.version
    first = [p for p in permits if p.request.address.version == first_version]
    other = [p for p in permits if p.request.address.version != first_version]
    in_turns = [permit for permit in chain.from_iterable(zip_longest(first, other)) if permit is not None]
    return in_turns[:CANDIDATES_MAX]


@attrs.define(eq=False)
class _Attempts:
    """What the attempts of one dial have come to."""

    descriptors_max: int
    connected: tuple[socket.socket, Permit] | None = None
    failures: list[OSError] = attrs.field(factory=list)

    async def attempt(self, permit: Permit, failed: trio.Event, all_attempts: trio.CancelScope) -> None:
        """Try one candidate; the first to succeed cancels the others."""
        try:
            sock = await _connect(permit, self.descriptors_max)
        except OSError as exc:
            self.failures.append(exc)
            failed.set()
            return
        if self.connected is not None:  # two succeeded in the same moment: only one survives
            sock.close()
            return
        self.connected = (sock, permit)
        all_attempts.cancel()


def _open(permit: Permit, descriptors_max: int) -> socket.socket:
    family = socket.AF_INET if permit.request.address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IP version
    sock = keep_reserve(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), descriptors_max)
    # A relay passes on what it has; waiting for more to go with it is for those at the ends to decide.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def _connect(permit: Permit, descriptors_max: int) -> socket.socket:
    """Connect to the judged socket address, and to nothing else."""
    target = (str(permit.request.address), permit.request.port)
    sock = _open(permit, descriptors_max)
    try:
        code = sock.connect_ex(target)
        if code == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))  # noqa: TRY301 - one way out for every failure
        assert _is_connected(sock, target)  # noqa: S101 - it says so
    except BaseException:
        sock.close()
        raise
    return sock
