"""Scans: a sweep of ports is noticed within seconds, a program that may open many flows is left alone."""

from contextlib import AsyncExitStack
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from auth import Identity
from tests.associations import associated
from tests.harness import Running, config_for_tests, running_server, settle
from tests.socks_client import CONNECT, connected, logged_in
from tests.targets import Origin
from tests.wires import Ending, UdpSocket
from trioproxy.config import Config, Scans
from trioproxy.policy import IPAddress

pytestmark = pytest.mark.usefixtures("either_engine")

USERS = {"alice": "wonderland", "bob": "builder"}
RULES = {"user:alice": ["any:*(*)->127.0.0.0/8(*) scan=ignore"], "user:bob": ["any:*(*)->127.0.0.0/8(*)"]}
SWEPT = 80  # ports; more than the default of `ports_of_one_host_max`


def config(**scans: Any) -> Config:
    """A server that does this about scans."""
    return attrs.evolve(config_for_tests(limits={"sessions_per_user_max": 2_000}), scans=Scans(**scans))


async def try_port(running: Running, host: str, port: int, user: bytes, password: bytes) -> int:
    """One connection; the reply code, or -1 if there was none."""
    async with logged_in(running.address, user, password) as client:
        try:
            return (await client.ask(CONNECT, host, port)).code
        except (EOFError, ConnectionError, trio.BrokenResourceError):
            return -1


async def sweep(running: Running, user: bytes = b"bob", password: bytes = b"builder", ports: int = SWEPT) -> list[int]:
    """Try many ports of one host, one after the other."""
    codes = []
    for port in range(2, 2 + ports):  # nobody listens there
        try:
            codes.append(await try_port(running, "127.0.0.9", port, user, password))
        except AssertionError:  # the login is refused: who scans is blocked
            codes.append(-1)
    return codes


def warned(running: Running) -> list[str]:
    """The lines of the log about scans."""
    return [line.decode() for line in running.log.lines if b"scan" in line and b"kind=" in line]


async def test_a_sweep_is_noticed_and_said_once(tmp_path: Path) -> None:
    """By default nothing else happens: every port was tried."""
    async with running_server(tmp_path, config(), users=USERS, rules=RULES) as running:
        codes = await sweep(running)
        assert set(codes) == {5}
        [line] = [line for line in warned(running) if "user='bob'" in line]  # its source may be said as well
        assert "many ports of one host" in line or "many failures" in line


async def test_who_may_scan_is_not_watched(tmp_path: Path) -> None:
    """`scan=ignore` on the rule that permits it."""
    async with running_server(tmp_path, config(), users=USERS, rules=RULES) as running:
        await sweep(running, b"alice", b"wonderland")
        assert warned(running) == []


async def test_what_rules_deny_is_a_failure(tmp_path: Path) -> None:
    """Sweeping what one may not reach is sweeping."""
    denied = {"user:bob": ["tcp:*(*)->127.0.0.1(1)"]}
    async with running_server(tmp_path, config(refused_max=20), users=USERS, rules=denied) as running:
        assert set(await sweep(running, ports=40)) == {2}
        assert [line for line in warned(running) if "user='bob'" in line]


async def test_who_scans_is_blocked_for_a_while(tmp_path: Path) -> None:
    """An ordinary block, which `block list` shows and `block remove` lifts; others are not touched."""
    acting = config(action="block-for", block_s=600)
    async with (
        running_server(tmp_path, acting, users=USERS, rules=RULES) as running,
        Origin.open() as origin,
        logged_in(running.address, b"bob", b"builder") as before,
        logged_in(running.address) as other,
    ):
        for client in (before, other):
            assert (await client.ask(CONNECT, *origin.address)).code == 0
        await sweep(running)
        assert (await before.rest())[1] is Ending.RESET
        [block] = running.store.blocks.all()
        assert str(block.subject) == "user bob"
        assert block.set_by == "scan detector"
        assert block.reason.startswith("scan: many")
        await settle(lambda: running.server.open_sessions == 1)
        assert await try_port(running, *origin.address, b"bob", b"builder") == 2
        assert await try_port(running, *origin.address, b"alice", b"wonderland") == 0


async def test_who_scans_is_slowed_down(tmp_path: Path) -> None:
    """Five targets a second from then on, and only for who scans."""
    acting = config(action="slow", ports_of_one_host_max=5)
    async with running_server(tmp_path, acting, users=USERS, rules=RULES) as running:
        await sweep(running, ports=8)
        assert running.server.counters["scans"] >= 1
        begun_s = trio.current_time()
        await sweep(running, ports=5)
        assert trio.current_time() - begun_s >= 0.6
        async with associated(running.address, b"bob", b"builder") as client, UdpSocket.open() as target:
            await client.send(target.host, target.port, b"x")
            await settle(lambda: running.server.counters["scan_limit"] >= 1)


async def test_a_source_where_people_log_in_is_only_logged(tmp_path: Path) -> None:
    """One of them must not suffer for another: two users who are each below the limit."""
    acting = config(action="block-for", ports_of_one_host_max=50, refused_max=70)
    rules = {"global": ["any:*(*)->127.0.0.0/8(*)"]}
    async with running_server(tmp_path, acting, users=USERS, rules=rules) as running:
        for port in range(2, 82):
            user, password = (b"bob", b"builder") if port % 2 else (b"alice", b"wonderland")
            await try_port(running, "127.0.0.9", port, user, password)
        [line] = warned(running)
        assert "action='log'" in line
        assert running.store.blocks.all() == ()


async def test_a_source_without_login_is_blocked(tmp_path: Path) -> None:
    """There is nobody else to block."""
    anonymous = config_for_tests(listener=({"anonymous": True},))
    acting = attrs.evolve(anonymous, scans=Scans(action="block-for"))
    async with running_server(tmp_path, acting, users={}, rules={"global": ["any:*(*)->127.0.0.0/8(*)"]}) as running:
        for port in range(2, 2 + SWEPT):
            async with connected(running.address) as client:
                if await client.greet(0) != 0:
                    break
                if (await client.ask(CONNECT, "127.0.0.9", port)).code == 2:
                    break
        await settle(lambda: bool(running.store.blocks.all()))
        assert str(running.store.blocks.all()[0].subject) == "source 127.0.0.1"


async def test_switched_off(tmp_path: Path) -> None:
    """Nobody looks."""
    async with running_server(tmp_path, config(action="off"), users=USERS, rules=RULES) as running:
        await sweep(running)
        assert running.server.counters["scans"] == 0


async def test_a_calling_program_passes_untouched(tmp_path: Path) -> None:
    """300 flows to 200 peers, over TCP and UDP, under its own rule, while scanners are blocked."""
    acting = config(action="block-for")
    async with running_server(tmp_path, acting, users=USERS, rules=RULES) as running:
        async with associated(running.address) as client, trio.open_nursery() as nursery:
            for peer in range(200):
                await client.send(f"127.0.1.{peer}", 4_000 + peer, b"hello")
            for peer in range(100):
                nursery.start_soon(try_port, running, f"127.0.1.{peer}", 4_000 + peer, b"alice", b"wonderland")
        assert running.server.counters["scans"] == 0
        assert running.store.blocks.all() == ()


def two_addresses(name: str) -> list[IPAddress]:
    """What a name server answers that hides where its names lead: first a dead address, always the same."""
    return [IPv4Address("127.77.77.77"), IPv4Address(f"127.5.0.{name.partition('.')[0]}")]


async def test_names_hide_nobody(tmp_path: Path) -> None:
    """The address that is connected counts, whichever of its name's it is."""
    scans = config(hosts_of_one_port_max=10, targets_max=1_000, refused_max=1_000)
    async with running_server(tmp_path, scans, lookup=two_addresses) as running, AsyncExitStack() as stack:
        first = await stack.enter_async_context(Origin.open("127.5.0.1"))
        for number in range(2, 21):
            await stack.enter_async_context(Origin.open(f"127.5.0.{number}", first.port))
        for number in range(1, 21):
            async with logged_in(running.address) as client:
                assert (await client.ask(CONNECT, b"%d.example.org" % number, first.port)).code == 0
        assert "one port of many hosts" in "".join(warned(running))


@pytest.mark.parametrize("rule", ["tcp:*(*)->*(*) app=tls scan=ignore", "tcp:*(*)->*(1-9) app=tls scan=ignore"])
async def test_who_may_scan_is_not_watched_before_anybody_knows_what_it_is(tmp_path: Path, rule: str) -> None:
    """A rule that asks for that exempts what it may turn out to permit, whether somebody listens or not."""
    rules = {"user:alice": [rule, "tcp:*(*)->127.5.0.0/16(*) app=unknown scan=ignore"]}
    async with (
        running_server(tmp_path, config(hosts_of_one_port_max=5, refused_max=5), rules=rules) as running,
        Origin.open("0.0.0.0") as origin,
    ):
        for number in range(1, 21):
            async with logged_in(running.address) as client:
                assert (await client.ask(CONNECT, f"127.5.0.{number}", origin.port)).code == 0
            async with logged_in(running.address) as client:
                assert (await client.ask(CONNECT, f"127.5.0.{number}", 9)).code == 5
        assert warned(running) == []


@pytest.mark.parametrize("limit", ["quota=1B/day", "targets=1/min"])
async def test_what_limits_refuse_is_no_scan(tmp_path: Path, limit: str) -> None:
    """A browser that goes on trying when the month's volume is used up is not cut off for it."""
    scans = config(action="block-for", refused_max=5)
    async with (
        running_server(tmp_path, scans, users=USERS, rules=RULES, limits={"user:bob": limit}) as running,
        Origin.open() as origin,
    ):
        await settle(lambda: running.server.services.allowances.is_restored)
        async with logged_in(running.address, b"bob", b"builder") as client:
            assert (await client.ask(CONNECT, *origin.address)).code == 0
            far = await origin.accept()
            await client.send(b"xx")
            assert await far.receive(2) == b"xx"
            far.close()
        await settle(lambda: bool(running.records.rows()))
        for number in range(2, 22):
            async with logged_in(running.address, b"bob", b"builder") as client:
                assert (await client.ask(CONNECT, f"127.0.0.{number}", 443)).code == 2
        assert warned(running) == []
        assert running.store.blocks.all() == ()


async def test_a_stranger_does_not_cut_off_who_logs_in_beside_him(tmp_path: Path) -> None:
    """A block of the source would be one of alice: the stranger is slowed down instead, and she is not."""
    scans = Scans(action="block-for", refused_max=5, block_s=60)
    anonymous = attrs.evolve(config_for_tests(listener=({"anonymous": True},)), scans=scans)
    rules = {"global": ["any:*(*)->127.0.0.0/8(*)"]}
    async with running_server(tmp_path, anonymous, rules=rules) as running, Origin.open() as origin:
        async with logged_in(running.address) as alice:
            assert (await alice.ask(CONNECT, *origin.address)).code == 0
            for number in range(10):
                async with connected(running.address) as stranger:
                    assert await stranger.greet(0) == 0
                    await stranger.ask(CONNECT, f"127.6.0.{number + 1}", 9)
            [line] = warned(running)
            assert "action='slow'" in line
            await running.until_rules_hold()
            assert running.store.blocks.all() == ()
            services = running.server.services
            assert services.scans.wait_s(Identity("main", None), "127.0.0.1") != 0
            assert services.scans.wait_s(Identity("main", "alice"), "127.0.0.1") == 0
            await settle(lambda: running.server.open_sessions == 1)


async def test_slow_datagrams_take_no_turn_from_others(tmp_path: Path) -> None:
    """What is dropped has not waited: some pass in each second, and a connection does not wait for all the others."""
    scans = config(action="slow", ports_of_one_host_max=5)
    async with running_server(tmp_path, scans) as running, associated(running.address) as client:
        for port in range(1_000, 1_010):
            await client.send("127.0.0.1", port, b"x")
        await settle(lambda: running.server.counters["scans"] >= 1)
        for port in range(2_000, 2_100):
            await client.send("127.0.0.1", port, b"x")
            await trio.sleep(0.01)
        await settle(lambda: running.server.counters["scan_limit"] > 50)
        wait_s = running.server.services.scans.wait_s(Identity("main", "alice"), "127.0.0.1")
        assert wait_s is not None
        assert wait_s <= 0.2
