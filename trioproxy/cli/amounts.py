"""Numbers of bytes, and how fast they flow, for people: three digits and a unit."""

from typing import Final

__all__ = ["show_rate", "show_size", "size_unit"]

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")  # decimal, as in rules


def size_unit(number: float) -> tuple[str, int]:
    """The unit in which a number of bytes is read best, and how many bytes that is."""
    power = 0
    while power + 1 < len(_UNITS) and number >= 999.5 * 1000**power:  # what would be rounded to 1000
        power += 1
    return _UNITS[power], 1000**power


def show_size(number: int) -> str:
    """`1.25 GB`."""
    unit, factor = size_unit(number)
    if factor == 1:
        return f"{number} B"
    value = number / factor
    places = 2 if value < 9.995 else 1 if value < 99.95 else 0  # noqa: PLR2004 - what would be rounded to the next digit
    return f"{value:.{places}f} {unit}"


def show_rate(bytes_per_s: int) -> str:
    """`1.25 Mbit/s`; `-` for nothing."""
    return f"{show_size(bytes_per_s * 8).removesuffix('B')}bit/s" if bytes_per_s else "-"
