"""What shaping costs: processor time for each byte of 1,000 shaped flows, and of as many that are as fast unshaped.

For example:
  python -m tests.bench.shaped                    400 Mbit/s, three rounds
  python -m tests.bench.shaped --flows 100 --rounds 5

Senders of shaped flows always have more to send. Unshaped flows are held back by their senders, who write a chunk again
and again, or by clients that read no faster. What that costs depends on the size of the chunks.
"""

import argparse
import resource
import select
import socket
import statistics
import sys
import time
from contextlib import ExitStack
from typing import ClassVar, Final

import attrs

from tests.bench.processes import cpu_user_system_s
from tests.bench.servers import Anonymous

__all__ = ["Way", "main"]

_WARM_S: Final = 3.0  # until the first bursts are over and buffers are full
_READ_BYTES: Final = 1_048_576
_SENDER_BYTES: Final = 65_536  # it has something to send at any time, and not so much that filling it takes long
_TICK_S: Final = 0.02


@attrs.frozen
class Way:
    """How flows are held back.

    Attributes:
        name: for the reader.
        chunk: written by the sender at once, or read by the client.
        paced: who holds it back: "sender", "client", or "" for the proxy.
        rules: for everybody.
        limits: of the template for each user.
    """

    name: str
    chunk: int = _READ_BYTES
    paced: str = ""
    rule: str = "any:*(*)->*(*)"
    limits: str = ""


class _Shaped(Anonymous):
    """A server with one rule."""

    rules: ClassVar = {"global": ["any:*(*)->*(*)"]}


def ways(flows: int, mbit: int) -> list[Way]:
    """Those that are compared, the one that counts first: programs that stream write some 16 kB at once."""
    return [
        Way("unshaped, chunks of 16 kB", 16_384, "sender"),
        Way("one rate for all", rule=f"any:*(*)->*(*) rate={mbit}Mbit"),
        Way("a rate for each", limits=f"rate={mbit * 1_000 // flows}kbit"),
        Way("unshaped, chunks of 2 kB", 2_048, "sender"),
        Way("unshaped, chunks of 64 kB", 65_536, "sender"),
        Way("unshaped, a client that reads 16 kB", 16_384, "client"),
    ]


class Flows:
    """Both ends of all flows, in this process.

    Args:
        proxy: the port.
        count: how many.
        way: how they are held back; where each has a rate each has an address of its own, and so is a user of his own.
        rate: bytes a second, of all together.
    """

    def __init__(self, proxy: int, count: int, way: Way, rate: float) -> None:
        self._stack = ExitStack()
        self._epoll = self._stack.enter_context(select.epoll())
        self._ends: dict[int, tuple[socket.socket, bool]] = {}
        self._paced = way.paced
        self._held: list[socket.socket] = []
        self._chunk = bytes(way.chunk)
        self._buffer = bytearray(way.chunk if way.paced == "client" else _READ_BYTES)
        self._pace_s = way.chunk / rate  # between two chunks, whosever
        self.received = 0
        listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        for number in range(count):
            source = f"127.0.{number // 250 + 1}.{number % 250 + 1}" if way.limits else "127.0.0.1"
            client = self._stack.enter_context(socket.socket())
            if way.paced == "client":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SENDER_BYTES)
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
        for sock, sends, event in ((client, False, select.EPOLLIN), (sender, True, select.EPOLLOUT)):
            if self._paced == ("sender" if sends else "client"):
                self._held.append(sock)
            else:
                self._epoll.register(sock, event)
                self._ends[sock.fileno()] = sock, sends

    def run(self, seconds: float) -> None:
        """Let them flow."""
        begun_s = time.monotonic()
        due_s, number = begun_s, 0
        while (now_s := time.monotonic()) < begun_s + seconds:
            while self._paced and due_s <= now_s:
                self._move(self._held[number % len(self._held)], sends=self._paced == "sender")
                number += 1
                due_s += self._pace_s
            for descriptor, _ in self._epoll.poll(_TICK_S):
                sock, sends = self._ends[descriptor]
                self._move(sock, sends=sends)

    def _move(self, sock: socket.socket, *, sends: bool) -> None:
        try:
            if sends:
                sock.send(self._chunk)
            else:
                self.received += sock.recv_into(self._buffer)
        except BlockingIOError:
            return

    def close(self) -> None:
        """End them."""
        self._stack.close()


def measure(way: Way, flows: int, mbit: int, seconds: float) -> tuple[float, float, float]:
    """Processor time of the proxy in nanoseconds a byte, of itself and of the kernel, and how many Mbit/s flowed."""
    server = _Shaped()
    type(server).rules = {"global": [way.rule]}
    with server:
        if way.limits:
            server.proxy.command("limit", "set", "global", way.limits)
            time.sleep(1)
        assert server.port is not None
        assert server.pid is not None
        joined = Flows(server.port, flows, way, mbit * 125_000)
        try:
            joined.run(_WARM_S)
            before_s, before, begun_s = cpu_user_system_s(server.pid), joined.received, time.monotonic()
            joined.run(seconds)
            after_s, count, lasted_s = (
                cpu_user_system_s(server.pid),
                joined.received - before,
                time.monotonic() - begun_s,
            )
        finally:
            joined.close()
    user_ns, system_ns = ((late - early) / count * 1e9 for early, late in zip(before_s, after_s, strict=True))
    return user_ns, system_ns, count * 8e-6 / lasted_s


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
            user_ns, system_ns, rate = measure(way, asked.flows, asked.mbit, asked.seconds)
            found[way.name].append(user_ns + system_ns)
            sys.stdout.write(
                f"round {number + 1}: {way.name:35} {user_ns:.3f} + {system_ns:.3f} ns/byte at {rate:.1f} Mbit/s\n"
            )
            sys.stdout.flush()
    first = statistics.median(found[compared[0].name])
    for name, costs in found.items():
        sys.stdout.write(f"{name:35} {statistics.median(costs):7.3f} ns/byte, {statistics.median(costs) / first:.2f}\n")


if __name__ == "__main__":
    main()
