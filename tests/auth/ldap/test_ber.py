"""What a directory's bytes may be: BER of the kind that LDAP allows, or an error."""

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from auth.ldap import ber
from auth.ldap.ber import Allowance, BerError, Element, TooMuchError, frame_length, integer, read
from tests.auth.ldap.asn1 import tlv

MAXIMUM = 1 << 20


def members(data: bytes) -> Iterator[Element]:
    """However many there are."""
    return ber.members(data, Allowance(elements_left=1 << 30))


@st.composite
def elements(draw: st.DrawFn) -> tuple[int, bytes, bytes]:
    """A tag, contents, and both as an element whose length is in any of the forms that BER has."""
    tag = draw(st.integers(0, 255).filter(lambda tag: tag & 0x1F != 0x1F))
    contents = draw(st.binary(max_size=300))
    forms = [form for form in range(5) if len(contents) < (0x80 if form == 0 else 256**form)]
    return tag, contents, tlv(tag, contents, draw(st.sampled_from(forms)))


# ---- how long


@given(elements(), st.binary(max_size=20))
def test_length_of_every_prefix(written: tuple[int, bytes, bytes], behind: bytes) -> None:
    """Too few bytes to tell say so and never guess; what follows changes nothing."""
    data = written[2]
    header = len(data) - len(written[1])
    for end in range(header):
        assert frame_length(data[:end], MAXIMUM) is None
    for end in range(header, len(data) + 1):
        assert frame_length(data[:end], MAXIMUM) == len(data)
    assert frame_length(bytearray(data + behind), MAXIMUM) == len(data)


@pytest.mark.parametrize("first", [0x80, *range(0x85, 0x100)])
def test_indefinite_and_long_lengths(first: int) -> None:
    """Indefinite (RFC 4511 section 5.1 forbids it), or of five bytes and more, be it 2**40 or 0."""
    for behind in (b"", b"\0" * 127, b"\1" * 127):
        with pytest.raises(BerError, match="indefinite"):
            frame_length(bytes([0x30, first]) + behind, MAXIMUM)


@pytest.mark.parametrize(("announced", "fits"), [(MAXIMUM - 6, True), (MAXIMUM - 5, False), (0xFFFF_FFFF, False)])
def test_length_beyond_the_maximum(announced: int, *, fits: bool) -> None:
    """Refused by its first bytes: nothing is kept for what will be refused anyway. The header counts."""
    data = b"\x30\x84" + announced.to_bytes(4, "big")
    if fits:
        assert frame_length(data, MAXIMUM) == MAXIMUM
    else:
        with pytest.raises(BerError, match="announced"):
            frame_length(data, MAXIMUM)


# ---- one element


@given(elements(), st.binary(max_size=20))
def test_read(written: tuple[int, bytes, bytes], behind: bytes) -> None:
    """Tag, contents and what follows, in every form of the length."""
    tag, contents, data = written
    assert ((tag, contents), behind) == read(data + behind)


@given(elements())
def test_read_cut_off(written: tuple[int, bytes, bytes]) -> None:
    """No part of an element is one: ldap3's own reader would clip the value without a word."""
    data = written[2]
    for end in range(len(data)):
        with pytest.raises(BerError):
            read(data[:end])


@pytest.mark.parametrize("tag", [0x1F, 0x3F, 0x5F, 0x7F, 0x9F, 0xBF, 0xDF, 0xFF])
def test_tags_of_several_bytes(tag: int) -> None:
    """LDAP has none."""
    with pytest.raises(BerError, match="tag"):
        read(bytes([tag, 1, 0]))
    with pytest.raises(BerError, match="tag"):
        list(members(bytes([tag, 1, 0])))


# ---- several


@given(st.lists(elements(), max_size=8))
def test_members(written: list[tuple[int, bytes, bytes]]) -> None:
    """All of them, in their order; a byte less is an error, wherever it ends but between two."""
    data = b"".join(element for _, _, element in written)
    assert [(tag, contents) for tag, contents, _ in written] == list(members(data))
    ends = {sum(len(element) for _, _, element in written[:count]) for count in range(len(written) + 1)}
    for end in set(range(len(data))) - ends:
        with pytest.raises(BerError):
            list(members(data[:end]))


@given(st.binary(max_size=64))
@example(b"\x30\x80\0\0")
@example(b"\x04\x84\xff\xff\xff\xff")
@example(b"\x04")
def test_any_bytes(data: bytes) -> None:
    """Elements or a BerError, and elements account for every byte."""
    found: list[Element] = []
    try:
        found.extend(members(data))
    except BerError:
        with pytest.raises(BerError):
            _read_all(data)
    else:
        assert found == _read_all(data)


def _read_all(data: bytes) -> list[Element]:
    found = []
    while data:
        element, data = read(data)
        found.append(element)
    return found


def test_members_are_read_one_by_one() -> None:
    """Whoever wants the first two takes no memory for a million, nor time."""
    found = members(b"\x04\0" * 2 + b"\xff")
    assert [next(found), next(found)] == [(4, b""), (4, b"")]
    with pytest.raises(BerError):
        next(found)


# ---- numbers


@given(st.integers(-(2**31), 2**31 - 1))
def test_integer(value: int) -> None:
    """Two's complement, as short as it goes or not."""
    short = (value + (value < 0)).bit_length() // 8 + 1
    for size in range(short, 5):
        assert value == integer(value.to_bytes(size, "big", signed=True))


@pytest.mark.parametrize("contents", [b"", b"\0" * 5, b"\1" * 1000])
def test_integer_refuses(contents: bytes) -> None:
    """None, or more than MessageID and result codes have (RFC 4511 section 4.1.1: up to 2**31 - 1)."""
    with pytest.raises(BerError, match="integer"):
        integer(contents)


def test_allowance() -> None:
    """Habit 6: elements and bytes of one question, however they are spread over messages."""
    allowance = Allowance(bytes_left=10, elements_left=5)
    assert len(list(ber.members(b"\x04\0" * 3, allowance))) == 3
    with pytest.raises(TooMuchError, match="values"):
        list(ber.members(b"\x04\0" * 3, allowance))
    allowance.take(10)
    with pytest.raises(TooMuchError, match="bytes"):
        allowance.take(1)
