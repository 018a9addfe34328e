"""Numbers and lengths that a stranger wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.sniff.octets import Cursor, MalformedError


def test_steps() -> None:
    """Numbers are big-endian, a vector stands behind its length, and at the end nothing is left."""
    cursor = Cursor(b"\0\1\2\2ab\xff", 1)
    assert cursor.number(2) == 0x0102
    assert cursor.vector(1, least=2, most=2) == b"ab"
    assert cursor.left == 1
    with pytest.raises(MalformedError):
        cursor.finish()
    assert cursor.take(1) == b"\xff"
    cursor.finish()


@pytest.mark.parametrize(
    ("octets", "least", "most"), [(b"", 0, 9), (b"\2a", 0, 9), (b"\1a", 2, 9), (b"\2ab", 0, 1), (b"\3ab", 3, 3)]
)
def test_vectors_that_lie(octets: bytes, least: int, most: int) -> None:
    """A length that is missing, reaches too far, or is out of bounds is malformed."""
    with pytest.raises(MalformedError):
        Cursor(octets).vector(1, least, most)


@given(st.binary(max_size=8), st.integers(0, 10), st.integers(0, 8))
def test_nothing_is_read_beyond_the_end(octets: bytes, count: int, start: int) -> None:
    """So many octets or none: a slice of Python's would be cut off without a word."""
    cursor = Cursor(octets, min(start, len(octets)))
    left = cursor.left
    if count > left:
        for read in (cursor.take, cursor.number):
            with pytest.raises(MalformedError):
                read(count)
        assert cursor.left == left
    else:
        assert len(cursor.take(count)) == count
