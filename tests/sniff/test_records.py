"""The first handshake message of a TLS stream, out of its records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.driver import split
from tests.sniff.hellos import message, record
from trioproxy.sniff.octets import MalformedError
from trioproxy.sniff.records import HANDSHAKE, HandshakeReader, record_length


def _read(stream: bytes, places: list[int], *, alone: bool = True) -> bytes | str | None:
    reader = HandshakeReader(1, 100, alone=alone)
    body = None
    try:
        for piece in split(stream, places):
            body = reader.receive_data_untrusted(piece)
            if body is not None:
                return body
    except MalformedError as error:
        return str(error)
    return None


@given(st.binary(max_size=100), st.lists(st.integers(0, 110)), st.lists(st.integers(0, 300)))
def test_any_records_in_any_pieces(body: bytes, fragments: list[int], places: list[int]) -> None:
    """RFC 8446 section 5.1: a message may be spread over records as its sender likes."""
    stream = b"".join(record(fragment) for fragment in split(message(1, body), fragments))
    assert body == _read(stream, places)
    assert _read(stream[:-1], places) is None


@given(st.binary(min_size=1, max_size=40), st.lists(st.integers(0, 60)))
def test_what_stands_behind(body: bytes, places: list[int]) -> None:
    """A ClientHello ends where its record ends; behind a ServerHello others of the server's messages may stand."""
    both = record(message(1, body) + b"\x0b")
    assert _read(both, places) == "something stands behind the message in its record"
    assert _read(both, places, alone=False) == body
    assert _read(record(message(1, body)) + b"anything", places) == body


@pytest.mark.parametrize(
    "stream",
    [
        b"\x17\3\1\0\5",
        b"\x16\2\0\0\5",
        b"\x16\3\5\0\5",
        b"\x16\4\0\0\5",
        b"\x16\3\1\0\0",
        b"\x16\3\1\x40\1",
        b"\x16\3\1\0\5\2",
        b"\x16\3\1\0\5\1\0\0\x65",
        b"\x16\3\1\0\2\1\0\x17",
        b"\x16\3\1\0\3\1\0\0\x16\3\1\0\2\0",
    ],
)
def test_malformed(stream: bytes) -> None:
    """Told at the last of these octets, and not before it: whatever might still be mended is waited for."""
    assert isinstance(_read(stream, list(range(99))), str)
    assert _read(stream[:-1], list(range(99))) is None or stream[0] != HANDSHAKE


@pytest.mark.parametrize("header", [b"\x16", b"\x16\3\1\0"])
def test_header_cut_off(header: bytes) -> None:
    """A header needs five octets."""
    assert record_length(header, HANDSHAKE) is None
    assert record_length(b"\x16\3\1\x40\0", HANDSHAKE) == 1 << 14


class _Counted(bytearray):
    """Counts the octets that are taken out of it or put into it."""

    octets = 0

    def __getitem__(self, key: object) -> object:  # type: ignore[override]
        found = super().__getitem__(key)  # type: ignore[call-overload]
        self.octets += len(found) if isinstance(found, bytearray) else 1
        return found


@pytest.mark.parametrize("size", [1, 2, 100])
def test_work_is_linear(size: int) -> None:
    """However small the records and the pieces, no octet is looked at more than a few times."""
    whole = message(1, bytes(5_000))
    stream = b"".join(record(whole[at : at + size]) for at in range(0, len(whole), size))
    reader = HandshakeReader(1, 1 << 14, alone=True)
    reader._unread, reader._message = unread, collected = _Counted(), _Counted()
    for at in range(len(stream)):
        reader.receive_data_untrusted(stream[at : at + 1])
    assert len(collected) == len(whole)
    assert unread.octets <= 12 * len(stream)
    assert collected.octets <= 5 * len(stream) + len(whole)
