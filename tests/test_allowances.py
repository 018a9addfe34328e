"""What each flow may have: shares of rates, accounts of quotas, paces; by clocks that only tests move."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import attrs
import pytest

from auth import Identity
from trioproxy.accounting import FlowRecord, QuotaKey
from trioproxy.allowances import Allowance, Allowances, OverQuotaError
from trioproxy.policy import Limit, LimitBook, Party, Scope, Term, parse_rule
from trioproxy.store import usage_writer
from trioproxy.store.usage_writer import UsageWriter

NOON: Final = datetime(2026, 3, 10, 12, tzinfo=UTC)  # a Tuesday
ALICE: Final = Identity("main", "alice", frozenset({"students"}))
BOB: Final = Identity("main", "bob", frozenset({"students"}))
PHYSICS_ALICE: Final = Identity("physics", "alice", frozenset({"students"}))
NOBODY: Final = Identity("main", None, frozenset())
TARGET: Final = ip_address("198.51.100.7")


class Kept:
    """A usage that keeps what it is told of quotas."""

    def __init__(self) -> None:
        self.used: dict[QuotaKey, int] = {}

    def add(self, record: FlowRecord, groups: frozenset[str], app: str = "") -> None:
        """Flows are of no concern here."""

    def add_quota_deltas(self, deltas: Iterable[tuple[QuotaKey, int]]) -> None:
        """Add them up, as the store does."""
        for key, count in deltas:
            self.used[key] = self.used.get(key, 0) + count


@attrs.define
class World:
    """Allowances, and everything around them that may change.

    Attributes:
        limits: `SCOPE` or `together SCOPE` to the template.
        now: the time of day.
        now_s: the monotonic clock.
        zones: of tenants; others have UTC.
    """

    limits: dict[str, str] = attrs.field(factory=dict)
    now: datetime = NOON
    now_s: float = 1_000.0
    zones: dict[str, tzinfo] = attrs.field(factory=dict)
    usage: Kept = attrs.field(factory=Kept)
    allowances: Allowances = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.allowances = self.another()
        self.allowances.restore({})

    def another(self) -> Allowances:
        """Those of a server that has started just now."""
        return Allowances(
            self.book,
            lambda tenant: self.zones.get(tenant, UTC),
            self.usage,
            lambda: self.now,
            lambda: self.now_s,
        )

    def book(self) -> LimitBook:
        """The templates of now."""
        parties = {}
        for name, text in self.limits.items():
            shared, _, scope = name.rpartition(" ")
            parties[Party(Scope.parse(scope), together=bool(shared))] = Limit.parse(text)
        return LimitBook(parties)

    def of(self, identity: Identity, *rules: str, source: str = "192.0.2.1") -> Allowance | None:
        """What a flow of this user may have by these rules."""
        terms = [term(rule) for rule in rules]
        return self.allowances.of(identity, source, terms)

    def have(self, identity: Identity, *rules: str, source: str = "192.0.2.1") -> Allowance:
        """The same, where there is something."""
        allowance = self.of(identity, *rules, source=source)
        assert allowance is not None
        return allowance

    def later(self, passed_s: float) -> None:
        """Time passes, by both clocks."""
        self.now_s += passed_s
        self.now += timedelta(seconds=passed_s)


def term(rule: str) -> Term:
    """A rule of the layer `global` that permits."""
    parsed = parse_rule(rule)
    return Term("global", str(parsed), parsed)


def burst_of(world: World, allowance: Allowance) -> int:
    """How much may flow down at once now; it has."""
    shape = allowance.shape()
    assert shape is not None
    moved = 0
    while granted := shape.to_client.grant(world.now_s, 65_536):
        moved += granted
    shape.leave()
    for share in allowance.shares:
        share.down.ready(world.now_s)  # as the shaper does: nobody waits any more
    return moved


def rates(allowance: Allowance) -> list[tuple[int, int]]:
    """Down and up of each share."""
    return [(share.down.rate, share.up.rate) for share in allowance.shares]


RULE: Final = "tcp:*(*)->*(*) rate=8Mbit/800kbit"
QUOTA: Final = "tcp:*(*)->*(*) quota=1MB/day"


# ---- rates


def test_nothing_said_is_nothing_to_wait_for() -> None:
    """A flow without limits has no allowance at all: it pays nothing."""
    assert World().of(ALICE) is None
    assert World().of(ALICE, "tcp:*(*)->*(*) scan=ignore") is None
    assert World({"user:bob": "rate=1Mbit"}).of(ALICE) is None


def test_a_rule_is_shared_by_the_flows_of_one_user() -> None:
    """Two flows of one rule have one bucket; another user's, and another rule's, are others."""
    world = World()
    one, two = world.have(ALICE, RULE), world.have(ALICE, RULE)
    assert one.shares == two.shares
    assert one.same_as(two)
    assert rates(one) == [(1_000_000, 100_000)]
    assert world.have(BOB, RULE).shares != one.shares
    assert world.have(ALICE, "udp:*(*)->*(*) rate=8Mbit/800kbit").shares != one.shares
    assert not one.same_as(None)


def test_all_that_is_said_holds_together() -> None:
    """Rules of several layers, the user's template, and what users share."""
    world = World(
        {"group:students": "rate=16Mbit", "together tenant:main": "rate=80Mbit", "together global": "rate=1Gbit"}
    )
    found = world.have(ALICE, RULE, "tcp:*(*)->*(*) rate=4Mbit")
    assert [down for down, _ in rates(found)] == [1_000_000, 500_000, 2_000_000, 125_000_000, 10_000_000]
    other = world.have(BOB, RULE)
    assert [share in found.shares for share in other.shares] == [False, False, True, True]


def test_tenants_share_nothing_but_what_is_global() -> None:
    """Equal names in two tenants are two people, and two groups."""
    world = World({"global": "rate=8Mbit", "together tenant:main": "rate=16Mbit", "together global": "rate=80Mbit"})
    main, physics = world.have(ALICE, RULE), world.have(PHYSICS_ALICE, RULE)
    shared = set(main.shares) & set(physics.shares)
    assert [share.down.rate for share in shared] == [10_000_000]
    assert len(physics.shares) == 3


def test_without_login_each_source_is_a_user() -> None:
    """And no name of a user can be taken for one."""
    world = World()
    one, two = world.have(NOBODY, RULE), world.have(NOBODY, RULE, source="192.0.2.2")
    assert one.shares != two.shares
    assert world.have(NOBODY, RULE).shares == one.shares
    for name in ("192.0.2.1", "@192.0.2.1"):
        assert world.have(Identity("main", name, frozenset()), RULE).shares != one.shares


def test_a_changed_template_holds_for_running_flows() -> None:
    """The bucket stays, and what was used of it."""
    world = World({"global": "rate=8Mbit burst=1MB"})
    before = world.have(ALICE)
    assert burst_of(world, before) == 1_000_000
    world.limits["global"] = "rate=80Mbit burst=2MB"
    after = world.have(ALICE)
    assert after.shares == before.shares
    assert rates(after) == [(10_000_000, 10_000_000)]
    assert burst_of(world, after) < 4_096
    world.later(0.01)
    assert 95_000 <= burst_of(world, after) <= 105_000


def test_reconnecting_brings_no_new_burst() -> None:
    """What nobody has part in is forgotten when it has filled up again, and not before."""
    world = World()
    first = world.have(ALICE, RULE)
    assert burst_of(world, first) == 250_000
    first.leave()
    world.allowances.tidy()
    second = world.have(ALICE, RULE)
    assert second.shares == first.shares
    assert burst_of(world, second) < 4_096
    second.leave()
    world.later(60)
    world.allowances.tidy()
    third = world.have(ALICE, RULE)
    assert third.shares != first.shares
    world.later(60)
    world.allowances.tidy()
    assert world.have(ALICE, RULE).shares == third.shares  # it has part in it yet


def test_datagrams_and_streams_have_one_bucket() -> None:
    """Case 79: what one has used the other has not."""
    world = World()
    allowance = world.have(ALICE, RULE)
    shape = allowance.datagram_shape()
    assert shape is not None
    passed = 0
    while shape.to_client.take_whole(world.now_s, 1_000):
        passed += 1
    assert passed == 250
    assert burst_of(world, allowance) < 4_096
    shape.leave()
    only_quota = world.have(ALICE, QUOTA)
    assert (only_quota.shape(), only_quota.datagram_shape()) == (None, None)


# ---- quotas


def test_a_quota_is_used_up() -> None:
    """What began before learns of it, what comes after is refused, and the next day is a new one."""
    world = World()
    flow = world.have(ALICE, QUOTA)
    flow.charge(999_999)
    assert not flow.is_stale()
    world.have(ALICE, QUOTA)
    flow.charge(1)
    assert flow.is_stale()
    with pytest.raises(OverQuotaError, match=r"1MB/day of global"):
        world.of(ALICE, QUOTA)
    world.have(BOB, QUOTA)
    world.have(PHYSICS_ALICE, QUOTA)
    world.now = datetime(2026, 3, 11, tzinfo=UTC)
    assert not flow.is_stale()
    world.have(ALICE, QUOTA)


def test_over_quota_goes_on_slowly() -> None:
    """With `over_quota_rate` a further bucket holds until the period is over; all flows share that, too."""
    world = World({"global": "rate=8Mbit quota=1MB/day over_quota_rate=80kbit"})
    before = world.have(ALICE)
    before.charge(1_000_000)
    slow, other = world.have(ALICE), world.have(ALICE)
    assert [down for down, _ in rates(slow)] == [1_000_000, 10_000]
    assert slow.same_as(other)
    assert not slow.same_as(before)
    assert not slow.is_stale()
    world.now += timedelta(days=1)
    assert slow.is_stale()
    assert rates(world.have(ALICE)) == [(1_000_000, 1_000_000)]


def test_one_quota_without_a_slow_rate_is_enough_to_refuse() -> None:
    """The rule's has none; what the template would let go on does not matter."""
    world = World({"global": "quota=1MB/day over_quota_rate=80kbit"})
    world.have(ALICE, QUOTA).charge(1_000_000)
    with pytest.raises(OverQuotaError):
        world.of(ALICE, QUOTA)


def test_a_changed_size_keeps_what_was_used() -> None:
    """More of it lets flows go on, less ends them."""
    world = World({"global": "quota=1MB/day"})
    flow = world.have(ALICE)
    flow.charge(1_000_000)
    world.limits["global"] = "quota=2MB/day"
    world.have(ALICE)
    assert not flow.is_stale()
    world.limits["global"] = "quota=1MB/day"
    with pytest.raises(OverQuotaError):
        world.of(ALICE)


@pytest.mark.parametrize(
    "changed",
    [
        'tcp:*(*)->*(*) quota=1MB/day note="for the holidays"',
        "tcp:*(*)->*(*) rate=8Mbit quota=900kB/day log=yes",
        "tcp:*(*)->*(*) quota=1MB/day scan=ignore",
    ],
)
def test_a_changed_rule_keeps_what_was_used(changed: str) -> None:
    """A note, a rate or another size does not begin the quota anew; a rule about other flows has one of its own."""
    world = World()
    world.have(ALICE, QUOTA).charge(1_000_000)
    with pytest.raises(OverQuotaError):
        world.of(ALICE, changed)
    world.have(ALICE, "tcp:*(*)->*(443) quota=1MB/day")


def test_another_period_and_back_again() -> None:
    """Each counts what was used while it held; none is a way to begin anew, not even on the first of a month."""
    world = World({"global": "quota=1MB/day"}, now=datetime(2026, 3, 1, 12, tzinfo=UTC))
    world.have(ALICE).charge(1_000_000)
    world.limits["global"] = "quota=1MB/month"
    month = world.have(ALICE)
    month.charge(10)
    world.limits["global"] = "quota=1MB/day"
    with pytest.raises(OverQuotaError):
        world.of(ALICE)
    world.allowances.flush()
    assert sorted(world.usage.used.values()) == [10, 1_000_000]


@pytest.mark.parametrize(
    ("zone", "day"),
    [("Europe/Vienna", "2026-03-29"), ("Europe/Vienna", "2026-10-25"), ("Pacific/Apia", "2011-12-29")],
)
def test_days_by_the_clock_of_the_tenant(zone: str, day: str) -> None:
    """On days of 23 and 25 hours, and where a day is missing: until the last second, and from the first one on."""
    physics = ZoneInfo(zone)
    begin = datetime.fromisoformat(day).replace(tzinfo=physics).astimezone(UTC)
    world = World({"tenant:physics": "quota=1MB/day", "together tenant:physics": "quota=9MB/day"}, begin)
    world.zones["physics"] = physics
    world.have(PHYSICS_ALICE).charge(1_000_000)
    ends = begin
    while ends.astimezone(physics).date().isoformat() == day:
        ends += timedelta(minutes=30)
    world.now = ends - timedelta(seconds=1)
    with pytest.raises(OverQuotaError):
        world.of(PHYSICS_ALICE)
    world.now = ends
    world.have(PHYSICS_ALICE).charge(1)
    world.allowances.flush()
    assert {key.period_start for key in world.usage.used} == {begin, ends}
    assert {key.tenant for key in world.usage.used} == {"physics"}


def test_a_changed_time_zone_holds_for_running_flows() -> None:
    """After a reload the day ends when it ends there."""
    world = World({"global": "quota=1MB/day"})
    flow = world.have(ALICE)
    world.zones["main"] = ZoneInfo("Asia/Tokyo")
    world.have(ALICE).leave()
    flow.charge(7)
    world.allowances.flush()
    assert [key.period_start for key in world.usage.used] == [datetime(2026, 3, 9, 15, tzinfo=UTC)]


def test_unknown_is_refused() -> None:
    """As long as nobody knows what was used, who has a quota may not; everybody else may."""
    world = World()
    allowances = world.another()
    with pytest.raises(OverQuotaError, match="could not be read"):
        allowances.of(ALICE, "192.0.2.1", [term(QUOTA)])
    assert allowances.of(ALICE, "192.0.2.1", [term(RULE)]) is not None
    known = [allowances.is_restored]
    allowances.restore({})
    assert [*known, allowances.is_restored] == [False, True]
    assert allowances.of(ALICE, "192.0.2.1", [term(QUOTA)]) is not None


def test_what_is_known_late_counts_for_who_asked_early() -> None:
    """The account was made while nobody knew."""
    world = World()
    allowances = world.another()
    with pytest.raises(OverQuotaError):
        allowances.of(ALICE, "192.0.2.1", [term(QUOTA)])
    key = QuotaKey("main", "alice", "global", "tcp:*(*)->*(*), by the day", datetime(2026, 3, 10, tzinfo=UTC))
    allowances.restore({key: 1_000_000})
    with pytest.raises(OverQuotaError, match="1MB/day"):
        allowances.of(ALICE, "192.0.2.1", [term(QUOTA)])


def test_a_restart_forgets_nothing() -> None:
    """After many days, whatever order the store has them in: only today's counts, and all of it."""
    world = World({"global": "quota=1MB/day", "together tenant:main": "quota=5MB/month"})
    for day in range(1, 11):
        world.now = datetime(2026, 3, day, 12, tzinfo=UTC)
        flow = world.have(ALICE)
        flow.charge(400_000 if day < 10 else 999_999)
        flow.leave()
        world.allowances.flush()
    for order in (False, True):
        again = world.another()
        used = sorted(world.usage.used.items(), key=lambda item: item[0].period_start, reverse=order)
        again.restore(dict(used))
        flow_again = again.of(ALICE, "192.0.2.1", [])
        assert flow_again is not None
        assert [account.quota.used(world.now) for account in flow_again.accounts] == [999_999, 4_599_999]


def test_what_nobody_uses_is_forgotten() -> None:
    """An account whose period is over, and a pace whose minute is; not one before."""
    world = World({"global": "quota=1MB/day new_sessions=5/min targets=5/min"})
    flow = world.have(ALICE)
    flow.charge(1_000_000)
    assert world.allowances.new_session(ALICE, "alice")
    assert world.allowances.target(ALICE, "alice", TARGET, 443)
    flow.leave()
    for _ in range(2):
        world.allowances.tidy()  # not told to the store yet, and then told
        with pytest.raises(OverQuotaError):
            world.of(ALICE)
        world.allowances.flush()
    world.later(86_400)
    world.allowances.tidy()
    assert (world.allowances._accounts, world.allowances._targets, world.allowances._new_sessions) == ({}, {}, {})
    world.have(ALICE)


def test_with_the_store_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deltas go through the thread that writes, and come back as a sum; one that could not be written comes later."""
    monkeypatch.setattr(usage_writer, "FLUSH_S", 0.01)
    world = World({"global": "quota=1MB/month"}, now=datetime.now(UTC))
    path = tmp_path / "trioproxy-usage.db"
    path.mkdir()  # where no file can be made
    writer = UsageWriter(path, 90)
    allowances = Allowances(world.book, lambda _: UTC, writer, lambda: world.now, lambda: world.now_s)
    allowances.restore({})
    flow = allowances.of(ALICE, "192.0.2.1", [])
    assert flow is not None
    flow.charge(400_000)
    allowances.flush()
    until(lambda: writer.counters["usage_write_failed"] > 0)
    path.rmdir()
    flow.charge(500_000)
    allowances.flush()
    allowances.flush()  # nothing more
    since = world.now - timedelta(days=32)
    until(lambda: list(writer.quotas_used(since).values()) == [900_000])
    again = world.another()
    again.restore(writer.quotas_used(since))
    flow_again = again.of(ALICE, "192.0.2.1", [])
    assert flow_again is not None
    assert not flow_again.is_stale()
    flow_again.charge(100_000)
    assert flow_again.is_stale()
    writer.close()
    assert writer.counters["quota_bytes_lost"] == 0


def until(condition: Callable[[], bool]) -> None:
    """Wait for what the thread brings about."""
    give_up_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.005)


# ---- counts


def test_new_sessions_within_any_minute() -> None:
    """Not one more than the number, however they are spread; and at most a second later than they might."""
    world = World({"group:students": "new_sessions=3/min"})
    begun: list[float] = []
    for _ in range(1_200):
        if world.allowances.new_session(ALICE, "alice"):
            begun.append(world.now_s)
        world.later(0.25)
    assert len(begun) >= 3 * 4
    assert all(late - early >= 60 for early, late in zip(begun, begun[3:], strict=False))
    assert all(late - early <= 62 for early, late in zip(begun, begun[3:], strict=False))
    assert all(world.allowances.new_session(NOBODY, "nobody") for _ in range(1_000))


def test_each_owner_has_a_minute_of_his_own() -> None:
    """And a template that changes counts what was before."""
    world = World({"global": "new_sessions=2/min"})
    assert [world.allowances.new_session(ALICE, "alice") for _ in range(3)] == [True, True, False]
    assert world.allowances.new_session(PHYSICS_ALICE, "physics/alice")
    world.limits["global"] = "new_sessions=3/min"
    assert [world.allowances.new_session(ALICE, "alice") for _ in range(2)] == [True, False]


def test_distinct_targets_within_a_minute() -> None:
    """A known target may be contacted again and again; another port is another target."""
    world = World({"global": "targets=2/min"})

    def contact(port: int, owner: str = "alice") -> bool:
        return world.allowances.target(ALICE, owner, TARGET, port)

    assert [contact(port) for port in (1, 2, 1, 2, 3, 1)] == [True, True, True, True, False, True]
    assert contact(3, "bob")
    world.later(59.9)
    assert not contact(3)
    assert contact(1)
    world.later(0.2)
    assert contact(3)  # 2 is a minute ago, 1 is not
    assert not contact(2)
    assert World().allowances.target(ALICE, "alice", TARGET, 1)
