"""What the first datagram of a flow tells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.strategies import damaged
from trioproxy.sniff import App, datagram_app

_V1, _V2, _DRAFT_29, _GREASE = 1, 0x6B3343CF, 0xFF00001D, 0x1A2A3A4A


def _quic(
    version: int = _V1,
    *,
    first: int = 0xC3,
    destination: int = 8,
    source: int = 0,
    behind: bytes = b"\0" + b"\x44\x90",
    size: int = 1_200,
) -> bytes:
    ids = bytes((destination,)) + bytes(destination) + bytes((source,)) + bytes(source)
    return (bytes((first,)) + version.to_bytes(4, "big") + ids + behind).ljust(size, b"\xaa")


_DNS = bytes.fromhex("1234 0100 0001 0000 0000 0000 03777777076578616d706c65036f726700 0001 0001")
_STUN = bytes.fromhex("0001 0008 2112a442 000102030405060708090a0b 80220004 74657374")
_SYN = bytes.fromhex("41 00 3039 0a0b0c0d 00000000 00100000 0001 0000")
_SYN_EXTENDED = b"\x41\2" + _SYN[2:] + b"\0\x08" + bytes(8)
_PING = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"
_FOUND = b"d1:rd2:id20:abcdefghij01234567896:valuesl6:axje.u6:idhtnmee1:t2:aa1:v4:LT\1\2" + b"1:y1:re"
_TRACKER = bytes.fromhex("00000417271019800000000000003039")


@pytest.mark.parametrize(
    ("payload", "app"),
    [
        (_quic(), App.QUIC),
        (_quic(_DRAFT_29, destination=20, source=20, behind=b"\0\x44\x00"), App.QUIC),
        (_quic(_V2, first=0xD0), App.QUIC),
        (_quic(_GREASE, first=0xFF, behind=b""), App.QUIC),
        (_quic(behind=b"\x40\x04abcd" + b"\x80\0\4\0"), App.QUIC),
        (_quic(behind=b"\0\x14"), App.QUIC),
        (_quic(size=1_199), App.UNKNOWN),
        (_quic(first=0x83), App.UNKNOWN),
        (_quic(first=0x43), App.UNKNOWN),
        (_quic(first=0xD3), App.UNKNOWN),
        (_quic(_V2, first=0xC0), App.UNKNOWN),
        (_quic(0), App.UNKNOWN),
        (_quic(2), App.UNKNOWN),
        (_quic(destination=7), App.UNKNOWN),
        (_quic(destination=21), App.UNKNOWN),
        (_quic(source=21), App.UNKNOWN),
        (_quic(behind=b"\0\x13"), App.UNKNOWN),
        (_quic(behind=b"\0\x44\xa1"), App.UNKNOWN),
        (_quic(behind=b"\x44\xff"), App.UNKNOWN),
        (_DNS, App.DNS),
        (_DNS + b"\0", App.UNKNOWN),
        (_STUN, App.STUN),
        (_STUN + b"\0", App.UNKNOWN),
        (_STUN[:-1], App.UNKNOWN),
        (_SYN, App.BITTORRENT),
        (_SYN_EXTENDED, App.BITTORRENT),
        (_SYN + b"x", App.UNKNOWN),
        (_SYN[:-1], App.UNKNOWN),
        (_SYN_EXTENDED[:-1], App.UNKNOWN),
        (_SYN[:11] + b"\1" + _SYN[12:], App.UNKNOWN),
        (_SYN[:-1] + b"\1", App.UNKNOWN),
        (b"\x40" + _SYN[1:], App.UNKNOWN),
        (_PING, App.BITTORRENT),
        (_FOUND, App.BITTORRENT),
        (b"d1:eli201e5:errore1:t2:aa1:y1:ee", App.BITTORRENT),
        (_PING[:-1], App.UNKNOWN),
        (_PING + b"e", App.UNKNOWN),
        (b"d1:y1:xe", App.UNKNOWN),
        (b"d1:y1:q3:odde", App.UNKNOWN),
        (b"d1:y1:q1:a9:short" + b"e", App.UNKNOWN),
        (b"d1:y1:q1:ai-1xee", App.UNKNOWN),
        (b"d1:y1:q1:a" + b"l" * 31 + b"e" * 31 + b"e", App.BITTORRENT),
        (b"d1:y1:q1:a" + b"l" * 32 + b"e" * 32 + b"e", App.UNKNOWN),
        (b"d", App.UNKNOWN),
        (_TRACKER, App.BITTORRENT),
        (_TRACKER + b"\0", App.UNKNOWN),
        (bytes.fromhex("16fefd0000000000000000"), App.UNKNOWN),  # DTLS has no word in rules
        (b"", App.UNKNOWN),
        (bytes(1_200), App.UNKNOWN),
    ],
)
def test_datagrams(payload: bytes, app: App) -> None:
    """RFC 9000, 8489, 1035, BEP 5, 15 and 29: a whole first datagram, and nothing that only begins so."""
    assert app is datagram_app(payload)


@given(
    st.binary(max_size=40) | damaged(st.sampled_from([_quic(), _DNS, _STUN, _SYN_EXTENDED, _PING, _FOUND, _TRACKER]))
)
def test_nothing_raises(payload: bytes) -> None:
    """Any datagram is something."""
    assert isinstance(datagram_app(payload), App)
