"""Users change in their directory under running sessions: through a real server, with a directory that is not one."""

import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio

from auth import Backend, Cause, Rejected, Rejection, Unavailable
from auth.chain import Chain
from auth.local import BackendContext, LocalBackend, LocalSettings
from tests.associations import associated
from tests.auth.doubles import CHEAP, FakeDirectory
from tests.auth.logins import chain_of
from tests.changes import change, relayed
from tests.harness import config_for_tests, running_server, settle
from tests.socks_client import CONNECT, connected, logged_in, login, request
from tests.targets import Origin, black_hole, free_port, looking_up
from tests.wires import Ending, UdpSocket
from trioproxy.client import Client
from trioproxy.config import SocketAddress, Tenant
from trioproxy.dial import dial_first
from trioproxy.policy import Permit
from trioproxy.protocol import AuthenticationReply, ServerMessage

Chains = Callable[[BackendContext], Mapping[str, Chain]]

FAILURE = b"\0\1" + bytes(6)  # what follows VER and REP in every failure
DOWN = Unavailable("down", Cause.CONNECT)
MEMBER = frozenset({"system-proxy"})
STAFF = MEMBER | {"staff"}
EVERYTHING = {"tenant:main": ["any:*(*)->*(*)"]}


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trioproxy.revalidate.TICK_S", 0.01)
    monkeypatch.setattr("trioproxy.revalidate.RETRY_S", 0.05)


def directory_of(*names: str, revalidate_s: float | None = 0.05) -> FakeDirectory:
    """A directory whose users are looked up all the time."""
    directory = FakeDirectory(*names, password="wonderland")
    directory.revalidate_s = revalidate_s
    return directory


def on(**backends: Backend) -> Chains:
    """The tenant main has these backends."""
    return lambda _: {"main": chain_of(**backends)}


async def looked_up(directory: FakeDirectory, times: int = 2) -> None:
    """Wait until users have been looked up this often from now on: the last time, all before it has been heard of."""
    enough = len(directory.found) + times
    await settle(lambda: len(directory.found) >= enough)


def out_of_the_group(directory: FakeDirectory) -> None:
    """The chain makes a refusal of it: not a member."""
    directory.change("alice", groups=frozenset({"staff"}))


def out_of_the_directory(directory: FakeDirectory) -> None:
    """Removed."""
    del directory.people["alice"]


def locked(directory: FakeDirectory) -> None:
    """Whatever the directory calls it."""
    directory.answer = Rejected(Rejection.DISABLED)


def another_password(directory: FakeDirectory) -> None:
    """The password of before opens nothing, and the sessions are of before."""
    directory.change("alice", epoch="2")
    directory.password = "looking-glass"


@pytest.mark.parametrize("change_user", [out_of_the_group, out_of_the_directory, locked, another_password])
async def test_revoked_user_is_out(tmp_path: Path, change_user: Callable[[FakeDirectory], None]) -> None:
    """Case 43: the relay ends, the record says why, and the login remembered a moment ago is worth nothing."""
    directory = directory_of("alice")
    async with (
        running_server(tmp_path, users={}, rules=EVERYTHING, chains=on(campus=directory)) as running,
        Origin.open() as origin,
        logged_in(running.address) as client,
    ):
        target = await relayed(client, origin)
        async with logged_in(running.address):
            assert running.server.counters["login_cached"] == 1
        change_user(directory)
        assert (await client.rest())[1] is Ending.RESET
        assert (await target.rest())[1] is Ending.RESET
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == ["no longer allowed"]
        async with connected(running.address) as again:
            assert await again.log_in() == 1
        assert running.server.counters["revalidation_revoked"] == 1
        assert "user revoked" in running.log.text()


async def test_revoked_between_login_and_request(tmp_path: Path) -> None:
    """Case 43: logged in, then revoked, then the request: 02, and nothing is opened; not even if let in again since."""
    directory = directory_of("alice", "bob")
    async with (
        running_server(tmp_path, users={}, rules=EVERYTHING, chains=on(campus=directory)) as running,
        Origin.open() as origin,
        logged_in(running.address) as client,
        logged_in(running.address, b"bob"),
    ):
        out_of_the_group(directory)
        await settle(lambda: running.server.counters["revalidation_revoked"] == 1)
        asked = directory.found.count("alice")
        await looked_up(directory, 3)
        assert directory.found.count("alice") == asked  # what is known of a session that is over is enough
        directory.change("alice", groups=MEMBER)
        await client.send(request(CONNECT, *origin.address))
        assert await client.rest() == (b"\5\2" + FAILURE, Ending.CLOSED)
        assert origin.nobody_waits()
        assert running.records.rows()[0]["termination"] == "no longer allowed"


async def test_revoked_while_the_login_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 43: accepted, but the client does not know it yet: the look-up finds the session all the same."""
    directory = directory_of("alice")
    sending, go_on = trio.Event(), trio.Event()
    send = Client.send

    async def send_late(self: Client, message: ServerMessage) -> None:
        if isinstance(message, AuthenticationReply):
            sending.set()
            await self.fiber.in_task(go_on.wait)
        await send(self, message)

    monkeypatch.setattr(Client, "send", send_late)
    async with (
        running_server(tmp_path, users={}, rules=EVERYTHING, chains=on(campus=directory)) as running,
        Origin.open() as origin,
        connected(running.address) as client,
    ):
        await client.send(b"\5\1\2" + login() + request(CONNECT, *origin.address))
        await sending.wait()
        out_of_the_group(directory)
        await settle(lambda: running.server.counters["revalidation_revoked"] == 1)
        go_on.set()
        assert await client.rest() == (b"\5\2" + b"\1\0" + b"\5\2" + FAILURE, Ending.CLOSED)
        assert origin.nobody_waits()


async def test_revoked_while_connecting(tmp_path: Path) -> None:
    """Case 43, law 2: a session that hangs in connecting is told so and ends."""
    directory = directory_of("alice")
    async with (
        black_hole() as port,
        running_server(tmp_path, users={}, rules=EVERYTHING, chains=on(campus=directory)) as running,
        logged_in(running.address) as client,
    ):
        await client.send(request(CONNECT, "127.0.0.1", port))
        await settle(lambda: running.server.services.sessions.total == 1)
        out_of_the_group(directory)
        assert await client.rest() == (b"\5\2" + FAILURE, Ending.CLOSED)
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == ["no longer allowed"]


# ---- other groups


async def test_other_groups_are_judged(tmp_path: Path) -> None:
    """What only the group allowed ends, what others allow goes on, and what the new group allows works at once."""
    directory = directory_of("alice")
    directory.change("alice", groups=STAFF)
    async with Origin.open() as for_staff, Origin.open() as for_all, Origin.open() as for_guests:
        rules = {
            "group:staff": [f"tcp:*(*)->*({for_staff.port})"],
            "tenant:main": [f"tcp:*(*)->*({for_all.port})"],
            "group:guests": [f"tcp:*(*)->*({for_guests.port})"],
        }
        async with (
            running_server(tmp_path, users={}, rules=rules, chains=on(campus=directory)) as running,
            logged_in(running.address) as ends,
            logged_in(running.address) as lives,
            logged_in(running.address) as waiting,
            logged_in(running.address) as refused,
        ):
            await relayed(ends, for_staff)
            target = await relayed(lives, for_all)
            directory.change("alice", groups=MEMBER | {"guests"})
            assert (await ends.rest())[1] is Ending.RESET
            await lives.send(b"still here")
            assert await target.receive(10) == b"still here"
            assert (await waiting.ask(CONNECT, *for_guests.address)).code == 0
            assert (await refused.ask(CONNECT, *for_staff.address)).code == 2
            async with logged_in(running.address) as new:
                assert (await new.ask(CONNECT, *for_guests.address)).code == 0
                new.reset()
            row = running.records.rows()[0]
            assert (row["termination"], row["rule"]) == ("no longer allowed", "no rule allows it")
            assert running.server.counters["revalidation_revoked"] == 0
            for client in (lives, waiting):
                client.reset()


async def test_association_is_judged_by_the_groups_of_now(tmp_path: Path) -> None:
    """One destination of an association ends with its record, the rest goes on."""
    directory = directory_of("alice")
    directory.change("alice", groups=STAFF)
    rules = {"group:staff": ["udp:*(*)->127.0.0.2(*)"], "tenant:main": ["udp:*(*)->127.0.0.3(*)"]}
    async with (
        running_server(tmp_path, users={}, rules=rules, chains=on(campus=directory)) as running,
        associated(running.address) as client,
        UdpSocket.open("127.0.0.2") as denied,
        UdpSocket.open("127.0.0.3") as allowed,
    ):
        for target in (denied, allowed):
            await client.send(target.host, target.port, b"before")
            await target.receive()
        directory.change("alice", groups=MEMBER)
        await settle(lambda: len(running.records.lines) == 1)
        await client.send(denied.host, denied.port, b"after")
        await client.send(allowed.host, allowed.port, b"after")
        assert (await allowed.receive())[0] == b"after"
        assert denied.nothing_waits()
        (row,) = running.records.rows()
        assert (row["target"], row["termination"]) == (f"127.0.0.2:{denied.port}", "no longer allowed")


async def test_candidate_that_other_groups_forbid_is_not_relayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 2: of two candidates one stays permitted, but while it changed the other one was connected."""
    directory = directory_of("alice")
    directory.change("alice", groups=STAFF)
    is_connected, go_on = trio.Event(), trio.Event()

    async def dial_slowly(permits: list[Permit], **limits: Any) -> tuple[socket.socket, Permit]:
        connected = await dial_first(permits, **limits)
        is_connected.set()
        await go_on.wait()
        return connected

    monkeypatch.setattr("trioproxy.connecting.dial_first", dial_slowly)
    rules = {"group:staff": ["tcp:*(*)->127.0.0.3(*)"], "tenant:main": ["tcp:*(*)->127.0.0.2(*)"]}
    async with (
        running_server(
            tmp_path,
            users={},
            rules=rules,
            lookup=looking_up("127.0.0.2", "127.0.0.3"),
            chains=on(campus=directory),
        ) as running,
        Origin.open("127.0.0.3") as origin,  # nobody listens at 127.0.0.2
        logged_in(running.address) as client,
    ):
        await client.send(request(CONNECT, b"two.example.org", origin.port) + b"early data")
        await is_connected.wait()
        directory.change("alice", groups=MEMBER)
        await looked_up(directory, 3)
        go_on.set()
        assert await client.rest() == (b"\5\2" + FAILURE, Ending.CLOSED)
        assert await (await origin.accept()).rest() == (b"", Ending.RESET)


async def test_other_groups_while_no_rules_are_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 11: without rules nothing running ends; when they are back, what is forbidden by then does."""
    directory = directory_of("alice")
    directory.change("alice", groups=STAFF)
    rules = {"group:staff": ["tcp:*(*)->*(*)"]}
    async with (
        running_server(tmp_path, users={}, rules=rules, chains=on(campus=directory)) as running,
        Origin.open() as origin,
        logged_in(running.address) as client,
    ):
        target = await relayed(client, origin)
        with monkeypatch.context() as patched:
            patched.setattr(running.server.rulebook, "_stale_max_s", -1.0)
            directory.change("alice", groups=MEMBER)
            await looked_up(directory, 3)
            await client.send(b"still here")
            assert await target.receive(10) == b"still here"
        assert (await client.rest())[1] is Ending.RESET


# ---- what ends nothing


async def test_directory_that_is_down_ends_nothing(tmp_path: Path) -> None:
    """Law 11: who is in stays in; nobody new gets in but from the cache; when it is back, what it says holds."""
    directory = directory_of("alice", "bob")
    async with (
        running_server(tmp_path, users={}, rules=EVERYTHING, chains=on(campus=directory)) as running,
        Origin.open() as origin,
        logged_in(running.address) as client,
    ):
        target = await relayed(client, origin)
        directory.answer = DOWN
        await looked_up(directory, 3)
        async with connected(running.address) as other, logged_in(running.address):
            assert await other.log_in(b"bob") == 1
        await client.send(b"still here")
        assert await target.receive(10) == b"still here"
        counters = running.server.counters
        assert counters["revalidation_unavailable"] >= 2
        assert (counters["login_unavailable"], counters["login_unavailable_connect"]) == (1, 1)
        assert running.log.text().count("cannot tell who may go on") == 1
        out_of_the_group(directory)
        directory.answer = None
        assert (await client.rest())[1] is Ending.RESET
        assert running.log.text().count("tells again") == 1


async def test_local_users_are_not_looked_up(tmp_path: Path) -> None:
    """Beside a directory: whoever is in the store lives by the store, and is looked up nowhere."""
    directory = directory_of("bob")

    def chains(context: BackendContext) -> Mapping[str, Chain]:
        return {"main": chain_of(local=LocalBackend(LocalSettings(), context), campus=directory)}

    async with (
        running_server(tmp_path, rules=EVERYTHING, chains=chains) as running,
        Origin.open() as origin,
        logged_in(running.address) as alice,
        logged_in(running.address, b"bob") as bob,
    ):
        await relayed(alice, origin)
        await relayed(bob, origin)
        await looked_up(directory, 3)
        assert set(directory.found) == {"bob"}
        change(running, disabled=True)
        assert (await alice.rest())[1] is Ending.RESET
        bob.reset()


# ---- the same name twice


async def test_the_same_name_in_two_tenants(tmp_path: Path) -> None:
    """Item 11: revoked in one, with its cache and its sessions; the other alice does not notice."""
    physics, law = directory_of("alice"), directory_of("alice")
    config = config_for_tests(
        listener=({"tenant": "physics"}, {"tenant": "law"}), tenant={"physics": Tenant(), "law": Tenant()}
    )
    rules = {"global": ["tcp:*(*)->*(*)"]}
    async with (
        running_server(
            tmp_path,
            config,
            users={},
            rules=rules,
            chains=lambda _: {"physics": chain_of(campus=physics), "law": chain_of(campus=law)},
        ) as running,
        Origin.open() as origin,
        logged_in(running.addresses[0]) as ends,
        logged_in(running.addresses[1]) as lives,
    ):
        await relayed(ends, origin)
        target = await relayed(lives, origin)
        out_of_the_group(physics)
        assert (await ends.rest())[1] is Ending.RESET
        await looked_up(law)
        await lives.send(b"still here")
        assert await target.receive(10) == b"still here"
        async with connected(running.addresses[0]) as again, connected(running.addresses[1]) as cached:
            assert (await again.log_in(), await cached.log_in()) == (1, 0)
        assert running.server.counters["login_cached"] == 1
        lives.reset()


async def test_the_same_name_in_two_backends(tmp_path: Path) -> None:
    """Item 11: removed from the first, where the session came from; the one who is found in the second lives."""
    campus, library = directory_of("alice"), directory_of("alice")
    async with (
        running_server(tmp_path, users={}, rules=EVERYTHING, chains=on(campus=campus, library=library)) as running,
        Origin.open() as origin,
        logged_in(running.address) as ends,
    ):
        await relayed(ends, origin)
        out_of_the_directory(campus)
        assert (await ends.rest())[1] is Ending.RESET
        async with logged_in(running.address) as lives:
            target = await relayed(lives, origin)
            asked = len(campus.found)
            await looked_up(library)
            assert len(campus.found) == asked
            await lives.send(b"still here")
            assert await target.receive(10) == b"still here"
            lives.reset()


# ---- time, and reload


async def test_account_that_expires_ends_its_sessions(tmp_path: Path) -> None:
    """Case 41: the directory said until when; it need not be there for that, neither for sessions nor for the cache."""
    directory = directory_of("alice", revalidate_s=3600.0)
    until = datetime.now(UTC) + timedelta(seconds=1)
    directory.change("alice", valid_until=until)
    async with (
        running_server(tmp_path, users={}, rules=EVERYTHING, chains=on(campus=directory)) as running,
        Origin.open() as origin,
        logged_in(running.address) as client,
    ):
        await relayed(client, origin)
        directory.answer = DOWN
        assert (await client.rest())[1] is Ending.RESET
        assert datetime.now(UTC) >= until
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == ["no longer allowed"]
        async with connected(running.address) as again:
            assert await again.log_in() == 1
        assert running.server.counters["login_cached"] == 0


async def test_backend_that_a_reload_takes_away(tmp_path: Path) -> None:
    """Its sessions end, also one that has only logged in; those of a backend that stays go on, and are looked up."""
    campus, library = directory_of("alice"), directory_of("bob")
    chains: dict[str, Backend] = {"campus": campus, "library": library}
    port = free_port()
    path = tmp_path / "trioproxy.toml"
    config = config_for_tests(listener=[{"address": SocketAddress(ip_address("127.0.0.1"), port)}])
    async with (
        running_server(
            tmp_path,
            config,
            users={},
            rules=EVERYTHING,
            config_path=path,
            chains=lambda _: {"main": Chain(list(chains.items()), "system-proxy", CHEAP)},
        ) as running,
        Origin.open() as origin,
        logged_in(running.address) as ends,
        logged_in(running.address, b"bob") as lives,
        logged_in(running.address) as waiting,
    ):
        await relayed(ends, origin)
        target = await relayed(lives, origin)
        del chains["campus"]
        path.write_text(
            f'[[listener]]\naddress = "127.0.0.1:{port}"\n[policy]\nopen_floor = ["127.0.0.0/8"]\n[auth]\ncache_s = 7\n'
        )
        await running.server.reload()
        assert running.server.counters["reloads"] == 1
        assert (await ends.rest())[1] is Ending.RESET
        await waiting.send(request(CONNECT, *origin.address))
        assert await waiting.rest() == (b"\5\2" + FAILURE, Ending.CLOSED)
        await looked_up(library)
        await lives.send(b"still here")
        assert await target.receive(10) == b"still here"
        lives.reset()
