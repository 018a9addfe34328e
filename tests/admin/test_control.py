"""The control socket against a running server: what it lists, what it ends, and who is turned away."""

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio

from auth import Identity
from tests.associations import associated, passes
from tests.harness import running_server, settle
from tests.socks_client import CONNECT, connected, logged_in
from tests.targets import Origin
from tests.wires import Ending, UdpSocket
from trioproxy.accounting import Flow
from trioproxy.accounting.live import Wanted
from trioproxy.admin.client import ControlError, ask_server, socket_path
from trioproxy.policy import AccessRequest, Permit, RuleProtocol

ALICE = "any:*(*)->*(*)"


async def ask(folder: Path, what: Any = "sessions", **wanted: object) -> list[dict[str, Any]]:
    """What the server in this folder answers."""
    path = socket_path(folder / "trioproxy.db")
    return await trio.to_thread.run_sync(lambda: list(ask_server(path, what, wanted)))


async def test_lists_a_tcp_session(tmp_path: Path) -> None:
    """Who, from where, to where, by which rule, and how much."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, *origin.address)).code == 0
        far = await origin.accept()
        await client.send(b"x" * 7)
        assert await far.receive(7) == b"x" * 7
        [row] = await ask(tmp_path)
    target = f"{origin.host}:{origin.port}"
    assert {
        name: row[name] for name in ("session", "tenant", "user", "command", "asked", "target", "scope", "rule")
    } == {
        "session": 1,
        "tenant": "main",
        "user": "alice",
        "command": "CONNECT",
        "asked": target,
        "target": target,
        "scope": "user:alice",
        "rule": ALICE,
    }
    assert row["client"].startswith("127.0.0.1:")
    assert row["age_s"] >= 0


async def test_lists_each_destination_of_an_association(tmp_path: Path) -> None:
    """One line each, and one for an association that has sent nothing yet."""
    async with running_server(tmp_path) as running, associated(running.address) as client:
        [row] = await ask(tmp_path)
        assert (row["command"], row["target"]) == ("UDP_ASSOCIATE", None)
        async with UdpSocket.open() as one, UdpSocket.open() as two:
            await passes(client, one)
            await passes(client, two)
            rows = await ask(tmp_path)
            assert {row["target"] for row in rows} == {f"{sock.host}:{sock.port}" for sock in (one, two)}
            assert {(row["session"], row["bytes_to_target"]) for row in rows} == {(1, 4)}


async def test_lists_who_has_not_logged_in(tmp_path: Path) -> None:
    """An administrator sees who only connects, too."""
    async with running_server(tmp_path) as running, connected(running.address):
        await settle(lambda: running.server.open_sessions == 1)
        [row] = await ask(tmp_path)
    assert (row["user"], row["command"], row["target"], row["rule"]) == (None, None, None, None)


async def test_kills_what_is_meant_and_nothing_else(tmp_path: Path) -> None:
    """With a reset, within the same moment, and with a name of its own in the record."""
    users = {"alice": "wonderland", "bob": "builder"}
    rules = {"global": ["any:*(*)->*(*)"]}
    async with (
        running_server(tmp_path, users=users, rules=rules) as running,
        Origin.open() as origin,
        logged_in(running.address) as alice,
        logged_in(running.address, b"bob", b"builder") as bob,
    ):
        for client in (alice, bob):
            assert (await client.ask(CONNECT, *origin.address)).code == 0
        [row] = await ask(tmp_path, "kill", user="alice")
        assert row["user"] == "alice"
        assert (await alice.rest())[1] is Ending.RESET
        assert [row["user"] for row in await ask(tmp_path)] == ["bob"]
    [record] = [row for row in running.records.rows() if row["user"] == "alice"]
    assert record["termination"] == "ended by an administrator"


async def test_kills_an_association(tmp_path: Path) -> None:
    """Its TCP connection is reset, its flows end."""
    async with running_server(tmp_path) as running, associated(running.address) as client, UdpSocket.open() as target:
        await passes(client, target)
        assert len(await ask(tmp_path, "kill", sessions=[1])) == 1
        assert (await client.control.rest())[1] is Ending.RESET
        await running.until_idle()
    assert {row["termination"] for row in running.records.rows()} == {"ended by an administrator"}


@pytest.mark.parametrize(
    "request_",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b'{"ask": "sessions"}\n',
        b'{"ask": "fly", "wanted": {}}\n',
        b'{"ask": "sessions", "wanted": {"user": 7}}\n',
        b'{"ask": "sessions", "wanted": {"sessions": ["7"]}}\n',
        b'{"ask": "kill", "wanted": {"source": "everywhere"}}\n',
        b'{"ask": "kill", "wanted": {"target": "..."}}\n',
        b"x" * 70_000,
    ],
)
async def test_says_what_it_does_not_understand(tmp_path: Path, request_: bytes) -> None:
    """Nothing is ended by a request that cannot be read, and the next one is answered."""
    async with running_server(tmp_path) as running, connected(running.address):
        path = socket_path(running.store.path)
        stream = await trio.open_unix_socket(path)
        async with stream:
            await stream.send_all(request_)
            answer = orjson.loads(await stream.receive_some(4096))
        assert "does not understand" in answer["problem"]
        assert len(await ask(tmp_path)) == 1


async def test_what_it_does_not_understand_is_an_error_of_the_asker(tmp_path: Path) -> None:
    """As an older server would answer a newer command."""
    async with running_server(tmp_path):
        with pytest.raises(ControlError, match="does not understand"):
            await ask(tmp_path, "fly")


async def test_the_socket_is_private_and_goes_with_the_server(tmp_path: Path) -> None:
    """Only its owner may open it, and nothing is left behind."""
    async with running_server(tmp_path) as running:
        path = socket_path(running.store.path)
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()
    with pytest.raises(ControlError, match="no server runs"):
        await ask(tmp_path)


async def test_the_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    """Nobody listens there any more."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "trioproxy.sock"))
    async with running_server(tmp_path):
        assert await ask(tmp_path) == []


async def test_a_second_server_of_the_same_store_leaves_the_socket_alone(tmp_path: Path) -> None:
    """It works without, and says so."""
    async with running_server(tmp_path) as first:
        async with running_server(tmp_path, users={}, rules={}) as second:
            assert any(b"no control socket" in line for line in second.log.lines)
        assert socket_path(first.store.path).exists()
        assert await ask(tmp_path) == []


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """A file of that name is somebody's."""
    (tmp_path / "trioproxy.sock").write_text("mine")
    async with running_server(tmp_path) as running:
        assert any(b"no control socket" in line for line in running.log.lines)
    assert (tmp_path / "trioproxy.sock").read_text() == "mine"


async def test_a_silent_asker_holds_nobody_up(tmp_path: Path) -> None:
    """Each has a task of its own."""
    async with running_server(tmp_path) as running:
        async with await trio.open_unix_socket(socket_path(running.store.path)):
            assert await ask(tmp_path) == []


# ---- which flows are meant


def flow(target: str = "192.0.2.7", name: str | None = "www.example.org", user: str | None = "alice") -> Flow:
    """A running flow from 10.1.2.3."""
    identity = Identity("main", user)
    running = Flow(3, "listener", ip_address("10.1.2.3"), 5000, "main", identity)
    asked = AccessRequest(identity, ip_address("10.1.2.3"), 5000, RuleProtocol.TCP, name, ip_address(target), 443)
    running.verdict = Permit(asked, "global", ALICE)
    return running


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"sessions": [1, 3]},
        {"tenant": "main"},
        {"user": "alice"},
        {"user": "main/alice"},
        {"source": "10.1.0.0/16"},
        {"source": "10.1.2.3"},
        {"target": "192.0.2.0/24"},
        {"target": "192.0.2.7"},
        {"target": "www.example.org"},
        {"target": "WWW.Example.org."},
        {"target": "*.example.org"},
        {"tenant": "main", "user": "alice", "source": "10.1.2.3", "target": "192.0.2.7", "sessions": [3]},
        {"tenant": None, "user": None, "source": None, "target": None, "sessions": None},
    ],
)
def test_fits(given: dict[str, object]) -> None:
    """Each filter by itself, all of them, none."""
    assert Wanted.parse(given).fits(flow())


@pytest.mark.parametrize(
    "given",
    [
        {"sessions": []},
        {"sessions": [4]},
        {"tenant": "physics"},
        {"user": "bob"},
        {"user": "physics/alice"},
        {"source": "10.2.0.0/16"},
        {"source": "::/0"},
        {"target": "192.0.2.8"},
        {"target": "example.org"},
        {"target": "*.www.example.org"},
        {"user": "alice", "source": "10.1.2.4"},
    ],
)
def test_does_not_fit(given: dict[str, object]) -> None:
    """One filter that does not fit is enough."""
    assert not Wanted.parse(given).fits(flow())


def test_who_has_not_asked_yet_goes_nowhere() -> None:
    """Neither a network nor a name fits a flow without a target; and nobody is its user."""
    waiting = Flow(3, "listener", ip_address("10.1.2.3"), 5000, "physics")
    assert Wanted.parse({"tenant": "physics"}).fits(waiting)
    assert not Wanted.parse({"target": "0.0.0.0/0"}).fits(waiting)
    assert not Wanted.parse({"target": "example.org"}).fits(waiting)
    assert not Wanted.parse({"user": "physics/alice"}).fits(waiting)


async def test_rows_of_many_sessions_come_whole(tmp_path: Path) -> None:
    """More than one piece of the answer."""
    async with running_server(tmp_path) as running, trio.open_nursery() as nursery:

        async def wait_there() -> None:
            async with connected(running.address):
                await trio.sleep_forever()

        for _ in range(150):
            nursery.start_soon(wait_there)
        await settle(lambda: running.server.open_sessions == 150)
        assert len({row["session"] for row in await ask(tmp_path)}) == 150
        nursery.cancel_scope.cancel()
