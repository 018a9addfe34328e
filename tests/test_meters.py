"""Reading the meters: for nobody too long."""

from datetime import UTC
from ipaddress import IPv4Address

import pytest
import trio

from auth import Identity
from trioproxy.accounting import Flow, NullUsage
from trioproxy.allowances import Allowances
from trioproxy.meters import Meters
from trioproxy.policy import Limit, LimitBook, Party, Scope
from trioproxy.relay.engines import StreamRelays


class Association:
    """A session with so many destinations, all of which have a quota."""

    def __init__(self, allowances: Allowances, count: int) -> None:
        self._flows = [
            Flow(1, "listener", IPv4Address("127.0.0.1"), 1, "main", Identity("main", "alice")) for _ in range(count)
        ]
        for flow in self._flows:
            flow.change_allowance(allowances.of(Identity("main", "alice"), "", ()))

    def flows(self) -> list[Flow]:
        """All of them."""
        return self._flows

    def renew(self) -> tuple[()]:
        """Nothing changes."""
        return ()


async def test_many_flows_of_one_session_let_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An association may have thousands of destinations, and a user many associations."""
    monkeypatch.setattr("trioproxy.meters.READ_AT_ONCE", 10)
    book = LimitBook({Party(Scope.parse("global")): Limit.parse("quota=1GB/day")})
    allowances = Allowances(lambda: book, lambda _: UTC, NullUsage())
    allowances.restore({})
    sessions = [Association(allowances, 100) for _ in range(2)]
    meters = Meters(lambda: sessions, StreamRelays(), allowances, lambda _: {})
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await trio.lowlevel.checkpoint()
        before = turns
        assert await meters._read(1.0, None) == []
        assert turns - before >= 19
        nursery.cancel_scope.cancel()
