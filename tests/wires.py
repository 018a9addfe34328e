"""TCP connections and UDP sockets as tests need them: at the level of bytes, with every way to end.

Whatever waits gives up after `PATIENCE_S`, which no test measures; it keeps a failure from being a standstill.
"""

import enum
import select
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Self, TypeAlias

import trio

__all__ = [
    "PATIENCE_S",
    "Ending",
    "SocketAddress",
    "UdpSocket",
    "Wire",
    "dial",
    "dialled",
    "family_of",
    "open_descriptors",
    "readable",
]

SocketAddress: TypeAlias = tuple[str, int]

PATIENCE_S = 15.0
RESET = struct.pack("ii", 1, 0)


class Ending(enum.Enum):
    """How the other end left."""

    CLOSED = "FIN"
    RESET = "RST"


def family_of(host: str) -> socket.AddressFamily:
    """The address family of an address."""
    return socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET


def readable(sock: trio.socket.SocketType) -> bool:
    """Whether something waits to be read or accepted now."""
    return bool(select.select([sock], [], [], 0)[0])


class Wire:
    """One TCP connection, at either end."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.sock = sock
        self._received = bytearray()

    @property
    def local(self) -> SocketAddress:
        """Our own address and port."""
        host, port = self.sock.getsockname()[:2]
        return host, port

    @property
    def other(self) -> SocketAddress:
        """Address and port of the other end."""
        host, port = self.sock.getpeername()[:2]
        return host, port

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        with trio.fail_after(PATIENCE_S), memoryview(data) as rest:
            sent = 0
            while sent < len(rest):
                sent += await self.sock.send(rest[sent:])

    async def receive(self, count: int) -> bytes:
        """Exactly so many octets.

        Raises:
            EOFError: the other end closed before.
        """
        with trio.fail_after(PATIENCE_S):
            while len(self._received) < count:
                data = await self.sock.recv(min(65_536, count - len(self._received)))
                if not data:
                    raise EOFError(f"only {bytes(self._received)!r}")
                self._received += data
        taken = bytes(self._received)
        self._received.clear()
        return taken

    async def rest(self) -> tuple[bytes, Ending]:
        """What still comes, and how it ends."""
        with trio.fail_after(PATIENCE_S):
            while True:
                try:
                    data = await self.sock.recv(65_536)
                except ConnectionResetError:
                    return bytes(self._received), Ending.RESET
                if not data:
                    return bytes(self._received), Ending.CLOSED
                self._received += data

    def finish(self) -> None:
        """Say that no more will come (FIN)."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()

    def close(self) -> None:
        """Close; again is fine."""
        self.sock.close()


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def dial(
    address: SocketAddress, source: str | None = None, port: int = 0, receive_buffer: int | None = None
) -> trio.socket.SocketType:
    """A connected socket, from `source` if that is said."""
    sock = trio.socket.socket(family_of(address[0]), socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            await sock.bind((source, port))
        with trio.fail_after(PATIENCE_S):
            await sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


@asynccontextmanager
async def dialled(address: SocketAddress, source: str | None = None, port: int = 0) -> AsyncIterator[Wire]:
    """A plain connection, there before anybody else in this process can do anything about it."""
    sock = socket.socket(family_of(address[0]), socket.SOCK_STREAM)
    try:
        if source is not None:
            sock.bind((source, port))
        sock.settimeout(PATIENCE_S)
        sock.connect(address)  # blocks, on loopback for microseconds
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    wire = Wire(trio.socket.from_stdlib_socket(sock))
    try:
        yield wire
    finally:
        wire.close()


class UdpSocket:
    """A socket for datagrams, of a client or of a target."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.sock = sock
        self.host: str = sock.getsockname()[0]
        self.port: int = sock.getsockname()[1]

    @classmethod
    @asynccontextmanager
    async def open(cls, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Self]:
        """Bound until the block ends."""
        with trio.socket.socket(family_of(host), socket.SOCK_DGRAM) as sock:
            await sock.bind((host, port))
            yield cls(sock)

    async def send(self, packet: bytes, address: SocketAddress) -> None:
        """Send one datagram."""
        await self.sock.sendto(packet, address)

    async def receive(self) -> tuple[bytes, SocketAddress]:
        """The next datagram, and who sent it."""
        with trio.fail_after(PATIENCE_S):
            packet, sender = await self.sock.recvfrom(65_536)
        return packet, (sender[0], sender[1])

    def nothing_waits(self) -> bool:
        """Whether no datagram is there. On loopback one is there when its `sendto` has returned."""
        return not readable(self.sock)
