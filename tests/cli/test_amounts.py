"""Bytes for people: three digits, the right unit, and no thousand of a smaller one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.cli.amounts import show_rate, show_size


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_995, "10.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1_250_000_000, "1.25 GB"),
        (2**64, "18.4 EB"),
        (10**21, "1000 EB"),
    ],
)
def test_sizes(number: int, shown: str) -> None:
    """Three digits say enough; units are decimal, as in rules."""
    assert shown == show_size(number)


@given(st.integers(0, 10**20))
def test_sizes_are_near(number: int) -> None:
    """What is shown is within a half of its last digit, in at most seven characters."""
    text = show_size(number)
    found = re.fullmatch(r"([0-9.]{1,4}) ([kMGTPE]?B)", text)
    assert found is not None
    factor = 1000 ** ("B", "kB", "MB", "GB", "TB", "PB", "EB").index(found[2])
    assert abs(float(found[1]) * factor - number) <= max(0, 0.0051 * number if factor > 1 else 0)


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, "-"), (1, "8 bit/s"), (2_500_000, "20.0 Mbit/s"), (125_000, "1.00 Mbit/s"), (999, "7.99 kbit/s")],
)
def test_rates_are_shown_in_bits(rate: int, text: str) -> None:
    """As lines are sold, and as rules are written."""
    assert show_rate(rate) == text
