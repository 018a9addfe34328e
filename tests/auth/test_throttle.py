"""Penalties: who waits, how long, and who does not."""

import math
from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.throttle import SOURCE_PENALTIES, USER_PENALTIES, PenaltyRule, PenaltyTable, Throttle, source_key

SOURCE = IPv4Address("10.1.2.3")
KEY = ("main", "10.1.2.3")
SMALL = PenaltyRule(failures_max=3, window_s=60.0, first_s=5.0, longest_s=40.0, entries_max=4)


def fail(throttle: Throttle, times: int, now_s: float, user: str = "alice", source: str = "10.1.2.3") -> None:
    """So many failures at one moment."""
    for _ in range(times):
        throttle.failed("main", ip_address(source), user, now_s)


def test_the_sixth_failure_brings_a_penalty() -> None:
    """Six failures from one address in 60 s: 5 s (case 35)."""
    throttle = Throttle()
    fail(throttle, 5, now_s=100.0)
    assert throttle.source_delay("main", SOURCE, 100.0) == 0.0
    fail(throttle, 1, now_s=159.0)
    assert throttle.source_delay("main", SOURCE, 159.0) == 5.0
    assert throttle.source_delay("main", SOURCE, 162.0) == 2.0
    assert throttle.source_delay("main", SOURCE, 164.0) == 0.0
    assert throttle.source_delay("main", SOURCE, 1000.0) == 0.0


def test_slow_failures_bring_none() -> None:
    """Six failures in more than 60 s are a forgetful person, in any window (case 35)."""
    throttle = Throttle()
    for step in range(100):
        fail(throttle, 1, now_s=12.0 * step)
        assert throttle.delay("main", SOURCE, "alice", 12.0 * step) == 0.0


def test_penalties_grow_to_ten_minutes() -> None:
    """5 s, doubled each time, up to 600 s and no further however often (case 35)."""
    throttle, now_s, penalties = Throttle(), 0.0, []
    for _ in range(1100):  # enough for a careless power of two to overflow a float
        fail(throttle, 6, now_s)
        penalties.append(throttle.source_delay("main", SOURCE, now_s))
        now_s += penalties[-1]
    assert penalties[:9] == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0]
    assert penalties[-1] == 600.0


def test_a_penalty_is_forgotten() -> None:
    """Ten quiet minutes after its end the next one is short again; a moment earlier it is not."""
    for quiet_s, penalty_s in ((600.0, 5.0), (599.0, 10.0)):
        throttle = Throttle()
        fail(throttle, 6, now_s=0.0)
        fail(throttle, 6, now_s=5.0 + quiet_s)
        assert penalty_s == throttle.source_delay("main", SOURCE, 5.0 + quiet_s)


def test_late_failures_do_not_prolong() -> None:
    """Logins under way when the penalty began, sixteen of apt's, fail too: they were one mistake (CASES 5a)."""
    throttle = Throttle()
    fail(throttle, 6 + 16, now_s=0.0)
    assert throttle.source_delay("main", SOURCE, 0.0) == 5.0
    fail(throttle, 5, now_s=5.0)
    assert throttle.source_delay("main", SOURCE, 5.0) == 0.0


def test_good_users_elsewhere_are_unaffected() -> None:
    """A penalty is for the address that failed: not its neighbour, another tenant or family (case 35)."""
    throttle = Throttle()
    for user in "abcdef":
        fail(throttle, 1, now_s=0.0, user=user)
    assert throttle.delay("main", SOURCE, "alice", 0.0) == 5.0
    for source in ("10.1.2.4", "::1", "2001:db8::1"):
        assert throttle.delay("main", ip_address(source), "a", 0.0) == 0.0
    assert throttle.delay("physics", SOURCE, "alice", 0.0) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:10.1.2.3", "10.1.2.3", True),
        ("::ffff:10.1.2.3", "::ffff:10.1.2.4", False),
        ("10.1.2.3", "10.1.2.4", False),
    ],
)
def test_one_source(one: str, other: str, same: bool) -> None:
    """IPv6 counts by the /64 (case 35), IPv4 by the address, also where it comes mapped into IPv6."""
    assert same is (source_key(ip_address(one)) == source_key(ip_address(other)))
    throttle = Throttle()
    fail(throttle, 6, now_s=0.0, source=one)
    assert same is (throttle.source_delay("main", ip_address(other), 0.0) > 0)


def test_a_user_waits_briefly_and_late() -> None:
    """Twenty failures from anywhere: 5 s, and never more than a minute, so nobody is locked out for long (case 35)."""
    throttle, now_s, penalties = Throttle(), 0.0, []
    for round_number in range(8):
        for number in range(20):
            assert throttle.user_delay("main", "alice", now_s) == 0.0
            fail(throttle, 1, now_s, source=f"10.0.{round_number}.{number}")
        penalties.append(throttle.user_delay("main", "alice", now_s))
        now_s += penalties[-1]
    assert penalties == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0, 60.0]
    assert throttle.user_delay("main", "bob", now_s - 1) == 0.0
    assert throttle.user_delay("physics", "alice", now_s - 1) == 0.0


def test_delay_is_the_longer_one() -> None:
    """Whoever has both a penalty of the address and one of the name waits for both."""
    throttle = Throttle()
    fail(throttle, 6, now_s=0.0)
    for number in range(14):
        fail(throttle, 1, now_s=3.0, source=f"10.0.0.{number}")
    assert (throttle.source_delay("main", SOURCE, 3.0), throttle.user_delay("main", "alice", 3.0)) == (2.0, 5.0)
    assert throttle.delay("main", SOURCE, "alice", 3.0) == 5.0
    assert throttle.delay("main", SOURCE, "bob", 3.0) == 2.0


def test_success_clears_the_user_not_the_source() -> None:
    """A right password ends the doubt about the user; an account of one's own does not buy free guesses at others'."""
    throttle = Throttle()
    fail(throttle, 5, now_s=0.0)
    for number in range(14):
        fail(throttle, 1, now_s=0.0, source=f"10.0.0.{number}")
    throttle.succeeded("main", "alice")
    throttle.succeeded("main", "nobody ever seen")
    fail(throttle, 1, now_s=1.0)
    assert throttle.user_delay("main", "alice", 1.0) == 0.0
    assert throttle.source_delay("main", SOURCE, 1.0) == 5.0


def test_counters() -> None:
    """Penalties and table sizes are there to be shown."""
    throttle = Throttle(sources=SMALL)
    assert set(throttle.counters.values()) == {0}
    for number in range(5):
        fail(throttle, 3, now_s=0.0, source=f"10.0.0.{number}", user=f"user{number}")
    fail(throttle, 17, now_s=0.0, user="user0", source="10.0.0.4")
    assert throttle.counters == {
        "source_penalties": 5,
        "user_penalties": 1,
        "source_penalties_evicted": 1,
        "user_penalties_evicted": 0,
        "sources_remembered": 4,
        "users_remembered": 5,
    }


def test_the_tables_are_bounded() -> None:
    """At most 65,536 of each, failures counted over 60 s; the defaults are the case's (case 35)."""
    assert SOURCE_PENALTIES.window_s == USER_PENALTIES.window_s == 60.0
    assert SOURCE_PENALTIES.entries_max == USER_PENALTIES.entries_max == 65_536
    table = PenaltyTable(SOURCE_PENALTIES)
    for number in range(65_536 + 10):
        table.failed(("main", str(number)), now_s=0.0)
    assert len(table) == 65_536
    assert table.evicted == 10


def test_overflow_pushes_out_who_failed_longest_ago() -> None:
    """The policy when the table is full, while none of it has expired (case 35)."""
    table = PenaltyTable(SMALL)
    for name in ("a", "b", "c", "d"):
        table.failed(("main", name), now_s=0.0)
    table.failed(("main", "a"), now_s=1.0)  # b is now the oldest
    table.failed(("main", "e"), now_s=2.0)
    assert [name for _, name in table._offenders] == ["c", "d", "a", "e"]
    assert table.evicted == 1


def test_who_is_in_the_full_table_already_pushes_nobody_out() -> None:
    """Failing once more needs no further place."""
    table = PenaltyTable(SMALL)
    for name in ("a", "b", "c", "d", "a"):
        table.failed(("main", name), now_s=0.0)
    assert (len(table), table.evicted) == (4, 0)


def test_the_table_shrinks_by_itself() -> None:
    """Each failure takes two expired offenders along, before anybody is pushed out."""
    table = PenaltyTable(SMALL)
    for name in ("a", "b", "c", "d"):
        table.failed(("main", name), now_s=0.0)
    table.failed(("main", "e"), now_s=60.0)
    assert [name for _, name in table._offenders] == ["c", "d", "e"]
    table.failed(("main", "f"), now_s=60.0)
    table.failed(("main", "g"), now_s=60.0)
    assert [name for _, name in table._offenders] == ["e", "f", "g"]
    assert table.evicted == 0


def naive_penalties(times_s: Sequence[float], rule: PenaltyRule) -> list[float]:
    """The rule as one would say it aloud: how long one waits after each failure."""
    counted: list[float] = []
    until_s, last_s, waits = -math.inf, 0.0, []
    for now_s in times_s:
        if last_s and now_s >= until_s + rule.longest_s:
            last_s = 0.0
        if now_s >= until_s:
            counted = [at_s for at_s in counted if now_s - at_s < rule.window_s] + [now_s]
            if len(counted) == rule.failures_max:
                last_s = rule.first_s if not last_s else min(2 * last_s, rule.longest_s)
                counted, until_s = [], now_s + last_s
        waits.append(max(0.0, until_s - now_s))
    return waits


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 5.0, 19.0, 20.0, 40.0, 60.0, 61.0]), max_size=60))
def test_against_a_naive_model(gaps_s: list[float]) -> None:
    """For any times of failures the waits are those of the rule said aloud: bounded, never negative (case 35)."""
    table, now_s, times_s, waits = PenaltyTable(SMALL), 1000.0, [], []
    for gap_s in gaps_s:
        now_s += gap_s
        table.failed(KEY, now_s)
        times_s.append(now_s)
        waits.append(table.delay(KEY, now_s))
    assert naive_penalties(times_s, SMALL) == waits
    assert all(0.0 <= wait_s <= SMALL.longest_s for wait_s in waits)


def test_delay_changes_nothing() -> None:
    """Asking is free, and leaves no trace of a name that never failed."""
    table = PenaltyTable(SMALL)
    assert table.delay(KEY, 0.0) == 0.0
    assert len(table) == 0
