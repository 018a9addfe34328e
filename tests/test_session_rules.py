"""Users and rules change under running sessions: what is new holds within 1 s, what is forbidden ends within 2 s."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import trio

import trioproxy.server
from auth.passwords import DEFAULT_PASSWORDS
from tests.changes import change, ended, relayed, remove_rules
from tests.harness import Running, running_server, settle
from tests.socks_client import CONNECT, connected, logged_in, request
from tests.targets import Origin, black_hole, looking_up
from tests.wires import Ending
from trioproxy.dial import dial, dial_first
from trioproxy.engine import Channel, Engine, Fiber
from trioproxy.policy import Permit, Scope, parse_rule

pytestmark = pytest.mark.usefixtures("either_engine")

FAILURE = b"\0\1" + bytes(6)  # what follows VER and REP in every failure
HOLDS_WITHIN_S = 1.0  # issue item 6


# How a user loses the right to use the proxy.
REVOCATIONS = MappingProxyType[str, Callable[[Running], object]](
    {
        "disabled": lambda running: change(running, disabled=True),
        "removed": lambda running: running.store.users.remove("main", "alice"),
        "no member any more": lambda running: change(running, groups=frozenset()),
        "other password": lambda running: change(running, password_hash=DEFAULT_PASSWORDS.hash("looking-glass")),
        "expired": lambda running: change(running, valid_until=datetime.now(UTC) - timedelta(days=1)),
        "from tomorrow on": lambda running: change(running, valid_from=datetime.now(UTC) + timedelta(days=1)),
        "from nowhere": lambda running: change(running, sources=()),
    }
)


async def test_new_rule_holds_without_restart(tmp_path: Path) -> None:
    """Issue item 6: what a new rule allows works within 1 s, for sessions that begin then."""
    async with running_server(tmp_path, rules={}) as running, Origin.open() as origin:
        async with logged_in(running.address) as client:
            assert (await client.ask(CONNECT, *origin.address)).code == 2
        running.add_rules({"user:alice": ["tcp:*(*)->127.0.0.1(*)"]})
        await settle(lambda: running.server.rulebook.revision == running.store.revision(), HOLDS_WITHIN_S)
        async with logged_in(running.address) as client:
            await relayed(client, origin)


async def test_a_rule_speaks_in_its_hours(tmp_path: Path) -> None:
    """The clock is read for each verdict, in the zone of the configuration: around today, and three days from now."""
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    today = datetime.now(UTC).weekday()
    near = f"{days[today - 1]}-{days[(today + 1) % 7]}@00:00-24:00"
    far = f"{days[(today + 3) % 7]}@00:00-24:00"
    rules = {"user:alice": [f"tcp:*(*)->127.0.0.1(*) when={far}", f"tcp:*(*)->127.0.0.2(*) when={near}"]}
    async with running_server(tmp_path, rules=rules) as running, Origin.open() as origin:
        async with logged_in(running.address) as client:
            assert (await client.ask(CONNECT, *origin.address)).code == 2
        async with logged_in(running.address) as client:
            port = origin.address[1]
            assert (await client.ask(CONNECT, "127.0.0.2", port)).code != 2


@pytest.mark.parametrize("scope", ["global", "tenant:main", "group:system-proxy", "user:alice"])
async def test_new_deny_ends_the_relay_with_resets(tmp_path: Path, scope: str) -> None:
    """Issue item 6: in whatever layer; both sides learn that something is missing; the record names the rule."""
    async with (
        running_server(tmp_path, rules={"tenant:main": ["tcp:*(*)->*(*)"]}) as running,
        Origin.open() as origin,
        logged_in(running.address) as client,
    ):
        target = await relayed(client, origin)
        running.store.rules.add(Scope.parse(scope), parse_rule("deny tcp:*(*)->127.0.0.1(*)"), 1)
        await ended(running)
        assert await client.rest() == (b"", Ending.RESET)
        assert await target.rest() == (b"", Ending.RESET)
        (row,) = running.records.rows()
        assert (row["termination"], row["scope"]) == ("no longer allowed", scope)
        assert row["rule"] == "deny tcp:*(*)->127.0.0.1(*)"


async def test_removed_rule_ends_the_relay(tmp_path: Path) -> None:
    """Issue item 6: what nobody allows any more ends too."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        target = await relayed(client, origin)
        remove_rules(running)
        await ended(running)
        assert await target.rest() == (b"", Ending.RESET)


async def test_change_that_forbids_nothing_leaves_sessions_alone(tmp_path: Path) -> None:
    """Issue item 6: other users' rules, more rules, another order: the relay goes on."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        target = await relayed(client, origin)
        running.add_rules(
            {
                "user:bob": ["deny any:*(*)->*(*)"],
                "user:physics/alice": ["deny any:*(*)->*(*)"],
                "group:staff": ["deny any:*(*)->*(*)"],
                "global": ["deny udp:*(*)->*(*)", "deny tcp:*(*)->127.0.0.2(*)"],
            }
        )
        await running.until_rules_hold()
        await settle(lambda: running.server.counters["store_changes"] >= 1)
        await client.send(b"still here")
        assert await target.receive(10) == b"still here"
        assert running.server.open_sessions == 1


async def test_rules_about_the_asked_name_hold_for_running_sessions(tmp_path: Path) -> None:
    """DESIGN section 3: names are matched against the name the client asked for, also when rules change."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        await client.send(request(CONNECT, b"localhost", origin.port))
        assert (await client.answer()).code == 0
        await origin.accept()
        running.add_rules({"global": ["deny tcp:*(*)->localhost(*)"]})
        await ended(running)


@pytest.mark.parametrize("how", REVOCATIONS)
async def test_revoked_user_is_out(tmp_path: Path, how: str) -> None:
    """Case 43: the running relay ends within 2 s, and a login remembered a moment ago is worth nothing."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        target = await relayed(client, origin)
        REVOCATIONS[how](running)
        await ended(running)
        assert await target.rest() == (b"", Ending.RESET)
        assert [row["termination"] for row in running.records.rows()] == ["no longer allowed"]
        async with connected(running.address) as again:
            assert await again.log_in() == 1


async def test_new_password_works_at_once(tmp_path: Path) -> None:
    """Case 43: and the old one does not, although it was remembered."""
    async with running_server(tmp_path) as running:
        async with logged_in(running.address):
            pass
        change(running, password_hash=DEFAULT_PASSWORDS.hash("looking-glass"))
        await settle(lambda: running.server.rulebook.revision == running.store.revision(), HOLDS_WITHIN_S)
        async with connected(running.address) as client:
            assert await client.log_in(b"alice", b"wonderland") == 1
        async with connected(running.address) as client:
            assert await client.log_in(b"alice", b"looking-glass") == 0


async def test_account_that_expires_ends_its_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 41: time alone ends them, without any change of the store."""
    monkeypatch.setattr(trioproxy.server, "REVALIDATE", timedelta(seconds=0.1))
    async with running_server(tmp_path) as running, Origin.open() as origin:
        until = datetime.now(UTC) + timedelta(seconds=2)
        change(running, valid_until=until)
        await running.until_rules_hold()
        async with logged_in(running.address) as client:
            target = await relayed(client, origin)
            assert await target.rest() == (b"", Ending.RESET)
            assert datetime.now(UTC) >= until.replace(microsecond=0)
        async with connected(running.address) as client:
            assert await client.log_in() == 1


async def test_user_disabled_between_login_and_request(tmp_path: Path) -> None:
    """Case 43: logged in, then revoked, then the request: 02, and nothing is opened."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        change(running, disabled=True)
        await running.until_rules_hold()
        await client.send(request(CONNECT, *origin.address))
        assert await client.rest() == (b"\5\2" + FAILURE, Ending.CLOSED)
        assert origin.nobody_waits()


async def test_user_disabled_while_connecting(tmp_path: Path) -> None:
    """Case 43, law 2: a session that hangs in connecting ends as well."""
    async with black_hole() as port, running_server(tmp_path) as running, logged_in(running.address) as client:
        await client.send(request(CONNECT, "127.0.0.1", port))
        await settle(lambda: running.server.services.sessions.total == 1)
        change(running, disabled=True)
        await ended(running)
        assert [row["termination"] for row in running.records.rows()] == ["no longer allowed"]


class SlowConnect:
    """Connects, and then keeps the session waiting until the test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connected = trio.Event()
        self.go_on = trio.Event()
        monkeypatch.setattr("trioproxy.connecting.dial", self.dial)
        monkeypatch.setattr("trioproxy.connecting.dial_first", self.dial_first)

    async def dial(self, engine: Engine, fiber: Fiber, permit: Permit, **limits: Any) -> Channel:
        """In the place of the real one."""
        channel = await dial(engine, fiber, permit, **limits)
        self.connected.set()
        try:
            await fiber.in_task(self.go_on.wait)
        except BaseException:
            engine.forget(channel)
            channel.sock.close()
            raise
        return channel

    async def dial_first(self, permits: list[Permit], **limits: Any) -> tuple[socket.socket, Permit]:
        """In the place of the real one."""
        connected = await dial_first(permits, **limits)
        self.connected.set()
        await self.go_on.wait()
        return connected


async def test_rules_of_the_moment_in_which_the_relay_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 2: what is denied while the connection is being made is refused or reset, and carries no byte."""
    slow = SlowConnect(monkeypatch)
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        await client.send(request(CONNECT, *origin.address) + b"early data")
        await slow.connected.wait()
        running.add_rules({"global": ["deny tcp:*(*)->127.0.0.1(*)"]})
        await settle(lambda: running.server.counters["store_changes"] == 1)
        slow.go_on.set()
        assert (await client.rest())[0] in (b"", b"\5\2" + FAILURE)
        client.close()
        target = await origin.accept()
        assert (await target.rest())[0] == b""
        await running.until_idle()
        (row,) = running.records.rows()
        assert row["termination"] in ("refused by rule", "no longer allowed")
        assert (row["scope"], row["rule"]) == ("global", "deny tcp:*(*)->127.0.0.1(*)")


async def test_candidate_denied_while_connecting_is_not_relayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 2: of two candidates one stays permitted, but it is the other one that was connected."""
    slow = SlowConnect(monkeypatch)
    async with (
        running_server(tmp_path, lookup=looking_up("127.0.0.2", "127.0.0.3")) as running,
        Origin.open("127.0.0.3") as origin,  # nobody listens at 127.0.0.2
        logged_in(running.address) as client,
    ):
        await client.send(request(CONNECT, b"two.example.org", origin.port) + b"early data")
        await slow.connected.wait()
        running.add_rules({"global": ["deny tcp:*(*)->127.0.0.3(*)"]})
        await settle(lambda: running.server.counters["store_changes"] == 1)
        slow.go_on.set()
        assert (await client.rest())[0] in (b"", b"\5\2" + FAILURE)
        client.close()
        target = await origin.accept()
        assert (await target.rest())[0] == b""
