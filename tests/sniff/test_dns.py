"""Questions to name servers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.strategies import damaged
from trioproxy.sniff.dns import is_dns_query_untrusted

_NAME = b"\3www\7example\3org\0"
_OPT = bytes.fromhex("00 0029 1000 00000000 0000")


def _message(
    question: bytes = _NAME + b"\0\1\0\1",
    flags: int = 0x0100,
    counts: tuple[int, ...] = (1, 0, 0, 0),
    records: bytes = b"",
) -> bytes:
    numbers = (0x1234, flags, *counts)
    return b"".join(number.to_bytes(2, "big") for number in numbers) + question + records


_SOA = b"\xc0\x0c\0\6\0\1" + bytes(4) + b"\0\x16" + bytes(22)


@pytest.mark.parametrize(
    "message",
    [
        _message(),
        _message(b"\0\0\2\0\1"),
        _message(_NAME + b"\0\x10\0\3"),
        _message(counts=(1, 0, 0, 1), records=_OPT),
        _message(_NAME + b"\0\xfb\0\1", counts=(1, 0, 1, 0), records=_SOA),
        _message(_NAME + b"\0\6\0\1", flags=0x2400, counts=(1, 1, 0, 0), records=_SOA),
        _message(_NAME + b"\0\6\0\1", flags=0x2800, counts=(1, 1, 1, 0), records=_SOA * 2),
        _message((b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0" + b"\0\1\0\1"),
    ],
)
def test_queries(message: bytes) -> None:
    """RFC 1035, 6891 (EDNS), 1995 (IXFR), 1996 (NOTIFY), 2136 (UPDATE): a question, and what goes with it."""
    assert is_dns_query_untrusted(message)
    assert not any(is_dns_query_untrusted(message[:end]) for end in range(len(message)))
    assert not is_dns_query_untrusted(message + b"\0")


@pytest.mark.parametrize(
    "message",
    [
        _message(flags=0x8180),
        _message(flags=0x0140),
        _message(flags=0x0103),
        _message(flags=0x0900),
        _message(flags=0x3000),
        _message(counts=(0, 0, 0, 0)),
        _message(counts=(2, 0, 0, 0)),
        _message(counts=(1, 1, 0, 0), records=_SOA),
        _message(counts=(1, 0, 0, 0xFFFF)),
        _message(b"\xc0\x0c\0\1\0\1"),
        _message(b"\x40" + b"a" * 64 + b"\0\0\1\0\1"),
        _message((b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"a" * 62 + b"\0" + b"\0\1\0\1"),
        _message(_NAME + b"\0\0\0\1"),
        _message(_NAME + b"\0\1\0\2"),
        _message(counts=(1, 0, 0, 1), records=_OPT[:-1] + b"\1"),
    ],
)
def test_not_queries(message: bytes) -> None:
    """Answers, errors, opcodes and classes that nobody uses, names too long, records that are not there."""
    assert not is_dns_query_untrusted(message)


@given(st.binary(max_size=60) | damaged(st.just(_message(counts=(1, 0, 1, 1), records=_SOA + _OPT))))
def test_nothing_raises(message: bytes) -> None:
    """Any octets are a query or not."""
    assert is_dns_query_untrusted(message) in (True, False)
