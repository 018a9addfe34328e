"""Periods as administrators say them, of the calendar in a time zone: `today`, `7d`, `2026-11-01`."""

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

from trioproxy.accounting.usage import QUARTER_S
from trioproxy.cli.output import Failure

__all__ = ["begin_of_period", "end_of_period", "show_moment_in", "show_zone"]

_AGO: Final = re.compile(r"([1-9][0-9]{0,3})([hdw])", re.ASCII)
_BEGINS: Final = (
    "is no period; write 2026-12-31, 2026-12-31T18:00, today, yesterday, week, month, year,"
    " or 12h, 7d, 4w for the last hours, days or weeks"
)
_ENDS: Final = "is no end of a period; write 2026-12-31, 2026-12-31T18:00, today or yesterday"
_QUARTER: Final = timedelta(seconds=QUARTER_S)


def begin_of_period(text: str, now: datetime, zone: tzinfo | None) -> datetime:
    """The first moment of a period; a quarter of an hour begins there.

    Args:
        text: what was said.
        now: aware.
        zone: where days begin; None: as the system says.

    Raises:
        Failure: it is neither a day nor a time nor a period.
    """
    today = now.astimezone(zone).date()
    ago = _AGO.fullmatch(text)
    if ago is not None and ago[2] == "h":
        return _whole_quarter(now - timedelta(hours=int(ago[1])))
    if ago is not None:
        days = int(ago[1]) * (7 if ago[2] == "w" else 1)
        return _midnight(today - timedelta(days=days - 1), zone)
    first_days = {
        "today": today,
        "yesterday": today - timedelta(days=1),
        "week": today - timedelta(days=today.weekday()),
        "month": today.replace(day=1),
        "year": today.replace(month=1, day=1),
    }
    return (
        _midnight(first_days[text], zone)
        if text in first_days
        else _whole_quarter(_parse(text, zone, days=0, ways=_BEGINS))
    )


def end_of_period(text: str, now: datetime, zone: tzinfo | None) -> datetime:
    """The moment behind a period: a day is over at the midnight behind it.

    Raises:
        Failure: it is neither a day nor a time.
    """
    today = now.astimezone(zone).date()
    last_days = {"today": today, "yesterday": today - timedelta(days=1)}
    if text in last_days:
        return _midnight(last_days[text] + timedelta(days=1), zone)
    return _whole_quarter(_parse(text, zone, days=1, ways=_ENDS) + _QUARTER - timedelta.resolution)


def show_moment_in(zone: tzinfo | None, moment: datetime) -> str:
    """To the minute, with the name of the zone."""
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M %Z")


def show_zone(zone: tzinfo) -> str:
    """Its name, `Europe/Berlin`, or else how people abbreviate it now."""
    return str(getattr(zone, "key", None) or datetime.now(zone).strftime("%Z"))


def _parse(text: str, zone: tzinfo | None, *, days: int, ways: str) -> datetime:
    try:
        if len(text) == len("2026-12-31"):
            return _midnight(date.fromisoformat(text) + timedelta(days=days), zone)
        moment = datetime.fromisoformat(text)
        return (_located(moment, zone) if moment.tzinfo is None else moment).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Failure(f"{text!r} {ways}") from error


def _midnight(day: date, zone: tzinfo | None) -> datetime:
    return _located(datetime.combine(day, time.min), zone).astimezone(UTC)


def _located(moment: datetime, zone: tzinfo | None) -> datetime:
    return moment.astimezone() if zone is None else moment.replace(tzinfo=zone)


def _whole_quarter(moment: datetime) -> datetime:
    return datetime.fromtimestamp(int(moment.timestamp()) // QUARTER_S * QUARTER_S, UTC)
