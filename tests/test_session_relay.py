"""The TCP relay of a real server: every byte arrives, every ending is carried on, and nobody fills our memory."""

import hashlib
import random
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

import trioproxy.dial
from tests.harness import SOAK, Running, config_for_tests, running_server, settle
from tests.socks_client import CONNECT, SocksClient, logged_in
from tests.targets import Origin
from tests.wires import Ending, Wire
from trioproxy.policy import Permit

pytestmark = pytest.mark.usefixtures("either_engine")

MIB = 1_048_576


async def relayed(running: Running, client: SocksClient, origin: Origin) -> Wire:
    """The target's end of a new relay."""
    assert (await client.ask(CONNECT, *origin.address)).code == 0
    return await origin.accept()


async def pour(wire: Wire, total: int, seed: int, digest: "hashlib._Hash", largest: int) -> None:
    """Send `total` random octets in chunks of random size, then FIN."""
    source = random.Random(seed)
    block = source.randbytes(2 * MIB)
    sent = 0
    while sent < total:
        size = min(source.randint(1, largest), total - sent)
        start = source.randrange(len(block) - size + 1)
        digest.update(block[start : start + size])
        await wire.send(block[start : start + size])
        sent += size
    wire.finish()


async def drain(wire: Wire, total: int, digest: "hashlib._Hash") -> None:
    """Receive `total` octets and FIN."""
    left = total
    while left:
        data = await wire.receive(min(left, 65_536))
        digest.update(data)
        left -= len(data)
    assert await wire.rest() == (b"", Ending.CLOSED)


async def test_much_data_both_ways_at_once(tmp_path: Path) -> None:
    """Case 94: random data in random chunks, both ways at once, sha-256 equal; 1 GiB with `make soak`."""
    total = (1_024 if SOAK else 64) * MIB
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        target = await relayed(running, client, origin)
        up, down = (hashlib.sha256(), hashlib.sha256()), (hashlib.sha256(), hashlib.sha256())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour, client, total, 1, up[0], MIB)
            nursery.start_soon(drain, target, total, up[1])
            nursery.start_soon(pour, target, total, 2, down[0], MIB)
            nursery.start_soon(drain, client, total, down[1])
        assert up[0].digest() == up[1].digest()
        assert down[0].digest() == down[1].digest()
        await running.until_idle()
        (row,) = running.records.rows()
        assert (row["bytes_to_target"], row["bytes_to_client"]) == (total, total)


async def test_one_byte_writes(tmp_path: Path) -> None:
    """Case 94: small messages, each answered, and a run of one-byte writes in both directions."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        target = await relayed(running, client, origin)
        for octet in range(256):
            await client.send(bytes([octet]))
            assert await target.receive(1) == bytes([octet])
            await target.send(bytes([255 - octet]))
            assert await client.receive(1) == bytes([255 - octet])
        digests = [hashlib.sha256() for _ in range(4)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour, client, 5_000, 3, digests[0], 1)
            nursery.start_soon(drain, target, 5_000, digests[1])
            nursery.start_soon(pour, target, 5_000, 4, digests[2], 1)
            nursery.start_soon(drain, client, 5_000, digests[3])
        assert digests[0].digest() == digests[1].digest()
        assert digests[2].digest() == digests[3].digest()


# ---- half-close


@pytest.mark.parametrize("first", ["client", "target"])
async def test_half_close_keeps_the_other_direction(tmp_path: Path, first: str) -> None:
    """Case 95, CASES 1.9 row "half-close": one side says FIN, the other sends 16 MiB afterwards, all of it arrives."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        target = await relayed(running, client, origin)
        ending, other = (client, target) if first == "client" else (target, client)
        await ending.send(b"question")
        ending.finish()
        assert await other.rest() == (b"question", Ending.CLOSED)
        assert running.server.open_sessions == 1
        sent, received = hashlib.sha256(), hashlib.sha256()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour, other, 16 * MIB, 5, sent, MIB)
            nursery.start_soon(drain, ending, 16 * MIB, received)
        assert sent.digest() == received.digest()
        await running.until_idle()
        (row,) = running.records.rows()
        assert row["termination"] == f"{first} closed"


async def test_half_closed_relay_has_its_own_limit(tmp_path: Path) -> None:
    """CASES 1.9 "Half-close": the direction that is left may be silent for `half_closed_s`, then both are reset."""
    config = config_for_tests(limits={"half_closed_s": 0.2})
    async with (
        running_server(tmp_path, config) as running,
        Origin.open() as origin,
        logged_in(running.address) as client,
    ):
        target = await relayed(running, client, origin)
        client.finish()
        assert await target.rest() == (b"", Ending.CLOSED)
        assert await client.rest() == (b"", Ending.RESET)
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == ["idle"]


# ---- resets


@pytest.mark.parametrize("who", ["client", "target"])
async def test_reset_is_carried_on(tmp_path: Path, who: str) -> None:
    """Case 96, CASES 1.9 rows "RST": the other side reads what was delivered, then sees RST and not an end."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        target = await relayed(running, client, origin)
        resetting, other = (client, target) if who == "client" else (target, client)
        await resetting.send(b"half of the tru")
        assert await other.receive(9) == b"half of t"
        resetting.reset()
        received, ending = await other.rest()
        assert (b"he tru".startswith(received), ending) == (True, Ending.RESET)
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == [f"{who} reset"]


@pytest.mark.parametrize("who", ["client", "target"])
async def test_reset_after_half_close_is_carried_on(tmp_path: Path, who: str) -> None:
    """Case 96: who has said FIN and then goes away does not let the other believe that all was delivered."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        target = await relayed(running, client, origin)
        resetting, other = (client, target) if who == "client" else (target, client)
        resetting.finish()
        assert await other.rest() == (b"", Ending.CLOSED)
        resetting.reset()
        with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012 - until the news has come round
            while True:
                await other.send(b"x" * 1_000)
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == [f"{who} reset"]


@pytest.mark.parametrize("who", ["client", "target"])
async def test_reset_reaches_a_side_that_does_not_read(tmp_path: Path, who: str) -> None:
    """Case 96: also while we are stuck in sending to the other side, a reset ends the session at once."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        target = await relayed(running, client, origin)
        resetting, _ = (client, target) if who == "client" else (target, client)
        await fill(resetting)
        resetting.reset()
        await settle(lambda: running.server.open_sessions == 0, within_s=3.0)
        assert [row["termination"] for row in running.records.rows()] == [f"{who} reset"]


async def fill(wire: Wire, most: int = 256 * MIB) -> int:
    """Send until nothing has been taken for a while, at most `most`; returns how much was."""
    sent, chunk = 0, bytes(65_536)
    while sent < most:
        with trio.move_on_after(0.3) as quiet:  # what is measured is that it stops
            sent += await wire.sock.send(chunk)
        if quiet.cancelled_caught:
            break
    return sent


# ---- bounds


def _make_small(sock: Any) -> None:
    """The kernel's buffers would tune themselves up to tens of MiB on this path without delay."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)


@pytest.mark.parametrize("silent", ["client", "target"])
async def test_side_that_does_not_read_stops_the_other(
    tmp_path: Path, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 97, CASES 1.9 "writes without reading": what is taken is bounded by buffers, and then all of it arrives."""

    def open_small(permit: Permit, descriptors_max: int) -> socket.socket:
        sock = real_open(permit, descriptors_max)
        _make_small(sock)
        return sock

    real_open = trioproxy.dial._open
    monkeypatch.setattr(trioproxy.dial, "_open", open_small)
    async with (
        running_server(tmp_path) as running,
        Origin.open() as origin,
        logged_in(running.address, receive_buffer=65_536) as client,
    ):
        for channel in running.server.services.engine.channels():
            _make_small(channel.sock)
        target = await relayed(running, client, origin)
        for wire in (client, target):
            _make_small(wire.sock)
        reader, writer = (client, target) if silent == "client" else (target, client)
        taken = await fill(writer)
        # Four kernel buffers of 128 KiB, which hold some more than that, and at most one pipe of 1 MiB.
        assert taken < 2.5 * MIB
        writer.finish()
        received, ending = await reader.rest()
        assert (len(received), ending) == (taken, Ending.CLOSED)


async def test_echo_to_a_client_that_only_writes_first(tmp_path: Path) -> None:
    """CASES 1.9 row "client writes 3 s without reading (echo)": bounded, no deadlock, and all comes back."""

    async def echo(wire: Wire) -> None:
        while data := await wire.sock.recv(65_536):
            await wire.send(data)
        wire.finish()

    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        target = await relayed(running, client, origin)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, target)
            taken = await fill(client)
            assert taken < 64 * MIB
            client.finish()
            received, ending = await client.rest()
        assert (len(received), ending) == (taken, Ending.CLOSED)


@pytest.mark.parametrize("talking", ["client", "target"])
async def test_idle_time_counts_only_when_both_are_silent(tmp_path: Path, talking: str) -> None:
    """Case 98: a trickle one way keeps the relay; without it both sides are reset."""
    config = config_for_tests(limits={"idle_s": 0.4})
    async with (
        running_server(tmp_path, config) as running,
        Origin.open() as origin,
        logged_in(running.address) as client,
    ):
        target = await relayed(running, client, origin)
        sender, receiver = (client, target) if talking == "client" else (target, client)
        end_s = trio.current_time() + 1.2
        while trio.current_time() < end_s:
            await sender.send(b".")
            assert await receiver.receive(1) == b"."
            with trio.move_on_after(0.1):  # the pace of the trickle
                await trio.sleep_forever()
        assert await receiver.rest() == (b"", Ending.RESET)
        assert await sender.rest() == (b"", Ending.RESET)
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == ["idle"]


async def test_session_in_use_survives_others_that_fail(tmp_path: Path) -> None:
    """Law 8: what goes wrong with one client is nothing to another."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        target = await relayed(running, client, origin)
        for _ in range(10):
            async with logged_in(running.address) as other:
                await relayed(running, other, origin)
                other.reset()
        await client.send(b"still here")
        assert await target.receive(10) == b"still here"
        assert running.server.counters["internal_error"] == 0
