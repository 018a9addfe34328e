"""Messages of STUN."""

import pytest

from trioproxy.sniff.stun import stun_length

_COOKIE = "2112a442"


@pytest.mark.parametrize(
    ("octets", "length"),
    [
        (f"0001 0000 {_COOKIE}", 20),
        (f"0101 000c {_COOKIE} 00", 32),
        (f"3fff fffc {_COOKIE}", 20 + 0xFFFC),
        (f"4001 0000 {_COOKIE}", None),
        (f"0001 0003 {_COOKIE}", None),
        ("0001 0000 2112a441", None),
        (f"0001 0000 {_COOKIE[:-2]}", None),
        ("", None),
    ],
)
def test_length(octets: str, length: int | None) -> None:
    """RFC 8489 section 5: two zero bits, a length in words of four octets, the cookie."""
    assert length == stun_length(bytes.fromhex(octets))
