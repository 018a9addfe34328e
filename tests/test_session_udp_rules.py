"""UDP ASSOCIATE through a real server: every destination is judged, names are resolved once, and all is bounded."""

import threading
from ipaddress import ip_address
from pathlib import Path

import trio

from tests.associations import associated, dropped
from tests.changes import relayed
from tests.harness import config_for_tests, running_server, settle
from tests.socks_client import UDP_ASSOCIATE, logged_in
from tests.targets import Origin, looking_up
from tests.wires import UdpSocket
from trioproxy.config import Config, PolicySettings
from trioproxy.policy import IPAddress

FAILURE = b"\0\1" + bytes(6)  # what follows VER and REP in every failure


async def test_each_destination_is_judged(tmp_path: Path) -> None:
    """Case 76: first allowed, second denied, third allowed: exactly one and three leave."""
    async with UdpSocket.open() as one, UdpSocket.open() as two, UdpSocket.open() as three:
        rules = {"user:alice": [f"udp:*(*)->127.0.0.1({one.port},{three.port})", "tcp:*(*)->*(*)"]}
        async with running_server(tmp_path, rules=rules) as running, associated(running.address) as client:
            for target in (one, two, three):
                await client.send(target.host, target.port, b"data")
            assert (await one.receive())[0] == b"data"
            assert (await three.receive())[0] == b"data"
            assert two.nothing_waits()
            assert dropped(running, "denied") == 1


async def test_streams_share_a_rate_with_datagrams(tmp_path: Path) -> None:
    """One clock for both: after more datagrams than the rate has room for, a stream goes on as if nothing were."""
    rules = {"user:alice": ["any:*(*)->*(*) rate=800kbit"]}
    async with (
        running_server(tmp_path, rules=rules) as running,
        UdpSocket.open() as target,
        Origin.open() as origin,
        associated(running.address) as client,
        logged_in(running.address) as stream,
    ):
        peer = await relayed(stream, origin)
        while not dropped(running, "rate_limit"):
            await client.send(target.host, target.port, bytes(1_000))
            await trio.lowlevel.checkpoint()
        await stream.send(b"still here")
        with trio.fail_after(10):
            assert await peer.receive(10) == b"still here"


async def test_the_floor_holds_for_datagrams(tmp_path: Path) -> None:
    """Case 64 for UDP: loopback in every form, and by name, with the floor closed."""
    config = Config(listener=config_for_tests().listener, policy=PolicySettings())
    rules = {"user:alice": ["any:*(*)->*(*)", "any:*(*)->127.0.0.0/8(*)", "any:*(*)->::/0(*)"]}
    hosts: tuple[str | bytes, ...] = (
        "127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "64:ff9b::7f00:1", b"127.0.0.1", b"localhost", b"::1",
    )  # fmt: skip
    async with (
        UdpSocket.open() as canary,
        UdpSocket.open("::1", canary.port) as canary_v6,
        running_server(tmp_path, config, rules=rules, lookup=looking_up("127.0.0.1", "::1")) as running,
        associated(running.address) as client,
    ):
        for host in hosts:
            await client.send(host, canary.port, b"x")
        await settle(lambda: dropped(running, "denied") == len(hosts))
        assert canary.nothing_waits()
        assert canary_v6.nothing_waits()


async def test_association_without_any_rule_is_refused(tmp_path: Path) -> None:
    """Law 2: no rule could ever allow a datagram, so no socket is opened."""
    rules = {"user:alice": ["tcp:*(*)->*(*)", "bind:*(*)->*(*)"]}
    async with running_server(tmp_path, rules=rules) as running, logged_in(running.address) as client:
        assert (await client.ask(UDP_ASSOCIATE, "0.0.0.0", 0)).octets == b"\5\2" + FAILURE


async def test_source_port_of_datagrams_is_judged(tmp_path: Path) -> None:
    """CASES 1.3: rules may ask for the source; for UDP that is the port the datagrams come from."""
    async with UdpSocket.open() as target, running_server(tmp_path, rules={}) as running:
        running.add_rules({"user:alice": ["udp:*(1-1023)->*(*)"]})
        await running.until_rules_hold()
        async with associated(running.address) as client:
            await client.send(target.host, target.port, b"x")
            await settle(lambda: dropped(running, "denied") == 1)
            assert target.nothing_waits()


async def test_name_is_resolved_once_and_pinned(tmp_path: Path) -> None:
    """CASES 1.9 "Names in UDP", case 69: a name that changes its address in the middle moves nothing."""
    asked: list[str] = []

    def lookup(name: str) -> list[IPAddress]:
        asked.append(name)
        return [ip_address("127.0.0.2" if len(asked) == 1 else "127.0.0.3")]

    config = config_for_tests(limits={"resolve_cache_s": 0.0, "destinations_per_association_max": 2})
    async with (
        UdpSocket.open("127.0.0.2") as target,
        UdpSocket.open("127.0.0.2") as other,
        UdpSocket.open("127.0.0.3", target.port) as canary,
        running_server(tmp_path, config, lookup=lookup) as running,
        associated(running.address) as client,
    ):
        await client.send(b"turn.example.org", target.port, b"one")
        await client.send(b"turn.example.org", target.port, b"two")
        assert (await target.receive())[0] == b"one"
        packet, relay = await target.receive()
        assert packet == b"two"
        await target.send(b"answer", relay)
        assert await client.receive() == ("127.0.0.2", target.port, b"answer")
        for port in (other.port, 9, 10):  # the first destination makes room, the name stays where it was
            await client.send(b"turn.example.org", port, b"x")
        assert (await other.receive())[0] == b"x"
        await client.send(b"TURN.example.org.", target.port, b"three")
        assert (await target.receive())[0] == b"three"
        assert asked == ["turn.example.org"]
        assert canary.nothing_waits()


async def test_slow_name_holds_up_nobody_else(tmp_path: Path) -> None:
    """CASES 1.9 "Names in UDP": the datagram loop never waits for DNS; what waits for the name is bounded."""
    answer = threading.Event()

    def lookup(name: str) -> list[IPAddress]:
        answer.wait()
        return [ip_address("127.0.0.1")]

    async with (
        UdpSocket.open() as slow,
        UdpSocket.open() as target,
        running_server(tmp_path, lookup=lookup) as running,
        associated(running.address) as client,
    ):
        try:
            for number in range(20):
                await client.send(b"slow.example.org", slow.port, b"%d" % number)
            await client.send(target.host, target.port, b"quick")
            assert (await target.receive())[0] == b"quick"
            assert slow.nothing_waits()
        finally:
            answer.set()
        assert [(await slow.receive())[0] for _ in range(8)] == [b"%d" % number for number in range(8)]
        assert dropped(running, "waiting_limit") == 12


async def test_names_under_way_are_limited(tmp_path: Path) -> None:
    """Law 12: one association looks up at most 16 names at once; what comes on top is dropped and counted."""
    answer = threading.Event()

    def lookup(name: str) -> list[IPAddress]:
        answer.wait()
        return []

    config = config_for_tests(limits={"resolve_per_user_max": 100})
    async with running_server(tmp_path, config, lookup=lookup) as running, associated(running.address) as client:
        try:
            for number in range(20):
                await client.send(b"name%d.example.org" % number, 53, b"x")
            await settle(lambda: dropped(running, "names_limit") == 4)
        finally:
            answer.set()
        await settle(lambda: dropped(running, "name_not_resolved") == 16)


async def test_name_without_address_is_dropped(tmp_path: Path) -> None:
    """Case 78, CASES 1.9 "bad DNS datagram": the association lives, the next good one passes."""

    def lookup(name: str) -> list[IPAddress]:
        raise OSError(-2, "unknown")

    async with (
        UdpSocket.open() as target,
        running_server(tmp_path, lookup=lookup) as running,
        associated(running.address) as client,
    ):
        await client.send(b"nowhere.example.org", target.port, b"x")
        await settle(lambda: dropped(running, "name_not_resolved") == 1)
        await client.send(target.host, target.port, b"good")
        assert (await target.receive())[0] == b"good"


async def test_of_several_addresses_the_first_permitted_is_taken(tmp_path: Path) -> None:
    """CASES 2.5: an answer mixing denied and allowed addresses."""
    rules = {"user:alice": ["deny udp:*(*)->127.0.0.2(*)", "udp:*(*)->*(*)"]}
    async with (
        UdpSocket.open("127.0.0.2") as denied,
        UdpSocket.open("127.0.0.3", denied.port) as allowed,
        running_server(tmp_path, rules=rules, lookup=looking_up("127.0.0.2", "127.0.0.3")) as running,
        associated(running.address) as client,
    ):
        await client.send(b"mixed.example.org", allowed.port, b"x")
        assert (await allowed.receive())[0] == b"x"
        assert denied.nothing_waits()


async def test_destination_unused_for_longest_makes_room(tmp_path: Path) -> None:
    """Limits: more than `destinations_per_association_max` are remembered for nobody; the record says why it ended."""
    config = config_for_tests(limits={"destinations_per_association_max": 2})
    async with (
        UdpSocket.open() as one,
        UdpSocket.open() as two,
        UdpSocket.open() as three,
        running_server(tmp_path, config) as running,
        associated(running.address) as client,
    ):
        for target in (one, two, one, three):
            await client.send(target.host, target.port, b"x")
        _, relay = await three.receive()
        await two.send(b"forgotten", relay)
        await one.send(b"remembered", relay)
        assert await client.receive() == (one.host, one.port, b"remembered")
        (row,) = running.records.rows()
        assert (row["termination"], row["target"]) == ("too many destinations", f"127.0.0.1:{two.port}")
