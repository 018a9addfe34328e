"""CONNECT through a real server: replies, addresses, names, the floor, and who is connected in the end."""

import errno
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv6Address
from pathlib import Path

import pytest
import trio

import trioproxy.dial
from tests.harness import SOAK, Running, config_for_tests, running_server, settle
from tests.socks_client import CONNECT, connected, logged_in, login, request
from tests.targets import Origin, black_hole, free_port, looking_up
from tests.wires import Ending, open_descriptors
from trioproxy.config import SocketAddress
from trioproxy.policy import IPAddress

pytestmark = pytest.mark.usefixtures("either_engine")

FAILURE = b"\0\1" + bytes(6)  # what follows VER and REP in every failure
ON_V6: dict[str, object] = {"address": SocketAddress(IPv6Address("::1"), 0)}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("listener", [{}, ON_V6], ids=["from v4", "from v6"])
async def test_success_names_the_address_used_towards_the_target(
    tmp_path: Path, host: str, listener: dict[str, object]
) -> None:
    """RFC 1928 section 6, CASES 1.3: BND.ADDR and BND.PORT are those the target sees; both families, both ways."""
    async with (
        running_server(tmp_path, config_for_tests(listener=(listener,))) as running,
        Origin.open(host) as origin,
        logged_in(running.address) as client,
    ):
        answer = await client.ask(CONNECT, *origin.address)
        target = await origin.accept()
        assert (answer.code, (answer.host, answer.port)) == (0, target.other)
        await client.send(b"there")
        assert await target.receive(5) == b"there"
        await target.send(b"and back")
        assert await client.receive(8) == b"and back"


async def test_bound_address_can_be_hidden(tmp_path: Path) -> None:
    """CASES 1.9 row "BND on CONNECT": the knob `zero` hides inner addresses."""
    config = config_for_tests(listener=({"bound_address": "zero"},))
    async with (
        running_server(tmp_path, config) as running,
        Origin.open() as origin,
        logged_in(running.address) as client,
    ):
        assert (await client.ask(CONNECT, *origin.address)).octets == b"\5\0" + FAILURE


async def test_names_are_resolved_by_us(tmp_path: Path) -> None:
    """RFC 1928 section 5: ATYP 03; the record keeps the name that was asked for and the address that was judged."""
    async with (
        Origin.open() as origin,
        running_server(tmp_path, lookup=looking_up("127.0.0.1")) as running,
        logged_in(running.address) as client,
    ):
        assert (await client.ask(CONNECT, b"Example.ORG.", origin.port)).code == 0
        client.reset()
        await running.until_idle()
        (row,) = running.records.rows()
        assert (row["asked"], row["target"]) == (f"Example.ORG.:{origin.port}", f"127.0.0.1:{origin.port}")


# ---- failures


async def test_refused_port_is_reply_05(tmp_path: Path) -> None:
    """Case 20: connection refused, exactly 10 octets, and the end."""
    async with running_server(tmp_path) as running:
        for host in ("127.0.0.1", "::1"):
            async with logged_in(running.address) as client:
                await client.send(request(CONNECT, host, free_port(host)))
                assert await client.rest() == (b"\5\5" + FAILURE, Ending.CLOSED)


@pytest.mark.parametrize("problem", [OSError(-2, "unknown"), OSError(-3, "try again"), None], ids=str)
async def test_name_without_address_is_reply_04(tmp_path: Path, problem: OSError | None) -> None:
    """Case 20, 93: NXDOMAIN, a failing resolver, and a name with no address."""

    def lookup(name: str) -> list[IPAddress]:
        if problem is not None:
            raise problem
        return []

    async with running_server(tmp_path, lookup=lookup) as running, logged_in(running.address) as client:
        await client.send(request(CONNECT, b"nowhere.example.org", 80))
        assert await client.rest() == (b"\5\4" + FAILURE, Ending.CLOSED)
        client.close()
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == ["name not resolved"]


async def test_resolver_that_never_answers_is_reply_04(tmp_path: Path) -> None:
    """Case 93: 04 when the time for a look-up is over, whatever its thread still does."""
    answer = threading.Event()

    def lookup(name: str) -> list[IPAddress]:
        answer.wait()
        return []

    config = config_for_tests(limits={"resolve_s": 0.2})
    async with running_server(tmp_path, config, lookup=lookup) as running, logged_in(running.address) as client:
        try:
            await client.send(request(CONNECT, b"slow.example.org", 80))
            assert await client.rest() == (b"\5\4" + FAILURE, Ending.CLOSED)
            assert running.server.counters["resolve_timeout"] == 1
        finally:
            answer.set()


async def test_target_that_never_answers_is_reply_04(tmp_path: Path) -> None:
    """Case 20: a SYN into the void, reply 04 when `connect_s` is over."""
    config = config_for_tests(limits={"connect_s": 0.3})
    async with black_hole() as port, running_server(tmp_path, config) as running, logged_in(running.address) as client:
        await client.send(request(CONNECT, "127.0.0.1", port))
        assert await client.rest() == (b"\5\4" + FAILURE, Ending.CLOSED)


@pytest.mark.parametrize(
    ("code", "reply"),
    [
        (errno.ENETUNREACH, 3),
        (errno.EHOSTUNREACH, 4),
        (errno.ETIMEDOUT, 4),
        (errno.ECONNREFUSED, 5),
        (errno.EMFILE, 1),
        (errno.EADDRNOTAVAIL, 1),
        (errno.ENOBUFS, 1),
    ],
)
async def test_failures_of_the_network_have_their_replies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reply: int
) -> None:
    """Case 20, 101, CASES 1.3: the errno map; our own trouble is 01 and never ends the server."""

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(trioproxy.dial, "_open", fail)
    async with running_server(tmp_path) as running, logged_in(running.address) as client:
        await client.send(request(CONNECT, "127.0.0.1", 80))
        assert await client.rest() == (bytes([5, reply]) + FAILURE, Ending.CLOSED)
        client.close()
        await running.until_idle()
        (row,) = running.records.rows()
        assert (row["termination"], row["reply"]) == ("connect failed", reply)


# ---- the client leaves


@asynccontextmanager
async def stuck(folder: Path, where: str) -> AsyncIterator[tuple[Running, tuple[bytes, int]]]:
    """A server, and a destination at which a session stands still: in the look-up or in connecting."""
    answer = threading.Event()

    def lookup(name: str) -> list[IPAddress]:
        answer.wait()
        return []

    async with black_hole() as port, running_server(folder, lookup=lookup) as running:
        try:
            yield running, (b"slow.example.org" if where == "look-up" else b"127.0.0.1", port)
        finally:
            answer.set()


@pytest.mark.parametrize("where", ["look-up", "connect"])
async def test_reset_by_the_client_ends_the_attempt(tmp_path: Path, where: str) -> None:
    """Case 19: RST during look-up or connect ends the session long before their own limits; nothing stays open."""
    times = 20_000 if SOAK else 20
    async with stuck(tmp_path, where) as (running, destination):
        before = open_descriptors()
        for _ in range(times):
            async with connected(running.address) as client:
                await client.send(b"\5\1\2" + login() + request(CONNECT, *destination))
                assert await client.receive(4) == b"\5\2\1\0"
                await settle(lambda: running.server.services.sessions.total == 1)
                client.reset()
            await settle(lambda: running.server.open_sessions == 0, within_s=2.0)
        assert open_descriptors() == before
        assert {row["termination"] for row in running.records.rows()} == {"client reset"}
        assert len(running.records.lines) == times
        assert running.server.services.sessions.total == 0


async def test_reset_by_the_client_ends_a_login_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 19: RST while a backend (a directory, say) does not answer ends the session at once."""
    asked = trio.Event()

    async def hang(*_: object) -> None:
        asked.set()
        await trio.sleep_forever()

    async with running_server(tmp_path) as running, connected(running.address) as client:
        monkeypatch.setattr(running.server.services.authenticator, "authenticate", hang)
        await client.send(b"\5\1\2" + login())
        await asked.wait()
        client.reset()
        await settle(lambda: running.server.open_sessions == 0, within_s=2.0)
        assert running.server.services.handshakes.total == 0


async def test_client_that_leaves_after_success_lets_the_target_know(tmp_path: Path) -> None:
    """Case 24: the target sees FIN (or RST) at once."""
    async with running_server(tmp_path) as running, Origin.open() as origin:
        for leave, ending in (("close", Ending.CLOSED), ("reset", Ending.RESET)):
            async with logged_in(running.address) as client:
                await client.send(request(CONNECT, *origin.address))
                target = await origin.accept()
                await client.answer()
                getattr(client, leave)()
                assert (leave, await target.rest()) == (leave, (b"", ending))
                target.close()
        await running.until_idle()


# ---- several addresses


async def test_second_family_is_tried_when_the_first_is_silent(tmp_path: Path) -> None:
    """Case 21: ::1 is a black hole, 127.0.0.1 answers; success long before `connect_s`, and one connection survives."""
    async with (
        Origin.open("127.0.0.1") as origin,
        black_hole("::1", origin.port) as port,  # few ports of ::1 are taken
        running_server(tmp_path, lookup=looking_up("::1", "127.0.0.1")) as running,
        logged_in(running.address) as client,
    ):
        before = open_descriptors()
        answer = await client.ask(CONNECT, b"both.example.org", port)
        assert (answer.code, answer.host) == (0, "127.0.0.1")
        assert open_descriptors() == before + 1
        await origin.accept()
        assert origin.nobody_waits()


async def test_refused_address_is_followed_by_the_next(tmp_path: Path) -> None:
    """Case 21: nobody listens on the first two addresses; the third is not kept waiting."""
    async with (
        Origin.open("127.0.0.4") as origin,
        running_server(tmp_path, lookup=looking_up("127.0.0.2", "127.0.0.3", "127.0.0.4")) as running,
        logged_in(running.address) as client,
    ):
        answer = await client.ask(CONNECT, b"three.example.org", origin.port)
        assert answer.code == 0
        assert (await origin.accept()).local == ("127.0.0.4", origin.port)


async def test_of_mixed_answers_only_the_permitted_are_tried(tmp_path: Path) -> None:
    """CASES 2.5: an answer mixing allowed and denied addresses; the denied ones get no SYN."""
    async with Origin.open("127.0.0.2") as denied, Origin.open("127.0.0.3", denied.port) as allowed:
        rules = {"user:alice": ["deny tcp:*(*)->127.0.0.2(*)", "tcp:*(*)->*(*)"]}
        lookup = looking_up("127.0.0.2", "127.0.0.3")
        async with (
            running_server(tmp_path, rules=rules, lookup=lookup) as running,
            logged_in(running.address) as client,
        ):
            assert (await client.ask(CONNECT, b"mixed.example.org", denied.port)).code == 0
            assert (await allowed.accept()).local[0] == "127.0.0.3"
            assert denied.nobody_waits()
