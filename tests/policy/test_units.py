"""Numbers with units: what is read, what is refused, and that the text says the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.units import (
    Period,
    Quota,
    Rates,
    parse_quota,
    parse_rate,
    parse_rates,
    parse_size,
    rate_text,
    size_text,
)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("20Mbit", 2_500_000), ("8kbit", 1_000), ("1.5Mbit", 187_500), ("8000bit", 1_000), ("1000Gbit", 125 * 10**9)],
)
def test_reads_rates(text: str, rate: int) -> None:
    """Bits a second become bytes a second."""
    assert parse_rate(text) == rate


def test_a_rate_of_one_number_is_for_each_direction() -> None:
    """One number stands for both."""
    assert parse_rates("20Mbit") == Rates(2_500_000, 2_500_000)


def test_the_first_rate_is_that_to_the_client() -> None:
    """As line speeds are written: down, then up."""
    assert parse_rates("20Mbit/2Mbit") == Rates(down=2_500_000, up=250_000)


@pytest.mark.parametrize(
    "text",
    [
        *("", "20", "Mbit", "20mbit", "20 Mbit", "-20Mbit", "20MB", "fast", "20Mbit/", "/20Mbit", "20Mbps"),
        *("\N{ARABIC-INDIC DIGIT TWO}Mbit", "1e3kbit", "nanMbit", "infMbit", "20.Mbit", "0Mbit", "7kbit", "1001Gbit"),
        "20Mbit/2Mbit/2Mbit",
    ],
)
def test_refuses_what_is_no_rate(text: str) -> None:
    """What cannot be read, or is below or above every line, is told what was expected."""
    with pytest.raises(ValueError, match="a rate"):
        parse_rates(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1B", 1), ("2MB", 2_000_000), ("2MiB", 2 * 2**20), ("1.5GB", 1_500_000_000), ("3TB", 3 * 10**12)],
)
def test_reads_sizes(text: str, size: int) -> None:
    """Decimal and binary units."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "GB", "5gb", "5Mbit", "0B", "0.1B", "5 GB", "-5GB", "99999999TB", "five"])
def test_refuses_what_is_no_size(text: str) -> None:
    """The same for sizes."""
    with pytest.raises(ValueError, match="a size"):
        parse_size(text)


@pytest.mark.parametrize("period", Period)
def test_reads_quotas(period: Period) -> None:
    """A size for a period."""
    quota = parse_quota(f"5GB/{period.value}")
    assert quota == Quota(5 * 10**9, period)
    assert str(quota) == f"5GB/{period.value}"


@pytest.mark.parametrize("text", ["5GB", "5GB/", "5GB/year", "5GB/Day", "/day", "5/day", "5GB/day/day"])
def test_refuses_what_is_no_quota(text: str) -> None:
    """A period that does not exist, or none."""
    with pytest.raises(ValueError, match=r"a quota|a size"):
        parse_quota(text)


@given(st.integers(1_000, 125 * 10**9), st.integers(1_000, 125 * 10**9))
def test_the_text_of_rates_says_the_same(down: int, up: int) -> None:
    """What is shown can be typed again."""
    assert parse_rate(rate_text(down)) == down
    assert parse_rates(str(Rates(down, up))) == Rates(down, up)


@given(st.integers(1, 2**60))
def test_the_text_of_a_size_says_the_same(size: int) -> None:
    """The same for sizes."""
    assert parse_size(size_text(size)) == size
