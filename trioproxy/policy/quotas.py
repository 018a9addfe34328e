"""Quotas: periods of the calendar in a time zone, and what was used in each. For one thread.

Moments are aware. Those that come out are in UTC, because Python compares two moments of one zone by the hands of their
clock, which is wrong in the hour that comes twice.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final, assert_never

import attrs

from trioproxy.policy.units import Period, Quota

__all__ = ["Delta", "QuotaAccount", "period_of"]

_SECOND: Final = timedelta(seconds=1)

# Periods that an account remembers: the present one, and those a clock showed that was wrong for a while.
_PERIODS_MAX: Final = 4


def period_of(period: Period, at: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """When the period that `at` lies in begins, and when it ends and the next one begins; both in UTC.

    A day begins with the first moment that has its date in the zone, also where there is no midnight or two. So periods
    follow each other without gap and overlap; where a clock is set back over midnight, the next day has begun already.

    Raises:
        ValueError: `at` has no time zone.
        OverflowError: the period reaches beyond the years 1 to 9999.
    """
    if at.tzinfo is None:
        raise ValueError("a moment with its time zone")
    first = _first_day(period, at.astimezone(zone).date())
    following = _first_day_after(period, first)
    if at >= _day_begins(following, zone):
        first, following = following, _first_day_after(period, following)
    return _day_begins(first, zone), _day_begins(following, zone)


@attrs.frozen
class Delta:
    """What was used in a period since it was last asked for.

    Attributes:
        begins_at: when the period begins, in UTC.
        used: bytes.
    """

    begins_at: datetime
    used: int


class QuotaAccount:
    """How much of a quota somebody has used, period by period.

    Several processes may count for the same quota: each adds its deltas to what is stored (`take_deltas`) and learns
    the sum (`restore`). Each period has its quota once: when the clock goes back over a border, what was used in the
    period before still counts, and when it comes to the border again, so does what was used behind it.

    Attributes:
        quota: its size may change at any time; for another period make another account.
    """

    def __init__(self, quota: Quota, zone: tzinfo) -> None:
        self.quota = quota
        self._zone = zone
        self._begins_at = self._ends_at = datetime.min.replace(tzinfo=UTC)  # of the period that was last asked about
        self._used: dict[datetime, int] = {}
        self._deltas: dict[datetime, int] = {}

    def set_zone(self, zone: tzinfo) -> None:
        """From now on the days of another time zone count; what was used in those of the old one stays with them."""
        if zone is not self._zone:
            self._zone = zone
            self._begins_at = self._ends_at = datetime.min.replace(tzinfo=UTC)

    def period(self, now_at: datetime) -> tuple[datetime, datetime]:
        """When the present period begins and ends, in UTC."""
        if not self._begins_at <= now_at < self._ends_at:
            self._begins_at, self._ends_at = period_of(self.quota.period, now_at, self._zone)
        return self._begins_at, self._ends_at

    def used(self, now_at: datetime) -> int:
        """Bytes used in the present period."""
        return self._used.get(self.period(now_at)[0], 0)

    def left(self, now_at: datetime) -> int:
        """Bytes left in the present period; never negative, though more may have been used than there was."""
        return max(0, self.quota.size - self.used(now_at))

    def charge(self, count: int, now_at: datetime) -> int:
        """So many bytes have flowed; returns what is left.

        Raises:
            ValueError: it is negative.
        """
        if count < 0:
            raise ValueError("bytes that have flowed cannot be fewer than none")
        begins_at = self.period(now_at)[0]
        self._set(begins_at, self._used.get(begins_at, 0) + count)
        if count:
            self._deltas[begins_at] = self._deltas.get(begins_at, 0) + count
        return self.left(now_at)

    def restore(self, begins_at: datetime, used: int) -> None:
        """So much is stored for the period that begins then, by whomever.

        What is not stored yet is added. So every delta that was taken must be in `used`, or given back before
        (`put_back`).
        """
        begins_at = begins_at.astimezone(UTC)
        self._set(begins_at, used + self._deltas.get(begins_at, 0))

    def take_deltas(self) -> list[Delta]:
        """What was used since the last time, to be added to what is stored; by the beginning of the period."""
        taken = [Delta(begins_at, used) for begins_at, used in sorted(self._deltas.items())]
        self._deltas.clear()
        return taken

    def put_back(self, deltas: Iterable[Delta]) -> None:
        """These could not be stored; they come with the next ones."""
        for delta in deltas:
            self._deltas[delta.begins_at] = self._deltas.get(delta.begins_at, 0) + delta.used

    def _set(self, begins_at: datetime, used: int) -> None:
        self._used.pop(begins_at, None)  # to the end: the first one has been quiet for the longest time
        self._used[begins_at] = used
        if len(self._used) > _PERIODS_MAX:
            del self._used[next(iter(self._used))]


def _first_day(period: Period, day: date) -> date:
    match period:
        case Period.DAY:
            return day
        case Period.WEEK:
            return day - timedelta(days=day.weekday())
        case Period.MONTH:
            return day.replace(day=1)
        case _:
            assert_never(period)


def _first_day_after(period: Period, first: date) -> date:
    match period:
        case Period.DAY:
            return first + timedelta(days=1)
        case Period.WEEK:
            return first + timedelta(days=7)
        case Period.MONTH:
            return (first + timedelta(days=31)).replace(day=1)
        case _:
            assert_never(period)


def _day_begins(day: date, zone: tzinfo) -> datetime:
    """The first moment whose date in the zone is this day, or a later one if the zone skips it."""
    midnight = datetime.combine(day, time(), zone)
    late = midnight.astimezone(UTC)
    if late.astimezone(zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return late
    # The clock was set forward over midnight. Taken by the offset from before that, midnight is after the change or in
    # it; by the offset from after it, before.
    early = midnight.replace(fold=1).astimezone(UTC)
    while late - early > _SECOND:
        middle = early + (late - early) // _SECOND // 2 * _SECOND
        if middle.astimezone(zone).date() < day:
            early = middle
        else:
            late = middle
    return late
