"""Flows through a running server, and how fast they were: when how many bytes have come, and the busiest windows."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs

from tests.socks_client import CONNECT, SocksClient, logged_in
from tests.targets import Origin
from tests.wires import SocketAddress, Wire

__all__ = ["Arrivals", "Joined", "flood", "joined", "receive_all"]

_CHUNK: Final = 65_536


class Arrivals:
    """When how many bytes have come."""

    def __init__(self) -> None:
        self._moments: list[tuple[float, int]] = []
        self.total = 0

    def add(self, count: int) -> None:
        """So many have come now."""
        self.total += count
        self._moments.append((time.monotonic(), count))

    def busiest(self, window_s: float) -> int:
        """The most that came within such a time."""
        most = first = within = 0
        for at_s, count in self._moments:
            within += count
            while self._moments[first][0] < at_s - window_s:
                within -= self._moments[first][1]
                first += 1
            most = max(most, within)
        return most

    def quietest(self, window_s: float, begin_s: float, end_s: float) -> int:
        """The least that came within such a time, between two moments."""
        starts = [at_s for at_s, _ in self._moments if begin_s <= at_s <= end_s - window_s]
        return min(self.between(at_s, at_s + window_s) for at_s in starts)

    def between(self, begin_s: float, end_s: float) -> int:
        """What came after the one moment, until the other."""
        return sum(count for at_s, count in self._moments if begin_s < at_s <= end_s)


@attrs.frozen
class Joined:
    """Both ends of a flow."""

    client: SocksClient
    target: Wire


@asynccontextmanager
async def joined(
    address: SocketAddress, origin: Origin, user: bytes = b"alice", password: bytes = b"wonderland"
) -> AsyncIterator[Joined]:
    """A CONNECT that was granted."""
    async with logged_in(address, user, password) as client:
        assert (await client.ask(CONNECT, *origin.address)).code == 0
        yield Joined(client, await origin.accept())


async def flood(wire: Wire) -> None:
    """Send as fast as it goes, until cancelled or the other end is gone."""
    while True:
        try:
            await wire.sock.send(bytes(_CHUNK))
        except OSError:
            return


async def receive_all(wire: Wire, *arrivals: Arrivals) -> None:
    """Note what comes, until the end."""
    while True:
        try:
            data = await wire.sock.recv(_CHUNK)
        except OSError:
            return
        if not data:
            return
        for one in arrivals:
            one.add(len(data))
