"""When a rule speaks: days of the week and hours of the day, as a clock on the wall of the tenant shows them.

The clock on the wall decides, also on the days on which it is put forward or back: hours that it leaves out do not
come, and those that it shows twice come twice. So what a rule says about a moment depends on nothing but what the clock
shows then. Time comes in as an aware datetime; nothing here asks a clock.
"""

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Self

import attrs

__all__ = [
    "GRACE_MAX_S",
    "WEEK",
    "Hours",
    "Span",
    "TimeZones",
    "grace_text",
    "minute_of_week",
    "next_change",
    "parse_grace",
]

DAY: Final = 24 * 60  # minutes
WEEK: Final = 7 * DAY  # minutes; minute 0 begins on Monday at midnight
GRACE_MAX_S: Final = 24 * 3600  # with more than a day the hours of a rule that speaks daily would never end

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY: Final = "|".join(_DAYS)
_SPAN: Final = re.compile(rf"(?:({_DAY})(?:-({_DAY}))?@)?([0-9]{{2}}):([0-5][0-9])-([0-9]{{2}}):([0-5][0-9])", re.ASCII)
_GRACE: Final = re.compile(r"([0-9]{1,6})([smh])", re.ASCII)
_GRACE_UNITS: Final = {"h": 3600, "m": 60, "s": 1}
_MINUTE: Final = timedelta(minutes=1)
_LOOK_AHEAD: Final = 60  # minutes; no clock is put forward and back within an hour


@attrs.frozen
class Span:
    """`mon-fri@08:00-18:00`: the same hours on some days in a row.

    Attributes:
        first_day: 0 is Monday.
        last_day: before `first_day` if Sunday and Monday are between them.
        begin: minutes from midnight, 0 to 1439.
        end: 1 to 1440, this minute not included; not after `begin` for hours that end on the next day.
    """

    first_day: int
    last_day: int
    begin: int
    end: int

    def __str__(self) -> str:
        hours = f"{_time_text(self.begin)}-{_time_text(self.end)}"
        if (self.first_day, self.last_day) == (0, 6):
            return hours
        first, last = _DAYS[self.first_day], _DAYS[self.last_day]
        return f"{first}@{hours}" if first == last else f"{first}-{last}@{hours}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it.

        Raises:
            ValueError: says what was expected.
        """
        found = _SPAN.fullmatch(text)
        if found is None:
            raise ValueError("hours such as mon-fri@08:00-18:00, sat@22:00-06:00, or 08:00-18:00 for every day")
        begin, end = int(found[3]) * 60 + int(found[4]), int(found[5]) * 60 + int(found[6])
        if begin >= DAY or end > DAY:
            raise ValueError("hours from 00:00 to 24:00")
        if begin == end:
            raise ValueError("hours that do not end when they begin; 00:00-24:00 is the whole day")
        end = end or DAY  # 22:00-00:00 ends at the midnight at which 22:00-24:00 ends
        first = _DAYS.index(found[1]) if found[1] else 0
        last = _DAYS.index(found[2]) if found[2] else first if found[1] else 6
        return cls(0, 6, begin, end) if (last + 1 - first) % 7 == 0 else cls(first, last, begin, end)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Minutes of the week, the second of each pair not included."""
        length = self.end - self.begin if self.end > self.begin else DAY + self.end - self.begin
        for day in range(self.first_day, self.first_day + (self.last_day - self.first_day) % 7 + 1):
            begin = day % 7 * DAY + self.begin
            end = begin + length
            yield begin, min(end, WEEK)
            if end > WEEK:  # from Sunday to Monday
                yield 0, end - WEEK


@attrs.frozen
class Hours:
    """What `when=` says: several spans, in the order in which they are written.

    Attributes:
        spans: at least one.
        edges: minutes of the week at which the hours begin, end, begin and so on; what touches is one piece.
        borders: those at which they really begin or end; none if they never do.
    """

    spans: tuple[Span, ...]
    edges: tuple[int, ...] = attrs.field(init=False, eq=False, repr=False)
    borders: frozenset[int] = attrs.field(init=False, eq=False, repr=False)

    @edges.default
    def _edges_of_spans(self) -> tuple[int, ...]:
        edges: list[int] = []
        for begin, end in sorted(piece for span in self.spans for piece in span.pieces()):
            if edges and begin <= edges[-1]:
                edges[-1] = max(edges[-1], end)
            else:
                edges += (begin, end)
        return tuple(edges)

    @borders.default
    def _borders_of_edges(self) -> frozenset[int]:
        # At the end of the week nothing ends that goes on at its beginning.
        wrapped = {0, WEEK} if {0, WEEK} <= set(self.edges) else set()
        return frozenset(edge % WEEK for edge in self.edges if edge not in wrapped)

    def __str__(self) -> str:
        return ",".join(map(str, self.spans))

    def cover(self, minute: int) -> bool:
        """Does the rule speak in this minute of the week?"""
        return bisect_right(self.edges, minute) % 2 == 1


@attrs.frozen
class TimeZones:
    """By whose clock the hours of rules are read.

    Attributes:
        default: for tenants that have none of their own.
        tenants: the others.
    """

    default: tzinfo = UTC
    tenants: Mapping[str, tzinfo] = attrs.field(factory=dict)

    def of(self, tenant: str) -> tzinfo:
        """The zone of this tenant."""
        return self.tenants.get(tenant, self.default)

    def all(self) -> frozenset[tzinfo]:
        """Every zone that is in use."""
        return frozenset({self.default, *self.tenants.values()})


def minute_of_week(now: datetime, zone: tzinfo) -> int:
    """What the clock on the wall shows.

    Raises:
        AssertionError: the time has no zone, so nobody knows which moment is meant.
    """
    if now.tzinfo is None:
        raise AssertionError("hours are read at a moment, not at a time without a zone")
    local = now.astimezone(zone)
    return local.weekday() * DAY + local.hour * 60 + local.minute


def next_change(hours: Collection[Hours], now: datetime, zone: tzinfo) -> datetime | None:
    """The first moment after `now` at which some of these hours begin or end; None if they never do."""
    borders = sorted({border for some in hours for border in some.borders})
    if not borders:
        return None
    moment = now.astimezone(UTC).replace(second=0, microsecond=0)
    minute = minute_of_week(moment, zone)
    before = [some.cover(minute) for some in hours]
    while True:
        ahead = borders[bisect_right(borders, minute) % len(borders)]
        step = min((ahead - minute - 1) % WEEK + 1, _LOOK_AHEAD) * _MINUTE
        if _offset(moment + step, zone) != _offset(moment, zone):
            step = _MINUTE  # the clock is put forward or back: look at what it shows minute by minute
        moment += step
        minute = minute_of_week(moment, zone)
        if [some.cover(minute) for some in hours] != before:
            return moment


def _offset(moment: datetime, zone: tzinfo) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()


def parse_grace(text: str) -> int:
    """Seconds of `30s`, `5m` or `1h`.

    Raises:
        ValueError: says what was expected.
    """
    found = _GRACE.fullmatch(text)
    seconds = int(found[1]) * _GRACE_UNITS[found[2]] if found else 0
    if not 1 <= seconds <= GRACE_MAX_S:
        raise ValueError(f"a time such as 30s, 5m or 1h, up to {grace_text(GRACE_MAX_S)}")
    return seconds


def grace_text(seconds: int) -> str:
    """The shortest text that `parse_grace` reads as the same."""
    unit, factor = next((unit, factor) for unit, factor in _GRACE_UNITS.items() if seconds % factor == 0)
    return f"{seconds // factor}{unit}"


def _time_text(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
