"""Sockets for datagrams, in batches where the system has them; nothing here knows of SOCKS.

Linux takes and gives many datagrams with one call, cuts what goes to one receiver into datagrams of equal size behind
it (UDP_SEGMENT), and hands over in one piece what came so (UDP_GRO). Measured on loopback, microseconds a datagram of
200 octets: received one by one 1.2, with recvmmsg 0.6; sent one by one 3.3, with sendmmsg 3.1, cut by the kernel 0.45.
Elsewhere each datagram is a call.
"""

import contextlib
import errno
import functools
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol, TypeAlias

import attrs

from trioproxy.policy import IPAddress
from trioproxy.relay.mmsg import MESSAGES_MAX, SOL_UDP, UDP_GRO, UDP_SEGMENT, Message, MessageCalls, message_calls

__all__ = [
    "BatchSocket",
    "DatagramSocket",
    "Run",
    "SingleSocket",
    "SocketAddress",
    "datagram_socket",
    "open_target_side",
    "socket_address",
]

# What arrives while other tasks have their turn, some ms, has to wait here. The kernel doubles the number, and takes
# 2,304 octets of it for a datagram of 1,200: 1 MiB is 9 ms of 100,000 such datagrams/s, the usual 208 KiB are 1 ms. The
# memory is taken only while something waits; net.core.rmem_max bounds it for each socket, net.ipv4.udp_mem for all.
RECEIVE_BUFFER_BYTES: Final = 1 << 20
SEGMENTS_MAX: Final = 64  # UDP_MAX_SEGMENTS of the kernel
SEGMENTED_BYTES_MAX: Final = 65_507  # what fits in a datagram over IPv4; for what is cut the same limit holds
NAMES_MAX = 4096  # addresses remembered in the kernel's form, and back
WHOLE_MAX = 1024  # receivers remembered to whom nothing can be cut

SocketAddress: TypeAlias = tuple[str, int]


@attrs.define(eq=False)
class Run:
    """Datagrams in a row for one receiver.

    Attributes:
        header: goes before each of them.
        unsent: after sending: the size, without header, and the errno of each that did not go.
    """

    receiver: SocketAddress
    header: bytes
    payloads: list[bytes]
    unsent: list[tuple[int, int]] = attrs.field(factory=list)


class DatagramSocket(Protocol):
    """A socket that is never waited for.

    Attributes:
        sock: closed by whoever made it.
        batch_max: datagrams that one `receive` brings at least if so many are there.
    """

    sock: socket.socket
    batch_max: int

    def receive(self) -> Sequence[tuple[SocketAddress, list[bytes]]]:
        """What has arrived, or a part of it, in its order, grouped by sender; empty if nothing has.

        Raises:
            OSError: for something sent earlier (ICMP). The socket is fine.
        """
        ...

    def send(self, runs: Iterable[Run]) -> None:
        """Hand everything to the kernel, in this order; each run knows afterwards what of it did not go."""
        ...


class SingleSocket:
    """One call for each datagram: works everywhere."""

    batch_max = 1

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        _enlarge(sock)

    def receive(self) -> Sequence[tuple[SocketAddress, list[bytes]]]:
        """See `DatagramSocket`."""
        try:
            packet, sender = self.sock.recvfrom(65_535)
        except BlockingIOError:
            return ()
        return [(sender[:2], [packet])]

    def send(self, runs: Iterable[Run]) -> None:
        """See `DatagramSocket`."""
        for run in runs:
            _send_singly(self.sock, run, run.payloads)


class BatchSocket:
    """Many datagrams with each call."""

    batch_max = MESSAGES_MAX

    def __init__(self, sock: socket.socket, calls: MessageCalls) -> None:
        self.sock = sock
        self._family = sock.family
        self._calls = calls
        # Nothing may be cut for these receivers that is longer: no room on the way (MTU), or a device that cannot.
        self._whole_above: dict[SocketAddress, int] = {}
        _enlarge(sock)
        self._segment_max = SEGMENTED_BYTES_MAX if _has(sock, UDP_SEGMENT, 0) else 0  # Linux 4.18
        _has(sock, UDP_GRO, 1)  # Linux 5.0; does nothing on loopback unless the sender cuts too

    def receive(self) -> Sequence[tuple[SocketAddress, list[bytes]]]:
        """See `DatagramSocket`."""
        return [(_address_of(name), packets) for name, packets in self._calls.receive(self.sock)]

    def send(self, runs: Iterable[Run]) -> None:
        """See `DatagramSocket`."""
        messages: list[Message] = []
        parts: list[tuple[Run, list[bytes]]] = []  # for each message
        for run in runs:
            try:
                name = _name_of(self._family, run.receiver)
            except OSError:
                _send_singly(self.sock, run, run.payloads)  # says what is wrong with it
                continue
            for part in self._parts(run):
                header = run.header
                segment = len(header) + len(part[0]) if len(part) > 1 else 0
                messages.append((header + header.join(part), name, segment))
                parts.append((run, part))
        for index, code in self._calls.send(self.sock, messages):
            self._failed(*parts[index], code)

    def _parts(self, run: Run) -> Iterator[list[bytes]]:
        """What can go as one message each: datagrams of equal size, of which the last may be shorter but not empty."""
        payloads, extra = run.payloads, len(run.header)
        longest = self._whole_above.get(run.receiver, self._segment_max)
        sizes = list(map(len, payloads))
        first, count = 0, len(sizes)
        all_alike = sizes.count(sizes[0]) == count  # as a rule; quicker than to look at each
        while first < count:
            size, end = sizes[first], first + 1
            if 0 < size + extra <= longest:
                limit = min(count, first + min(SEGMENTS_MAX, SEGMENTED_BYTES_MAX // (size + extra)))
                if all_alike:
                    end = limit
                while end < limit and sizes[end] == size:
                    end += 1
                if end < limit and sizes[end] < size and sizes[end] + extra > 0:
                    end += 1
            yield payloads[first:end]
            first = end

    def _failed(self, run: Run, part: list[bytes], code: int) -> None:
        if len(part) == 1:
            run.unsent.append((len(part[0]), code))
            return
        if code != errno.EAGAIN:
            if len(self._whole_above) >= WHOLE_MAX:
                self._whole_above.clear()
            size = len(run.header) + len(part[0])
            self._whole_above[run.receiver] = size - 1 if code in {errno.EMSGSIZE, errno.EINVAL} else 0
        _send_singly(self.sock, run, part)  # the kernel took nothing of it; one by one it says what it does not take


def datagram_socket(sock: socket.socket) -> DatagramSocket:
    """The best that this system has for a bound, non-blocking socket."""
    calls = message_calls(sock.family)
    return SingleSocket(sock) if calls is None else BatchSocket(sock, calls)


def open_target_side() -> socket.socket:
    """The socket towards targets: both families in one, or IPv4 alone on a machine without IPv6.

    Raises:
        OSError: no socket can be had.
    """
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    except OSError as exc:
        if exc.errno != errno.EAFNOSUPPORT:
            raise
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.bind(("0.0.0.0", 0))
        return sock
    try:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
    except BaseException:
        sock.close()
        raise
    return sock


def socket_address(family: int, address: IPAddress, port: int) -> SocketAddress | None:
    """As a socket of this family says it of a sender; None if it cannot send there."""
    if family == socket.AF_INET6:
        packed = address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed  # noqa: PLR2004 - IP version
        return socket.inet_ntop(socket.AF_INET6, packed), port
    return (str(address), port) if address.version == 4 else None  # noqa: PLR2004 - the IP version


def _enlarge(sock: socket.socket) -> None:
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < RECEIVE_BUFFER_BYTES:
        with contextlib.suppress(OSError):  # some systems refuse where Linux gives less
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)


def _has(sock: socket.socket, option: int, value: int) -> bool:
    try:
        sock.setsockopt(SOL_UDP, option, value)
    except OSError:
        return False
    return True


def _send_singly(sock: socket.socket, run: Run, payloads: Iterable[bytes]) -> None:
    for payload in payloads:
        try:
            sock.sendto(run.header + payload, run.receiver)
        except OSError as exc:
            run.unsent.append((len(payload), exc.errno or errno.EIO))


# ---- addresses as the kernel writes them

_IPV4: Final = struct.Struct("=H2s4s8x")
_IPV6: Final = struct.Struct("=H2sI16sI")


@functools.lru_cache(NAMES_MAX)
def _name_of(family: int, address: SocketAddress) -> bytes:
    """sockaddr_in or sockaddr_in6.

    Raises:
        OSError: it is no address of this family, or names an interface that is not there.
    """
    host, port = address[0], address[1].to_bytes(2, "big")
    if family == socket.AF_INET:
        return _IPV4.pack(family, port, socket.inet_pton(family, host))
    host, _, interface = host.partition("%")
    scope = socket.if_nametoindex(interface) if interface else 0
    return _IPV6.pack(family, port, 0, socket.inet_pton(socket.AF_INET6, host), scope)


@functools.lru_cache(NAMES_MAX)
def _address_of(name: bytes) -> SocketAddress:
    """What `recvfrom` would say: link-local addresses with their interface."""
    if len(name) == _IPV4.size:
        _, port, packed = _IPV4.unpack(name)
        return socket.inet_ntop(socket.AF_INET, packed), int.from_bytes(port, "big")
    _, port, _, packed, scope = _IPV6.unpack(name)
    host = socket.inet_ntop(socket.AF_INET6, packed)
    if scope:
        try:
            host = f"{host}%{socket.if_indextoname(scope)}"
        except OSError:  # the interface has just gone
            host = f"{host}%{scope}"
    return host, int.from_bytes(port, "big")
