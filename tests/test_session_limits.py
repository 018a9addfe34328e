"""Every limit of a session, reached: what the client is told, what is counted, and that there is room again then."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address
from pathlib import Path

import pytest
import trio

from tests.associations import associated
from tests.harness import config_for_tests, running_server, settle
from tests.socks_client import BIND, CONNECT, UDP_ASSOCIATE, SocksClient, connected, logged_in, request
from tests.targets import Origin
from tests.wires import Ending
from trioproxy.config import SocketAddress
from trioproxy.policy import IPAddress

FAILURE = b"\0\1" + bytes(6)  # what follows VER and REP in every failure
USERS = {"alice": "wonderland", "bob": "builder"}
EVERYTHING = {"global": ["any:*(*)->*(*)"]}


async def test_sessions_per_user(tmp_path: Path) -> None:
    """Law 12: one more than `sessions_per_user_max` is 01 and counted; others are not affected; then there is room."""
    config = config_for_tests(limits={"sessions_per_user_max": 2})
    async with running_server(tmp_path, config, users=USERS, rules=EVERYTHING) as running, Origin.open() as origin:
        async with logged_in(running.address) as one, associated(running.address) as two:
            assert (await one.ask(CONNECT, *origin.address)).code == 0
            async with logged_in(running.address) as three:
                await three.send(request(CONNECT, *origin.address))
                assert await three.rest() == (b"\5\1" + FAILURE, Ending.CLOSED)
            assert running.server.counters["sessions_limit_each"] == 1
            async with logged_in(running.address, b"bob", b"builder") as other:
                assert (await other.ask(CONNECT, *origin.address)).code == 0
                other.reset()
            two.control.close()
            await settle(lambda: running.server.services.sessions.total == 1)
            async with logged_in(running.address) as four:
                assert (await four.ask(CONNECT, *origin.address)).code == 0
                four.reset()
            one.reset()
        await running.until_idle()
        assert running.server.services.sessions.total == 0
        assert [row["termination"] for row in running.records.rows() if row["reply"] == 1] == ["limit reached"]


async def test_anonymous_sessions_are_counted_by_their_source(tmp_path: Path) -> None:
    """Law 12: who has no name is limited by the address; a user of that address is not."""
    config = config_for_tests(listener=({"anonymous": True},), limits={"sessions_per_user_max": 1})
    async with running_server(tmp_path, config, rules=EVERYTHING) as running, Origin.open() as origin:

        async def code(client: SocksClient) -> int:
            assert await client.greet(0) == 0
            return (await client.ask(CONNECT, *origin.address)).code

        async with connected(running.address, source="127.0.0.2") as one:
            assert await code(one) == 0
            async with connected(running.address, source="127.0.0.2") as two:
                assert await code(two) == 1
            async with connected(running.address, source="127.0.0.3") as three:
                assert await code(three) == 0
                three.reset()
            async with logged_in(running.address, source="127.0.0.2") as alice:
                assert (await alice.ask(CONNECT, *origin.address)).code == 0
                alice.reset()
            one.reset()


async def test_sessions_of_all_listeners_are_counted_together(tmp_path: Path) -> None:
    """Law 12: a second door is no second allowance."""
    v6 = {"address": SocketAddress(IPv6Address("::1"), 0)}
    config = config_for_tests(listener=({}, v6), limits={"sessions_per_user_max": 1})
    async with (
        running_server(tmp_path, config) as running,
        Origin.open() as origin,
        logged_in(running.addresses[0]) as one,
        logged_in(running.addresses[1]) as two,
    ):
        assert (await one.ask(CONNECT, *origin.address)).code == 0
        assert (await two.ask(CONNECT, *origin.address)).code == 1


async def test_associations_per_user(tmp_path: Path) -> None:
    """Law 12: one more than `associations_per_user_max` is 01 and counted; CONNECT still works; then there is room."""
    config = config_for_tests(limits={"associations_per_user_max": 1})
    async with running_server(tmp_path, config) as running, Origin.open() as origin:
        async with associated(running.address) as one:
            async with logged_in(running.address) as two:
                await two.send(request(UDP_ASSOCIATE, "0.0.0.0", 0))
                assert await two.rest() == (b"\5\1" + FAILURE, Ending.CLOSED)
            assert running.server.counters["associations_limit_each"] == 1
            async with logged_in(running.address) as three:
                assert (await three.ask(CONNECT, *origin.address)).code == 0
                three.reset()
            one.control.close()
            await settle(lambda: running.server.services.associations.total == 0)
        async with associated(running.address):
            assert running.server.services.associations.total == 1


async def test_unauthenticated_connections_of_one_source(tmp_path: Path) -> None:
    """Case 103, law 12: one more is closed at once and counted; who has finished the handshake does not count."""
    config = config_for_tests(limits={"unauthenticated_per_source_max": 2})
    async with (
        running_server(tmp_path, config) as running,
        Origin.open() as origin,
        logged_in(running.address, source="127.0.0.2") as relay,
    ):
        assert (await relay.ask(CONNECT, *origin.address)).code == 0
        async with connected(running.address, source="127.0.0.2"), connected(running.address, source="127.0.0.2"):
            await settle(lambda: running.server.services.handshakes.total == 2)
            async with connected(running.address, source="127.0.0.2") as third:
                assert (await third.rest())[0] == b""
            assert running.server.counters["unauthenticated_limit_each"] == 1
            async with logged_in(running.address, source="127.0.0.3") as other:
                assert (await other.ask(CONNECT, *origin.address)).code == 0
        await settle(lambda: running.server.services.handshakes.total == 0)
        async with logged_in(running.address, source="127.0.0.2") as again:
            assert (await again.ask(CONNECT, *origin.address)).code == 0


async def test_unauthenticated_connections_in_all(tmp_path: Path) -> None:
    """Case 103, law 12: the same for all sources together, but it is the oldest that has to go."""
    config = config_for_tests(limits={"unauthenticated_max": 2})
    async with running_server(tmp_path, config) as running:
        async with connected(running.address, source="127.0.0.2") as first, connected(running.address) as second:
            await settle(lambda: running.server.services.handshakes.total == 2)
            async with connected(running.address, source="127.0.0.4") as third:
                assert (await first.rest())[0] == b""
                assert await third.log_in() == 0
                assert await second.log_in() == 0
            assert running.server.counters["unauthenticated_limit_total"] == 1
        await running.until_idle()
        async with logged_in(running.address, source="127.0.0.4"):
            pass


async def test_look_ups_of_one_user_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 92: one more than may wait is 01 at once and counted; another user's look-ups are not affected."""
    monkeypatch.setattr("trioproxy.resolve.WAITING_PER_THREAD", 1)
    answer = trio.Event()

    def lookup(name: str) -> list[IPAddress]:
        trio.from_thread.run(answer.wait)
        return []

    config = config_for_tests(limits={"resolve_per_user_max": 1})
    async with (
        running_server(tmp_path, config, users=USERS, rules=EVERYTHING, lookup=lookup) as running,
        logged_in(running.address) as one,
        logged_in(running.address, b"bob", b"builder") as bob,
    ):
        await one.send(request(CONNECT, b"one.example.org", 80))
        await settle(lambda: running.server.counters["resolve_lookups"] == 1)
        async with logged_in(running.address) as two:
            await two.send(request(CONNECT, b"two.example.org", 80))
            assert await two.rest() == (b"\5\1" + FAILURE, Ending.CLOSED)
        assert running.server.counters["resolve_per_user_limit_each"] == 1
        await bob.send(request(CONNECT, b"two.example.org", 80))
        await settle(lambda: running.server.counters["resolve_lookups"] == 2)
        answer.set()
        for client in (one, bob):
            assert await client.rest() == (b"\5\4" + FAILURE, Ending.CLOSED)


# ---- descriptors


@pytest.mark.parametrize("command", [CONNECT, BIND, UDP_ASSOCIATE])
async def test_reserve_of_descriptors_is_for_no_session(tmp_path: Path, command: int) -> None:
    """Law 12, case 101: when only the reserve is left the reply is 01, for every command that needs a socket."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        before, running.server.services.descriptors_max = running.server.services.descriptors_max, 3
        assert (await client.ask(command, *origin.address)).octets == b"\5\1" + FAILURE
        assert origin.nobody_waits()
        running.server.services.descriptors_max = before
        async with logged_in(running.address) as again:
            assert (await again.ask(CONNECT, *origin.address)).code == 0
            again.reset()


async def test_client_beyond_the_reserve_is_closed(tmp_path: Path) -> None:
    """Law 12, case 101: a client whose descriptor would eat into the reserve is closed and counted."""
    async with running_server(tmp_path) as running:
        before, running.server.services.descriptors_max = running.server.services.descriptors_max, 3
        async with connected(running.address) as client:
            assert (await client.rest())[0] == b""
        assert running.server.counters["descriptors_reserve_limit"] == 1
        running.server.services.descriptors_max = before
        async with logged_in(running.address):
            assert running.server.counters["descriptors_reserve_limit"] == 1


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_no_descriptor_left_for_accepting(tmp_path: Path) -> None:
    """Case 101: EMFILE neither kills the listener nor makes it spin; running relays work; then the client is served."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, *origin.address)).code == 0
        target = await origin.accept()
        late = SocksClient(trio.socket.socket())  # its descriptor is there already
        with no_descriptors_left():
            await late.sock.connect(running.address)
            await settle(lambda: running.server.counters["accept_failed"] >= 2)
            begin_s, failures = trio.current_time(), running.server.counters["accept_failed"]
            await settle(lambda: running.server.counters["accept_failed"] >= failures + 3)
            assert trio.current_time() - begin_s > 0.2  # three pauses, not three rounds of a loop
            await client.send(b"still here")
            assert await target.receive(10) == b"still here"
        assert await late.log_in() == 0
        late.close()
        assert running.log.text().count("cannot accept") == 1


@pytest.mark.parametrize(("command", "reply"), [(CONNECT, 1), (BIND, 1), (UDP_ASSOCIATE, 1)])
async def test_no_descriptor_left_for_a_request(tmp_path: Path, command: int, reply: int) -> None:
    """Case 101: EMFILE in the middle of a session is REP 01, for every command, and no internal error."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        with no_descriptors_left():
            await client.send(request(command, *origin.address))
            assert await client.rest() == (bytes([5, reply]) + FAILURE, Ending.CLOSED)
        assert running.server.counters["internal_error"] == 0


async def test_no_descriptor_left_for_the_target_of_bind(tmp_path: Path) -> None:
    """Case 101: EMFILE when the target has connected is the second reply 01, and no internal error."""
    async with running_server(tmp_path) as running, logged_in(running.address) as client:
        first = await client.ask(BIND, "127.0.0.7", 0)
        target = trio.socket.socket()
        await target.bind(("127.0.0.7", 0))
        with target, no_descriptors_left():
            await target.connect((first.host, first.port))
            assert await client.rest() == (b"\5\1" + FAILURE, Ending.CLOSED)
        assert running.server.counters["internal_error"] == 0
