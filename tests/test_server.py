"""The process around the sessions: start, reload, drain, limits, a store that fails."""

import contextlib
import errno
import socket
import sqlite3
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest
import trio
from passlib.hash import apr_md5_crypt

from auth.local import LocalUser
from tests.harness import Records, config_for_tests, running_server, settle
from tests.socks_client import CONNECT, SocksClient, connected, logged_in
from tests.targets import Origin, free_port
from tests.wires import Ending, Wire
from trioproxy.client import Client
from trioproxy.config import BackendTable, Config, SocketAddress
from trioproxy.engine import Channel
from trioproxy.engine.epoll import EpollEngine
from trioproxy.protocol import Greeting
from trioproxy.server import Server, StartError
from trioproxy.store import Store


async def relayed(client: SocksClient, origin: Origin) -> Wire:
    """Bytes pass, both ways; returns the far end."""
    far_end = await origin.accept()
    await client.send(b"ping")
    assert await far_end.receive(4) == b"ping"
    await far_end.send(b"pong")
    assert await client.receive(4) == b"pong"
    return far_end


async def test_port_in_use_is_said_and_nothing_stays_open(tmp_path: Path) -> None:
    """Issue item 2: a port in use is one clear line; the listeners that could be opened are closed again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free, used = free_port(), taken.getsockname()[1]
        listeners = [{"address": SocketAddress(ip_address("127.0.0.1"), port)} for port in (free, used)]
        server = Server(
            config_for_tests(listener=listeners), Store.open(tmp_path / "trioproxy.db", create=True), Records()
        )
        with pytest.RaisesGroup(pytest.RaisesExc(StartError, match=rf"127\.0\.0\.1:{used}.*another port")):
            async with trio.open_nursery() as nursery:
                await nursery.start(server.run)
        await server._store.close()
        with socket.socket() as again:
            again.bind(("127.0.0.1", free))


async def test_backend_that_does_not_exist_stops_the_start(tmp_path: Path) -> None:
    """A backend of an unknown type is said before anybody can connect."""
    config = config_for_tests()
    auth = attrs.evolve(config.auth, backends=("campus",), tables={"campus": BackendTable("carrier-pigeon")})
    store = Store.open(tmp_path / "trioproxy.db", create=True)
    server = Server(attrs.evolve(config, auth=auth), store, Records())
    with store, pytest.RaisesGroup(pytest.RaisesExc(StartError, match="carrier-pigeon")):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)


async def test_session_that_fails_ends_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 8: an exception of ours ends one session, with its traceback in the log; others go on."""

    async def fail(client: Client, *_: object) -> None:
        await client.next_message(Greeting)
        raise RuntimeError("a fault of ours")

    async with running_server(tmp_path) as running, Origin.open() as origin:
        async with logged_in(running.address) as other:
            assert (await other.ask(CONNECT, *origin.address)).code == 0
            with monkeypatch.context() as patched:
                patched.setattr("trioproxy.session.log_in", fail)
                async with connected(running.address) as unlucky:
                    await unlucky.send(b"\5\1\2")
                    assert (await unlucky.rest())[1] is Ending.RESET
            await relayed(other, origin)
        assert running.server.counters["internal_error"] == 1
        assert "a fault of ours" in running.log.text()


# ---- drain


async def test_case_111_drain_lets_sessions_finish(tmp_path: Path) -> None:
    """Case 111: the listeners close first, running sessions go on, and the server ends with the last of them."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, *origin.address)).code == 0
        running.server.stop()
        await settle(lambda: "draining" in running.log.text())
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset, both mean that nobody listens
            await trio.open_tcp_stream(*running.address)
        far_end = await relayed(client, origin)
        assert not running.server.stopped.is_set()
        client.finish()
        await far_end.rest()
        far_end.close()
        await running.server.stopped.wait()
    assert [row["termination"] for row in running.records.rows()] == ["client closed"]


async def test_case_111_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Case 111: stopped twice: sessions end now, with a reset and a named reason."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, *origin.address)).code == 0
        running.server.stop()
        running.server.stop()
        assert (await client.rest())[1] is Ending.RESET
        await running.server.stopped.wait()
    assert [row["termination"] for row in running.records.rows()] == ["server stopped"]


async def test_drain_ends_after_its_time(tmp_path: Path) -> None:
    """`drain_s` is over: what still runs is ended."""
    config = config_for_tests(limits={"drain_s": 0.05})
    async with running_server(tmp_path, config) as running, Origin.open() as origin:
        async with logged_in(running.address) as client:
            assert (await client.ask(CONNECT, *origin.address)).code == 0
            running.server.stop()
            assert (await client.rest())[1] is Ending.RESET


# ---- limits


async def test_unauthenticated_connections_of_one_source_are_bounded(tmp_path: Path) -> None:
    """More than `unauthenticated_per_source_max` are closed at once and counted; a place is free again afterwards."""
    config = config_for_tests(limits={"unauthenticated_per_source_max": 2})
    async with running_server(tmp_path, config) as running:
        async with connected(running.address), connected(running.address):
            await settle(lambda: running.server.open_sessions == 2)
            async with connected(running.address) as third:
                assert (await third.rest())[1] is Ending.CLOSED
            assert running.server.counters["unauthenticated_limit_each"] == 1
            async with connected(running.address, source="127.0.0.2") as elsewhere:
                assert await elsewhere.log_in() == 0
        await running.until_idle()
        async with logged_in(running.address):
            assert running.server.counters["unauthenticated_limit_each"] == 1


async def test_unauthenticated_connections_are_bounded_in_all(tmp_path: Path) -> None:
    """Case 103: beyond `unauthenticated_max` the oldest makes room, so that silent clients keep nobody out."""
    config = config_for_tests(limits={"unauthenticated_max": 2})
    async with running_server(tmp_path, config) as running, logged_in(running.address) as relaying:
        async with Origin.open() as origin:
            assert (await relaying.ask(CONNECT, *origin.address)).code == 0
            async with (
                connected(running.address, source="127.0.0.2") as oldest,
                connected(running.address, source="127.0.0.3") as older,
            ):
                await settle(lambda: running.server.services.handshakes.total == 2)
                async with logged_in(running.address, source="127.0.0.4") as newcomer:
                    assert (await oldest.rest())[1] is Ending.RESET
                    assert (await newcomer.ask(CONNECT, *origin.address)).code == 0
                    newcomer.reset()
                assert running.server.counters["unauthenticated_limit_total"] == 1
                assert await older.log_in() == 0
            relaying.reset()


async def test_reserve_of_descriptors_is_kept(tmp_path: Path) -> None:
    """A client whose descriptor would eat into the reserve is closed and counted, and the server goes on."""
    async with running_server(tmp_path) as running:
        services = running.server.services
        services.descriptors_max, before = 3, services.descriptors_max
        async with connected(running.address) as client:
            assert (await client.rest())[1] is Ending.CLOSED
        assert running.server.counters["descriptors_reserve_limit"] == 1
        services.descriptors_max = before
        async with logged_in(running.address):
            assert running.server.counters["sessions"] == 1


async def test_case_101_no_descriptors_neither_kills_nor_spins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 101: accept fails with EMFILE: said once, waited out, and everybody is served afterwards."""
    failures = [OSError(24, "Too many open files")] * 3 + [ConnectionAbortedError(103, "aborted")]
    real = socket.socket._accept  # type: ignore[attr-defined]

    def accept(sock: socket.socket) -> object:
        if failures and sock.family is socket.AF_INET:
            raise failures.pop(0)
        return real(sock)

    monkeypatch.setattr(socket.socket, "_accept", accept)
    async with running_server(tmp_path) as running, logged_in(running.address):
        assert running.server.counters["accept_failed"] == 3
        assert running.log.text().count("cannot accept") == 1


async def test_no_room_in_epoll_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC (max_user_watches): some clients are turned away, nothing of them is kept, the next one is served."""
    failures = [OSError(errno.ENOSPC, "No space left on device")] * 3
    real = EpollEngine.open

    def open_(self: EpollEngine, sock: socket.socket) -> Channel:
        if failures:
            raise failures.pop(0)
        return real(self, sock)

    monkeypatch.setattr(EpollEngine, "open", open_)
    async with running_server(tmp_path) as running:
        await settle(lambda: len(failures) == 2)  # that was the listener; it tries again
        for _ in range(2):
            async with connected(running.address) as turned_away:
                assert (await turned_away.rest())[0] == b""
        async with logged_in(running.address):
            assert running.server.services.handshakes.total == 1
        assert running.server.counters["accept_failed"] == 3


# ---- the store


async def test_store_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    """Law 11: the store is gone: said once, users and rules stay as they were; when it is back, it is read again."""
    async with running_server(tmp_path) as running, Origin.open() as origin:
        path, away = tmp_path / "trioproxy.db", tmp_path / "away.db"
        path.rename(away)
        await settle(lambda: running.server.counters["store_failed"] >= 2)
        assert running.log.text().count("the store cannot be read") == 1
        async with logged_in(running.address) as client:
            assert (await client.ask(CONNECT, *origin.address)).code == 0
        away.rename(path)
        await settle(lambda: "can be read again" in running.log.text())
        running.add_rules({"global": ["deny tcp:*(*)->*(*)"]})
        await running.until_rules_hold()
        async with logged_in(running.address) as client:
            assert (await client.ask(CONNECT, *origin.address)).code == 2


async def test_rules_that_are_too_old_permit_nothing_new(tmp_path: Path) -> None:
    """Law 11: after `stale_max_s` without the store nothing new is permitted, and the record says why."""
    config = config_for_tests()
    config = attrs.evolve(config, store=attrs.evolve(config.store, stale_max_s=1.0))
    async with running_server(tmp_path, config) as running, Origin.open() as origin:
        async with logged_in(running.address) as client:
            (tmp_path / "trioproxy.db").rename(tmp_path / "away.db")
            await settle(lambda: running.server.rulebook.policy is None)
            assert (await client.ask(CONNECT, *origin.address)).code == 1
        async with connected(running.address) as client:
            assert await client.log_in(password=b"not remembered") == 1
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == ["rules too old"]
        (tmp_path / "away.db").rename(tmp_path / "trioproxy.db")


async def test_outdated_hash_is_replaced_after_a_right_login(tmp_path: Path) -> None:
    """An imported htpasswd hash becomes argon2id at the first login, and the password stays the same."""
    async with running_server(tmp_path, users={}, rules={}) as running:
        old = apr_md5_crypt.hash("wonderland")
        running.store.users.add([LocalUser("main", "carol", old, frozenset({"system-proxy"}))])
        await running.until_rules_hold()
        async with logged_in(running.address, b"carol"):
            await settle(lambda: str(running.store.users.get("main", "carol").password_hash).startswith("$argon2id$"))
        await running.until_rules_hold()
        async with logged_in(running.address, b"carol"):
            assert running.server.counters["login_accepted"] == 2


# ---- reload


def write_config(path: Path, *ports: int, more: str = "") -> None:
    """A configuration file with these listeners."""
    listeners = "".join(f'[[listener]]\naddress = "127.0.0.1:{port}"\n' for port in ports)
    path.write_text(f'{listeners}\n[policy]\nopen_floor = ["127.0.0.0/8"]\n{more}')


def listener_at(*ports: int) -> Config:
    """The same as objects."""
    return config_for_tests(listener=[{"address": SocketAddress(ip_address("127.0.0.1"), port)} for port in ports])


async def log_in_at(port: int) -> int:
    """The status of a login there."""
    async with connected(("127.0.0.1", port)) as client:
        return await client.log_in()


async def test_reload_without_a_file(tmp_path: Path) -> None:
    """Without a configuration file there is nothing to read, and that is said."""
    async with running_server(tmp_path) as running:
        await running.server.reload()
        assert "nothing to reload" in running.log.text()


async def test_case_108_reload_moves_listeners_and_keeps_sessions(tmp_path: Path) -> None:
    """Case 108: new listeners open, old ones close, sessions live on; records go to a file opened anew."""
    first, second, third = free_port(), free_port(), free_port()
    path = tmp_path / "trioproxy.toml"
    async with (
        running_server(tmp_path, listener_at(first, second), config_path=path) as running,
        Origin.open() as origin,
    ):
        async with logged_in(("127.0.0.1", first)) as client:
            assert (await client.ask(CONNECT, *origin.address)).code == 0
            write_config(path, second, third)
            await running.server.reload()
            assert "configuration reloaded" in running.log.text()
            await relayed(client, origin)
            assert await log_in_at(second) == 0
            assert await log_in_at(third) == 0
            with pytest.raises(OSError):  # noqa: PT011 - refused
                await log_in_at(first)
        assert running.records.reopened == 1
        assert running.server.counters["reloads"] == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[limits]\nidel_s = 3\n", "idel_s"),
        ('[store]\nurl = "sqlite:////elsewhere.db"\n', "store.url cannot change"),
        ('[[listener]]\naddress = "192.0.2.200:1080"\n', "192.0.2.200"),
        ('[auth]\nbackends = ["campus"]\n[auth.campus]\ntype = "carrier-pigeon"\n', "carrier-pigeon"),
    ],
)
async def test_case_108_broken_reload_changes_nothing(more: str, said: str, tmp_path: Path) -> None:
    """Case 108: whatever is wrong with the new configuration, the old one stays in force as a whole."""
    old, new = free_port(), free_port()
    path = tmp_path / "trioproxy.toml"
    write_config(path, new, more=more)
    async with running_server(tmp_path, listener_at(old), config_path=path) as running:
        await running.server.reload()
        assert said in running.log.text()
        assert running.server.counters["reload_failed"] == 1
        assert await log_in_at(old) == 0
        with pytest.raises(OSError):  # noqa: PT011 - refused
            await log_in_at(new)


async def test_case_110_identical_reload_changes_nothing(tmp_path: Path) -> None:
    """Case 110: the same configuration again: what logins remember, places and penalties are kept."""
    port = free_port()
    path = tmp_path / "trioproxy.toml"
    write_config(path, port)
    async with running_server(tmp_path, listener_at(port), config_path=path) as running:
        authenticator = running.server.services.authenticator
        assert await log_in_at(port) == 0
        await running.server.reload()
        assert running.server.services.authenticator is authenticator
        assert await log_in_at(port) == 0
        assert running.server.counters["login_cached"] == 1


async def test_reload_changes_limits_backends_and_floor(tmp_path: Path) -> None:
    """What is new holds for who comes now: limits, another authenticator that keeps the penalties, the floor."""
    port = free_port()
    path = tmp_path / "trioproxy.toml"
    async with running_server(tmp_path, listener_at(port), config_path=path) as running, Origin.open() as origin:
        throttle = running.server.services.authenticator.throttle
        async with logged_in(("127.0.0.1", port)) as old:
            assert (await old.ask(CONNECT, *origin.address)).code == 0
            path.write_text(
                f'[[listener]]\naddress = "127.0.0.1:{port}"\n'
                "[limits]\nsessions_per_user_max = 7\n[auth]\ncache_s = 5\n[tenant.physics]\n"
            )
            await running.server.reload()
            services = running.server.services
            assert services.sessions.each_max == 7
            assert services.authenticator.throttle is throttle
            assert (await old.rest())[1] is Ending.RESET  # its target is on the floor now
        async with logged_in(("127.0.0.1", port)) as client:
            assert (await client.ask(CONNECT, *origin.address)).code == 2


async def test_expired_account_is_noticed_without_any_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 41: an account that ends while its session runs: the session ends, though nobody changed the store."""
    monkeypatch.setattr("trioproxy.server.REVALIDATE", timedelta(0))
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, *origin.address)).code == 0
        rulebook = running.server.rulebook
        monkeypatch.setattr(rulebook, "current_identity", lambda _: None)
        assert (await client.rest())[1] is Ending.RESET
        await running.until_idle()
        assert running.records.rows()[0]["termination"] == "no longer allowed"


async def test_signal_to_reload_while_draining_is_harmless(tmp_path: Path) -> None:
    """A rotation of the records in the middle of a drain: they are opened anew, and nothing else happens."""
    path = tmp_path / "trioproxy.toml"
    write_config(path, free_port())
    async with running_server(tmp_path, config_path=path) as running, Origin.open() as origin:
        async with logged_in(running.address) as client:
            assert (await client.ask(CONNECT, *origin.address)).code == 0
            running.server.stop()
            await settle(lambda: "draining" in running.log.text())
            await running.server.reload()
            assert running.records.reopened == 1
            await relayed(client, origin)
            client.reset()


async def test_reload_that_forbids_anonymous_clients(tmp_path: Path) -> None:
    """A listener that asks for a login from now on: sessions without one end, also those that have not greeted yet."""
    port = free_port()
    path = tmp_path / "trioproxy.toml"
    write_config(path, port)
    listener = {"address": SocketAddress(ip_address("127.0.0.1"), port), "anonymous": True}
    config, rules = config_for_tests(listener=[listener]), {"global": ["tcp:*(*)->*(*)"]}
    async with running_server(tmp_path, config, rules=rules, config_path=path) as running, Origin.open() as origin:
        async with connected(running.address) as nobody, connected(running.address) as silent:
            assert await nobody.greet(0) == 0
            assert (await nobody.ask(CONNECT, *origin.address)).code == 0
            await running.server.reload()
            assert (await nobody.rest())[1] is Ending.RESET
            assert await silent.greet(0) == 0xFF


@pytest.mark.parametrize(
    "nonsense",
    [
        "UPDATE local_user SET valid_until = x'00ff'",
        "UPDATE rule SET content = x'00ff'",
        "DELETE FROM counter",
    ],
)
async def test_nonsense_in_the_store_changes_nothing(tmp_path: Path, nonsense: str) -> None:
    """Law 11: what a hand or a damaged backup wrote is a store that cannot be read; the last rules stay in force."""
    async with running_server(tmp_path) as running, Origin.open() as origin:
        with contextlib.closing(sqlite3.connect(tmp_path / "trioproxy.db", isolation_level=None)) as database:
            database.execute(nonsense)
            database.execute("UPDATE counter SET value = value + 1 WHERE name = 'revision'")
        await settle(lambda: running.server.counters["store_failed"] >= 2)
        async with logged_in(running.address) as client:
            assert (await client.ask(CONNECT, *origin.address)).code == 0
            client.reset()
