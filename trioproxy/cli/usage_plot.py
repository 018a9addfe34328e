"""The picture of `trioproxy usage --plot`: a bar for each key, or one for each day. Needs matplotlib."""

import importlib.util
import warnings
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from trioproxy.cli.amounts import show_size, size_unit
from trioproxy.cli.output import Failure, printable, usage
from trioproxy.store import By, UsageLine, UsageWish

__all__ = ["check_plot", "draw_usage"]

_SUFFIXES: Final = (".png", ".svg", ".pdf")
_KEY_MAX: Final = 44  # characters: longer names of hosts leave no room for the bars
_DAYS_NAMED_MAX: Final = 16  # labels that fit side by side
_DAYS_WIDE_MIN: Final = 7  # a week: bars are never wider than those of one
_TO_CLIENT: Final = "#1f77b4"
_TO_TARGET: Final = "#ff9d45"
_STYLE: Final = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a dollar sign in a name is one
    "svg.fonttype": "none",  # text stays text
}


def check_plot(path: Path) -> None:
    """Could a picture be drawn into this file?

    Raises:
        Failure: matplotlib is missing, or it is another kind of file.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise usage(f"--plot: {path} should end in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}")
    if importlib.util.find_spec("matplotlib") is None:
        raise Failure(
            "--plot needs matplotlib, which is not installed here",
            "  install it beside trioproxy: pip install 'trioproxy[plot]'",
        )


def draw_usage(path: Path, titles: Sequence[str], lines: Sequence[UsageLine], wish: UsageWish, now: datetime) -> None:
    """Draw it.

    Args:
        path: the file; replaced if it is there.
        titles: the lines above it.
        lines: the largest first; days in their order.
        wish: what was asked for.
        now: where the period ends if nothing else was said.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 - takes a second, and need not be there
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font does not have is drawn as boxes
        if wish.by is By.DAY:
            figure = Figure(figsize=(8, 3.6), layout="constrained")
            axes = figure.add_subplot()
            _draw_days(axes, _every_day(lines, wish, now))
        else:
            figure = Figure(figsize=(8, 1.6 + 0.27 * len(lines)), layout="constrained")
            axes = figure.add_subplot()
            _draw_keys(axes, lines)
        axes.set_title("\n".join(titles), loc="left", fontsize=10)
        figure.legend(loc="outside lower right", ncols=2, frameon=False)
        figure.savefig(path, dpi=130)


def _draw_keys(axes: Any, lines: Sequence[UsageLine]) -> None:  # noqa: ANN401 - matplotlib is untyped here
    unit, factor = size_unit(max(line.bytes_total for line in lines))
    places = range(len(lines))
    down = [line.bytes_to_client / factor for line in lines]
    up = [line.bytes_to_target / factor for line in lines]
    axes.barh(places, down, color=_TO_CLIENT, label="to the client", height=0.7)
    axes.barh(places, up, left=down, color=_TO_TARGET, label="to the target", height=0.7)
    for place, line in enumerate(lines):
        axes.annotate(
            f" {show_size(line.bytes_total)}",
            (down[place] + up[place], place),
            va="center",
            fontsize=8,
            color="#444444",
        )
    axes.set_yticks(places, [_short(line.key) for line in lines])
    axes.invert_yaxis()
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlabel(unit)
    axes.margins(x=0.12)  # room for the numbers
    axes.set_xlim(left=0)


def _draw_days(axes: Any, lines: Sequence[UsageLine]) -> None:  # noqa: ANN401 - as above
    unit, factor = size_unit(max(line.bytes_total for line in lines))
    places = range(len(lines))
    down = [line.bytes_to_client / factor for line in lines]
    up = [line.bytes_to_target / factor for line in lines]
    axes.bar(places, down, color=_TO_CLIENT, label="to the client", width=0.8)
    axes.bar(places, up, bottom=down, color=_TO_TARGET, label="to the target", width=0.8)
    step = -(-len(lines) // _DAYS_NAMED_MAX)
    named = places[::step]
    axes.set_xticks(named, _day_texts([lines[place].key for place in named]))
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    room = max(0, _DAYS_WIDE_MIN - len(lines)) / 2  # on both sides: one day alone would be as wide as the picture
    axes.set_xlim(-0.6 - room, len(lines) - 0.4 + room)


def _every_day(lines: Sequence[UsageLine], wish: UsageWish, now: datetime) -> list[UsageLine]:
    """The days of the period, also those without a flow; no more than were asked for."""
    present = {line.key: line for line in lines}
    last_moment = min(wish.until or now, now) - timedelta.resolution
    first, last = (moment.astimezone(wish.zone).date() for moment in (wish.since, last_moment))
    first = max(first, date.fromisoformat(lines[0].key))  # nobody needs the empty months before there was anything
    days = [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]
    return [present.get(day, UsageLine(day, 0, 0, 0)) for day in days]


def _day_texts(days: Sequence[str]) -> list[str]:
    """The number of each day, with the month where that is another one than before."""
    found = [date.fromisoformat(day) for day in days]
    news = [True, *(one.month != before.month for before, one in pairwise(found))]
    return [f"{day.day}\n{day:%b %Y}" if new else str(day.day) for day, new in zip(found, news, strict=True)]


def _short(key: str) -> str:
    text = printable(key)
    return text if len(text) <= _KEY_MAX else f"{text[: _KEY_MAX - 1]}…"
