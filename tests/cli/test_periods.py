"""Periods of the calendar, in a time zone, at quarters of an hour."""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.cli.output import Failure
from trioproxy.cli.periods import begin_of_period, end_of_period, show_moment_in

VIENNA = ZoneInfo("Europe/Vienna")
NOW = datetime(2026, 11, 20, 23, 20, tzinfo=UTC)  # Saturday, 00:20 in Vienna


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("today", "2026-11-21 00:00 CET"),
        ("yesterday", "2026-11-20 00:00 CET"),
        ("week", "2026-11-16 00:00 CET"),
        ("month", "2026-11-01 00:00 CET"),
        ("year", "2026-01-01 00:00 CET"),
        ("1d", "2026-11-21 00:00 CET"),
        ("7d", "2026-11-15 00:00 CET"),
        ("1w", "2026-11-15 00:00 CET"),
        ("30d", "2026-10-23 00:00 CEST"),
        ("2h", "2026-11-20 22:15 CET"),
        ("2026-11-01", "2026-11-01 00:00 CET"),
        ("2026-07-01", "2026-07-01 00:00 CEST"),
        ("2026-11-01T08:00", "2026-11-01 08:00 CET"),
        ("2026-11-01T08:14:59", "2026-11-01 08:00 CET"),
        ("2026-11-01T08:00+00:00", "2026-11-01 09:00 CET"),
    ],
)
def test_begins(text: str, shown: str) -> None:
    """Days begin at midnight there; the last seven days are today and six before."""
    assert shown == show_moment_in(VIENNA, begin_of_period(text, NOW, VIENNA))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("today", "2026-11-22 00:00 CET"),
        ("yesterday", "2026-11-21 00:00 CET"),
        ("2026-11-19", "2026-11-20 00:00 CET"),
        ("2026-11-19T12:00", "2026-11-19 12:00 CET"),
        ("2026-11-19T12:01", "2026-11-19 12:15 CET"),
    ],
)
def test_ends(text: str, shown: str) -> None:
    """A day is over at the midnight behind it; a begun quarter of an hour belongs to the period."""
    assert shown == show_moment_in(VIENNA, end_of_period(text, NOW, VIENNA))


@pytest.mark.parametrize("text", ["", "tomorrow", "7", "d", "0d", "7x", "99999d", "2026-13-01", "2026-11-1"])
def test_what_is_no_period(text: str) -> None:
    """The error says what could be written."""
    with pytest.raises(Failure, match="is no period; write 2026-12-31, 2026-12-31T18:00, today"):
        begin_of_period(text, NOW, VIENNA)


@pytest.mark.parametrize("text", ["week", "7d", "9999-12-31"])
def test_what_is_no_end(text: str) -> None:
    """A length is counted back from now, so it begins a period and ends none."""
    with pytest.raises(Failure, match="is no end of a period; write 2026-12-31, 2026-12-31T18:00, today or yesterday"):
        end_of_period(text, NOW, None)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - of the zone given
    st.sampled_from([None, UTC, VIENNA, ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/St_Johns")]),
    st.sampled_from(["today", "yesterday", "week", "month", "3d", "5h"]),
)
def test_periods_hold_now(now: datetime, zone: tzinfo | None, text: str) -> None:
    """Whenever it is asked: it has begun, at a quarter of an hour, and today ends later."""
    begin = begin_of_period(text, now, zone)
    assert begin <= now < end_of_period("today", now, zone)
    assert begin.timestamp() % 900 == 0
    if not text.endswith("h"):
        assert begin.astimezone(zone).strftime("%H:%M") == "00:00"
