"""UDP ASSOCIATE through a real server: who may send, who may answer, and what a bad datagram does (nothing).

"Nothing arrives" is shown by sending something good afterwards and receiving only that: one socket keeps the order.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
import trio

from tests.associations import Associated, associated, dropped, passes
from tests.harness import config_for_tests, running_server, settle
from tests.socks_client import UDP_ASSOCIATE, logged_in, wrapped
from tests.targets import free_port
from tests.wires import PATIENCE_S, UdpSocket
from trioproxy.config import SocketAddress

ON_V6: dict[str, object] = {"address": SocketAddress(IPv6Address("::1"), 0)}


@pytest.mark.parametrize("target_host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("listener", [{}, ON_V6], ids=["from v4", "from v6"])
async def test_there_and_back(tmp_path: Path, target_host: str, listener: dict[str, object]) -> None:
    """RFC 1928 section 7, case 77: BND is where the client connected to; the header carries the target's address.

    An IPv4 target is ATYP 01, although the socket behind it speaks both families.
    """
    async with (
        running_server(tmp_path, config_for_tests(listener=(listener,))) as running,
        associated(running.address) as client,
        UdpSocket.open(target_host) as target,
    ):
        assert client.relay[0] == running.address[0]
        await passes(client, target)
        client.control.close()
        await running.until_idle()
        flow, session = running.records.rows()
        assert flow["target"] == flow["asked"] == str(SocketAddress(ip_address(target_host), target.port))
        assert (flow["bytes_to_target"], flow["bytes_to_client"]) == (4, 8)
        assert (flow["termination"], session["termination"]) == ("client closed", "client closed")
        assert (flow["command"], flow["scope"], flow["rule"]) == ("UDP_ASSOCIATE", "user:alice", "any:*(*)->*(*)")


async def test_wildcard_listener_names_the_address_the_client_used(tmp_path: Path) -> None:
    """CASES 1.9 "Listening on 0.0.0.0": BND.ADDR is that of this TCP connection, never 0.0.0.0."""
    config = config_for_tests(listener=({"address": SocketAddress(IPv4Address("0.0.0.0"), 0)},))
    async with running_server(tmp_path, config) as running, UdpSocket.open() as target:
        for host in ("127.0.0.1", "127.0.0.5"):
            async with associated((host, running.address[1])) as client:
                assert client.relay[0] == host
                await passes(client, target)


async def test_advertised_address(tmp_path: Path) -> None:
    """CASES 1.9 "NAT": behind NAT BND.ADDR is the configured address, with the real port."""
    config = config_for_tests(listener=({"advertise": (IPv4Address("203.0.113.7"),)},))
    async with running_server(tmp_path, config) as running, logged_in(running.address) as client:
        answer = await client.ask(UDP_ASSOCIATE, "0.0.0.0", 0)
        assert (answer.code, answer.host) == (0, "203.0.113.7")
        async with UdpSocket.open() as udp, UdpSocket.open() as target:
            await passes(Associated(client, udp, ("127.0.0.1", answer.port)), target)


async def test_zero_length_and_greatest_payload(tmp_path: Path) -> None:
    """Case 80, CASES 1.5: empty both ways; 65,497 octets both ways over IPv4; more is counted and ends nothing."""
    async with (
        running_server(tmp_path) as running,
        associated(running.address) as client,
        UdpSocket.open() as target,
    ):
        await client.send(target.host, target.port, b"")
        packet, relay = await target.receive()
        assert packet == b""
        await target.send(b"", relay)
        assert await client.receive() == (target.host, target.port, b"")
        greatest = bytes(range(256)) * 255 + bytes(217)
        await client.send(target.host, target.port, greatest)
        assert (await target.receive())[0] == greatest
        await target.send(greatest, relay)
        assert (await client.receive())[2] == greatest
        await target.send(greatest + b"more", relay)  # fits in a datagram, but not together with our header
        await passes(client, target)
        assert dropped(running, "oversize") == 1


async def test_bad_datagrams_are_dropped_and_counted(tmp_path: Path) -> None:
    """Case 78, 82, CASES 1.9 row "FRAG": nothing leaves, the association lives, the next good one passes."""
    async with (
        running_server(tmp_path) as running,
        associated(running.address) as client,
        UdpSocket.open() as target,
    ):
        good = wrapped(target.host, target.port, b"bad")
        bad = {
            "too_short": [good[:n] for n in range(4)],
            "truncated_address": [*(good[:n] for n in range(4, 10)), b"\0\0\0\3\xffshort", b"\0\0\0\4" + bytes(17)],
            "reserved_not_zero": [b"\1" + good[1:], b"\0\1" + good[2:]],
            "fragment": [wrapped(target.host, target.port, b"bad", fragment=f) for f in (0x01, 0x7F, 0x80, 0x83, 0xFF)],
            "unknown_address_type": [good[:3] + bytes([t]) + good[4:] for t in (0, 2, 5, 0xFF)],
            "empty_name": [wrapped(b"", target.port, b"bad")],
            "port_zero": [wrapped(target.host, 0, b"bad")],
            "malformed_destination": [wrapped(b"127.1", target.port, b"bad"), wrapped(b"a\0b", target.port, b"bad")],
        }
        for packets in bad.values():
            for packet in packets:
                await client.udp.send(packet, client.relay)
        await passes(client, target)
        assert {reason: dropped(running, reason) for reason in bad} == {r: len(packets) for r, packets in bad.items()}
        client.control.close()
        await running.until_idle()
        assert running.records.rows()[-1]["counts"] == {reason: len(packets) for reason, packets in bad.items()}


async def test_port_unreachable_ends_nothing(tmp_path: Path) -> None:
    """Case 80: ICMP errors of a target where nobody listens leave the other targets alone."""
    async with (
        running_server(tmp_path) as running,
        associated(running.address) as client,
        UdpSocket.open() as target,
    ):
        nobody = free_port()
        for _ in range(5):
            await client.send("127.0.0.1", nobody, b"anybody?")
            await passes(client, target)


# ---- who may send


async def test_another_address_is_a_stranger(tmp_path: Path) -> None:
    """Case 72, RFC 1928 section 7: datagrams of any other source address MUST be dropped, also as the first ones."""
    async with (
        running_server(tmp_path) as running,
        associated(running.address) as client,
        UdpSocket.open("127.0.0.2") as stranger,
        UdpSocket.open() as target,
    ):
        await stranger.send(wrapped(target.host, target.port, b"first"), client.relay)
        await passes(client, target)
        await stranger.send(wrapped(target.host, target.port, b"second"), client.relay)
        await passes(client, target)
        assert dropped(running, "stranger") == 2


async def test_port_is_locked_by_the_first_valid_datagram(tmp_path: Path) -> None:
    """Case 73, CASES 1.9 row "other source port": of the same address only the first port is heard.

    A malformed datagram locks nothing.
    """
    async with (
        running_server(tmp_path) as running,
        associated(running.address) as client,
        UdpSocket.open() as stranger,
        UdpSocket.open() as target,
    ):
        await stranger.send(b"\0\0\0", client.relay)
        await passes(client, target)
        await stranger.send(wrapped(target.host, target.port, b"mine too?"), client.relay)
        await passes(client, target)
        assert dropped(running, "stranger") == 1


async def test_announced_port_is_the_only_one(tmp_path: Path) -> None:
    """Case 74: DST.PORT of the request is not 0, so even the first datagram must come from there."""
    async with (
        running_server(tmp_path) as running,
        associated(running.address, announce=True) as client,
        UdpSocket.open() as stranger,
        UdpSocket.open() as target,
    ):
        await stranger.send(wrapped(target.host, target.port, b"first"), client.relay)
        await passes(client, target)
        assert dropped(running, "stranger") == 1


async def test_announced_address_of_somebody_else_says_nothing(tmp_path: Path) -> None:
    """CASES 1.9 "Source port": clients that put a destination into the request are served all the same."""
    async with running_server(tmp_path) as running, UdpSocket.open() as target:
        for host in ("192.0.2.1", b"stun.example.org"):
            async with logged_in(running.address) as client, UdpSocket.open() as udp:
                answer = await client.ask(UDP_ASSOCIATE, host, 3478)
                assert answer.code == 0
                await passes(Associated(client, udp, (answer.host, answer.port)), target)


async def test_any_port_of_the_client_where_the_listener_says_so(tmp_path: Path) -> None:
    """CASES 1.9 "Source port": `udp_port_lock = "ip"`; answers go where the last datagram came from."""
    config = config_for_tests(listener=({"udp_port_lock": "ip"},))
    async with (
        running_server(tmp_path, config) as running,
        associated(running.address) as client,
        UdpSocket.open() as second,
        UdpSocket.open("127.0.0.2") as stranger,
        UdpSocket.open() as target,
    ):
        await passes(client, target)
        await stranger.send(wrapped(target.host, target.port, b"stranger"), client.relay)
        await passes(Associated(client.control, second, client.relay), target)
        await passes(client, target)
        assert dropped(running, "stranger") == 1


async def test_rules_about_the_clients_port_hold_for_every_port(tmp_path: Path) -> None:
    """DESIGN section 3, `udp_port_lock = "ip"`: a destination opened from one port is judged again for another."""
    config = config_for_tests(listener=({"udp_port_lock": "ip"},))
    async with UdpSocket.open() as second, UdpSocket.open() as target:
        async with running_server(tmp_path, config, rules={}) as running, logged_in(running.address) as control:
            async with UdpSocket.open() as first:
                running.add_rules({"user:alice": [f"udp:*({first.port})->*(*)"]})
                await running.until_rules_hold()
                answer = await control.ask(UDP_ASSOCIATE, "0.0.0.0", 0)
                relay = (answer.host, answer.port)
                await passes(Associated(control, first, relay), target)
                await second.send(wrapped(target.host, target.port, b"from another port"), relay)
                await settle(lambda: dropped(running, "denied") == 1)
                await passes(Associated(control, first, relay), target)


async def test_users_of_one_address_do_not_meet(tmp_path: Path) -> None:
    """Case 73: user B's datagram to A's port from the same address is dropped, and accounted to nobody."""
    users = {"alice": "wonderland", "bob": "builder"}
    rules = {"user:alice": ["udp:*(*)->*(*)"], "user:bob": ["udp:*(*)->*(*)"]}
    async with (
        running_server(tmp_path, users=users, rules=rules) as running,
        associated(running.address) as alice,
        associated(running.address, b"bob", b"builder") as bob,
        UdpSocket.open() as target,
    ):
        await passes(alice, target)
        await bob.udp.send(wrapped(target.host, target.port, b"for alice's account"), alice.relay)
        await passes(bob, target)
        await passes(alice, target)
        alice.control.close()
        bob.control.close()
        await running.until_idle()
        sent = {row["user"]: row["bytes_to_target"] for row in running.records.rows() if row["target"]}
        assert sent == {"alice": 8, "bob": 4}


# ---- who may answer


async def test_only_contacted_targets_may_answer(tmp_path: Path) -> None:
    """Case 77, CASES 1.9 row "stranger": never-contacted hosts, and other ports of contacted ones, are dropped."""
    async with (
        running_server(tmp_path) as running,
        associated(running.address) as client,
        UdpSocket.open("127.0.0.2") as stranger,
        UdpSocket.open("127.0.0.1") as other_port,
        UdpSocket.open("::1") as stranger_v6,
        UdpSocket.open("127.0.0.1") as one,
        UdpSocket.open("127.0.0.1") as two,
    ):
        _, port = await passes(client, one)
        await passes(client, two)  # Dante stops filtering as soon as there is more than one destination
        await stranger.send(b"psst", ("127.0.0.1", port))
        await other_port.send(b"psst", ("127.0.0.1", port))
        await stranger_v6.send(b"psst", ("::1", port))
        await passes(client, one)
        assert dropped(running, "stranger_target") == 3
        await passes(client, other_port)


async def test_target_sent_to_a_moment_ago_may_answer_more_than_once(tmp_path: Path) -> None:
    """CASES 1.9 "Reply filter": the idle time counts from the last datagram to the target, not from one before it."""
    config = config_for_tests(limits={"association_idle_s": 1.0})
    async with (
        running_server(tmp_path, config) as running,
        associated(running.address) as client,
        UdpSocket.open() as target,
    ):
        with trio.move_on_after(0.8):  # the client is silent for most of the idle time
            await trio.sleep_forever()
        relay = await passes(client, target)
        with trio.move_on_after(0.3):  # and the target is slow
            await trio.sleep_forever()
        for number in range(3):
            await target.send(b"%d" % number, relay)
            assert (await client.receive())[2] == b"%d" % number


async def test_silent_targets_may_not_answer_after_the_idle_time(tmp_path: Path) -> None:
    """CASES 1.9 "Reply filter": only who was sent to within the idle time may answer."""
    config = config_for_tests(limits={"association_idle_s": 0.6})
    async with (
        running_server(tmp_path, config) as running,
        associated(running.address) as client,
        UdpSocket.open() as silent,
        UdpSocket.open() as target,
    ):
        relay = await passes(client, silent)
        with trio.fail_after(PATIENCE_S):
            while not dropped(running, "stranger_target"):
                await passes(client, target)  # keeps the association from idling
                await silent.send(b"late", relay)
                await target.send(b"after it", relay)
                packet = await client.receive()
                if packet[2] == b"late":
                    packet = await client.receive()
                assert packet == (target.host, target.port, b"after it")
