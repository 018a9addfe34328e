"""Days and times as administrators write them, and networks that a user may log in from."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_network

from trioproxy.cli.output import Failure

__all__ = ["parse_begin", "parse_end", "parse_sources", "show_moment", "show_sources"]


def parse_begin(text: str) -> datetime | None:
    """When something begins: a day begins at midnight, local time. `always` is no beginning.

    Raises:
        Failure: it is neither a day nor a time.
    """
    return None if text == "always" else _parse(text, days=0)


def parse_end(text: str) -> datetime | None:
    """When something is over: a day is over at the midnight behind it. `never` is no end.

    Raises:
        Failure: it is neither a day nor a time.
    """
    return None if text == "never" else _parse(text, days=1)


def show_moment(moment: datetime | None) -> str:
    """In local time, to the minute; empty for none."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M %Z")


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


def _parse(text: str, *, days: int) -> datetime:
    try:
        if len(text) == len("2026-12-31"):
            moment = datetime.combine(date.fromisoformat(text) + timedelta(days=days), datetime.min.time())
        else:
            moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC)  # without a zone it means the local one
    except (ValueError, OverflowError) as error:
        raise Failure(f"{text!r} is no day and no time; write 2026-12-31 or 2026-12-31T18:00") from error
