"""What shaping costs: processor time for each byte of 1,000 shaped flows, and of as many that are as fast unshaped.

For example:
  python -m tests.bench.shaped                    400 Mbit/s, three rounds
  python -m tests.bench.shaped --flows 100 --rounds 5

The unshaped flows are held back by their sender, who writes a chunk to each of them again and again. What that costs
depends on the size of the chunks: so it is measured with chunks as large as the turns of shaped flows are, with smaller
ones, and with larger ones.
"""

import argparse
import resource
import select
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar, Final

import attrs

from tests.bench.processes import cpu_s
from tests.bench.servers import Anonymous

__all__ = ["Way", "main"]

_WARM_S: Final = 3.0  # until the first bursts are over and buffers are full
_READ_BYTES: Final = 1_048_576
_SENDER_BYTES: Final = 65_536  # it has something to send at any time, and not so much that filling it takes long
_TICK_S: Final = 0.02
_ACROSS_S: Final = 0.25  # in which every flow of a bucket has its turn


@attrs.frozen
class Way:
    """How flows are held back.

    Attributes:
        name: for the reader.
        chunk: written by the sender at once; 0: as much as it may.
        rules: for everybody.
        limits: of the template for each user.
    """

    name: str
    chunk: int
    rule: str = "any:*(*)->*(*)"
    limits: str = ""


class _Shaped(Anonymous):
    """A server with one rule."""

    rules: ClassVar = {"global": ["any:*(*)->*(*)"]}


def ways(flows: int, mbit: int) -> list[Way]:
    """Those that are compared, the one that counts first."""
    turn = int(mbit * 125_000 / flows * _ACROSS_S)
    return [
        Way("unshaped, chunks as turns", turn),
        Way("one rate for all", 0, rule=f"any:*(*)->*(*) rate={mbit}Mbit"),
        Way("a rate for each", 0, limits=f"rate={mbit * 1_000 // flows}kbit"),
        Way("unshaped, 2 kB", 2_048),
        Way("unshaped, 4 kB", 4_096),
        Way("unshaped, 64 kB", 65_536),
    ]


class Flows:
    """Both ends of all flows, in this process.

    Args:
        proxy: the port.
        count: how many.
        sources: whether each has an address of its own, and so is a user of his own.
        chunk: see `Way`.
        rate: bytes a second, of all together.
    """

    def __init__(self, proxy: int, count: int, *, sources: bool, chunk: int, rate: float) -> None:
        self._stack = ExitStack()
        self._epoll = self._stack.enter_context(select.epoll())
        self._ends: dict[int, tuple[socket.socket, bool]] = {}
        self._senders: list[socket.socket] = []
        self._chunk = bytes(chunk or _READ_BYTES)
        self._pace_s = chunk / rate if chunk else 0.0  # between two chunks, whosever
        self.received = 0
        listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        for number in range(count):
            source = f"127.0.{number // 250 + 1}.{number % 250 + 1}" if sources else "127.0.0.1"
            client = self._stack.enter_context(socket.socket())
            client.bind((source, 0))
            client.connect(("127.0.0.1", proxy))
            client.sendall(b"\5\1\0\5\1\0\1\x7f\0\0\1" + listener.getsockname()[1].to_bytes(2))
            sender = self._stack.enter_context(listener.accept()[0])
            answer = client.recv(12, socket.MSG_WAITALL)
            if answer[:4] != b"\5\0\5\0":
                raise OSError(f"the proxy said {answer!r}")
            self._join(client, sender)

    def _join(self, client: socket.socket, sender: socket.socket) -> None:
        for sock in (client, sender):
            sock.setblocking(False)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SENDER_BYTES)
        self._epoll.register(client, select.EPOLLIN)
        self._ends[client.fileno()] = client, False
        self._senders.append(sender)
        if not self._pace_s:
            self._epoll.register(sender, select.EPOLLOUT)
            self._ends[sender.fileno()] = sender, True

    def run(self, seconds: float) -> None:
        """Let them flow."""
        begun_s = time.monotonic()
        due_s, number, buffer = begun_s, 0, bytearray(_READ_BYTES)
        while (now_s := time.monotonic()) < begun_s + seconds:
            while self._pace_s and due_s <= now_s:
                with _nothing_lost():
                    self._senders[number % len(self._senders)].send(self._chunk)
                number += 1
                due_s += self._pace_s
            for descriptor, _ in self._epoll.poll(_TICK_S):
                sock, sends = self._ends[descriptor]
                with _nothing_lost():
                    if sends:
                        sock.send(self._chunk)
                    else:
                        self.received += sock.recv_into(buffer)

    def close(self) -> None:
        """End them."""
        self._stack.close()


@contextmanager
def _nothing_lost() -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        return


def measure(way: Way, flows: int, mbit: int, seconds: float) -> tuple[float, float]:
    """Processor time of the proxy in nanoseconds a byte, and how many Mbit/s flowed."""
    server = _Shaped()
    type(server).rules = {"global": [way.rule]}
    with server:
        if way.limits:
            server.proxy.command("limit", "set", "global", way.limits)
            time.sleep(1)
        assert server.port is not None
        assert server.pid is not None
        joined = Flows(server.port, flows, sources=bool(way.limits), chunk=way.chunk, rate=mbit * 125_000)
        try:
            joined.run(_WARM_S)
            before_s, before, begun_s = cpu_s(server.pid), joined.received, time.monotonic()
            joined.run(seconds)
            used_s, count, lasted_s = cpu_s(server.pid) - before_s, joined.received - before, time.monotonic() - begun_s
        finally:
            joined.close()
    return used_s / count * 1e9, count * 8e-6 / lasted_s


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=1_000)
    parser.add_argument("--mbit", type=int, default=400, help="of all flows together")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=int, default=None, help="the first so many ways")
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    compared = ways(asked.flows, asked.mbit)[: asked.only]
    found: dict[str, list[float]] = {way.name: [] for way in compared}
    for number in range(asked.rounds):
        for way in compared:
            cost_ns, rate = measure(way, asked.flows, asked.mbit, asked.seconds)
            found[way.name].append(cost_ns)
            sys.stdout.write(f"round {number + 1}: {way.name:28} {cost_ns:7.3f} ns/byte at {rate:6.1f} Mbit/s\n")
            sys.stdout.flush()
    first = statistics.median(found[compared[0].name])
    for name, costs in found.items():
        sys.stdout.write(f"{name:28} {statistics.median(costs):7.3f} ns/byte, {statistics.median(costs) / first:.2f}\n")


if __name__ == "__main__":
    main()
