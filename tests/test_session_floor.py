"""What a real server must not be talked into: the floor, spellings of loopback, names that change their mind."""

from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest

from tests.harness import config_for_tests, running_server
from tests.socks_client import CONNECT, logged_in, request
from tests.targets import Origin, looking_up
from trioproxy.config import Config, PolicySettings, SocketAddress
from trioproxy.policy import IPAddress

CLOSED_FLOOR = PolicySettings()
FAILURE = b"\0\1" + bytes(6)  # what follows VER and REP in every failure

# Every way to write loopback, or the host itself, that the peers of CASES 1.9 and 2.5 let through; None: the look-up is
# to blame, which is asked for this name (what `localhost` means is known to the resolver alone).
LOOPBACK_NAMES = (
    b"127.0.0.1", b"127.0.0.1.", b"127.1", b"127.0.1", b"0x7f.1", b"0x7f.0.0.1", b"0177.0.0.1", b"0x7f000001",
    b"2130706433", b"017700000001", b"127.0.0.1\0.example.com", b"localhost\0.example.com", b"\0", b"0", b"0.0.0.0",
    b"0.0", b"::1", b"[::1]", b"::", b"::ffff:127.0.0.1", b"::ffff:7f00:1", b"0:0:0:0:0:0:0:1", b"::1%lo",
    b"[127.0.0.1]",
    b"127.0.0.1%lo", b" 127.0.0.1", b"127.0.0.1 ", b"127.0.0.1:80", "\uff11\uff12\uff17.0.0.1".encode(),
    "127\u30020\u30020\u30021".encode(), b"127.0.0.1/8", b"localhost", b"LOCALHOST", b"localhost.", b"localhost..",
    b"a.localhost",
)  # fmt: skip
LOOPBACK_ADDRESSES = (
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::1", "2001:0:7f00:1::1", "2001:db8::5efe:127.0.0.1",
)  # fmt: skip


async def test_each_spelling_of_loopback_is_refused_and_nobody_is_connected(tmp_path: Path) -> None:
    """Case 64, CASES 1.9 rows "127.1", NUL, ::ffff:, 0.0.0.0: 01 or 02 for each, and the canaries stay alone."""
    config = Config(listener=config_for_tests().listener, policy=CLOSED_FLOOR)
    rules = {"user:alice": ["any:*(*)->*(*)", "any:*(*)->127.0.0.0/8(*)", "any:*(*)->::/0(*)"]}
    lookup = looking_up("127.0.0.1", "::1", "::ffff:127.0.0.1")
    async with Origin.open("127.0.0.1") as canary, Origin.open("::1", canary.port) as canary_v6:
        async with running_server(tmp_path, config, rules=rules, lookup=lookup) as running:
            for host in (*LOOPBACK_NAMES, *LOOPBACK_ADDRESSES):
                async with logged_in(running.address) as client:
                    await client.send(request(CONNECT, host, canary.port))
                    reply, _ = await client.rest()
                    assert (host, reply[1] in (1, 2), reply[2:]) == (host, True, FAILURE)
        assert canary.nobody_waits()
        assert canary_v6.nobody_waits()


@pytest.mark.parametrize(
    ("host", "reply"),
    [
        (b"127.1", 1),
        (b"2130706433", 1),
        (b"0x7f.1", 1),
        (b"127.0.0.1\0.evil.com", 1),
        ("::ffff:127.0.0.1", 2),
        ("0.0.0.0", 2),
    ],
)
async def test_spellings_get_the_reply_of_the_table(tmp_path: Path, host: str | bytes, reply: int) -> None:
    """CASES 1.9, last column: malformed names are 01, what the floor forbids is 02."""
    config = Config(listener=config_for_tests().listener, policy=CLOSED_FLOOR)
    async with running_server(tmp_path, config) as running, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, host, 80)).octets == bytes([5, reply]) + FAILURE


async def test_mapped_address_is_judged_and_reached_as_what_it_means(tmp_path: Path) -> None:
    """CASES 1.9 row "::ffff:127.0.0.1", case 66: a rule about 127.0.0.1 holds for it, and IPv4 is spoken."""
    rules = {"user:alice": ["deny tcp:*(*)->127.0.0.2(*)", "tcp:*(*)->127.0.0.0/8(*)"]}
    async with Origin.open() as origin, running_server(tmp_path, rules=rules) as running:
        async with logged_in(running.address) as client:
            answer = await client.ask(CONNECT, "::ffff:127.0.0.1", origin.port)
            assert (answer.code, answer.host) == (0, "127.0.0.1")
        async with logged_in(running.address) as client:
            assert (await client.ask(CONNECT, "::ffff:127.0.0.2", origin.port)).code == 2


async def test_own_listener_is_out_of_reach(tmp_path: Path) -> None:
    """Case 68: even where the floor is open, and by any address of this host, a client cannot loop through us."""
    wildcard = {"address": SocketAddress(IPv4Address("0.0.0.0"), 0)}
    config = config_for_tests(listener=({}, wildcard))
    async with running_server(tmp_path, config, lookup=looking_up("127.0.0.1")) as running:
        (_, first), (_, second) = running.addresses
        for host, port in (
            ("127.0.0.1", first),
            (b"self.example.org", first),
            ("127.0.0.1", second),
            ("127.0.0.9", second),
            ("::ffff:127.0.0.1", second),
        ):
            async with logged_in(running.address) as client:
                assert (host, (await client.ask(CONNECT, host, port)).code) == (host, 2)


async def test_rebinding_name_is_asked_once_and_the_judged_address_connected(tmp_path: Path) -> None:
    """Case 69: the resolver says 127.0.0.2 first and 127.0.0.1 from then on; only the first is ever connected."""
    asked: list[str] = []

    def lookup(name: str) -> list[IPAddress]:
        asked.append(name)
        return [ip_address("127.0.0.2" if len(asked) == 1 else "127.0.0.1")]

    policy = PolicySettings(open_floor=(ip_network("127.0.0.2/32"),))
    config = config_for_tests(policy=policy)
    async with Origin.open("127.0.0.2") as public, Origin.open("127.0.0.1", public.port) as canary:
        async with running_server(tmp_path, config, lookup=lookup) as running, logged_in(running.address) as client:
            assert (await client.ask(CONNECT, b"rebind.example.org", public.port)).code == 0
            assert asked == ["rebind.example.org"]
            await public.accept()
        assert canary.nobody_waits()


async def test_second_request_of_a_rebinding_name_is_judged_again(tmp_path: Path) -> None:
    """Case 69: without a cache each request asks exactly once, and a floor address in the answer is refused."""
    asked: list[str] = []

    def lookup(name: str) -> list[IPAddress]:
        asked.append(name)
        return [ip_address("127.0.0.2" if len(asked) == 1 else "127.0.0.1")]

    policy = PolicySettings(open_floor=(ip_network("127.0.0.2/32"),))
    config = config_for_tests(policy=policy, limits={"resolve_cache_s": 0.0})
    async with Origin.open("127.0.0.2") as public, Origin.open("127.0.0.1", public.port) as canary:
        async with running_server(tmp_path, config, lookup=lookup) as running:
            for code in (0, 2):
                async with logged_in(running.address) as client:
                    assert (await client.ask(CONNECT, b"rebind.example.org", public.port)).code == code
        assert len(asked) == 2
        assert canary.nobody_waits()


async def test_who_may_reach_nothing_causes_no_look_up(tmp_path: Path) -> None:
    """Judge before resolving: no rule could ever allow it, so no name leaves the machine."""
    asked: list[str] = []

    def lookup(name: str) -> list[IPAddress]:
        asked.append(name)
        return []

    rules = {"user:alice": ["udp:*(*)->*(*)"]}
    async with running_server(tmp_path, rules=rules, lookup=lookup) as running, logged_in(running.address) as client:
        assert (await client.ask(CONNECT, b"data.in.a.name.example.org", 80)).code == 2
        assert asked == []
