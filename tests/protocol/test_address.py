"""ATYP, ADDR and PORT."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.strategies import addresses
from trioproxy.protocol import Address, AddressError, AddressFault, Host, decode_address_untrusted

_EXAMPLES: list[tuple[Host, str]] = [
    (IPv4Address("192.0.2.7"), "01 c0 00 02 07 04 38"),
    (IPv6Address("2001:db8::7"), "04 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 07 04 38"),
    (b"a.example", "03 09 61 2e 65 78 61 6d 70 6c 65 04 38"),
]


@pytest.mark.parametrize(("host", "octets"), _EXAMPLES)
def test_encode(host: Host, octets: str) -> None:
    """RFC 1928 section 5: the three forms of an address, the port in network order."""
    assert bytes.fromhex(octets) == Address(host, 1080).encode()


@pytest.mark.parametrize(("host", "octets"), _EXAMPLES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_decode(host: Host, octets: str, kind: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    """Case 1: the fields are read as they were sent, from any kind of buffer, and the rest stays untouched."""
    buffer = kind(b"..." + bytes.fromhex(octets) + b"rest")
    assert (Address(host, 1080), len(buffer) - 4) == decode_address_untrusted(buffer, 3)


@given(addresses, st.binary(max_size=20), st.binary(max_size=20))
def test_round_trip(address: Address, before: bytes, behind: bytes) -> None:
    """P1.b, P1.d: what was encoded decodes to itself wherever it stands, and not one octet too many is read."""
    octets = address.encode()
    assert (address, len(before + octets)) == decode_address_untrusted(before + octets + behind, len(before))


@given(addresses)
def test_every_beginning_needs_more(address: Address) -> None:
    """P1.f: no beginning of a legal address is an error or an address."""
    octets = address.encode()
    assert [None] * len(octets) == [decode_address_untrusted(octets[:end]) for end in range(len(octets))]


@pytest.mark.parametrize("kind", [0, 2, 5, 255])
def test_unknown_type(kind: int) -> None:
    """Case 6: a type that RFC 1928 does not name is told at its octet."""
    with pytest.raises(AddressError) as caught:
        decode_address_untrusted(bytes((kind,)))
    assert (AddressFault.UNKNOWN_TYPE, kind) == (caught.value.fault, caught.value.octet)
    assert str(caught.value) == f"unknown address type (0x{kind:02x})"


def test_empty_name() -> None:
    """Case 7: a name of no octets is told at its length octet."""
    with pytest.raises(AddressError) as caught:
        decode_address_untrusted(b"\x03\x00")
    assert (caught.value.fault, caught.value.octet) == (AddressFault.EMPTY_NAME, 0)


def test_longest_name() -> None:
    """RFC 1928 section 5: a length octet counts up to 255 octets, and what they are is not the parser's business."""
    name = bytes(range(255))
    assert (Address(name, 0), 259) == decode_address_untrusted(b"\x03\xff" + name + b"\x00\x00")


@pytest.mark.parametrize("host", [b"", bytes(256)])
def test_impossible_name(host: bytes) -> None:
    """RFC 1928 section 5: what one length octet cannot say never becomes a message."""
    with pytest.raises(ValueError, match=f"1 to 255 octets, not {len(host)}"):
        Address(host, 80)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_impossible_port(port: int) -> None:
    """RFC 1928 section 5: a port has two octets."""
    with pytest.raises(ValueError, match="port"):
        Address(b"a", port)


def test_zero() -> None:
    """CASES 1.9: `no address` is 0.0.0.0:0."""
    assert bytes.fromhex("01 00 00 00 00 00 00") == Address.ZERO.encode()
