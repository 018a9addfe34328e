"""BIND through a real server: two replies, one target, and only the one that was asked for (CASES 1.4)."""

import socket
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from tests.harness import config_for_tests, running_server, settle
from tests.socks_client import BIND, connected, logged_in, login, request
from tests.targets import free_port, looking_up
from tests.wires import Ending, dialled
from trioproxy.config import PortRange, SocketAddress

pytestmark = pytest.mark.usefixtures("either_engine")

FAILURE = b"\0\1" + bytes(6)  # what follows VER and REP in every failure
TARGET = "127.0.0.7"  # where the expected target connects from


async def test_two_replies_then_bytes_both_ways(tmp_path: Path) -> None:
    """Case 85: reply 1 says where we listen, reply 2 who connected; then it is a relay as any other."""
    async with running_server(tmp_path) as running, logged_in(running.address) as client:
        first = await client.ask(BIND, TARGET, 0)
        async with dialled((first.host, first.port), TARGET) as target:
            second = await client.answer()
            assert (first.code, second.code) == (0, 0)
            assert (second.host, second.port) == target.local
            await target.send(b"file")
            target.finish()
            assert await client.rest() == (b"file", Ending.CLOSED)
            await client.send(b"thanks")
            client.close()
            assert await target.rest() == (b"thanks", Ending.CLOSED)
        await running.until_idle()
        (row,) = running.records.rows()
        assert row["target"] == f"{second.host}:{second.port}"
        assert (row["command"], row["asked"]) == ("BIND", f"{TARGET}:0")
        assert (row["bytes_to_client"], row["bytes_to_target"], row["termination"]) == (4, 6, "target closed")


async def test_ipv6(tmp_path: Path) -> None:
    """Case 85 over IPv6, client and target."""
    config = config_for_tests(listener=({"address": SocketAddress(IPv6Address("::1"), 0)},))
    async with running_server(tmp_path, config) as running, logged_in(running.address) as client:
        first = await client.ask(BIND, "::1", 0)
        assert (first.code, first.host) == (0, "::1")
        async with dialled((first.host, first.port)) as target:
            second = await client.answer()
            assert (second.code, second.host, second.port) == (0, *target.local)
            await client.send(b"hello")
            assert await target.receive(5) == b"hello"


async def test_target_that_connects_at_once_is_never_refused(tmp_path: Path) -> None:
    """Case 85: it listens before reply 1 is sent; the connection of the very next moment succeeds, every time."""
    async with running_server(tmp_path) as running:
        for _ in range(20):
            async with logged_in(running.address) as client:
                first = await client.ask(BIND, TARGET, 0)
                async with dialled((first.host, first.port), TARGET) as target:
                    assert (await client.answer()).code == 0
                    await target.send(b"!")
                    assert await client.receive(1) == b"!"
                    target.reset()


async def test_everything_at_once_with_early_data(tmp_path: Path) -> None:
    """CASES 1.8: what the client sends ahead reaches the target after reply 2."""
    async with running_server(tmp_path) as running, connected(running.address) as client:
        await client.send(b"\5\1\2" + login() + request(BIND, TARGET, 0) + b"early")
        assert await client.receive(4) == b"\5\2\1\0"
        first = await client.answer()
        async with dialled((first.host, first.port), TARGET) as target:
            assert (await client.answer()).code == 0
            assert await target.receive(5) == b"early"


async def test_name_as_expected_target(tmp_path: Path) -> None:
    """RFC 1928 section 4: DST may be a name; any of its addresses may connect."""
    lookup = looking_up("127.0.0.6", TARGET)
    async with running_server(tmp_path, lookup=lookup) as running, logged_in(running.address) as client:
        first = await client.ask(BIND, b"peer.example.org", 0)
        async with dialled((first.host, first.port), TARGET) as target:
            second = await client.answer()
            assert (second.code, second.host, second.port) == (0, *target.local)


async def test_somebody_else_is_never_relayed(tmp_path: Path) -> None:
    """Case 86, CASES 1.9 "BIND second reply on wrong peer": `05 02`, the end, and a reset for who came."""
    async with running_server(tmp_path) as running, logged_in(running.address) as client:
        first = await client.ask(BIND, TARGET, 0)
        async with dialled((first.host, first.port), "127.0.0.8") as stranger:
            await stranger.send(b"let me in")
            assert await client.rest() == (b"\5\2" + FAILURE, Ending.CLOSED)
            client.close()
            assert await stranger.rest() == (b"", Ending.RESET)
        await running.until_idle()
        (row,) = running.records.rows()
        assert (row["termination"], row["reply"], row["bytes_to_client"]) == ("somebody else connected", 2, 0)
        assert running.server.counters["bind_wrong_target"] == 1


async def test_nobody_comes(tmp_path: Path) -> None:
    """Case 87: a second reply when the time is over, and the listening socket is closed."""
    config = config_for_tests(limits={"bind_s": 0.2})
    async with running_server(tmp_path, config) as running, logged_in(running.address) as client:
        first = await client.ask(BIND, TARGET, 0)
        assert await client.rest() == (b"\5\4" + FAILURE, Ending.CLOSED)
        with pytest.raises(ConnectionRefusedError):
            async with dialled((first.host, first.port), TARGET):
                pass
        client.close()
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == ["nobody connected"]


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_client_leaves_while_waiting(tmp_path: Path, leave: str) -> None:
    """Case 88: FIN or RST of the client ends the wait at once, and the port is closed."""
    async with running_server(tmp_path) as running, logged_in(running.address) as client:
        first = await client.ask(BIND, TARGET, 0)
        getattr(client, leave)()
        await settle(lambda: running.server.open_sessions == 0, within_s=2.0)
        with pytest.raises(ConnectionRefusedError):
            async with dialled((first.host, first.port), TARGET):
                pass
        assert [row["termination"] for row in running.records.rows()] in (["client reset"], ["client closed"])


async def test_expecting_anybody_is_refused(tmp_path: Path) -> None:
    """Case 89: DST 0.0.0.0 and :: name nobody; the floor refuses them."""
    async with running_server(tmp_path) as running:
        for host in ("0.0.0.0", "::"):
            async with logged_in(running.address) as client:
                await client.send(request(BIND, host, 0))
                assert await client.rest() == (b"\5\2" + FAILURE, Ending.CLOSED)


async def test_second_target_gets_a_reset(tmp_path: Path) -> None:
    """Case 89: one target for each request; another that came in the same moment is reset, a later one refused."""
    async with running_server(tmp_path) as running, logged_in(running.address) as client:
        first = await client.ask(BIND, TARGET, 0)
        # Without a checkpoint between the two both wait in the queue before the server accepts one.
        one, two = (socket.create_connection((first.host, first.port), 5, (TARGET, 0)) for _ in range(2))
        with one, two:
            assert (await client.answer()).port == one.getsockname()[1]
            with pytest.raises(ConnectionResetError):
                two.recv(1)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((first.host, first.port), 5, (TARGET, 0)).close()
            one.sendall(b"mine")
            assert await client.receive(4) == b"mine"


async def test_listening_sockets_of_one_user_are_limited(tmp_path: Path) -> None:
    """Case 89: one more than `binds_per_user_max` is 01 and counted; when one ends there is room again."""
    config = config_for_tests(limits={"binds_per_user_max": 2})
    async with running_server(tmp_path, config) as running:
        async with logged_in(running.address) as one, logged_in(running.address) as two:
            for client in (one, two):
                assert (await client.ask(BIND, TARGET, 0)).code == 0
            async with logged_in(running.address) as three:
                assert (await three.ask(BIND, TARGET, 0)).octets == b"\5\1" + FAILURE
            assert running.server.counters["binds_limit_each"] == 1
            one.reset()
            await settle(lambda: running.server.services.binds.total == 1)
            async with logged_in(running.address) as four:
                assert (await four.ask(BIND, TARGET, 0)).code == 0
                four.reset()
            two.reset()
        await running.until_idle()
        assert running.server.services.binds.total == 0


async def test_port_range_of_the_listener(tmp_path: Path) -> None:
    """Case 89: BIND listens in `bind_ports`; when none is free the reply is 01 and the next request works."""
    port = free_port()
    config = config_for_tests(listener=({"bind_ports": PortRange(port, port)},))
    async with running_server(tmp_path, config) as running:
        async with logged_in(running.address) as client:
            first = await client.ask(BIND, TARGET, 0)
            assert (first.code, first.port) == (0, port)
            async with logged_in(running.address) as other:
                assert (await other.ask(BIND, TARGET, 0)).octets == b"\5\1" + FAILURE
            client.reset()
        await running.until_idle()
        async with logged_in(running.address) as client:
            assert (await client.ask(BIND, TARGET, 0)).port == port
            client.reset()


async def test_advertised_address(tmp_path: Path) -> None:
    """CASES 1.9 "Listening on 0.0.0.0 / NAT": behind NAT reply 1 says the configured address, with the real port."""
    config = config_for_tests(listener=({"advertise": (IPv6Address("2001:db8::7"),)},))
    async with running_server(tmp_path, config) as running, logged_in(running.address) as client:
        assert (await client.ask(BIND, "::1", 0)).host == "2001:db8::7"
        async with logged_in(running.address) as other:
            assert (await other.ask(BIND, TARGET, 0)).host == "127.0.0.1"  # no advertised address of this family
            other.reset()
        client.reset()


# ---- rules


async def test_request_is_judged_before_anything_listens(tmp_path: Path) -> None:
    """Law 2: BIND has its own rule word; a rule for CONNECT allows none."""
    rules = {"user:alice": ["tcp:*(*)->*(*)", "udp:*(*)->*(*)", "bind:*(*)->127.0.0.9(*)"]}
    async with running_server(tmp_path, rules=rules) as running, logged_in(running.address) as client:
        await client.send(request(BIND, TARGET, 0))
        assert await client.rest() == (b"\5\2" + FAILURE, Ending.CLOSED)


async def test_target_is_judged_by_the_port_it_comes_from(tmp_path: Path) -> None:
    """Law 2: the connection that arrives is judged again, as it is."""
    allowed, denied = free_port(), free_port()
    rules = {"user:alice": [f"deny bind:*(*)->{TARGET}({denied})", "bind:*(*)->*(*)"]}
    async with running_server(tmp_path, rules=rules) as running:
        for port, code in ((allowed, 0), (denied, 2)):
            async with logged_in(running.address) as client:
                first = await client.ask(BIND, TARGET, 0)
                async with dialled((first.host, first.port), TARGET, port) as target:
                    assert (port, (await client.answer()).code) == (port, code)
                    if code:
                        client.close()
                        assert await target.rest() == (b"", Ending.RESET)


async def test_rules_of_the_moment_in_which_the_target_arrives(tmp_path: Path) -> None:
    """Issue item 6: what was allowed at the request and is not any more is refused at the second reply."""
    async with running_server(tmp_path) as running, logged_in(running.address) as client:
        first = await client.ask(BIND, TARGET, 0)
        running.add_rules({"global": [f"deny bind:*(*)->{TARGET}(1-65535)"]})
        await running.until_rules_hold()
        async with dialled((first.host, first.port), TARGET) as target:
            assert (await client.rest())[0] in (b"", b"\5\2" + FAILURE)
            client.close()
            assert await target.rest() == (b"", Ending.RESET)


async def test_waiting_ends_when_the_rules_forbid_it(tmp_path: Path) -> None:
    """Issue item 6: a session that a change forbids ends within 2 s, also while it waits for its target."""
    async with running_server(tmp_path) as running, logged_in(running.address) as client:
        first = await client.ask(BIND, TARGET, 0)
        running.add_rules({"global": ["deny bind:*(*)->*(*)"]})
        await settle(lambda: running.server.open_sessions == 0, within_s=4.0)
        with pytest.raises(ConnectionRefusedError):
            async with dialled((first.host, first.port), TARGET):
                pass
        assert [row["termination"] for row in running.records.rows()] == ["no longer allowed"]
