"""The header of UDP datagrams."""

from ipaddress import IPv4Address, IPv6Address

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.oracle import header_length
from tests.protocol.strategies import addresses, damaged
from trioproxy.protocol import (
    Address,
    Datagram,
    DatagramError,
    DropReason,
    Host,
    ProtocolError,
    decode_datagram_untrusted,
    encode_datagram,
    encode_header,
    header_untrusted,
)

_TARGET = Address(IPv4Address("192.0.2.7"), 53)
_PAYLOAD_MAX = 65_507  # of UDP over IPv4

_datagrams = st.builds(
    Datagram, addresses.map(lambda address: attrs.evolve(address, port=address.port or 53)), st.binary(max_size=60)
)


def _reason(packet: bytes) -> DropReason | None:
    try:
        decode_datagram_untrusted(packet)
    except DatagramError as exc:
        return exc.reason
    return None


@pytest.mark.parametrize(
    ("host", "header"),
    [
        (IPv4Address("192.0.2.7"), "00 00 00 01 c0 00 02 07 00 35"),
        (IPv6Address("2001:db8::7"), "00 00 00 04 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 07 00 35"),
        (b"a", "00 00 00 03 01 61 00 35"),
    ],
)
@pytest.mark.parametrize("data", [b"", b"payload"])
def test_wire(host: Host, header: str, data: bytes) -> None:
    """RFC 1928 section 7, case 80: the header's octets, with and without payload, in both directions."""
    address = Address(host, 53)
    packet = bytes.fromhex(header) + data
    assert bytes.fromhex(header) == encode_header(address)
    assert packet == encode_datagram(address, data)
    assert Datagram(address, data) == decode_datagram_untrusted(packet)


@given(_datagrams, st.data())
def test_header_is_the_key_of_an_address(datagram: Datagram, data: st.DataObject) -> None:
    """P5, law 2: of whole packets the header and no more; of a packet cut off in it never the header of another."""
    header, packet = encode_header(datagram.address), encode_datagram(datagram.address, datagram.data)
    assert header == header_untrusted(packet)
    cut = packet[: data.draw(st.integers(0, len(header) - 1))]
    assert cut.startswith(header_untrusted(cut))
    assert header != header_untrusted(cut)


@given(st.binary(max_size=30))
def test_header_of_anything(packet: bytes) -> None:
    """P5: no exception; whatever is taken for a header of a good packet decodes to the same address without it."""
    header = header_untrusted(packet)
    assert packet.startswith(header)
    if _reason(packet) is None:
        assert decode_datagram_untrusted(packet).address == decode_datagram_untrusted(header).address


@given(_datagrams)
def test_round_trip(datagram: Datagram) -> None:
    """P5: what was wrapped unwraps to itself, from any kind of buffer."""
    packet = encode_datagram(datagram.address, datagram.data)
    for kind in (bytes, bytearray, memoryview):
        decoded = decode_datagram_untrusted(kind(packet))
        assert datagram == decoded
        assert isinstance(decoded.data, bytes)


@given(addresses)
def test_header_length(address: Address) -> None:
    """P5: 10 octets for IPv4, 22 for IPv6 (the RFC's 20 is a slip), 7 and the name's for a name."""
    match address.host:
        case IPv4Address():
            expected = 10
        case IPv6Address():
            expected = 22
        case name:
            expected = 7 + len(name)
    assert expected == len(encode_header(address))


@given(damaged(_datagrams.map(lambda datagram: encode_datagram(datagram.address, datagram.data))) | st.binary())
def test_damage_is_dropped_or_read_exactly(packet: bytes) -> None:
    """P5, case 78: any octets are dropped for a reason, or are exactly what writing them again gives."""
    length = header_length(packet)
    assert (length is None) == (_reason(packet) is not None)
    if length is not None:
        datagram = decode_datagram_untrusted(packet)
        assert packet[length:] == datagram.data
        assert packet == encode_datagram(datagram.address, datagram.data)


@given(_datagrams)
def test_cut_header(datagram: Datagram) -> None:
    """Case 78: a packet that ends inside its header is dropped, wherever it ends."""
    header = encode_header(datagram.address)
    expected = [DropReason.TOO_SHORT] * 4 + [DropReason.TRUNCATED_ADDRESS] * (len(header) - 4)
    assert expected == [_reason(header[:end]) for end in range(len(header))]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        ("", DropReason.TOO_SHORT),
        ("00 00 00", DropReason.TOO_SHORT),
        ("01 00 00 01 c0 00 02 07 00 35", DropReason.RESERVED_NOT_ZERO),
        ("00 01 00 01 c0 00 02 07 00 35", DropReason.RESERVED_NOT_ZERO),
        ("00 00 00 00 c0 00 02 07 00 35", DropReason.UNKNOWN_ADDRESS_TYPE),
        ("00 00 00 02 c0 00 02 07 00 35", DropReason.UNKNOWN_ADDRESS_TYPE),
        ("00 00 00 ff c0 00 02 07 00 35", DropReason.UNKNOWN_ADDRESS_TYPE),
        ("00 00 00 03 00 00 35", DropReason.EMPTY_NAME),
        ("00 00 00 03 ff 61 00 35", DropReason.TRUNCATED_ADDRESS),
        ("00 00 00 01 c0 00 02 07 00", DropReason.TRUNCATED_ADDRESS),
        ("00 00 00 01 c0 00 02 07 00 00", DropReason.PORT_ZERO),
    ],
)
def test_dropped(packet: str, reason: DropReason) -> None:
    """Case 78: each kind of bad datagram has its own reason."""
    assert reason is _reason(bytes.fromhex(packet))


@pytest.mark.parametrize("fragment", [1, 2, 0x7F, 0x80, 0x81, 0xFF])
def test_fragments_are_dropped(fragment: int) -> None:
    """RFC 1928 section 7, case 82: without reassembly every FRAG but 00 MUST be dropped."""
    packet = bytearray(encode_datagram(_TARGET, b"data"))
    packet[2] = fragment
    assert _reason(bytes(packet)) is DropReason.FRAGMENT


def test_largest() -> None:
    """CASES 1.5: the largest packet of IPv4 carries 65,497 octets."""
    packet = encode_header(_TARGET) + bytes(_PAYLOAD_MAX - 10)
    assert len(decode_datagram_untrusted(packet).data) == 65_497


def test_error_says_its_reason() -> None:
    """Each reason is the name of a counter, and the error is one of the protocol."""
    error = DatagramError(DropReason.FRAGMENT)
    assert isinstance(error, ProtocolError)
    assert str(error) == "fragment"
    names = [reason.value for reason in DropReason]
    assert len(set(names)) == len(names)
