"""The switch for emergencies: what is running is reset, what is new is refused, and others notice nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import pytest

from tests.associations import associated, passes
from tests.changes import relayed
from tests.harness import Running, config_for_tests, running_server, settle
from tests.socks_client import BIND, CONNECT, UDP_ASSOCIATE, connected, logged_in, request
from tests.targets import Origin, black_hole, looking_up
from tests.wires import Ending, UdpSocket
from trioproxy.config import Tenant
from trioproxy.policy import Block, BlockKind, BlockSubject, IPAddress

pytestmark = pytest.mark.usefixtures("either_engine")

REFUSED: Final = b"\5\2\0\1" + bytes(6)
OF_THE_CLIENT: Final = ("user alice", "source 127.0.0.0/8", "everything")
KINDS: Final = (*OF_THE_CLIENT, "target 127.0.0.1", "target 127.0.0.0/8", "target *")


@asynccontextmanager
async def two_tenants(folder: Path) -> AsyncIterator[Running]:
    """Alice of main, and Alice of physics at the second listener; both may do everything."""
    config = config_for_tests(listener=({}, {"tenant": "physics"}), tenant={"physics": Tenant()})
    rules = {scope: ["any:*(*)->*(*)"] for scope in ("user:alice", "user:physics/alice")}
    users = {"alice": "wonderland", "physics/alice": "wonderland"}
    async with running_server(folder, config, users=users, rules=rules) as running:
        yield running


def block(running: Running, text: str, tenant: str | None = None, *, ends_at: datetime | None = None) -> Block:
    """Cut something off, as the command line does."""
    kind, _, what = text.partition(" ")
    subject = BlockSubject.parse(BlockKind(kind), what)
    return running.store.blocks.add(subject, tenant=tenant, reason="attack", set_by="root", ends_at=ends_at)


@pytest.mark.parametrize("text", KINDS)
async def test_a_block_resets_what_runs_and_refuses_what_is_new(tmp_path: Path, text: str) -> None:
    """Issue item 4: for every kind; both sides learn that something is missing; removed, everything works again."""
    async with (
        running_server(tmp_path) as running,
        Origin.open() as origin,
        logged_in(running.address) as client,
    ):
        target = await relayed(client, origin)
        set_now = block(running, text)
        await running.until_idle()
        assert await client.rest() == (b"", Ending.RESET)
        assert await target.rest() == (b"", Ending.RESET)
        for command in (CONNECT, BIND):
            async with logged_in(running.address) as again:
                await again.send(request(command, *origin.address))
                assert await again.rest() == (REFUSED, Ending.CLOSED)
        assert origin.nobody_waits()
        await running.until_idle()
        rows = running.records.rows()
        assert [row["termination"] for row in rows] == ["blocked"] * 3
        assert {row["rule"] for row in rows} == {f"block 1 of {text}: attack"}
        assert running.server.counters["refused_by_block"] == 2
        assert running.server.counters["refused_by_rule"] == 0
        running.store.blocks.remove([set_now.id])
        await running.until_rules_hold()
        async with logged_in(running.address) as again:
            await relayed(again, origin)


@pytest.mark.parametrize("text", OF_THE_CLIENT)
async def test_a_block_ends_an_association(tmp_path: Path, text: str) -> None:
    """Issue item 4 for UDP: its connection is reset, each destination has its record; a new one is refused."""
    async with running_server(tmp_path) as running, associated(running.address) as client, UdpSocket.open() as target:
        await passes(client, target)
        block(running, text)
        await running.until_idle()
        assert await client.control.rest() == (b"", Ending.RESET)
        async with logged_in(running.address) as again:
            await again.send(request(UDP_ASSOCIATE, "0.0.0.0", 0))
            assert await again.rest() == (REFUSED, Ending.CLOSED)
        await running.until_idle()
        rows = running.records.rows()
        assert [(row["termination"], row["rule"]) for row in rows] == [("blocked", f"block 1 of {text}: attack")] * 3
        assert [row["reply"] for row in rows].count(2) == 1
        assert {row["scope"] for row in rows} == {""}


async def test_a_blocked_target_ends_in_an_association_that_goes_on(tmp_path: Path) -> None:
    """Issue item 4 for UDP: what is sent there from now on is dropped; other destinations notice nothing."""
    async with (
        running_server(tmp_path) as running,
        associated(running.address) as client,
        UdpSocket.open("127.0.0.2") as blocked,
        UdpSocket.open("127.0.0.3") as other,
    ):
        for target in (blocked, other):
            await passes(client, target)
        block(running, f"target 127.0.0.2:{blocked.port}")
        await settle(lambda: len(running.records.lines) == 1)
        (row,) = running.records.rows()
        assert (row["target"], row["termination"]) == (f"127.0.0.2:{blocked.port}", "blocked")
        assert row["rule"] == f"block 1 of target 127.0.0.2:{blocked.port}: attack"
        await client.send(blocked.host, blocked.port, b"after")
        await passes(client, other)
        assert blocked.nothing_waits()
        assert running.server.counters["datagram_denied"] == 1


@pytest.mark.parametrize("text", ["user alice", "source *", "everything", "target *"])
async def test_109_other_tenants_notice_nothing(tmp_path: Path, text: str) -> None:
    """Case 109: a block of one tenant ends and refuses nothing of another, TCP and UDP."""
    async with two_tenants(tmp_path) as running, Origin.open() as origin, UdpSocket.open() as target:
        main, physics = running.addresses
        async with logged_in(main) as hit, logged_in(physics) as client, associated(physics) as association:
            await relayed(hit, origin)
            far = await relayed(client, origin)
            await passes(association, target)
            block(running, text, "main")
            assert await hit.rest() == (b"", Ending.RESET)
            await client.send(b"still here")
            assert await far.receive(10) == b"still here"
            await passes(association, target)
            async with logged_in(physics) as again:
                await relayed(again, origin)
            assert running.server.open_sessions >= 2


async def test_clients_without_login_are_blocked(tmp_path: Path) -> None:
    """Issue item 4: by where they come from; who comes from elsewhere goes on."""
    config = config_for_tests(listener=({"anonymous": True},))
    rules = {"global": ["any:*(*)->*(*)"]}
    async with running_server(tmp_path, config, rules=rules) as running, Origin.open() as origin:
        async with (
            connected(running.address, source="127.0.0.2") as hit,
            connected(running.address, source="127.0.0.3") as other,
        ):
            for client in (hit, other):
                assert await client.greet(0) == 0
                await relayed(client, origin)
            block(running, "source 127.0.0.2")
            assert await hit.rest() == (b"", Ending.RESET)
            async with connected(running.address, source="127.0.0.2") as again:
                assert await again.greet(0) == 0
                assert (await again.ask(CONNECT, *origin.address)).code == 2
            await settle(lambda: running.server.open_sessions == 1)


@pytest.mark.parametrize("text", ["target bad.example.org", "target *.example.org:80", "user alice", "everything"])
async def test_a_blocked_name_is_not_looked_up(tmp_path: Path, text: str) -> None:
    """A question to a name server tells its owner something, so whoever is blocked asks none."""
    asked = []

    def lookup(name: str) -> list[IPAddress]:
        asked.append(name)
        return []

    async with running_server(tmp_path, lookup=lookup) as running:
        block(running, text)
        await running.until_rules_hold()
        for command in (CONNECT, BIND):
            async with logged_in(running.address) as client:
                assert (await client.ask(command, b"bad.example.org", 80)).code == 2
        await running.until_idle()
        assert asked == []
        rows = running.records.rows()
        assert [(row["termination"], row["rule"]) for row in rows] == [("blocked", f"block 1 of {text}: attack")] * 2
        assert {row["target"] for row in rows} == {None}


async def test_the_name_that_was_asked_for_is_blocked_in_running_sessions(tmp_path: Path) -> None:
    """The same address, asked for by another name or as an address, is another target."""
    async with (
        running_server(tmp_path, lookup=looking_up("127.0.0.1")) as running,
        Origin.open() as origin,
        logged_in(running.address) as hit,
        logged_in(running.address) as other,
    ):
        assert (await hit.ask(CONNECT, b"bad.example.org", origin.port)).code == 0
        assert (await other.ask(CONNECT, b"good.example.org", origin.port)).code == 0
        block(running, "target bad.example.org")
        assert await hit.rest() == (b"", Ending.RESET)
        await settle(lambda: running.server.open_sessions == 1)


async def test_a_request_under_way_is_refused(tmp_path: Path) -> None:
    """A session that hangs in connecting ends as well, and the client is told."""
    async with black_hole() as port, running_server(tmp_path) as running, logged_in(running.address) as client:
        await client.send(request(CONNECT, "127.0.0.1", port))
        await settle(lambda: running.server.services.sessions.total == 1)
        block(running, "everything")
        assert await client.rest() == (REFUSED, Ending.CLOSED)
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == ["blocked"]


async def test_a_waiting_bind_ends(tmp_path: Path) -> None:
    """Its port is closed: nobody can come any more."""
    async with running_server(tmp_path) as running, logged_in(running.address) as client:
        assert (await client.ask(BIND, "127.0.0.7", 0)).code == 0
        block(running, "target 127.0.0.7")
        assert await client.rest() == (REFUSED, Ending.CLOSED)
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == ["blocked"]


async def test_a_block_ends_by_itself(tmp_path: Path) -> None:
    """`--for`: when the time is over it does nothing any more, without anybody's doing."""
    async with running_server(tmp_path) as running, Origin.open() as origin:
        ends_at = datetime.now(UTC) + timedelta(seconds=3)
        block(running, "user alice", ends_at=ends_at)
        await running.until_rules_hold()
        async with logged_in(running.address) as client:
            assert (await client.ask(CONNECT, *origin.address)).code == 2
        revision = running.store.revision()
        rulebook = running.server.rulebook
        await settle(lambda: rulebook.policy is not None and not rulebook.policy.blocks)
        assert datetime.now(UTC) >= ends_at.replace(microsecond=0)
        assert running.store.revision() == revision
        async with logged_in(running.address) as client:
            await relayed(client, origin)


async def test_a_block_holds_from_the_first_client_on(tmp_path: Path) -> None:
    """It is in the store: a restart forgets nothing."""
    async with running_server(tmp_path) as running:
        block(running, "everything")
    async with running_server(tmp_path, users={}, rules={}) as running, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, "127.0.0.1", 80)).code == 2
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == ["blocked"]


async def test_a_blocked_name_is_not_looked_up_for_datagrams(tmp_path: Path) -> None:
    """The question alone could carry something out."""
    asked: list[str] = []

    def lookup(name: str) -> list[IPAddress]:
        asked.append(name)
        return [IPv4Address("127.0.0.1")]

    async with running_server(tmp_path, lookup=lookup) as running:
        block(running, "target *.bad.example.org")
        await running.until_rules_hold()
        async with associated(running.address) as client:
            await client.send(b"secret.bad.example.org", 53, b"x")
            await settle(lambda: running.server.counters["refused_by_block"] == 1)
            await settle(lambda: running.server.counters["datagram_name_not_resolved"] == 1)
        await running.until_idle()
        assert asked == []
        assert {row["termination"] for row in running.records.rows()} == {"client closed"}
