"""Numbers with a unit, as people write them in rules and limits: `20Mbit`, `2MB`, `5GB/day`."""

import enum
import re
from fractions import Fraction
from typing import Final

import attrs

__all__ = [
    "Period",
    "Quota",
    "Rates",
    "parse_quota",
    "parse_rate",
    "parse_rates",
    "parse_size",
    "rate_text",
    "size_text",
]

# Decimal for rates and for sizes, as line speeds and volumes are sold; binary sizes have their own names.
_RATE_UNITS: Final = {"bit": 1, "kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9}
_SIZE_UNITS: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_NUMBER: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,6})?)([A-Za-z]+)", re.ASCII)
_RATE_MIN: Final = 1_000  # bytes/s: 8 kbit; with less a flow does not get its first kilobyte out within a second
_RATE_MAX: Final = 125 * 10**9  # bytes/s: 1000 Gbit
_SIZE_MAX: Final = 2**60  # bytes


class Period(enum.Enum):
    """What a quota is for: of the calendar, in the configured time zone; weeks begin on Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@attrs.frozen
class Rates:
    """How fast bytes may flow, in bytes a second.

    Attributes:
        down: to the client.
        up: to the target.
    """

    down: int
    up: int

    @property
    def least_burst(self) -> int:
        """Bytes that must be able to come at once, or the rate cannot be reached: what comes in 10 ms."""
        return max(self.down, self.up) // 100

    def __str__(self) -> str:
        down, up = rate_text(self.down), rate_text(self.up)
        return down if down == up else f"{down}/{up}"


@attrs.frozen
class Quota:
    """How many bytes may flow in a period, both directions together."""

    size: int
    period: Period

    def __str__(self) -> str:
        return f"{size_text(self.size)}/{self.period.value}"


_PERIODS: Final = {period.value: period for period in Period}


def parse_quota(text: str) -> Quota:
    """Read `5GB/day`.

    Raises:
        ValueError: says what was expected.
    """
    size, slash, period = text.partition("/")
    if not slash or period not in _PERIODS:
        raise ValueError("a quota such as 5GB/day: the period is day, week or month")
    return Quota(parse_size(size), _PERIODS[period])


def parse_rates(text: str) -> Rates:
    """Read `20Mbit` (each direction) or `20Mbit/2Mbit` (to the client / to the target).

    Raises:
        ValueError: says what was expected.
    """
    down, slash, up = text.partition("/")
    return Rates(parse_rate(down), parse_rate(up if slash else down))


def parse_rate(text: str) -> int:
    """Bytes a second of `20Mbit`, whole ones.

    Raises:
        ValueError: says what was expected.
    """
    value = _number(text, _RATE_UNITS, "a rate such as 20Mbit or 20Mbit/2Mbit: a number with bit, kbit, Mbit or Gbit")
    rate = int(value / 8)
    if not _RATE_MIN <= rate <= _RATE_MAX:
        raise ValueError(f"a rate from {rate_text(_RATE_MIN)} to {rate_text(_RATE_MAX)}")
    return rate


def parse_size(text: str) -> int:
    """Bytes of `2MB` (decimal) or `2MiB` (binary), whole ones.

    Raises:
        ValueError: says what was expected.
    """
    size = int(
        _number(text, _SIZE_UNITS, "a size such as 500MB or 2GiB: a number with B, kB, MB, GB, TB or KiB to TiB")
    )
    if not 1 <= size <= _SIZE_MAX:
        raise ValueError(f"a size from 1B to {size_text(_SIZE_MAX)}")
    return size


def rate_text(rate: int) -> str:
    """The shortest text that `parse_rate` reads as the same; `rate` in bytes a second."""
    return _text(rate * 8, _RATE_UNITS)


def size_text(size: int) -> str:
    """The shortest text that `parse_size` reads as the same."""
    return _text(size, _SIZE_UNITS)


def _number(text: str, units: dict[str, int], expected: str) -> Fraction:
    found = _NUMBER.fullmatch(text)
    if found is None or found[2] not in units:
        raise ValueError(expected)
    return Fraction(found[1]) * units[found[2]]


def _text(value: int, units: dict[str, int]) -> str:
    unit, factor = max(((u, f) for u, f in units.items() if value % f == 0), key=lambda pair: pair[1])
    return f"{value // factor}{unit}"
