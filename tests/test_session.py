"""The handshake of a real server: what is said wrong, late, in pieces or all at once."""

from functools import partial
from pathlib import Path

import pytest
import trio

from tests.harness import config_for_tests, running_server, settle
from tests.socks_client import CONNECT, connected, destination, logged_in, login, request
from tests.targets import Origin
from tests.wires import Ending
from trioproxy.protocol.connection import RECEIVED_MAX, ServerConnection

GREETING = b"\5\1\2"
FAILURE = b"\0\1" + bytes(6)  # what follows VER and REP in every failure

# What a client sends after its login, and the REP it gets (RFC 1928 sections 4 and 6, CASES 1.9).
WRONG_REQUESTS = {
    "version 04": (b"\4\1\0" + destination("127.0.0.1", 80), 1),
    "command 00": (b"\5\0\0" + destination("127.0.0.1", 80), 7),
    "command 09": (b"\5\x09\0" + destination("127.0.0.1", 80), 7),
    "command F0, Tor RESOLVE": (b"\5\xf0\0" + destination("127.0.0.1", 80), 7),
    "reserved 01": (b"\5\1\1" + destination("127.0.0.1", 80), 1),
    "address type 02": (b"\5\1\0\2\x7f\0\0\1\0\x50", 8),
    "address type 00": (b"\5\1\0\0\x7f\0\0\1\0\x50", 8),
    "empty name": (request(CONNECT, b"", 80), 1),
    "port 0": (request(CONNECT, "127.0.0.1", 0), 1),
}

# What a client sends before its login, and everything it gets before the end (CASES 1.9, case 3 to 5).
WRONG_BEGINNINGS = {
    "no methods": (b"\5\0", b"\5\xff"),
    "SOCKS4": (b"\4\1\0\x50\x7f\0\0\1user\0", b"\0\x5b" + bytes(6)),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", b""),
    "TLS": (b"\x16\3\1\2\0\1\0", b""),
    "zeros": (bytes(8), b""),
    "sub-negotiation of version 05": (GREETING + b"\5\5alice\x0awonderland", b"\5\2\1\1"),
    "no user": (GREETING + login(b"", b"wonderland"), b"\5\2\1\1"),
    "no password": (GREETING + login(b"alice", b""), b"\5\2\1\1"),
    "neither": (GREETING + login(b"", b""), b"\5\2\1\1"),
    "password with NUL and more": (GREETING + login(b"alice", b"wonderland\0junk"), b"\5\2\1\1"),
    "user with NUL and more": (GREETING + login(b"alice\0bob", b"wonderland"), b"\5\2\1\1"),
    "255 times FF": (GREETING + login(b"\xff" * 255, b"\xff" * 255), b"\5\2\1\1"),
}


@pytest.mark.parametrize("name", WRONG_REQUESTS)
async def test_wrong_request_is_answered_with_ten_octets_and_the_end(tmp_path: Path, name: str) -> None:
    """Case 6, 7: the REP of the table, exactly 10 octets, then the connection is closed."""
    sent, reply = WRONG_REQUESTS[name]
    async with running_server(tmp_path) as running, logged_in(running.address) as client:
        await client.send(sent)
        assert await client.rest() == (bytes([5, reply]) + FAILURE, Ending.CLOSED)
        client.close()
        await running.until_idle()


async def test_wrong_beginnings_get_what_the_table_says_and_the_end(tmp_path: Path) -> None:
    """Case 3, 4, 5, 23, 37: NMETHODS 0, other protocols, and logins that no backend is asked about."""
    async with running_server(tmp_path) as running:
        for name, (sent, expected) in WRONG_BEGINNINGS.items():
            async with connected(running.address) as client:
                await client.send(sent)
                received, _ = await client.rest()
                assert (name, received) == (name, expected)
        await running.until_idle()
        counters = running.server.counters
        assert {k for k in counters if k.startswith("violation_")} == {
            f"violation_{kind}"
            for kind in ("no_methods", "socks4", "http", "tls", "not_socks", "bad_subnegotiation_version")
        }
        assert running.records.lines == []


async def test_reserved_octet_is_tolerated_where_the_listener_says_so(tmp_path: Path) -> None:
    """CASES 1.9 row "RSV": a knob for clients that do not send 00."""
    config = config_for_tests(listener=({"tolerate_reserved": True},))
    async with (
        running_server(tmp_path, config) as running,
        Origin.open() as origin,
        logged_in(running.address) as client,
    ):
        await client.send(b"\5\1\x2a" + destination(*origin.address))
        assert (await client.answer()).code == 0


def has_read(connection: ServerConnection, count: int) -> bool:
    """Whether the server has read so many octets."""
    return connection.room == RECEIVED_MAX - count


async def test_one_byte_per_segment(tmp_path: Path) -> None:
    """Case 8, CASES 1.9 row 1: every octet by itself, the next one when it was read, gives the same session."""
    async with running_server(tmp_path) as running, Origin.open() as origin, connected(running.address) as client:
        await settle(lambda: running.server.open_sessions == 1)
        (session,) = running.server._sessions.values()
        connection = session._client._connection
        sent = 0
        asked = request(CONNECT, *origin.address)
        for message, answer in ((GREETING, b"\5\2"), (login(), b"\1\0"), (asked, b"\5\0\0\1")):
            for octet in message:
                await client.send(bytes([octet]))
                sent += 1
                await settle(partial(has_read, connection, sent))
            assert await client.receive(len(answer)) == answer
        await client.receive(6)
        target = await origin.accept()
        await client.send(b"ping")
        assert await target.receive(4) == b"ping"


@pytest.mark.parametrize("finished", [False, True], ids=["open", "half-closed"])
async def test_everything_at_once_with_early_data(tmp_path: Path, finished: bool) -> None:
    """Case 9, CASES 1.9 row 2: greeting, login, request and 60 KiB in one go arrive whole, once, after success."""
    early = bytes(range(256)) * 240
    async with running_server(tmp_path) as running, Origin.open() as origin, connected(running.address) as client:
        await client.send(GREETING + login() + request(CONNECT, *origin.address) + early)
        if finished:
            client.finish()
        assert await client.receive(4) == b"\5\2\1\0"
        assert (await client.answer()).code == 0
        target = await origin.accept()
        assert await target.receive(len(early)) == early
        if finished:
            assert await target.rest() == (b"", Ending.CLOSED)
        await target.send(b"the answer")
        assert await client.receive(10) == b"the answer"


async def test_early_data_beyond_its_bound_waits_and_is_not_lost(tmp_path: Path) -> None:
    """Case 9, 12: what exceeds 64 KiB stays in the kernel until the relay takes it."""
    early = bytes(range(251)) * 1_200  # 301,200 octets
    async with (
        running_server(tmp_path) as running,
        Origin.open() as origin,
        connected(running.address) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.send, GREETING + login() + request(CONNECT, *origin.address) + early)
        target = await origin.accept()
        assert await target.receive(len(early)) == early


async def test_early_data_of_a_refused_request_goes_nowhere(tmp_path: Path) -> None:
    """Case 9, 29: discarded on refusal; the client gets its answer all the same."""
    async with (
        running_server(tmp_path, rules={}) as running,
        Origin.open() as origin,
        connected(running.address) as client,
    ):
        await client.send(GREETING + login() + request(CONNECT, *origin.address) + bytes(60_000))
        received, ending = await client.rest()
        assert (received, ending) == (b"\5\2\1\0" + b"\5\2" + FAILURE, Ending.CLOSED)
        assert origin.nobody_waits()


async def test_request_instead_of_a_login(tmp_path: Path) -> None:
    """Case 15: after `05 02` a request is a broken login; nothing is opened."""
    async with running_server(tmp_path) as running, Origin.open() as origin, connected(running.address) as client:
        assert await client.greet(0, 2) == 2
        await client.send(request(CONNECT, *origin.address))
        assert await client.rest() == (b"\1\1", Ending.CLOSED)
        assert origin.nobody_waits()
        client.close()
        await running.until_idle()


@pytest.mark.parametrize("said", [b"", b"\5", GREETING, GREETING + login(), GREETING + login() + b"\5\1\0\3\xffabc"])
async def test_the_handshake_has_one_deadline_in_all(tmp_path: Path, said: bytes) -> None:
    """Case 12, 16: who stops anywhere in the handshake is gone when its total time is over, without a reply."""
    config = config_for_tests(limits={"handshake_s": 0.3})
    async with running_server(tmp_path, config) as running, connected(running.address) as client:
        await client.send(said)
        received, _ = await client.rest()
        assert received in (b"", b"\5\2", b"\5\2\1\0")
        await running.until_idle()
        assert running.server.counters["handshake_timeout"] == 1


async def test_slow_progress_does_not_extend_the_handshake(tmp_path: Path) -> None:
    """Case 16: one octet now and then is no reason to wait longer."""
    config = config_for_tests(limits={"handshake_s": 0.3})
    async with running_server(tmp_path, config) as running, connected(running.address) as client:
        client_sent = 0
        with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012 - until the server has had enough
            for octet in b"\5\xff" + bytes(255):
                await client.send(bytes([octet]))
                client_sent += 1
                with trio.move_on_after(0.05):  # a slow client's pace, not a wait for the server
                    await trio.sleep_forever()
        assert client_sent < 50
        assert running.server.counters["handshake_timeout"] == 1


@pytest.mark.parametrize("said", [b"", b"\5", GREETING, GREETING + login(), GREETING + login() + b"\5\1\0\3\x20abc"])
@pytest.mark.parametrize("ending", Ending)
async def test_client_leaves_in_the_handshake(tmp_path: Path, said: bytes, ending: Ending) -> None:
    """Case 17: FIN or RST after the greeting or inside a message ends the task, and no record is written."""
    async with running_server(tmp_path) as running, connected(running.address) as client:
        await client.send(said)
        await settle(lambda: running.server.open_sessions == 1)
        if ending is Ending.CLOSED:
            client.close()
        else:
            client.reset()
        await running.until_idle()
        assert running.server.services.handshakes.total == 0
        counters = running.server.counters
        assert (counters["handshake_timeout"], counters["internal_error"]) == (0, 0)
        assert running.records.lines == []


async def test_drain_never_sends_half_a_reply(tmp_path: Path) -> None:
    """Case 26: sessions cut off anywhere in the handshake end with whole messages or nothing."""
    parts = [b"", b"\5", GREETING, GREETING + login()[:9], GREETING + login(), GREETING + login() + b"\5\1\0\1\x7f"]
    async with running_server(tmp_path) as running:
        clients = []
        async with trio.open_nursery() as nursery:

            async def one(part: bytes) -> None:
                async with connected(running.address) as client:
                    await client.send(part)
                    clients.append(client)
                    received, _ = await client.rest()
                    assert received in (b"", b"\5\2", b"\5\2\1\0")

            for part in parts:
                nursery.start_soon(one, part)
            await settle(lambda: len(clients) == len(parts) == running.server.open_sessions)
            running.server.stop()
            running.server.stop()
        await running.until_idle()
