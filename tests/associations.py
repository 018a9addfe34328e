"""UDP associations for tests: a client with its control connection and its socket for datagrams."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from tests.harness import Running
from tests.socks_client import UDP_ASSOCIATE, Host, SocksClient, logged_in, unwrapped, wrapped
from tests.wires import SocketAddress, UdpSocket

__all__ = ["Associated", "associated", "dropped", "passes"]


@attrs.frozen
class Associated:
    """A client whose association is open.

    Attributes:
        control: its TCP connection.
        udp: the socket from which it sends.
        relay: where it sends to.
    """

    control: SocksClient
    udp: UdpSocket
    relay: SocketAddress

    async def send(self, host: Host, port: int, data: bytes) -> None:
        """One datagram for a target."""
        await self.udp.send(wrapped(host, port, data), self.relay)

    async def receive(self) -> tuple[str, int, bytes]:
        """The next datagram of a target: from where, and what."""
        packet, sender = await self.udp.receive()
        assert sender == self.relay
        return unwrapped(packet)


@asynccontextmanager
async def associated(
    address: SocketAddress,
    user: bytes = b"alice",
    password: bytes = b"wonderland",
    *,
    announce: bool = False,
    source: str | None = None,
) -> AsyncIterator[Associated]:
    """Log in, ask for an association, and open a socket for it.

    Args:
        address: of the listener.
        user: see `login`.
        password: see `login`.
        announce: say in the request from which port the datagrams will come.
        source: the address of the client.
    """
    async with (
        logged_in(address, user, password, source=source) as client,
        UdpSocket.open(client.local[0]) as udp,
    ):
        zeros = "::" if ":" in udp.host else "0.0.0.0"
        answer = await client.ask(UDP_ASSOCIATE, *((udp.host, udp.port) if announce else (zeros, 0)))
        assert answer.code == 0
        yield Associated(client, udp, (answer.host, answer.port))


async def passes(associated: Associated, target: UdpSocket, data: bytes = b"good") -> tuple[str, int]:
    """Send `data` there and back and nothing else may arrive; returns from where the target saw it come."""
    await associated.send(target.host, target.port, data)
    packet, relay = await target.receive()
    assert packet == data
    await target.send(b"re: " + data, relay)
    assert await associated.receive() == (target.host, target.port, b"re: " + data)
    return relay


def dropped(running: Running, reason: str) -> int:
    """How many datagrams were dropped for this reason."""
    return running.server.counters[f"datagram_{reason}"]
