"""A SOCKS client at the level of bytes, so that tests can say wrong things.

Nothing here shares code with the server: what is sent is written out, what comes back is taken apart by hand.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TypeAlias

import attrs

from tests.wires import SocketAddress, Wire, dial

__all__ = [
    "BIND",
    "CONNECT",
    "UDP_ASSOCIATE",
    "Answer",
    "Host",
    "SocksClient",
    "connected",
    "destination",
    "logged_in",
    "login",
    "request",
    "unwrapped",
    "wrapped",
]

Host: TypeAlias = str | bytes  # an address as text, or the octets of a name

CONNECT, BIND, UDP_ASSOCIATE = 1, 2, 3


@attrs.frozen
class Answer:
    """A reply of RFC 1928 section 6, taken apart."""

    code: int
    host: str
    port: int
    octets: bytes


def destination(host: Host, port: int) -> bytes:
    """ATYP, ADDR, PORT."""
    if isinstance(host, bytes):
        return bytes([3, len(host)]) + host + port.to_bytes(2)
    address = ip_address(host)
    return bytes([1 if address.version == 4 else 4]) + address.packed + port.to_bytes(2)


def request(command: int, host: Host, port: int) -> bytes:
    """A whole request."""
    return bytes([5, command, 0]) + destination(host, port)


def login(user: bytes = b"alice", password: bytes = b"wonderland") -> bytes:
    """A login of RFC 1929."""
    return bytes([1, len(user)]) + user + bytes([len(password)]) + password


def wrapped(host: Host, port: int, data: bytes, *, fragment: int = 0) -> bytes:
    """A datagram for the relay."""
    return bytes([0, 0, fragment]) + destination(host, port) + data


def unwrapped(packet: bytes) -> tuple[str, int, bytes]:
    """Whence, and what: a datagram from the relay, whose header must be as RFC 1928 section 7 says."""
    assert packet[:3] == b"\0\0\0"
    length = {1: 4, 4: 16}[packet[3]]
    host, rest = packet[4 : 4 + length], packet[4 + length :]
    return str(ip_address(host)), int.from_bytes(rest[:2]), rest[2:]


class SocksClient(Wire):
    """The client's end."""

    async def greet(self, *methods: int) -> int:
        """Offer methods; returns the one chosen."""
        await self.send(bytes([5, len(methods), *methods]))
        version, method = await self.receive(2)
        assert version == 5
        return method

    async def log_in(self, user: bytes = b"alice", password: bytes = b"wonderland") -> int:
        """Greet with method 02 and log in; returns the status."""
        assert await self.greet(2) == 2
        await self.send(login(user, password))
        version, status = await self.receive(2)
        assert version == 1  # of the sub-negotiation
        return status

    async def ask(self, command: int, host: Host, port: int) -> Answer:
        """Send a request, wait for its answer."""
        await self.send(request(command, host, port))
        return await self.answer()

    async def answer(self) -> Answer:
        """The next reply."""
        head = await self.receive(4)
        length = {1: 4, 4: 16}[head[3]]
        tail = await self.receive(length + 2)
        assert head[:1] + head[2:3] == b"\5\0"
        return Answer(head[1], str(ip_address(tail[:-2])), int.from_bytes(tail[-2:]), head + tail)


@asynccontextmanager
async def connected(
    address: SocketAddress, *, source: str | None = None, receive_buffer: int | None = None
) -> AsyncIterator[SocksClient]:
    """A client that has said nothing yet."""
    client = SocksClient(await dial(address, source, 0, receive_buffer))
    try:
        yield client
    finally:
        client.close()


@asynccontextmanager
async def logged_in(
    address: SocketAddress,
    user: bytes = b"alice",
    password: bytes = b"wonderland",
    *,
    source: str | None = None,
    receive_buffer: int | None = None,
) -> AsyncIterator[SocksClient]:
    """A client that has logged in."""
    async with connected(address, source=source, receive_buffer=receive_buffer) as client:
        assert await client.log_in(user, password) == 0
        yield client
