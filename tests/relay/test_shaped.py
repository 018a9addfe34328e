"""Relays that wait for a bucket, and relays whose first answer is looked at; by the pump and by the reference."""

import time

import pytest
import trio

from tests.harness import settle
from tests.relay.test_pump import Joined, both, joined
from tests.relay.test_pump import Kind as RelayKind
from tests.wires import Ending
from trioproxy.accounting import Termination
from trioproxy.policy.buckets import Bucket, Gate
from trioproxy.policy.shapes import Shape

MB = 1_000_000


def bucket(rate: int = MB, burst: int = 20_000) -> Bucket:
    """One that is full now."""
    return Bucket(rate, burst, time.monotonic())


def shape(down: Bucket, up: Bucket) -> Shape:
    """Gates through one bucket each way."""
    return Shape(Gate([down]), Gate([up]))


def waits(gate: Gate) -> bool:
    """Whether it is in a queue."""
    return bool(gate.waits_at)


async def until_waits(gate: Gate) -> None:
    """Wait until it does."""
    await settle(lambda: waits(gate))


async def flood(joined: Joined, size: int) -> None:
    """The target sends so much and ends."""
    await joined.target.send(bytes(size))
    joined.target.finish()


async def arrived(joined: Joined) -> float:
    """Wait until all has arrived at the client; seconds it took."""
    begun_s = time.monotonic()
    await joined.client.rest()
    return time.monotonic() - begun_s


@both
async def test_is_no_faster_than_its_bucket(kind: RelayKind) -> None:
    """What flows in a time is at most the rate for that time and one burst: it takes at least as long as that says."""
    async with joined(kind, shape=shape(bucket(), bucket())) as relay, trio.open_nursery() as nursery:
        nursery.start_soon(flood, relay, 320_000)
        assert await arrived(relay) >= 0.3 * 0.98
        assert relay.flow.bytes_to_client <= 320_000
        relay.client.finish()
        await relay.over.wait()
    assert relay.flow.bytes_to_client == 320_000


@both
async def test_each_direction_has_its_own(kind: RelayKind) -> None:
    """A full bucket one way waits for nothing that happens the other way."""
    narrow, wide = bucket(1_000, 2_048), bucket(10 * MB, 10 * MB)
    async with joined(kind, shape=shape(narrow, wide)) as relay, trio.open_nursery() as nursery:
        nursery.start_soon(relay.target.send, bytes(10_000))
        await relay.client.send(b"x" * 200_000)
        assert await relay.target.receive(200_000) == b"x" * 200_000
        nursery.cancel_scope.cancel()


async def test_flows_share_a_bucket_fairly() -> None:
    """Four at once: the slowest has at least 0.7 of the fastest. The reference has a test with sessions: one Shaper."""
    shared, other = bucket(4 * MB, 100_000), bucket(100 * MB)
    flows: list[Joined] = []
    enough = trio.Event()

    async def one() -> None:
        async with joined("pump", shape=shape(shared, other)) as relay, trio.open_nursery() as nursery:
            flows.append(relay)
            nursery.start_soon(flood, relay, 10 * MB)
            nursery.start_soon(relay.client.rest)
            await enough.wait()
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)
        while len(flows) < 4 or sum(relay.flow.bytes_to_client for relay in flows) < 3 * MB:
            await trio.sleep(0.05)
        counts = [relay.flow.bytes_to_client for relay in flows]
        enough.set()
    assert min(counts) >= 0.7 * max(counts), counts


@both
async def test_early_data_waits_like_everything_else(kind: RelayKind) -> None:
    """No way round the bucket: what was sent behind the request passes the gate, too; and then the end follows."""
    up = bucket(MB, 20_000)
    begun_s = time.monotonic()
    gates = shape(bucket(), up)
    async with joined(kind, early_data=b"e" * 64_000, client_ended=True, shape=gates) as relay:
        assert await relay.target.rest() == (b"e" * 64_000, Ending.CLOSED)
        assert time.monotonic() - begun_s >= 0.044 * 0.98


@both
async def test_a_flow_that_ends_while_it_waits_leaves_the_queue(kind: RelayKind) -> None:
    """Others go on; nobody waits for the dead."""
    down = bucket(1_000, 2_048)
    gates = shape(down, bucket())
    async with joined(kind, shape=gates) as relay, trio.open_nursery() as nursery:
        nursery.start_soon(relay.target.send, bytes(20_000))
        await until_waits(gates.to_client)
        relay.client.reset()
        with trio.fail_after(15):
            await relay.over.wait()
        nursery.cancel_scope.cancel()
    assert relay.termination is Termination.CLIENT_RESET
    assert not waits(gates.to_client)
    assert down.next_s(time.monotonic()) is None


@both
async def test_a_sender_that_is_reset_while_it_waits_is_noticed(kind: RelayKind) -> None:
    """What it sent is not complete, so the client is told at once and not when the bucket has filled."""
    gates = shape(bucket(1_000, 2_048), bucket())
    async with joined(kind, shape=gates) as relay:
        await relay.target.send(bytes(20_000))
        await until_waits(gates.to_client)
        relay.target.reset()
        with trio.fail_after(15):
            await relay.over.wait()
    assert relay.termination is Termination.TARGET_RESET


@both
async def test_limits_change_while_it_waits(kind: RelayKind) -> None:
    """A lifted limit holds at once for who is queued up behind it, and so does a new one."""
    gates = shape(bucket(1_000, 2_048), bucket())
    async with joined(kind, shape=gates) as relay, trio.open_nursery() as nursery:
        nursery.start_soon(flood, relay, MB)
        await until_waits(gates.to_client)
        relay.relays.reshape(relay.flow, None)
        with trio.fail_after(15):
            assert len((await relay.client.rest())[0]) == MB
        slow = shape(bucket(), bucket(1_000, 2_048))
        relay.relays.reshape(relay.flow, slow)
        nursery.start_soon(relay.client.send, bytes(20_000))
        await until_waits(slow.to_target)
        relay.relays.reshape(relay.flow, None)
        assert await relay.target.receive(20_000) == bytes(20_000)
    relay.relays.reshape(relay.flow, None)  # it is over: nothing happens


# ---- the first answer


class Checked:
    """A check that wants eight bytes and says what it is told to."""

    def __init__(self, verdict: bool) -> None:
        self.verdict = verdict
        self.seen = b""

    def __call__(self, data: bytes) -> bool | None:
        """See `RelaySettings.check`."""
        self.seen += data
        return None if len(self.seen) < 8 else self.verdict


@both
@pytest.mark.parametrize("shaped", [False, True])
async def test_what_is_right_goes_on(kind: RelayKind, shaped: bool) -> None:
    """Nothing is lost and nothing is late; the other way does not wait for it."""
    check = Checked(verdict=True)
    gates = shape(bucket(), bucket()) if shaped else None
    async with joined(kind, check=check, early_data=b"hello", shape=gates) as relay:
        assert await relay.target.receive(5) == b"hello"
        await relay.target.send(b"1234")
        await relay.client.send(b"more")
        assert await relay.target.receive(4) == b"more"
        assert relay.flow.bytes_to_client == 0
        await relay.target.send(b"56789")
        assert await relay.client.receive(9) == b"123456789"
        await relay.target.send(b"z" * 200_000)
        assert await relay.client.receive(200_000) == b"z" * 200_000
    assert check.seen == b"123456789"


@both
async def test_what_is_wrong_never_reaches_the_client(kind: RelayKind) -> None:
    """The relay ends by its own name, and both sides are reset."""
    async with joined(kind, check=Checked(verdict=False)) as relay:
        await relay.target.send(b"12345678")
        assert await relay.client.rest() == (b"", Ending.RESET)
        await relay.over.wait()
    assert relay.termination is Termination.WRONG_ANSWER
    assert relay.flow.bytes_to_client == 0


@both
async def test_half_an_answer_is_wrong_too(kind: RelayKind) -> None:
    """It ends before anybody could tell what it is."""
    async with joined(kind, check=Checked(verdict=True)) as relay:
        await relay.target.send(b"1234")
        relay.target.finish()
        assert await relay.client.rest() == (b"", Ending.RESET)
    assert relay.termination is Termination.WRONG_ANSWER


@both
async def test_no_answer_at_all_is_no_lie(kind: RelayKind) -> None:
    """A target that closes without a word has said nothing wrong."""
    async with joined(kind, check=Checked(verdict=True)) as relay:
        relay.target.finish()
        assert await relay.client.rest() == (b"", Ending.CLOSED)
        relay.client.finish()
        await relay.over.wait()
    assert relay.termination is Termination.TARGET_CLOSED


@both
async def test_a_check_that_takes_its_time(kind: RelayKind) -> None:
    """It says yes to a piece that comes with more than the buffer holds: nothing is lost, and the rest is not late."""
    async with joined(kind, check=Checked(verdict=True), buffers=1_000_000) as relay:
        await relay.target.send(b"1234567")
        await trio.testing.wait_all_tasks_blocked()
        answer = bytes(range(256)) * 1_000
        await relay.target.send(answer)
        assert await relay.client.receive(7 + len(answer)) == b"1234567" + answer


@both
async def test_a_check_behind_a_narrow_gate(kind: RelayKind) -> None:
    """More waits in the kernel when it says yes, as only so much might be read: no edge will tell of that."""
    async with joined(kind, check=Checked(verdict=True), shape=shape(bucket(burst=2_000), bucket())) as relay:
        await relay.target.send(b"z" * 20_000)
        assert await relay.client.receive(20_000) == b"z" * 20_000


@both
async def test_what_was_read_before_is_not_checked_again(kind: RelayKind) -> None:
    """It was looked at when it was read, whether or not it has to wait for a gate."""
    for gates in (None, shape(bucket(burst=2_000), bucket())):
        check = Checked(verdict=True)
        async with joined(kind, early_answer=b"x" * 5_000, check=check, shape=gates) as relay:
            await relay.target.send(b"12345678")
            assert await relay.client.receive(5_008) == b"x" * 5_000 + b"12345678"
        assert check.seen == b"12345678"


@both
async def test_more_waits_behind_what_was_read_before(kind: RelayKind) -> None:
    """The client went on sending before the relay began: nobody will tell of that again."""
    async with joined(kind, early_data=b"first ", shape=shape(bucket(), bucket()), sent_before=b"second") as relay:
        assert await relay.target.receive(12) == b"first second"


@both
async def test_what_was_read_before_goes_first(kind: RelayKind) -> None:
    """The beginning of an answer that somebody has read already."""
    async with joined(kind, early_answer=b"220 ready\r\n") as relay:
        await relay.target.send(b"more")
        assert await relay.client.receive(15) == b"220 ready\r\nmore"
    assert relay.flow.bytes_to_client == 15
