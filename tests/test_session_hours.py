"""Rules that speak at some hours only: what runs past them is ended by a name of its own, after the rule's patience."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import attrs
import pytest
import trio

from tests.associations import associated, dropped, passes
from tests.harness import Running, config_for_tests, running_server, settle
from tests.socks_client import CONNECT, SocksClient, logged_in
from tests.targets import Origin
from tests.wires import Ending, UdpSocket
from trioproxy.config import Config

pytestmark = pytest.mark.usefixtures("either_engine")

ZONE = ZoneInfo("Asia/Kolkata")  # half an hour off, and no clock is changed there


def speaking(begin_s: float, end_s: float) -> str:
    """`when=` from so many seconds to so many seconds from now, in whole minutes."""
    now = datetime.now(ZONE)
    begin, end = (now + timedelta(seconds=offset) for offset in (begin_s, end_s))
    return f"when={begin:%H:%M}-{end:%H:%M}"


class Clock:
    """What the server takes for the time: hours go on when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = timedelta(0)
        clock = self

        class Shifted(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
                return datetime.now(UTC) + clock.ahead

        for module in ("trioproxy.judge", "trioproxy.rulebook"):
            monkeypatch.setattr(f"{module}.datetime", Shifted)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The server's clock."""
    return Clock(monkeypatch)


def config() -> Config:
    """A site in India."""
    loopback = config_for_tests()
    return attrs.evolve(loopback, policy=attrs.evolve(loopback.policy, time_zone=ZONE))


def rules(*options: str) -> dict[str, list[str]]:
    """One rule with these options."""
    return {"user:alice": [f"any:*(*)->*(*) {' '.join(options)}"]}


async def connect(running: Running, origin: Origin, client: SocksClient) -> int:
    """Ask for the origin; the reply code."""
    return (await client.ask(CONNECT, *origin.address)).code


async def test_outside_its_hours_a_rule_says_nothing(tmp_path: Path) -> None:
    """By the clock of the tenant, not that of the machine."""
    later = rules(speaking(3 * 3600, 4 * 3600))
    async with running_server(tmp_path, config(), rules=later) as running, Origin.open() as origin:
        async with logged_in(running.address) as client:
            assert await connect(running, origin, client) == 2
        await running.until_idle()
    [record] = running.records.rows()
    assert record["termination"] == "refused by rule"


async def test_a_flow_ends_with_its_hours(tmp_path: Path, clock: Clock) -> None:
    """With a reset, and its own termination; a flow of another rule goes on."""
    office = rules(speaking(-3600, 3600))
    office["user:bob"] = ["any:*(*)->*(*)"]
    users = {"alice": "wonderland", "bob": "builder"}
    async with (
        running_server(tmp_path, config(), users=users, rules=office) as running,
        Origin.open() as origin,
        logged_in(running.address) as alice,
        logged_in(running.address, b"bob", b"builder") as bob,
    ):
        assert await connect(running, origin, alice) == 0
        assert await connect(running, origin, bob) == 0
        clock.ahead = timedelta(hours=2)
        assert (await alice.rest())[1] is Ending.RESET
        await settle(lambda: running.server.open_sessions == 1)
    ended = {row["user"]: row["termination"] for row in running.records.rows()}
    assert ended["alice"] == "not at this hour"


async def test_with_grace_it_goes_on_for_a_while(tmp_path: Path, clock: Clock) -> None:
    """New ones are refused meanwhile."""
    office = rules(speaking(-3600, 3600), "grace=2s")
    async with running_server(tmp_path, config(), rules=office) as running, Origin.open() as origin:
        async with logged_in(running.address) as client:
            assert await connect(running, origin, client) == 0
            far = await origin.accept()
            begun_s = trio.current_time()
            clock.ahead = timedelta(hours=2)
            async with logged_in(running.address) as late:
                assert await connect(running, origin, late) == 2
            await client.send(b"still here")
            assert await far.receive(10) == b"still here"
            assert (await client.rest())[1] is Ending.RESET
            assert trio.current_time() - begun_s >= 1.9
        await running.until_idle()
    assert [row["termination"] for row in running.records.rows()] == ["refused by rule", "not at this hour"]


async def test_hours_that_begin_again_within_the_grace_save_it(tmp_path: Path, clock: Clock) -> None:
    """What is permitted when the patience is over goes on."""
    office = rules(speaking(-3600, 3600), "grace=1s")
    async with running_server(tmp_path, config(), rules=office) as running, Origin.open() as origin:
        async with logged_in(running.address) as client:
            assert await connect(running, origin, client) == 0
            far = await origin.accept()
            clock.ahead = timedelta(hours=2)
            await trio.sleep(0.6)
            clock.ahead = timedelta(0)
            await trio.sleep(1.0)
            await client.send(b"still here")
            assert await far.receive(10) == b"still here"


async def test_a_destination_of_an_association_ends_with_its_hours(tmp_path: Path, clock: Clock) -> None:
    """Its datagrams are dropped; the association stays for others."""
    office = rules(speaking(-3600, 3600))
    async with running_server(tmp_path, config(), rules=office) as running:
        async with associated(running.address) as client, UdpSocket.open() as target:
            await passes(client, target)
            clock.ahead = timedelta(hours=2)
            await settle(lambda: bool(running.records.rows()))
        assert running.records.rows()[0]["termination"] == "not at this hour"


async def test_a_destination_with_grace_goes_on_for_a_while(tmp_path: Path, clock: Clock) -> None:
    """Both ways, and ends when the patience is over though no datagram comes; new ones are refused meanwhile."""
    office = rules(speaking(-3600, 3600), "grace=3s")
    async with (
        running_server(tmp_path, config(), rules=office) as running,
        associated(running.address) as client,
        UdpSocket.open() as target,
        UdpSocket.open() as late,
    ):
        await passes(client, target)
        clock.ahead = timedelta(hours=2)
        while not dropped(running, "denied"):
            await client.send(late.host, late.port, b"new")
            await trio.sleep(0.01)
        await passes(client, target)
        assert [row["target"] for row in running.records.rows() if row["bytes_to_target"] == 8] == []
        await settle(lambda: any(row["bytes_to_target"] == 8 for row in running.records.rows()))
        assert {row["termination"] for row in running.records.rows()} == {"not at this hour"}


async def test_a_destination_whose_hours_begin_again_within_the_grace_stays(tmp_path: Path, clock: Clock) -> None:
    """As if they had not ended."""
    office = rules(speaking(-3600, 3600), "grace=1s")
    async with (
        running_server(tmp_path, config(), rules=office) as running,
        associated(running.address) as client,
        UdpSocket.open() as target,
    ):
        await passes(client, target)
        clock.ahead = timedelta(hours=2)
        await trio.sleep(0.6)
        clock.ahead = timedelta(0)
        await trio.sleep(2.0)
        await passes(client, target)
        assert running.records.rows() == []


async def test_what_a_removed_rule_permitted_has_no_grace(tmp_path: Path) -> None:
    """Another rule that speaks at other hours does not make it one of hours."""
    office = {"user:alice": [*rules(speaking(-3600, 3600), "grace=1h")["user:alice"]]}
    office["user:alice"].append(f"tcp:*(*)->*(*) {speaking(3 * 3600, 4 * 3600)}")
    async with running_server(tmp_path, config(), rules=office) as running, Origin.open() as origin:
        async with logged_in(running.address) as client:
            assert await connect(running, origin, client) == 0
            running.store.rules.remove([1])
            assert (await client.rest())[1] is Ending.RESET


async def test_a_deny_that_begins_gives_no_grace(tmp_path: Path, clock: Clock) -> None:
    """The hours of the rule that permits are not over."""
    forbidden = {
        "global": [f"deny tcp:*(*)->*(*) {speaking(3600, 3 * 3600)}"],
        "user:alice": [f"tcp:*(*)->*(*) {speaking(-3600, 5 * 3600)} grace=1h"],
    }
    async with running_server(tmp_path, config(), rules=forbidden) as running, Origin.open() as origin:
        async with logged_in(running.address) as client:
            assert await connect(running, origin, client) == 0
            clock.ahead = timedelta(hours=2)
            assert (await client.rest())[1] is Ending.RESET
