"""Many associations at once through a real server: nothing crosses over, next to nothing is lost, nothing grows."""

import socket
import statistics
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from tests.associations import Associated, associated
from tests.changes import relayed
from tests.harness import SOAK, Running, config_for_tests, running_server, settle
from tests.socks_client import SocksClient, logged_in
from tests.targets import Origin
from tests.wires import UdpSocket, Wire

ASSOCIATIONS = 500 if SOAK else 20
COUNT = 120_000 if SOAK else 2_000
AT_ONCE = 40
RATE_PER_S = 2_000  # datagrams of all associations together: clients, targets and server share one thread here
TICK_S = 0.02
LOSS_MAX = 0.001
ROUND_TRIP_MAX_S = 1.0  # over TCP meanwhile; it is some ms, on a machine that does nothing else
GROWTH_MAX_KIB = 8 * 1024


@attrs.define(eq=False)
class Load:
    """Clients that send, and what comes back to them.

    Attributes:
        strange: answers that should not be.
        counts: datagrams sent by each client.
        round_trips_s: over TCP, how long each took.
    """

    clients: list[Associated]
    target: UdpSocket
    counts: list[int]
    received: int = 0
    strange: Counter[str] = attrs.field(factory=Counter)
    round_trips_s: list[float] = attrs.field(factory=list)

    async def send(self, count: int) -> None:
        """Send so many at `RATE_PER_S` or, on a busy machine, slower; the clients in turn, 20 to 1,200 octets each."""
        for sent in range(count):
            number = sent % len(self.clients)
            data = b"%d:%d:" % (number, self.counts[number])
            await self.clients[number].send(self.target.host, self.target.port, data.ljust(20 + 59 * (sent % 21), b"."))
            self.counts[number] += 1
            if sent % AT_ONCE == AT_ONCE - 1:
                await trio.sleep(AT_ONCE / RATE_PER_S)

    async def receive(self, number: int) -> None:
        """Each answer must carry the client's own tag, come once, and in its order."""
        last = -1
        while True:
            packet, _ = await self.clients[number].udp.sock.recvfrom(65_536)
            tag, count, _ = packet[10:].split(b":", 2)
            if int(tag) != number:
                self.strange["of another client"] += 1
            elif int(count) <= last:
                self.strange["again, or out of order"] += 1
            last = int(count)
            self.received += 1

    async def echo(self) -> None:
        """Send back whatever comes."""
        while True:
            packet, sender = await self.target.sock.recvfrom(65_536)
            await self.target.send(packet, (sender[0], sender[1]))

    async def talk(self, client: SocksClient, far: Wire) -> None:
        """Round trips over TCP."""
        while True:
            began_s = trio.current_time()
            await client.send(b"there")
            assert await far.receive(5) == b"there"
            await far.send(b"back")
            assert await client.receive(4) == b"back"
            self.round_trips_s.append(trio.current_time() - began_s)
            await trio.sleep(TICK_S)


@asynccontextmanager
async def loaded(running: Running) -> AsyncIterator[Load]:
    """Many clients with an association each, and a target that answers."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(associated(running.address)) for _ in range(ASSOCIATIONS)]
        target = await stack.enter_async_context(UdpSocket.open())
        target.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        yield Load(clients, target, [0] * len(clients))


def resident_kib() -> int:
    """Memory of this process: server, clients and target."""
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])


async def test_many_associations(tmp_path: Path) -> None:
    """Case 84: no cross-talk, loss under 0.1 %, memory flat, TCP relays unharmed; 500 associations in `make soak`."""
    limits = {"associations_per_user_max": ASSOCIATIONS, "sessions_per_user_max": ASSOCIATIONS + 10}
    async with (
        running_server(tmp_path, config_for_tests(limits=limits)) as running,
        Origin.open() as origin,
        logged_in(running.address) as tcp,
        loaded(running) as load,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(load.echo)
        for number in range(ASSOCIATIONS):
            nursery.start_soon(load.receive, number)
        nursery.start_soon(load.talk, tcp, await relayed(tcp, origin))
        await load.send(COUNT // 4)  # buffers and caches get their size
        before_kib = resident_kib()
        await load.send(COUNT)
        grown_kib = resident_kib() - before_kib
        with trio.move_on_after(5.0):
            await settle(lambda: load.received == sum(load.counts))
        nursery.cancel_scope.cancel()
    assert load.strange == {}
    assert load.received >= (1 - LOSS_MAX) * sum(load.counts)
    assert grown_kib < GROWTH_MAX_KIB
    assert statistics.median(load.round_trips_s) < ROUND_TRIP_MAX_S
    rows = [row for row in running.records.rows() if row["command"] == "UDP_ASSOCIATE" and row["target"]]
    assert len(rows) == ASSOCIATIONS
    assert all(row["bytes_to_target"] >= row["bytes_to_client"] > 0 for row in rows)
