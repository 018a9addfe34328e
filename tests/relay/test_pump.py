"""TCP over real sockets, by the pump and by the reference: the same tests, and the same random script (property P8)."""

import hashlib
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Literal, TypeAlias

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from auth import Identity
from tests.wires import Ending, Wire, open_descriptors
from trioproxy.accounting import Flow, Termination
from trioproxy.client import reset_on_close
from trioproxy.engine import Channel, Engine
from trioproxy.engine.epoll import EpollEngine
from trioproxy.policy import AccessRequest, Permit, RuleProtocol
from trioproxy.policy.shapes import Shape
from trioproxy.relay import ORDERLY, Relays, RelaySettings
from trioproxy.relay.engines import StreamRelays
from trioproxy.relay.pipes import PIPE_BYTES
from trioproxy.relay.pump import Pump

Kind: TypeAlias = Literal["pump", "reference"]
MIB = 1_048_576
LOCALHOST = IPv4Address("127.0.0.1")
REQUEST = AccessRequest(Identity("main", "alice"), LOCALHOST, 1, RuleProtocol.TCP, None, LOCALHOST, 2)
PERMIT = Permit(REQUEST, "global", "tcp:*(*)->*(*)")

both = pytest.mark.parametrize("kind", ["pump", "reference"])


def connection() -> tuple[Wire, socket.socket]:
    """The far end, in the test's hands, and ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    far.setblocking(False)
    near.setblocking(False)
    for sock in (far, near):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Wire(trio.socket.from_stdlib_socket(far)), near


@attrs.define(eq=False)
class Joined:
    """A relay between two far ends.

    Attributes:
        settled: the sockets that were settled.
        termination: how it ended; None as long as it runs, and when it was cancelled.
        fault: what was wrong with us.
    """

    client: Wire
    target: Wire
    flow: Flow
    relays: Relays
    cancel: trio.CancelScope
    over: trio.Event
    settled: list[socket.socket]
    termination: Termination | None = None
    fault: Exception | None = None


@asynccontextmanager
async def joined(
    kind: Kind,
    *,
    early_data: bytes = b"",
    client_ended: bool = False,
    idle_s: float = 60,
    half_closed_s: float = 60,
    pipes_max: int = 8,
    buffers: int | None = None,
    early_answer: bytes = b"",
    check: Callable[[bytes], bool | None] | None = None,
    shape: Shape | None = None,
    sent_before: bytes = b"",
) -> AsyncIterator[Joined]:
    """Relay between two connections until the block ends, and close as a session does."""
    engine, relays = make(kind, pipes_max)
    (client, near), (target, far) = connection(), connection()
    flow = Flow(1, "listener", LOCALHOST, 1, "main")
    result = Joined(client, target, flow, relays, trio.CancelScope(), trio.Event(), [])
    if buffers is not None:
        for sock in (near, far, client.sock, target.sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        nursery.start_soon(relays.run)
        channels = [engine.open(near), engine.open(far)]
        fiber = engine.fiber()
        if sent_before:
            await client.send(sent_before)
            await trio.testing.wait_all_tasks_blocked()  # its edge is told before the relay begins

        async def relay() -> Termination:
            return await relays.relay(
                fiber,
                flow,
                channels[0],
                channels[1],
                RelaySettings(
                    PERMIT,
                    idle_s,
                    half_closed_s,
                    result.settled.append,
                    early_data=early_data,
                    client_ended=client_ended,
                    early_answer=early_answer,
                    check=check,
                    shape=shape,
                ),
            )

        async def session() -> None:
            try:
                result.termination = await fiber.until_cancelled(relay)
            except TypeError as error:
                result.fault = error
            close(engine, channels, result.termination)
            result.over.set()

        async def cancel_when_told() -> None:
            with result.cancel:
                await trio.sleep_forever()
            fiber.cancel()

        fiber.start(session())
        nursery.start_soon(cancel_when_told)
        try:
            yield result
            result.cancel.cancel()
            with trio.fail_after(15):
                await result.over.wait()
        finally:
            client.close()
            target.close()
            nursery.cancel_scope.cancel()


def make(kind: Kind, pipes_max: int) -> tuple[Engine, Relays]:
    """An engine, and the relay that goes with it."""
    if kind == "reference":
        return Engine(), StreamRelays()
    engine = EpollEngine()
    return engine, Pump(engine, pipes_max=pipes_max, descriptors_max=lambda: 100_000)


def close(engine: Engine, channels: Sequence[Channel], termination: Termination | None) -> None:
    """As a session does: in order, or with resets."""
    for channel in channels:
        engine.forget(channel)
        if termination not in ORDERLY:
            reset_on_close(channel.sock)
        channel.sock.close()


# ---- endings


@both
@pytest.mark.parametrize("first", ["client", "target"])
async def test_case_95_half_close(kind: Kind, first: str) -> None:
    """Case 95: one side ends, the other sends as much as it likes afterwards, then its end; exact counts."""
    async with joined(kind) as relay:
        ending, other = (relay.client, relay.target) if first == "client" else (relay.target, relay.client)
        await ending.send(b"question")
        ending.finish()
        assert await other.rest() == (b"question", Ending.CLOSED)
        answer = random.Random(1).randbytes(3 * MIB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.send, answer)
            received = await ending.receive(len(answer))
        other.finish()
        assert (received, await ending.rest()) == (answer, (b"", Ending.CLOSED))
        await relay.over.wait()
    assert relay.termination is Termination[f"{first.upper()}_CLOSED"]
    counts = (relay.flow.bytes_to_target, relay.flow.bytes_to_client)
    assert counts == ((8, len(answer)) if first == "client" else (len(answer), 8))


@both
async def test_last_bytes_and_end_in_one_segment(kind: Kind) -> None:
    """The edge of the end comes with that of the bytes: neither is missed, a hundred times."""
    for _ in range(100):
        async with joined(kind) as relay:
            relay.client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # the FIN goes with the data
            await relay.client.send(b"last words")
            relay.client.finish()
            assert await relay.target.rest() == (b"last words", Ending.CLOSED)
            relay.target.finish()
            assert await relay.client.rest() == (b"", Ending.CLOSED)
            await relay.over.wait()
        assert relay.termination is Termination.CLIENT_CLOSED


@both
@pytest.mark.parametrize("who", ["client", "target"])
async def test_case_96_reset_is_carried_on(kind: Kind, who: str) -> None:
    """Case 96: what came before is delivered, then the other side sees a reset."""
    async with joined(kind) as relay:
        leaving, other = (relay.client, relay.target) if who == "client" else (relay.target, relay.client)
        await leaving.send(b"before")
        assert await other.receive(6) == b"before"
        leaving.reset()
        assert await other.rest() == (b"", Ending.RESET)
        await relay.over.wait()
    assert relay.termination is Termination[f"{who.upper()}_RESET"]


@both
@pytest.mark.parametrize("who", ["client", "target"])
async def test_reset_of_a_sender_that_is_not_read(kind: Kind, who: str) -> None:
    """Its receiver is slow, so nobody reads it: its reset is noticed all the same."""
    async with joined(kind, buffers=65_536) as relay:
        sending, silent = (relay.client, relay.target) if who == "client" else (relay.target, relay.client)
        with trio.move_on_after(0.5):  # until all buffers are full
            await sending.send(bytes(16 * MIB))
        sending.reset()
        assert (await silent.rest())[1] is Ending.RESET
        await relay.over.wait()
    assert relay.termination is Termination[f"{who.upper()}_RESET"]


@both
@pytest.mark.parametrize("who", ["client", "target"])
async def test_receiver_that_is_gone(kind: Kind, who: str) -> None:
    """Writing to it fails: the sender learns of it by a reset."""
    async with joined(kind, buffers=65_536) as relay:
        gone, other = (relay.client, relay.target) if who == "client" else (relay.target, relay.client)
        with trio.move_on_after(0.3):
            await other.send(bytes(16 * MIB))
        gone.reset()
        await relay.over.wait()
        with pytest.raises(OSError, match=r"reset|pipe"):
            await other.send(bytes(MIB))
    assert relay.termination is Termination[f"{who.upper()}_RESET"]


@both
async def test_everything_at_once_before_the_relay_begins(kind: Kind) -> None:
    """Early data goes first; the client may have ended already."""
    async with joined(kind, early_data=b"question", client_ended=True) as relay:
        assert await relay.target.rest() == (b"question", Ending.CLOSED)
        await relay.target.send(b"answer")
        relay.target.finish()
        assert await relay.client.rest() == (b"answer", Ending.CLOSED)
        await relay.over.wait()
    assert relay.termination is Termination.CLIENT_CLOSED
    assert (relay.flow.bytes_to_target, relay.flow.bytes_to_client) == (8, 6)


@both
async def test_client_that_had_ended_without_a_word(kind: Kind) -> None:
    """Its end is passed on, and the target may still speak."""
    async with joined(kind, client_ended=True) as relay:
        assert await relay.target.rest() == (b"", Ending.CLOSED)
        await relay.target.send(b"answer")
        relay.target.finish()
        assert await relay.client.rest() == (b"answer", Ending.CLOSED)
        await relay.over.wait()
    assert relay.termination is Termination.CLIENT_CLOSED


@both
async def test_urgent_mark_in_a_message(kind: Kind) -> None:
    """A read stops before urgent data: what stands behind it arrives all the same."""
    async with joined(kind) as relay:
        with dup(relay.client) as sock:
            for data, flags in ((b"abc", 0), (b"!", socket.MSG_OOB), (b"def", 0)):
                sock.send(data, flags)  # all of them before the relay has its turn
        assert await relay.target.receive(6) == b"abcdef"


@both
@pytest.mark.parametrize("ends", [False, True])
async def test_urgent_mark_in_bulk(kind: Kind, ends: bool) -> None:
    """`splice` says "nothing" or even "the end" before urgent data: neither is believed."""
    async with joined(kind) as relay:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.client.send, bytes(4 * MIB))
            await relay.target.receive(4 * MIB)
        with dup(relay.client) as sock:
            sock.send(b"before")
            sock.send(b"!", socket.MSG_OOB)
            sock.send(b"behind" * 200)
            if ends:
                sock.shutdown(socket.SHUT_WR)
        assert await relay.target.receive(6 + 1_200) == b"before" + b"behind" * 200
        if ends:
            assert await relay.target.rest() == (b"", Ending.CLOSED)


def dup(wire: Wire) -> socket.socket:
    """The same connection for calls that Trio does not have."""
    return socket.socket(fileno=os.dup(wire.sock.fileno()))


async def test_reset_behind_the_end() -> None:
    """The client has ended, the target is silent, and then the client is gone: nothing is waited for any more."""
    async with joined("pump") as relay:
        await relay.client.send(b"question")
        relay.client.finish()
        assert await relay.target.rest() == (b"question", Ending.CLOSED)
        await trio.testing.wait_all_tasks_blocked()
        relay.client.reset()
        with trio.fail_after(15):
            await relay.over.wait()
    assert relay.termination is Termination.CLIENT_RESET


async def test_fault_of_ours_ends_one_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 8: an error in the middle of a message belongs to its session; the engine and the others go on."""
    async with joined("pump") as relay:
        monkeypatch.setattr("trioproxy.relay.way._view", None)  # nothing can be sent from it
        await relay.client.send(b"x")
        assert (await relay.client.rest())[1] is Ending.RESET
        await relay.over.wait()
        assert isinstance(relay.fault, TypeError)
        assert relay.termination is None


# ---- time


@both
async def test_case_98_idle(kind: Kind) -> None:
    """Case 98: nothing moves in either direction: both sides are reset."""
    async with joined(kind, idle_s=0.3) as relay:
        assert (await relay.client.rest())[1] is Ending.RESET
        await relay.over.wait()
    assert relay.termination is Termination.IDLE


@both
async def test_case_98_trickle_keeps_it(kind: Kind) -> None:
    """Case 98: a byte now and then in one direction is enough for both."""
    async with joined(kind, idle_s=0.4) as relay:
        for _ in range(12):
            await relay.target.send(b"x")
            await trio.sleep(0.1)
        assert await relay.client.receive(12) == b"x" * 12
        assert relay.termination is None


@both
async def test_half_closed_has_its_own_limit(kind: Kind) -> None:
    """Once one side has ended, the other has `half_closed_s`."""
    async with joined(kind, half_closed_s=0.2) as relay:
        relay.client.finish()
        assert (await relay.client.rest())[1] is Ending.RESET
        await relay.over.wait()
    assert relay.termination is Termination.IDLE


@both
async def test_target_is_settled(kind: Kind) -> None:
    """Its keep-alive is set, at the latest when the relay has lasted a moment; and once."""
    async with joined(kind, idle_s=1.0) as relay:
        for _ in range(6):
            await relay.client.send(b"x")
            await trio.sleep(0.05)
        assert len(relay.settled) == 1


# ---- bounds, and what is left behind


@both
@pytest.mark.parametrize("silent", ["client", "target"])
async def test_case_97_slow_reader_stops_the_writer(kind: Kind, silent: str) -> None:
    """Case 97: at most 64 KiB or one pipe is held for it, and then all of it arrives."""
    async with joined(kind, buffers=65_536) as relay:
        reading, writing = (relay.client, relay.target) if silent == "client" else (relay.target, relay.client)
        taken = 0
        with trio.move_on_after(0.5):
            while True:
                taken += await writing.sock.send(bytes(65_536))
        assert taken < 2.5 * MIB
        writing.finish()
        data, ending = await reading.rest()
        assert (len(data), ending) == (taken, Ending.CLOSED)
        reading.finish()
        await relay.over.wait()
    counts = (relay.flow.bytes_to_client, relay.flow.bytes_to_target)
    assert taken == counts[silent == "target"]


@both
async def test_cancelled_with_bytes_in_hand(kind: Kind) -> None:
    """Both sides are reset, no descriptor stays, and no more is counted than was handed on."""
    before = open_descriptors()
    async with joined(kind, buffers=65_536) as relay:
        sent = 0
        with trio.move_on_after(0.3):
            while True:
                sent += await relay.client.sock.send(bytes(65_536))
        relay.cancel.cancel()
        received, ending = await relay.target.rest()
        await relay.over.wait()
        assert ending is Ending.RESET
        assert len(received) <= relay.flow.bytes_to_target < sent
    assert relay.termination is None
    assert open_descriptors() == before


async def test_no_pipe_to_be_had() -> None:
    """The bulk is copied then: slower, and all of it."""
    data = random.Random(2).randbytes(8 * MIB)
    async with joined("pump", pipes_max=0) as relay:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.client.send, data)
            assert await relay.target.receive(len(data)) == data


async def test_pipes_come_back() -> None:
    """After bulk in both directions none is in use."""
    data = random.Random(3).randbytes(8 * MIB)
    async with joined("pump") as relay:
        assert isinstance(relay.relays, Pump)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.client.send, data)
            nursery.start_soon(relay.target.send, data)
            assert await relay.target.receive(len(data)) == data
            assert await relay.client.receive(len(data)) == data
        assert relay.relays.pipes.in_use == 0
        await relay.client.send(b"small again")
        assert await relay.target.receive(11) == b"small again"
        assert (relay.flow.bytes_to_target, relay.flow.bytes_to_client) >= (0, 0)
    assert (relay.flow.bytes_to_target, relay.flow.bytes_to_client) == (len(data) + 11, len(data))


async def test_bulk_that_becomes_a_trickle() -> None:
    """After some small reads the pipe is left aside again; nothing is lost on either way."""
    async with joined("pump") as relay:
        for size in (MIB, 100, 100, 100, 100, 100, 100, 3 * MIB, 10):
            data = random.Random(size).randbytes(size)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay.client.send, data)
                assert await relay.target.receive(size) == data


async def test_bulk_takes_small_bites_beside_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever exchanges messages does not wait for a full pipe each time; alone, bulk takes all there is."""
    asked = list[int]()
    real = os.splice

    def splice(source: int, sink: int, count: int, *, flags: int) -> int:
        asked.append(count)
        return real(source, sink, count, flags=flags)

    monkeypatch.setattr(os, "splice", splice)
    async with joined("pump") as relay:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.client.send, bytes(8 * MIB))
            await relay.target.receive(8 * MIB)
        assert PIPE_BYTES in asked
        asked.clear()
        for _ in range(4):  # people talk; a single small piece would be nothing
            await relay.target.send(b"a message")
            assert await relay.client.receive(9) == b"a message"
        await relay.client.send(b"x")
        assert await relay.target.receive(1) == b"x"
        assert asked[0] < PIPE_BYTES


# ---- both by the same script

Step: TypeAlias = tuple[str, str, int]  # what, who, how much

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from(("client", "target")), st.integers(1, 300_000)),
        st.tuples(st.just("read"), st.sampled_from(("client", "target")), st.integers(1, 400_000)),
        st.tuples(st.just("finish"), st.sampled_from(("client", "target")), st.just(0)),
        st.tuples(st.just("reset"), st.sampled_from(("client", "target")), st.just(0)),
        st.tuples(st.just("pause"), st.just(""), st.just(0)),
        st.tuples(st.just("cancel"), st.just(""), st.just(0)),
    ),
    max_size=12,
)


@attrs.define
class End:
    """What one far end has sent and received."""

    sent: bytearray = attrs.field(factory=bytearray)
    received: bytearray = attrs.field(factory=bytearray)
    ending: Ending | None = None
    finished: bool = False


@attrs.define
class Played:
    """What came of a script."""

    ends: dict[str, End]
    termination: Termination | None
    counts: dict[str, int]
    violent: bool


class Script:
    """Plays steps on a relay; everybody reads to the end after the last one, so that nothing is left to chance."""

    def __init__(self, relay: Joined) -> None:
        self.relay = relay
        self.wires = {"client": relay.client, "target": relay.target}
        self.ends = {"client": End(), "target": End()}
        self.random = random.Random(5)
        self.violent = False

    async def play(self, steps: Sequence[Step]) -> None:
        """All steps, until one is violent."""
        for what, who, size in steps:
            await getattr(self, what)(who, size)
            if self.violent:
                break
        if not self.violent:
            async with trio.open_nursery() as nursery:
                for who in self.ends:
                    await self.finish(who, 0)
                    nursery.start_soon(self._read_all, who)
        else:
            for who in self.ends:
                await self._read_all(who)

    async def send(self, who: str, size: int) -> None:
        """Send as much as goes now, unless it has said that no more will come."""
        end, wire = self.ends[who], self.wires[who]
        data = self.random.randbytes(size)
        if not end.finished:
            sent = 0
            with trio.move_on_after(0.005):  # there may be no room for any of it
                sent = await wire.sock.send(data)
            end.sent += data[:sent]

    async def read(self, who: str, size: int) -> None:
        """Read up to `size` of what the other side has sent."""
        end, other = self.ends[who], self.ends["target" if who == "client" else "client"]
        size = min(size, len(other.sent) - len(end.received))
        if size:
            end.received += await self.wires[who].receive(size)

    async def finish(self, who: str, _size: int) -> None:
        """Send no more."""
        if not self.ends[who].finished:
            self.ends[who].finished = True
            self.wires[who].finish()

    async def reset(self, who: str, _size: int) -> None:
        """Leave without a word."""
        self.violent = True
        self.ends[who].ending = Ending.RESET
        self.wires[who].reset()

    async def pause(self, _who: str, _size: int) -> None:
        """Let everything come to rest."""
        await trio.sleep(0.01)

    async def cancel(self, _who: str, _size: int) -> None:
        """End the relay from above."""
        self.violent = True
        self.relay.cancel.cancel()
        await self.relay.over.wait()

    async def _read_all(self, who: str) -> None:
        end = self.ends[who]
        if end.ending is None:
            data, end.ending = await self.wires[who].rest()
            end.received += data


async def play(kind: Kind, steps: Sequence[Step]) -> Played:
    """Play a script on one of the relays."""
    async with joined(kind, buffers=65_536) as relay:
        script = Script(relay)
        await script.play(steps)
        if script.violent:
            relay.cancel.cancel()
        await relay.over.wait()
    counts = {"target": relay.flow.bytes_to_target, "client": relay.flow.bytes_to_client}
    return Played(script.ends, relay.termination, counts, script.violent)


def check(played: Played) -> None:
    """What must hold of any relay (P8): a prefix; all of it where nobody was violent; counts that say so."""
    for who, end in played.ends.items():
        other = played.ends["target" if who == "client" else "client"]
        assert other.sent.startswith(end.received)
        assert len(end.received) <= played.counts[who] <= len(other.sent)
        if not played.violent:
            assert played.termination in ORDERLY
            assert (len(end.received), played.counts[who]) == (len(other.sent), len(other.sent))
            assert end.ending is Ending.CLOSED


@given(STEPS)
@settings(max_examples=60)
def test_both_do_the_same(steps: list[Step]) -> None:
    """P8: driven by the same script, pump and reference both keep the rules, and end alike."""
    before = open_descriptors()
    pump, reference = trio.run(play, "pump", steps), trio.run(play, "reference", steps)
    check(pump)
    check(reference)
    assert pump.violent == reference.violent
    if not pump.violent:
        assert {who: hashlib.sha256(end.received).digest() for who, end in pump.ends.items()} == {
            who: hashlib.sha256(end.received).digest() for who, end in reference.ends.items()
        }
    assert open_descriptors() == before
