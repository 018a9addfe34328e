"""UDP ASSOCIATE through a real server: how an association ends, and what is left of it."""

from pathlib import Path

import pytest
import trio

from tests.associations import associated, passes
from tests.harness import config_for_tests, running_server, settle
from tests.socks_client import UDP_ASSOCIATE, logged_in
from tests.targets import free_port
from tests.wires import UdpSocket
from trioproxy.config import PortRange

pytestmark = pytest.mark.usefixtures("either_engine")

FAILURE = b"\0\1" + bytes(6)  # what follows VER and REP in every failure


@pytest.mark.parametrize("leave", ["close", "reset", "finish"])
async def test_association_ends_with_its_connection(tmp_path: Path, leave: str) -> None:
    """Case 71, 75, CASES 1.9 "UDP after TCP close": FIN, RST or half-close ends it; nothing is relayed afterwards."""
    async with running_server(tmp_path) as running, UdpSocket.open() as target:
        async with associated(running.address) as client:
            relay = await passes(client, target)
            getattr(client.control, leave)()
            await settle(lambda: running.server.open_sessions == 0, within_s=2.0)
            await client.send(target.host, target.port, b"still there?")
            await target.send(b"and you?", relay)
            assert client.udp.nothing_waits()
            assert target.nothing_waits()
        async with associated(running.address) as client:
            await passes(client, target)


async def test_relay_port_is_not_soon_somebody_elses(tmp_path: Path) -> None:
    """Case 75: a port in `udp_ports` that alice has left is hers again at once, and bob's only later."""
    port = free_port()
    config = config_for_tests(listener=({"udp_ports": PortRange(port, port)},))
    users = {"alice": "wonderland", "bob": "builder"}
    rules = {"global": ["udp:*(*)->*(*)"]}
    async with running_server(tmp_path, config, users=users, rules=rules) as running:
        async with associated(running.address) as client:
            assert client.relay[1] == port
        await running.until_idle()
        async with logged_in(running.address, b"bob", b"builder") as bob:
            assert (await bob.ask(UDP_ASSOCIATE, "0.0.0.0", 0)).octets == b"\5\1" + FAILURE
        async with associated(running.address) as client:
            assert client.relay[1] == port


async def test_idle_association_ends(tmp_path: Path) -> None:
    """Limits: without a datagram for `association_idle_s` it ends, with its TCP connection."""
    config = config_for_tests(limits={"association_idle_s": 0.2})
    async with running_server(tmp_path, config) as running, associated(running.address) as client:
        received, _ = await client.control.rest()
        assert received == b""
        await running.until_idle()
        assert [row["termination"] for row in running.records.rows()] == ["idle"]


async def test_bytes_on_the_control_connection_end_nothing(tmp_path: Path) -> None:
    """RFC 1928 section 7: the TCP connection only has to stay; what is sent on it is counted and thrown away."""
    async with running_server(tmp_path) as running, associated(running.address) as client, UdpSocket.open() as target:
        await client.control.send(b"keep-alive")
        await settle(lambda: running.server.counters["control_data_ignored"] == 1)
        await passes(client, target)


async def test_rules_change_while_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each destination ends once, by the one or the other, with a record; nothing of its limits is kept."""
    monkeypatch.setattr("trioproxy.relay.destinations.CLOSED_AT_ONCE", 1)
    monkeypatch.setattr("trioproxy.judge.JUDGED_AT_ONCE", 1)
    rules = {"user:alice": ["udp:*(*)->127.1.0.0/16(*)", "udp:*(*)->127.9.0.0/16(*)"]}
    limits = {"user:alice": "quota=1GB/day rate=80Mbit"}
    async with running_server(tmp_path, rules=rules, limits=limits) as running:
        async with UdpSocket.open() as target, associated(running.address) as client:
            for number in range(100):
                await client.send(f"127.1.0.{number + 1}", target.port, bytes(10))
            [session] = running.server._sessions.values()
            await settle(lambda: len(list(session.flows())) == 100)
            before = running.server.rulebook.policy
            running.store.rules.remove([1])
            while running.server.rulebook.policy is before:  # until the very moment in which they are read
                await trio.lowlevel.checkpoint()
            client.control.close()
            await running.until_idle()
        assert running.server.counters["internal_error"] == 0
        assert len(running.records.rows()) == 101
        services = running.server.services
        assert [account.flows for account in services.allowances._accounts.values()] == [0]
