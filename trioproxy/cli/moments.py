"""Days, times and durations as administrators write them, and networks that a user may log in from."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from ipaddress import ip_network
from typing import Final

from trioproxy.cli.output import Failure

__all__ = ["parse_begin", "parse_duration", "parse_end", "parse_sources", "show_moment", "show_sources"]


_DURATION: Final = re.compile(r"([0-9]{1,6})([smhdw])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION_MAX: Final = timedelta(days=3660)  # ten years: who means longer means until further notice


def parse_duration(text: str) -> timedelta:
    """How long: `90s`, `30m`, `2h`, `7d`, `4w`.

    Raises:
        Failure: it is no duration.
    """
    found = _DURATION.fullmatch(text)
    duration = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < duration <= _DURATION_MAX:
        raise Failure(f"{text!r} is no duration of up to ten years; write a number with s, m, h, d or w, such as 2h")
    return duration


def parse_begin(text: str, zone: tzinfo | None = None) -> datetime | None:
    """When something begins: a day begins at midnight in this zone (None: the system's). `always` is no beginning.

    Raises:
        Failure: it is neither a day nor a time.
    """
    return None if text == "always" else _parse(text, zone, days=0)


def parse_end(text: str, zone: tzinfo | None = None) -> datetime | None:
    """When something is over: a day is over at the midnight behind it. `never` is no end.

    Raises:
        Failure: it is neither a day nor a time.
    """
    return None if text == "never" else _parse(text, zone, days=1)


def show_moment(moment: datetime | None, zone: tzinfo | None = None) -> str:
    """In this zone (None: the system's), to the minute; empty for none."""
    return "" if moment is None else moment.astimezone(zone).strftime("%Y-%m-%d %H:%M %Z")


def parse_sources(texts: Sequence[str]) -> tuple[str, ...] | None:
    """Networks in canonical text; None for everywhere (`any`), nothing for nowhere (`none`).

    Raises:
        Failure: one of them is no network.
    """
    if list(texts) == ["any"]:
        return None
    if list(texts) == ["none"]:
        return ()
    try:
        return tuple(dict.fromkeys(str(ip_network(text)) for text in texts))
    except ValueError as error:
        raise Failure(
            f"--source: {error}; write an address or a network such as 10.1.0.0/16, or any, or none, alone"
        ) from error


def show_sources(sources: Sequence[str] | None) -> str:
    """The networks, or what stands for them."""
    return "any" if sources is None else ", ".join(sources) or "none"


def _parse(text: str, zone: tzinfo | None, *, days: int) -> datetime:
    try:
        if len(text) == len("2026-12-31"):
            moment = datetime.combine(date.fromisoformat(text) + timedelta(days=days), datetime.min.time())
        else:
            moment = datetime.fromisoformat(text)
        located = moment if zone is None or moment.tzinfo is not None else moment.replace(tzinfo=zone)
        return located.astimezone(UTC)  # without a zone it means the local one
    except (ValueError, OverflowError) as error:
        raise Failure(f"{text!r} is no day and no time; write 2026-12-31 or 2026-12-31T18:00") from error
