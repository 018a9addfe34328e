"""Users and rules change under running associations, or cannot be read any more."""

from pathlib import Path

import pytest

from tests.associations import associated
from tests.changes import ENDS_WITHIN_S, change, ended, relayed, remove_rules
from tests.harness import running_server, settle
from tests.socks_client import CONNECT, connected, logged_in, request
from tests.targets import Origin
from tests.wires import Ending, UdpSocket

FAILURE = b"\0\1" + bytes(6)  # what follows VER and REP in every failure


async def test_revoked_destination_leaves_the_others_alone(tmp_path: Path) -> None:
    """Issue item 6 for UDP: one destination ends with its record, answers from it are dropped, the rest goes on."""
    async with (
        running_server(tmp_path) as running,
        associated(running.address) as client,
        UdpSocket.open("127.0.0.2") as denied,
        UdpSocket.open("127.0.0.3") as allowed,
    ):
        for target in (denied, allowed):
            await client.send(target.host, target.port, b"before")
        _, relay = await denied.receive()
        await allowed.receive()
        running.add_rules({"global": ["deny udp:*(*)->127.0.0.2(*)"]})
        await settle(lambda: len(running.records.lines) == 1, ENDS_WITHIN_S)
        (row,) = running.records.rows()
        assert (row["target"], row["termination"]) == (f"127.0.0.2:{denied.port}", "no longer allowed")
        await denied.send(b"still there?", relay)
        await client.send(denied.host, denied.port, b"after")
        await client.send(allowed.host, allowed.port, b"after")
        assert (await allowed.receive())[0] == b"after"
        await allowed.send(b"answer", relay)
        assert await client.receive() == (allowed.host, allowed.port, b"answer")
        assert denied.nothing_waits()
        counters = running.server.counters
        assert (counters["datagram_stranger_target"], counters["datagram_denied"]) == (1, 1)


@pytest.mark.parametrize("how", ["rules", "user"])
async def test_association_ends_when_nothing_is_allowed_any_more(tmp_path: Path, how: str) -> None:
    """Issue item 6 for UDP: no rule for any destination, or no user: the association and its connection end."""
    async with (
        running_server(tmp_path) as running,
        associated(running.address) as client,
        UdpSocket.open() as target,
    ):
        await client.send(target.host, target.port, b"x")
        await target.receive()
        if how == "rules":
            remove_rules(running)
        else:
            change(running, disabled=True)
        await ended(running)
        assert await client.control.rest() == (b"", Ending.RESET)
        assert [row["termination"] for row in running.records.rows()] == ["no longer allowed"] * 2


# ---- the store cannot be read


async def test_rules_that_are_too_old_permit_nothing_new(tmp_path: Path) -> None:
    """Law 11: after `stale_max_s` new requests get 01 and unknown logins fail; running relays live."""
    async with running_server(tmp_path) as running, Origin.open() as origin, logged_in(running.address) as client:
        target = await relayed(client, origin)
        async with logged_in(running.address) as waiting:
            running.server.rulebook._stale_max_s = -1.0
            for host in (origin.host, b"localhost"):
                async with logged_in(running.address) as remembered:
                    await remembered.send(request(CONNECT, host, origin.port))
                    assert await remembered.rest() == (b"\5\1" + FAILURE, Ending.CLOSED)
            async with connected(running.address) as new:
                assert await new.log_in(b"bob", b"builder") == 1
            await waiting.send(b"\5\3\0" + b"\1" + bytes(6))
            assert await waiting.rest() == (b"\5\1" + FAILURE, Ending.CLOSED)
        await client.send(b"still here")
        assert await target.receive(10) == b"still here"
        assert running.server.counters["login_unavailable"] == 1
        assert origin.nobody_waits()
