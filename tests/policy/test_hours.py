"""Tests of `trioproxy.policy.hours`: which moments the hours of a rule hold, and when they begin and end."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.policy import oracle_options, strategies
from trioproxy.policy.hours import (
    GRACE_MAX_S,
    WEEK,
    Hours,
    Span,
    TimeZones,
    grace_text,
    minute_of_week,
    next_change,
    parse_grace,
)

BERLIN = ZoneInfo("Europe/Berlin")
ZONE_NAMES = ("Europe/Berlin", "Australia/Lord_Howe", "America/New_York", "Asia/Kathmandu", "Africa/Casablanca")
ZONES = [UTC, *map(ZoneInfo, ZONE_NAMES)]


def hours(text: str) -> Hours:
    """What `when=` makes of it."""
    return Hours(tuple(map(Span.parse, text.split(","))))


def is_open(text: str, local: str, zone: ZoneInfo = BERLIN, *, fold: int = 0) -> bool:
    """Do the hours hold at this time of the clock on the wall?"""
    now = datetime.fromisoformat(local).replace(tzinfo=zone, fold=fold)
    return hours(text).cover(minute_of_week(now.astimezone(UTC), zone))


@pytest.mark.parametrize(
    ("text", "open_at", "shut_at"),
    [
        ("mon-fri@08:00-18:00", ["2026-11-23T08:00", "2026-11-27T17:59:59"], ["2026-11-23T07:59", "2026-11-23T18:00"]),
        ("mon-fri@08:00-18:00", ["2026-11-25T12:00"], ["2026-11-28T12:00", "2026-11-29T12:00"]),
        ("fri@22:00-06:00", ["2026-11-27T22:00", "2026-11-28T05:59"], ["2026-11-27T05:59", "2026-11-28T06:00"]),
        ("sun@22:00-06:00", ["2026-11-29T23:00", "2026-11-30T05:00"], ["2026-11-29T05:00", "2026-11-30T06:00"]),
        ("22:00-06:00", ["2026-11-23T00:00", "2026-11-23T22:00"], ["2026-11-23T06:00", "2026-11-23T21:59"]),
        ("sat-mon@12:00-24:00", ["2026-11-28T12:00", "2026-11-30T23:59"], ["2026-12-01T00:00", "2026-11-27T12:00"]),
        ("mon@22:00-00:00", ["2026-11-23T23:59"], ["2026-11-24T00:00", "2026-11-23T00:00"]),
        ("sun@12:00-24:00", ["2026-11-29T23:59"], ["2026-11-30T00:00", "2026-11-29T00:00"]),
        ("mon@08:00-09:00,wed@08:00-09:00", ["2026-11-23T08:30", "2026-11-25T08:30"], ["2026-11-24T08:30"]),
        ("00:00-24:00", ["2026-11-23T00:00", "2026-11-29T23:59"], []),
    ],
)
def test_hours_of_days(text: str, open_at: list[str], shut_at: list[str]) -> None:
    """The first minute is inside, the last is not; hours over midnight belong to the day they begin on."""
    assert [is_open(text, local) for local in open_at] == [True] * len(open_at)
    assert [is_open(text, local) for local in shut_at] == [False] * len(shut_at)


def test_the_zone_is_that_of_the_tenant() -> None:
    """The same moment is another hour, and maybe another day, elsewhere."""
    now = datetime(2026, 11, 23, 23, 30, tzinfo=UTC)
    zones = TimeZones(UTC, {"physics": BERLIN})
    assert minute_of_week(now, zones.of("main")) == 23 * 60 + 30
    assert minute_of_week(now, zones.of("physics")) == 24 * 60 + 30


def test_a_time_without_a_zone_is_no_moment() -> None:
    """Python would take it for a time of this machine."""
    with pytest.raises(AssertionError, match="without a zone"):
        minute_of_week(datetime(2026, 11, 23, 8, 0), BERLIN)  # noqa: DTZ001 - what is wrong is the test


def changes(text: str, begin: str, count: int, zone: ZoneInfo = BERLIN) -> list[str]:
    """The next moments at which the hours begin or end, as the clock shows them."""
    moments, now = [], datetime.fromisoformat(begin).replace(tzinfo=zone).astimezone(UTC)
    for _ in range(count):
        found = next_change([hours(text)], now, zone)
        assert found is not None
        assert found > now
        moments.append(found.astimezone(zone).strftime("%a %d %H:%M %Z"))
        now = found
    return moments


def test_the_next_change_of_ordinary_hours() -> None:
    """At each begin and each end, over the weekend too."""
    assert changes("mon-fri@08:00-18:00", "2026-11-27T07:59:59", 3) == [
        "Fri 27 08:00 CET",
        "Fri 27 18:00 CET",
        "Mon 30 08:00 CET",
    ]


def test_the_clock_is_put_forward() -> None:
    """Berlin, 29 March 2026: at 02:00 it is 03:00. Hours inside the gap do not come; others begin or end at its end."""
    assert [is_open("sun@01:30-02:30", f"2026-03-29T{time}") for time in ("01:29", "01:59", "03:00")] == [
        False,
        True,
        False,
    ]
    assert changes("sun@01:30-02:30", "2026-03-29T00:00", 3) == [
        "Sun 29 01:30 CET",
        "Sun 29 03:00 CEST",
        "Sun 05 01:30 CEST",
    ]
    assert changes("sun@02:30-04:00", "2026-03-29T00:00", 2) == ["Sun 29 03:00 CEST", "Sun 29 04:00 CEST"]
    assert changes("sun@02:10-02:40", "2026-03-28T00:00", 1) == ["Sun 05 02:10 CEST"]
    assert changes("22:00-06:00", "2026-03-28T21:00", 2) == ["Sat 28 22:00 CET", "Sun 29 06:00 CEST"]


def test_the_clock_is_put_back() -> None:
    """Berlin, 25 October 2026: after 02:59 it is 02:00 again. Hours inside the hour that comes twice come twice."""
    assert [is_open("sun@02:00-02:30", "2026-10-25T02:15", fold=fold) for fold in (0, 1)] == [True, True]
    assert changes("sun@02:10-02:40", "2026-10-25T00:00", 4) == [
        "Sun 25 02:10 CEST",
        "Sun 25 02:40 CEST",
        "Sun 25 02:10 CET",
        "Sun 25 02:40 CET",
    ]
    assert changes("sun@01:00-02:30", "2026-10-25T00:00", 4) == [
        "Sun 25 01:00 CEST",
        "Sun 25 02:30 CEST",
        "Sun 25 02:00 CET",
        "Sun 25 02:30 CET",
    ]
    assert changes("sun@02:00-03:00", "2026-10-25T00:00", 2) == ["Sun 25 02:00 CEST", "Sun 25 03:00 CET"]
    assert changes("22:00-06:00", "2026-10-24T21:00", 2) == ["Sat 24 22:00 CEST", "Sun 25 06:00 CET"]


def test_hours_of_the_whole_week_never_change() -> None:
    """Nothing to wait for; nor where there are no hours at all."""
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert next_change([], now, BERLIN) is None
    assert next_change([hours("00:00-24:00"), hours("mon-wed@00:00-24:00,thu-sun@00:00-24:00")], now, BERLIN) is None


def test_what_touches_is_one_piece() -> None:
    """Nothing ends where the next part begins, at the end of the week neither."""
    assert hours("mon@08:00-12:00,mon@12:00-18:00,mon@10:00-13:00").edges == (8 * 60, 18 * 60)
    assert hours("sun@22:00-24:00,mon@00:00-02:00").borders == {6 * 1440 + 22 * 60, 120}
    assert hours("sun@22:00-24:00").borders == {6 * 1440 + 22 * 60, 0}
    assert hours("00:00-24:00").edges == (0, WEEK)


@given(strategies.hours(), strategies.moments(), st.sampled_from(ZONES))
def test_p3_hours_mean_what_the_calendar_says(some: Hours, now: datetime, zone: ZoneInfo) -> None:
    """Minutes of the week against dates, around the days on which clocks are changed."""
    assert oracle_options.is_open(some, now.astimezone(zone)) == some.cover(minute_of_week(now, zone))


@given(
    st.lists(strategies.hours(), min_size=1, max_size=2),
    strategies.moments(),
    st.sampled_from(ZONES),
)
@example([hours("sun@02:10-02:40")], datetime(2026, 3, 28, tzinfo=UTC), BERLIN)
def test_nothing_changes_before_the_next_change(some: list[Hours], now: datetime, zone: ZoneInfo) -> None:
    """And then something does: who sleeps until then misses nothing, and does not wake for nothing."""
    found = next_change(some, now, zone)
    state = [oracle_options.is_open(one, now.astimezone(zone)) for one in some]
    until = found if found is not None else now + timedelta(days=9)
    moment = now + timedelta(seconds=1)
    while moment < until:
        assert state == [oracle_options.is_open(one, moment.astimezone(zone)) for one in some]
        moment += timedelta(minutes=47)
    if found is not None:
        assert now < found < now + timedelta(days=15)
        just_before = max(now, found - timedelta(microseconds=1))
        assert state == [oracle_options.is_open(one, just_before.astimezone(zone)) for one in some]
        assert state != [oracle_options.is_open(one, found.astimezone(zone)) for one in some]


@given(st.integers(1, GRACE_MAX_S))
def test_the_text_of_a_grace_says_the_same(seconds: int) -> None:
    """What is shown can be typed again."""
    assert parse_grace(grace_text(seconds)) == seconds
