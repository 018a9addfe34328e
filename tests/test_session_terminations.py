"""Each way out of a session: one record, with the Termination of its own name (DESIGN section 2, issue item 8)."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from types import MappingProxyType

import pytest
import trio

from tests.harness import Running, config_for_tests, running_server
from tests.socks_client import BIND, CONNECT, UDP_ASSOCIATE, SocksClient, logged_in, request
from tests.targets import Origin, black_hole, free_port
from tests.wires import dialled
from trioproxy.accounting import Termination
from trioproxy.admin.client import ask_server, socket_path
from trioproxy.policy import BlockKind, BlockSubject, IPAddress

pytestmark = pytest.mark.usefixtures("either_engine")


async def ask(running: Running, command: int, host: str | bytes, port: int) -> None:
    """A request that fails."""
    async with logged_in(running.address) as client:
        assert (await client.ask(command, host, port)).code != 0


async def relay(running: Running, end: Callable[[SocksClient, Origin], Awaitable[None]]) -> None:
    """A relay that ends in some way."""
    async with Origin.open() as origin, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, *origin.address)).code == 0
        await end(client, origin)
        await running.until_idle()


async def client_closes(client: SocksClient, origin: Origin) -> None:
    """FIN of the client, then of the target."""
    client.finish()
    target = await origin.accept()
    await target.rest()
    target.close()


async def target_closes(client: SocksClient, origin: Origin) -> None:
    """FIN of the target, then of the client."""
    (await origin.accept()).finish()
    await client.rest()
    client.close()


async def client_resets(client: SocksClient, origin: Origin) -> None:
    """RST of the client."""
    client.reset()


async def target_resets(client: SocksClient, origin: Origin) -> None:
    """RST of the target."""
    (await origin.accept()).reset()


async def nothing_moves(client: SocksClient, origin: Origin) -> None:
    """Silence."""
    await client.rest()


async def connect_timeout(running: Running) -> None:
    """Nobody answers."""
    async with black_hole() as port:
        await ask(running, CONNECT, "127.0.0.1", port)


async def wrong_target(running: Running) -> None:
    """Somebody else comes."""
    async with logged_in(running.address) as client:
        first = await client.ask(BIND, "127.0.0.7", 0)
        async with dialled((first.host, first.port), "127.0.0.8"):
            assert (await client.answer()).code == 2


async def nobody_comes(running: Running) -> None:
    """Nobody comes."""
    async with logged_in(running.address) as client:
        assert [await client.ask(BIND, "127.0.0.7", 0), await client.answer()][1].code == 4


async def revoked(running: Running) -> None:
    """A rule forbids it."""
    async with Origin.open() as origin, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, *origin.address)).code == 0
        running.add_rules({"global": ["deny tcp:*(*)->*(*)"]})
        await client.rest()


async def killed(running: Running) -> None:
    """An administrator ends it."""
    async with Origin.open() as origin, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, *origin.address)).code == 0
        path = socket_path(running.store.path)
        assert len(await trio.to_thread.run_sync(lambda: list(ask_server(path, "kill", {"user": "alice"})))) == 1
        await client.rest()


async def blocked(running: Running) -> None:
    """An administrator pulls the plug."""
    async with Origin.open() as origin, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, *origin.address)).code == 0
        running.store.blocks.add(BlockSubject(BlockKind.EVERYTHING), reason="attack", set_by="root")
        await client.rest()


async def drained(running: Running) -> None:
    """The server stops."""
    async with Origin.open() as origin, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, *origin.address)).code == 0
        running.server.stop()
        running.server.stop()
        await client.rest()


async def too_many(running: Running) -> None:
    """Only the reserve of descriptors is left."""
    async with logged_in(running.address) as client:
        running.server.services.descriptors_max = 3
        assert (await client.ask(UDP_ASSOCIATE, "0.0.0.0", 0)).code == 1


async def too_old(running: Running) -> None:
    """The store was last read too long ago."""
    async with logged_in(running.address) as client:
        running.server.rulebook._stale_max_s = -1.0
        assert (await client.ask(CONNECT, "127.0.0.1", 80)).code == 1


async def fault(running: Running) -> None:
    """We have made a mistake."""
    async with logged_in(running.address) as client:
        running.server.services.rulebook = None  # type: ignore[assignment]  # the mistake
        await client.send(request(CONNECT, "127.0.0.1", 80))
        await client.rest()
        await running.until_idle()
        running.server.services.rulebook = running.server.rulebook


WAYS_OUT = MappingProxyType[Termination, Callable[[Running], Awaitable[None]]](
    {
        Termination.CLIENT_CLOSED: lambda running: relay(running, client_closes),
        Termination.TARGET_CLOSED: lambda running: relay(running, target_closes),
        Termination.CLIENT_RESET: lambda running: relay(running, client_resets),
        Termination.TARGET_RESET: lambda running: relay(running, target_resets),
        Termination.IDLE: lambda running: relay(running, nothing_moves),
        Termination.REVOKED: revoked,
        Termination.KILLED: killed,
        Termination.BLOCKED: blocked,
        Termination.DRAINED: drained,
        Termination.MALFORMED_DESTINATION: lambda running: ask(running, CONNECT, b"127.1", 80),
        Termination.REFUSED: lambda running: ask(running, CONNECT, "0.0.0.0", 80),
        Termination.LIMIT: too_many,
        Termination.RESOLVE_FAILED: lambda running: ask(running, CONNECT, b"nowhere.example.org", 80),
        Termination.CONNECT_FAILED: connect_timeout,
        Termination.BIND_TIMEOUT: nobody_comes,
        Termination.BIND_WRONG_TARGET: wrong_target,
        Termination.POLICY_STALE: too_old,
        Termination.INTERNAL_ERROR: fault,
    }
)
WITHOUT_RECORD = {
    Termination.HANDSHAKE_TIMEOUT,
    Termination.CROWDED_OUT,  # see test_session_limits
    Termination.PROTOCOL_ERROR,
    Termination.NO_METHOD,
    Termination.LOGIN_REJECTED,
    Termination.LOGIN_UNAVAILABLE,
    Termination.WRONG_ANSWER,  # see relay/test_shaped
    Termination.WRONG_APP,  # see test_session_apps
    Termination.OUT_OF_HOURS,  # see test_session_hours
    Termination.QUOTA,  # see test_session_quotas
    Termination.FORGOTTEN,  # of one destination, see test_session_udp_rules
}


def test_every_termination_has_its_way_out_here() -> None:
    """DESIGN section 2: every flow ends with one Termination; a new one needs a test."""
    assert set(Termination) == WAYS_OUT.keys() | WITHOUT_RECORD


@pytest.mark.parametrize("termination", WAYS_OUT)
async def test_each_way_out_leaves_one_record(tmp_path: Path, termination: Termination) -> None:
    """Issue item 8: exactly one line for each flow, with exactly this Termination."""

    def lookup(name: str) -> list[IPAddress]:
        raise OSError(-2, "unknown")

    config = config_for_tests(limits={"connect_s": 0.2, "bind_s": 0.2, "idle_s": 0.3})
    async with running_server(tmp_path, config, lookup=lookup) as running:
        await WAYS_OUT[termination](running)
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == [termination.value]
        assert running.server.counters["internal_error"] == (termination is Termination.INTERNAL_ERROR)


async def test_fault_of_ours_ends_one_session_and_shows_no_secret(tmp_path: Path) -> None:
    """Law 8, case 36: the traceback is in the log, without what the client said; the next client is served."""
    async with running_server(tmp_path, users={"alice": "PW-CANARY"}) as running:
        async with logged_in(running.address, b"alice", b"PW-CANARY") as client:
            running.server.services.rulebook = None  # type: ignore[assignment]  # the mistake
            await client.send(request(CONNECT, "127.0.0.1", 80))
            await client.rest()
            await running.until_idle()
            running.server.services.rulebook = running.server.rulebook
        assert "Traceback" in running.log.text()
        assert "PW-CANARY" not in running.log.text() + running.records.text()
        async with logged_in(running.address, b"alice", b"PW-CANARY") as client:
            assert (await client.ask(CONNECT, "127.0.0.1", free_port())).code == 5


async def test_what_ended_a_session_first_is_its_termination(tmp_path: Path) -> None:
    """DESIGN section 2: a refused client that is slow to close is not "server stopped" when we stop meanwhile."""
    async with running_server(tmp_path, rules={}) as running, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, "127.0.0.1", 80)).code == 2
        running.server.stop()
        running.server.stop()
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == ["refused by rule"]
