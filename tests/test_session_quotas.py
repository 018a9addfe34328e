"""Quotas and counts through a real server: what ends, what is refused, what is counted, and what a restart knows."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.associations import associated, dropped
from tests.flows import Arrivals, flood, joined, receive_all
from tests.harness import Running, config_for_tests, running_server, settle
from tests.socks_client import BIND, CONNECT, UDP_ASSOCIATE, SocksClient, connected, logged_in
from tests.targets import Origin, looking_up
from tests.wires import Ending, UdpSocket, dialled
from trioproxy.accounting import QuotaKey
from trioproxy.config import Tenant
from trioproxy.policy import IPAddress
from trioproxy.store import usage_path, usage_writer
from trioproxy.store.usage import UsageStore

pytestmark = pytest.mark.usefixtures("either_engine")

USERS: Final = {"alice": "wonderland", "bob": "builder", "physics/alice": "matter"}
EVERYTHING: Final = {"global": ["any:*(*)->*(*)"]}
QUOTA_ROWS_SINCE: Final = timedelta(days=40)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a second in service."""
    monkeypatch.setattr("trioproxy.meters.METER_S", 0.05)
    monkeypatch.setattr(usage_writer, "FLUSH_S", 0.01)


@asynccontextmanager
async def two_tenants(folder: Path, **how: object) -> AsyncIterator[Running]:
    """A server with a listener for each tenant."""
    config = config_for_tests(listener=({}, {"tenant": "physics"}), tenant={"physics": Tenant()})
    async with running_server(folder, config, users=USERS, rules=EVERYTHING, **how) as running:  # type: ignore[arg-type]
        yield running


def used(folder: Path) -> dict[QuotaKey, int]:
    """What the store says was used of quotas."""
    path = usage_path(folder / "trioproxy.db")
    if not path.exists():
        return {}
    with UsageStore.open(path, create=False) as store:
        return store.quotas_used(datetime.now(UTC) - QUOTA_ROWS_SINCE)


def ends(running: Running) -> list[str]:
    """How the flows have ended that left a record."""
    return [row["termination"] for row in running.records.rows()]


def moved(running: Running) -> int:
    """The bytes of all records."""
    return sum(row["bytes_to_client"] + row["bytes_to_target"] for row in running.records.rows())


async def code(client: SocksClient, origin: Origin) -> int:
    """What a CONNECT is answered."""
    return (await client.ask(CONNECT, *origin.address)).code


# ---- quotas


async def test_a_flow_ends_when_the_quota_is_used_up(tmp_path: Path) -> None:
    """It is reset and its record says why; what is new is refused and counted; another user's goes on."""
    limits = {"tenant:main": "quota=1MB/day"}
    async with (
        running_server(tmp_path, users=USERS, rules=EVERYTHING, limits=limits) as running,
        Origin.open() as origin,
        joined(running.address, origin, b"bob", b"builder") as other,
    ):
        async with joined(running.address, origin) as idle, joined(running.address, origin) as flow:
            await flow.target.send(bytes(999_999))
            assert len(await flow.client.receive(999_999)) == 999_999
            await trio.sleep(0.3)
            await flow.client.send(b"x")
            assert await flow.target.receive(1) == b"x"
            assert (await flow.client.rest())[1] is Ending.RESET
            assert (await flow.target.rest())[1] is Ending.RESET
            assert (await idle.client.rest())[1] is Ending.RESET  # it may move nothing any more
        async with logged_in(running.address) as late:
            assert await code(late, origin) == 2
        await settle(lambda: len(ends(running)) == 3)
        assert ends(running) == ["quota used up"] * 3
        assert moved(running) == 1_000_000
        assert running.server.counters["refused_by_quota"] >= 1
        await other.client.send(b"still here")
        assert await other.target.receive(10) == b"still here"


async def test_a_rule_may_have_the_quota(tmp_path: Path) -> None:
    """What another rule permits is not counted, and goes on."""
    async with Origin.open() as origin, Origin.open() as free:
        rules = {"user:alice": [f"tcp:*(*)->*({free.port})", "tcp:*(*)->*(*) quota=100kB/week"]}
        async with (
            running_server(tmp_path, rules=rules) as running,
            joined(running.address, origin) as flow,
            joined(running.address, free) as other,
        ):
            await other.target.send(bytes(500_000))
            await other.client.receive(500_000)
            await flow.target.send(bytes(100_000))
            assert await flow.client.rest() == (bytes(100_000), Ending.RESET)
            await other.client.send(b"more")
            assert await other.target.receive(4) == b"more"


async def test_over_quota_goes_on_slowly(tmp_path: Path) -> None:
    """With `over_quota_rate` the flow lives on at that rate, and so does a new one; together they have it."""
    limits = {"user:alice": "quota=1MB/day over_quota_rate=800kbit"}
    async with running_server(tmp_path, limits=limits) as running, Origin.open() as origin:
        before, slow = Arrivals(), Arrivals()
        async with joined(running.address, origin) as flow, trio.open_nursery() as nursery:
            nursery.start_soon(flood, flow.target)
            nursery.start_soon(receive_all, flow.client, before, slow)
            await settle(lambda: before.total > 1_000_000)
            await trio.sleep(0.5)  # it was noticed, and what was in the sockets has come
            slow.total = 0
            async with joined(running.address, origin) as second:
                nursery.start_soon(flood, second.target)
                nursery.start_soon(receive_all, second.client, slow)
                await trio.sleep(2)
                nursery.cancel_scope.cancel()
        assert 0.5 * 200_000 <= slow.total <= 1.1 * 200_000 + 25_000
        await running.until_idle()
        assert "quota used up" not in ends(running)


async def test_more_of_it_lets_go_on(tmp_path: Path) -> None:
    """Who is refused is let in as soon as the limit has changed; what was used still counts."""
    async with running_server(tmp_path, limits={"user:alice": "quota=10kB/day"}) as running, Origin.open() as origin:
        async with joined(running.address, origin) as flow:
            await flow.target.send(bytes(10_000))
            assert (await flow.client.rest())[1] is Ending.RESET
        running.set_limit("user:alice", "quota=20kB/day")
        await running.until_rules_hold()
        async with joined(running.address, origin) as flow:
            await flow.target.send(bytes(10_000))
            assert (await flow.client.rest())[1] is Ending.RESET


async def test_a_new_period_begins(tmp_path: Path) -> None:
    """At midnight who was refused is let in, and who was slow is fast."""
    limits = {"user:alice": "quota=100kB/day over_quota_rate=8kbit"}
    async with running_server(tmp_path, limits=limits) as running, Origin.open() as origin:
        allowances, today = running.server.services.allowances, datetime.now(UTC)
        now = [today]
        allowances.now = lambda: now[0]
        async with joined(running.address, origin) as flow:
            await flow.target.send(bytes(100_000))
            await flow.client.receive(100_000)
            await settle(lambda: running.server.services.allowances.over_quota == 1)
            now[0] = today + timedelta(days=1)
            await flow.target.send(bytes(50_000))  # 50 seconds, if it were slow
            await flow.client.receive(50_000)
            assert allowances.over_quota == 0


async def test_what_is_accounted_is_what_was_relayed(tmp_path: Path) -> None:
    """Conservation: TCP both ways, UDP, flows that are reset: quota, records and what arrived are the same sum."""
    limits = {"tenant:main": "quota=1GB/month", "together global": "quota=1TB/month"}
    async with Origin.open() as origin, UdpSocket.open() as target:
        async with running_server(tmp_path, limits=limits, keep_usage=True) as running:
            for size in (0, 1, 70_000, 3_000_000):
                async with joined(running.address, origin) as flow, trio.open_nursery() as nursery:
                    nursery.start_soon(flow.target.send, bytes(size))
                    await flow.client.receive(size)
                    await flow.client.send(bytes(1_000))
                    await flow.target.receive(1_000)
                    if size == 1:
                        flow.target.finish()
                        flow.client.finish()
                    else:
                        flow.client.reset()
            async with associated(running.address) as client:
                for size in (0, 1, 1_000):
                    await client.send(target.host, target.port, bytes(size))
                    _, relay = await target.receive()
                    await target.send(bytes(2 * size), relay)
                    await client.receive()
            await running.until_idle()
        total = 3_070_001 + 4_000 + 3 * 1_001
        assert moved(running) == total
        assert sorted((key.tenant, key.owner, count) for key, count in used(tmp_path).items()) == [
            ("", "", total),
            ("main", "alice", total),
        ]


async def test_a_restart_knows_what_was_used(tmp_path: Path) -> None:
    """Another server on the same folder refuses who was refused before, and counts on for the others."""
    limits = {"global": "quota=100kB/month"}
    async with Origin.open() as origin:
        async with running_server(tmp_path, users=USERS, rules=EVERYTHING, limits=limits, keep_usage=True) as running:
            async with joined(running.address, origin) as flow:
                await flow.target.send(bytes(100_000))
                assert (await flow.client.rest())[1] is Ending.RESET
            async with joined(running.address, origin, b"bob", b"builder") as flow:
                await flow.target.send(bytes(60_000))
                await flow.client.receive(60_000)
        async with running_server(tmp_path, users={}, rules={}, keep_usage=True) as running:
            async with logged_in(running.address) as client:
                assert await code(client, origin) == 2
            async with joined(running.address, origin, b"bob", b"builder") as flow:
                await flow.target.send(bytes(40_000))
                assert await flow.client.rest() == (bytes(40_000), Ending.RESET)
        assert sorted(used(tmp_path).values()) == [100_000, 100_000]


async def test_case_113_an_unknown_quota_is_refused(tmp_path: Path) -> None:
    """Case 113: what was used cannot be read: who has a quota is refused, and let in when it can; once in the log."""
    path = usage_path(tmp_path / "trioproxy.db")
    path.write_text("no database")
    rules = {"user:alice": ["any:*(*)->*(*) quota=1GB/day"], "user:bob": ["any:*(*)->*(*)"]}
    async with running_server(tmp_path, users=USERS, rules=rules, keep_usage=True) as running, Origin.open() as origin:
        async with logged_in(running.address) as client:
            assert await code(client, origin) == 2
        async with logged_in(running.address, b"bob", b"builder") as client:
            assert await code(client, origin) == 0
        await trio.sleep(0.3)
        assert running.log.text().count("quotas cannot be read") == 1
        path.unlink()
        await settle(lambda: running.server.services.allowances.is_restored)
        async with logged_in(running.address) as client:
            assert await code(client, origin) == 0


async def test_tenants_have_quotas_apart(tmp_path: Path) -> None:
    """The same name in another tenant is another person."""
    async with two_tenants(tmp_path, limits={"global": "quota=10kB/day"}) as running, Origin.open() as origin:
        async with joined(running.addresses[0], origin) as flow:
            await flow.target.send(bytes(10_000))
            assert (await flow.client.rest())[1] is Ending.RESET
        async with joined(running.addresses[1], origin, b"alice", b"matter") as flow:
            await flow.client.send(b"physics")
            assert await flow.target.receive(7) == b"physics"
        async with logged_in(running.addresses[0]) as client:
            assert await code(client, origin) == 2


async def test_case_79_datagrams_over_quota(tmp_path: Path) -> None:
    """Case 79: they count; over the quota they are dropped and the destination ends, the control connection stays."""
    limits = {"user:alice": "quota=10kB/day"}
    async with (
        running_server(tmp_path, limits=limits) as running,
        UdpSocket.open() as target,
        associated(running.address) as client,
    ):
        relay = ("", 0)
        for _ in range(10):
            await client.send(target.host, target.port, bytes(1_000))
            _, relay = await target.receive()
        await settle(lambda: len(running.records.rows()) == 1)
        [row] = running.records.rows()
        assert (row["bytes_to_target"], row["termination"]) == (10_000, "quota used up")
        await client.send(target.host, target.port, b"more")
        await target.send(b"and back", relay)
        await settle(lambda: (dropped(running, "quota"), dropped(running, "stranger_target")) == (1, 1))
        assert target.nothing_waits()
        assert running.server.open_sessions == 1
        running.set_limit("user:alice", "quota=20kB/day")
        await running.until_rules_hold()
        await client.send(target.host, target.port, b"again")
        assert (await target.receive())[0] == b"again"


async def test_datagrams_over_quota_go_on_slowly(tmp_path: Path) -> None:
    """With `over_quota_rate` what is beyond it is dropped, and the rest passes."""
    limits = {"user:alice": "quota=10kB/day over_quota_rate=16kbit"}
    async with (
        running_server(tmp_path, limits=limits) as running,
        UdpSocket.open() as target,
        associated(running.address) as client,
    ):
        for _ in range(10):
            await client.send(target.host, target.port, bytes(1_000))
            await target.receive()
        await settle(lambda: running.server.services.allowances.over_quota == 1)
        for _ in range(30):
            await client.send(target.host, target.port, bytes(1_000))
        await settle(lambda: dropped(running, "rate_limit") >= 25)
        assert (await target.receive())[0] == bytes(1_000)


async def test_another_address_of_a_name_has_its_own_rule(tmp_path: Path) -> None:
    """What counts is what was connected to, and not the first candidate."""
    async with Origin.open("127.0.0.9") as origin:
        rules = {"user:alice": ["tcp:*(*)->127.0.0.8(*)", "tcp:*(*)->127.0.0.9(*) quota=10kB/day"]}
        lookup = looking_up("127.0.0.8", "127.0.0.9")  # nobody listens at the first
        async with (
            running_server(tmp_path, rules=rules, lookup=lookup) as running,
            logged_in(running.address) as client,
        ):
            assert (await client.ask(CONNECT, b"two.example.org", origin.port)).code == 0
            target = await origin.accept()
            await target.send(bytes(10_000))
            assert await client.rest() == (bytes(10_000), Ending.RESET)


async def test_a_name_in_two_spellings_is_one_quota(tmp_path: Path) -> None:
    """Datagrams that waited for a name that another spelling has pinned meanwhile pass the same gates."""
    config = config_for_tests()
    release = trio.Event()

    def lookup(name: str) -> list[object]:
        trio.from_thread.run(release.wait)
        return list(looking_up("127.0.0.1")(name))

    rules = {"user:alice": ["udp:*(*)->*(*) rate=8kbit burst=2kB"]}
    async with (
        running_server(tmp_path, config, rules=rules, lookup=lookup) as running,  # type: ignore[arg-type]
        UdpSocket.open() as target,
        associated(running.address) as client,
    ):
        for name in (b"one.example.org", b"ONE.example.org"):
            for _ in range(5):
                await client.send(name, target.port, bytes(1_000))
        await settle(lambda: running.server.counters["datagram_waiting_limit"] == 0)
        await trio.sleep(0.1)
        release.set()
        await settle(lambda: dropped(running, "rate_limit") >= 7)


# ---- counts


async def test_sessions_of_each_user(tmp_path: Path) -> None:
    """`sessions=`: the template outweighs the configuration, both ways; who has none has what that says."""
    config = config_for_tests(limits={"sessions_per_user_max": 2})
    limits = {"user:alice": "sessions=3", "user:bob": "sessions=1"}
    async with (
        running_server(tmp_path, config, users={**USERS, "carol": "chess"}, rules=EVERYTHING, limits=limits) as running,
        Origin.open() as origin,
        AsyncExitStack() as stack,
    ):
        for user, password, most in (("alice", "wonderland", 3), ("bob", "builder", 1), ("carol", "chess", 2)):
            codes = []
            for _ in range(most + 1):
                client = await stack.enter_async_context(logged_in(running.address, user.encode(), password.encode()))
                codes.append(await code(client, origin))
            assert codes == [0] * most + [1], user
        assert running.server.counters["sessions_limit_each"] == 3


async def test_sessions_that_users_share(tmp_path: Path) -> None:
    """`limit set --together ... sessions=3`: of all users of a tenant, and of nobody else; then there is room."""
    limits = {"together tenant:main": "sessions=3", "together global": "sessions=4"}
    async with two_tenants(tmp_path, limits=limits) as running, Origin.open() as origin, AsyncExitStack() as stack:
        clients: list[SocksClient] = []

        async def one(listener: int, user: bytes, password: bytes) -> tuple[int, SocksClient]:
            client = await stack.enter_async_context(logged_in(running.addresses[listener], user, password))
            clients.append(client)
            return await code(client, origin), client

        alice, bob, physics = (0, b"alice", b"wonderland"), (0, b"bob", b"builder"), (1, b"alice", b"matter")
        first = await one(*alice)
        assert [first[0], *[(await one(*who))[0] for who in (alice, bob, bob, physics, physics)]] == [0, 0, 0, 1, 0, 1]
        assert running.server.counters["shared_sessions_limit_each"] == 2
        first[1].reset()
        await settle(lambda: running.server.open_sessions == 3)
        assert [(await one(*who))[0] for who in (bob, bob)] == [0, 1]
        for client in clients[1:]:
            client.reset()
        await running.until_idle()
        assert running.server.services.shared_sessions.total == 0


async def test_a_shared_limit_counts_those_who_are_there(tmp_path: Path) -> None:
    """Set while sessions run: none ends, all of them count."""
    async with (
        running_server(tmp_path, users=USERS, rules=EVERYTHING) as running,
        Origin.open() as origin,
        joined(running.address, origin) as one,
        joined(running.address, origin, b"bob", b"builder"),
    ):
        running.set_limit("together global", "sessions=2")
        await running.until_rules_hold()
        await settle(lambda: running.server.services.shared_sessions.total == 2)
        async with logged_in(running.address) as late:
            assert await code(late, origin) == 1
        one.client.reset()
        await settle(lambda: running.server.services.shared_sessions.total == 1)
        async with logged_in(running.address) as late:
            assert await code(late, origin) == 0


async def test_associations_and_binds_of_each_user(tmp_path: Path) -> None:
    """`associations=` and `binds=`: each has its own places, and CONNECT needs none of them."""
    limits = {"global": "associations=1 binds=1"}
    async with (
        running_server(tmp_path, users=USERS, rules=EVERYTHING, limits=limits) as running,
        Origin.open() as origin,
        associated(running.address),
        logged_in(running.address) as bind,
        joined(running.address, origin),
    ):
        assert (await bind.ask(BIND, "127.0.0.1", 0)).code == 0
        for command, counter in ((UDP_ASSOCIATE, "associations"), (BIND, "binds")):
            async with logged_in(running.address) as client:
                assert (await client.ask(command, "0.0.0.0", 0)).code == 1
            assert running.server.counters[f"{counter}_limit_each"] == 1
            async with logged_in(running.address, b"bob", b"builder") as other:
                assert (await other.ask(command, "0.0.0.0" if command == UDP_ASSOCIATE else "127.0.0.1", 0)).code == 0


async def test_new_sessions_within_a_minute(tmp_path: Path) -> None:
    """`new_sessions=3/min`: the fourth is 01 and counted, although the first ones have ended; others have their own."""
    async with (
        two_tenants(tmp_path, limits={"global": "new_sessions=3/min"}) as running,
        Origin.open() as origin,
    ):
        codes = []
        for _ in range(4):
            async with logged_in(running.address) as client:
                codes.append(await code(client, origin))
                client.reset()
        assert codes == [0, 0, 0, 1]
        assert running.server.counters["new_sessions_limit_each"] == 1
        for listener, user, password in ((0, b"bob", b"builder"), (1, b"alice", b"matter")):
            async with logged_in(running.addresses[listener], user, password) as client:
                assert await code(client, origin) == 0


async def test_targets_within_a_minute(tmp_path: Path) -> None:
    """`targets=2/min`: TCP and UDP count alike; a known target is free; a third is refused or dropped."""
    async with (
        running_server(tmp_path, limits={"global": "targets=2/min"}) as running,
        Origin.open() as origin,
        Origin.open() as third,
        UdpSocket.open() as udp,
        associated(running.address) as client,
    ):
        await client.send(udp.host, udp.port, b"hello")
        await udp.receive()
        for target, expected in ((origin, 0), (origin, 0), (third, 2), (origin, 0)):
            async with logged_in(running.address) as other:
                assert await code(other, target) == expected
        assert running.server.counters["targets_limit_each"] == 1
        await client.send("127.0.0.9", udp.port, b"hello")
        await settle(lambda: dropped(running, "limit") == 1)
        await client.send(udp.host, udp.port, b"again")
        assert (await udp.receive())[0] == b"again"


async def test_without_login_each_source_counts(tmp_path: Path) -> None:
    """A quota, a pace: those of an address."""
    config = config_for_tests(listener=({"anonymous": True},))
    limits = {"global": "quota=10kB/day new_sessions=2/min"}
    async with running_server(tmp_path, config, rules=EVERYTHING, limits=limits) as running, Origin.open() as origin:
        codes = []
        for source in ("127.0.0.2", "127.0.0.2", "127.0.0.2", "127.0.0.3"):
            async with connected(running.address, source=source) as client:
                assert await client.greet(0) == 0
                codes.append(await code(client, origin))
                if codes == [0]:
                    await client.send(bytes(10_000))
                    assert (await client.rest())[1] is Ending.RESET
                client.reset()
        assert codes == [0, 2, 1, 0]


async def test_sessions_may_end_while_a_quota_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are looked through meanwhile are gone before it is their turn: the server goes on."""
    monkeypatch.setattr("trioproxy.judge.JUDGED_AT_ONCE", 1)
    limits = {"global": "quota=10kB/day over_quota_rate=80Mbit"}
    async with (
        running_server(tmp_path, limits=limits) as running,
        Origin.open() as origin,
        AsyncExitStack() as stack,
    ):
        flows = [await stack.enter_async_context(joined(running.address, origin)) for _ in range(60)]
        await flows[0].target.send(bytes(20_000))
        await flows[0].client.receive(20_000)
        for flow in reversed(flows):
            flow.client.reset()
            await trio.sleep(0.002)
        await running.until_idle()
        assert running.server.counters["internal_error"] == 0
        async with joined(running.address, origin):
            assert running.server.open_sessions == 1


async def test_a_session_that_cannot_be_judged_ends_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with us: the others are judged all the same, and the server goes on."""
    limits = {"global": "quota=10kB/day over_quota_rate=80Mbit"}
    async with running_server(tmp_path, limits=limits) as running, Origin.open() as origin:
        async with joined(running.address, origin) as broken, joined(running.address, origin) as other:
            sessions = list(running.server._sessions.values())
            monkeypatch.setattr(type(sessions[0]._rights), "renew", lambda rights: rights.nothing_of_the_kind)
            await other.target.send(bytes(20_000))
            assert (await broken.client.rest())[1] is Ending.RESET
            await other.client.rest()
        await running.until_idle()
        assert running.server.counters["internal_error"] == 2
        assert ends(running) == ["internal error"] * 2
        monkeypatch.undo()
        assert "internal error" in running.log.text()


async def test_a_new_quota_is_not_charged_with_the_past(tmp_path: Path) -> None:
    """What flowed before it was set counts for nothing."""
    async with running_server(tmp_path) as running, Origin.open() as origin, joined(running.address, origin) as flow:
        await flow.target.send(bytes(300_000))
        await flow.client.receive(300_000)
        running.set_limit("user:alice", "quota=100kB/day")
        await running.until_rules_hold()
        await settle(lambda: bool(running.server.services.allowances._accounts))
        await flow.client.send(b"more")
        assert await flow.target.receive(4) == b"more"
        [account] = running.server.services.allowances._accounts.values()
        await settle(lambda: account.quota.used(datetime.now(UTC)) == 4)


async def test_a_flow_that_is_looked_at_ends_with_its_quota(tmp_path: Path) -> None:
    """Nobody has spoken yet, and nothing may be said any more."""
    rules = {"user:alice": ["tcp:*(*)->127.0.0.1(*) app=unknown,tls", "tcp:*(*)->*(*)"]}
    async with (
        running_server(tmp_path, rules=rules, limits={"user:alice": "quota=10kB/day"}) as running,
        Origin.open() as looked_at,
        Origin.open("127.0.0.2") as origin,
        joined(running.address, looked_at) as waiting,
        joined(running.address, origin) as flow,
    ):
        await flow.target.send(bytes(20_000))
        assert (await flow.client.rest())[1] is Ending.RESET
        assert (await waiting.client.rest())[1] is Ending.RESET
        await settle(lambda: ends(running) == ["quota used up"] * 2)


async def test_a_bind_counts_until_its_target_has_come(tmp_path: Path) -> None:
    """`binds` is how many may listen; what relays is a session like any other."""
    async with running_server(tmp_path, limits={"user:alice": "binds=1"}) as running:
        async with logged_in(running.address) as first, logged_in(running.address) as second:
            answer = await first.ask(BIND, "127.0.0.1", 0)
            assert answer.code == 0
            async with logged_in(running.address) as third:
                assert (await third.ask(BIND, "127.0.0.1", 0)).code == 1
            async with dialled((answer.host, answer.port)):
                assert (await first.answer()).code == 0
                assert (await second.ask(BIND, "127.0.0.1", 0)).code == 0
        await running.until_idle()
        assert running.server.services.binds.total == 0


async def test_targets_of_names_are_those_that_are_connected(tmp_path: Path) -> None:
    """A name whose first address is dead leads to as many targets as any other, and each name counts once."""

    def lookup(name: str) -> list[IPAddress]:
        return [IPv4Address("127.77.77.77"), IPv4Address(f"127.5.0.{name.partition('.')[0]}")]

    limits = {"user:alice": "targets=3/min"}
    async with running_server(tmp_path, limits=limits, lookup=lookup) as running, AsyncExitStack() as stack:
        origin = await stack.enter_async_context(Origin.open("127.5.0.1"))
        for number in range(2, 7):
            await stack.enter_async_context(Origin.open(f"127.5.0.{number}", origin.port))
        codes = []
        for number in (1, 2, 1, 3, 4, 5, 6):
            async with logged_in(running.address) as client:
                codes.append((await client.ask(CONNECT, b"%d.example.org" % number, origin.port)).code)
        assert codes == [0, 0, 0, 0, 2, 2, 2]


async def test_datagrams_to_new_destinations_over_quota_are_named(tmp_path: Path) -> None:
    """Their reason is not that of the counts."""
    async with running_server(tmp_path, limits={"user:alice": "quota=10B/day"}) as running:
        async with associated(running.address) as client, UdpSocket.open() as one, UdpSocket.open() as two:
            await client.send(one.host, one.port, bytes(20))
            await settle(lambda: bool(running.records.rows()))
            await client.send(two.host, two.port, bytes(20))
            await settle(lambda: running.server.counters["datagram_quota"] == 1)
