"""The TCP relay over memory streams: every ending, half-close, resets, limits (property P8 in part)."""

from ipaddress import IPv4Address

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock, memory_stream_pair

from auth import Identity
from trioproxy.accounting import Flow, Termination
from trioproxy.policy import AccessRequest, Permit, RuleProtocol
from trioproxy.relay import RelaySettings, ResetWatch, relay_streams
from trioproxy.relay.shaping import RelayGates, Shaper

Stream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]
LOCALHOST = IPv4Address("127.0.0.1")
REQUEST = AccessRequest(Identity("main", "alice"), LOCALHOST, 1, RuleProtocol.TCP, None, LOCALHOST, 2)
PERMIT = Permit(REQUEST, "global", "tcp:*(*)->*(*)")


class Relay:
    """A relay with both far ends in the test's hands."""

    def __init__(self) -> None:
        self.client, self.client_side = memory_stream_pair()
        self.target, self.target_side = memory_stream_pair()
        self.flow = Flow(1, "listener", LOCALHOST, 1, "main")
        self.termination: Termination | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the relay has returned."""
        return self.termination is not None

    async def run(self, early_data: bytes = b"", *, client_ended: bool = False, idle_s: float = 60) -> None:
        """Relay until the end, and keep how it ended."""
        self.termination = await relay_streams(
            self.flow,
            self.client_side,
            self.target_side,
            RelaySettings(PERMIT, idle_s, idle_s / 2, lambda _: None, early_data=early_data, client_ended=client_ended),
            resets=ResetWatch(),
            gates=RelayGates(Shaper(1), None),
        )


async def read_all(stream: Stream) -> bytes:
    """Everything until the end of input."""
    return b"".join([chunk async for chunk in stream])


def broken(stream: MemorySendStream | MemoryReceiveStream) -> None:
    """Make the relay's end of a memory stream behave like a socket whose peer sent RST."""

    async def reset() -> None:
        raise trio.BrokenResourceError

    if isinstance(stream, MemorySendStream):
        stream.send_all_hook = reset
    else:
        stream.receive_some_hook = reset


async def test_case_95_half_close_keeps_the_other_direction(nursery: trio.Nursery) -> None:
    """Case 95: the client has ended; what the target sends afterwards all arrives, then its end."""
    relay = Relay()
    nursery.start_soon(relay.run)
    await relay.client.send_all(b"question")
    await relay.client.send_eof()
    assert await read_all(relay.target) == b"question"
    await relay.target.send_all(b"answer")
    await relay.target.send_eof()
    assert await read_all(relay.client) == b"answer"
    await trio.testing.wait_all_tasks_blocked()
    assert relay.termination is Termination.CLIENT_CLOSED
    assert (relay.flow.bytes_to_target, relay.flow.bytes_to_client) == (8, 6)
    assert relay.flow.verdict is PERMIT


async def test_target_may_end_first(nursery: trio.Nursery) -> None:
    """Half-close the other way round; the record tells who ended first."""
    relay = Relay()
    nursery.start_soon(relay.run)
    await relay.target.send_eof()
    assert await read_all(relay.client) == b""
    await relay.client.send_all(b"still here")
    await relay.client.send_eof()
    assert await read_all(relay.target) == b"still here"
    await trio.testing.wait_all_tasks_blocked()
    assert relay.termination is Termination.TARGET_CLOSED


async def test_early_data_comes_first_and_its_end_is_kept(nursery: trio.Nursery) -> None:
    """Early data goes to the target before anything else; a client that ended already is a half-close."""
    relay = Relay()
    nursery.start_soon(lambda: relay.run(b"early", client_ended=True))
    assert await read_all(relay.target) == b"early"
    await relay.target.send_eof()
    assert await read_all(relay.client) == b""


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("client_side.receive_stream", Termination.CLIENT_RESET),
        ("client_side.send_stream", Termination.CLIENT_RESET),
        ("target_side.receive_stream", Termination.TARGET_RESET),
        ("target_side.send_stream", Termination.TARGET_RESET),
    ],
)
async def test_case_96_reset_ends_the_relay_and_is_named(
    end: str, expected: Termination, nursery: trio.Nursery
) -> None:
    """Case 96: a reset on either side, seen while reading or while writing, ends both directions at once."""
    relay = Relay()
    side, half = end.split(".")
    broken(getattr(getattr(relay, side), half))
    nursery.start_soon(relay.run)
    await relay.client.send_all(b"x")
    await relay.target.send_all(b"x")
    with trio.fail_after(5):
        while relay.termination is None:
            await trio.testing.wait_all_tasks_blocked()
    assert relay.termination is expected


async def test_case_98_idle_relay_ends(autojump_clock: MockClock) -> None:
    """Case 98: nothing moved in either direction for `idle_s`."""
    relay = Relay()
    await relay.run(idle_s=60)
    assert relay.termination is Termination.IDLE
    assert trio.current_time() == pytest.approx(60)


async def test_case_98_trickle_keeps_it(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Case 98: one byte every now and then, one way, keeps the relay."""
    relay = Relay()
    nursery.start_soon(relay.run)
    for _ in range(20):
        await trio.sleep(50)
        await relay.client.send_all(b"x")
    assert not relay.has_ended
    await trio.sleep(61)
    assert relay.termination is Termination.IDLE
    assert relay.flow.bytes_to_target == 20


async def test_half_closed_relay_has_its_own_limit(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Once one direction has ended, silence in the other is borne for `half_closed_s` only."""
    relay = Relay()
    nursery.start_soon(relay.run)
    await relay.client.send_eof()
    await trio.sleep(29)
    assert not relay.has_ended
    await trio.sleep(2)
    assert relay.termination is Termination.IDLE


async def test_slow_reader_stops_the_writer(nursery: trio.Nursery) -> None:
    """Case 97: never more than one chunk for each direction is held."""
    relay = Relay()
    blocked = trio.Event()

    async def never() -> None:
        blocked.set()
        await trio.sleep_forever()

    relay.client_side.send_stream.send_all_hook = never
    nursery.start_soon(relay.run)
    sent = b"x" * 10_000_000
    await relay.target.send_all(sent)
    await blocked.wait()
    await trio.testing.wait_all_tasks_blocked()
    held = len(sent) - len(relay.target_side.receive_stream._incoming._data)
    assert 0 < held <= 65_536
    nursery.cancel_scope.cancel()


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    st.binary(max_size=50),
)
async def test_p8_what_goes_in_comes_out(to_target: list[bytes], to_client: list[bytes], early_data: bytes) -> None:
    """P8: without a reset the output equals the input, each way, and the counters equal the bytes."""
    relay = Relay()

    async def write(stream: Stream, chunks: list[bytes]) -> None:
        for chunk in chunks:
            await stream.send_all(chunk)
        await stream.send_eof()

    results: dict[str, bytes] = {}

    async def read(name: str, stream: Stream) -> None:
        results[name] = await read_all(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run, early_data)
        nursery.start_soon(write, relay.client, to_target)
        nursery.start_soon(write, relay.target, to_client)
        nursery.start_soon(read, "target", relay.target)
        nursery.start_soon(read, "client", relay.client)
    assert results == {"target": early_data + b"".join(to_target), "client": b"".join(to_client)}
    assert relay.flow.bytes_to_target == len(results["target"])
    assert relay.flow.bytes_to_client == len(results["client"])
