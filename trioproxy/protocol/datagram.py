"""The header that wraps every UDP datagram between client and relay (RFC 1928 section 7)."""

import enum

import attrs

from trioproxy.protocol.address import Address, AddressError, AddressFault, Octets, decode_address_untrusted
from trioproxy.protocol.errors import ProtocolError

__all__ = [
    "Datagram",
    "DatagramError",
    "DropReason",
    "decode_datagram_untrusted",
    "encode_datagram",
    "encode_header",
    "header_untrusted",
]

_PREFIX_LENGTH = 4  # RSV (2), FRAG, ATYP: less than that is no header
_PREFIX = bytes(3)  # RSV 0000 and FRAG 00, "stands alone"
_TYPE_AT = 3
_IPV4_LENGTH = 10
_IPV6_LENGTH = 22
_NAME_REST = 7  # of a header with a name, all but the name


class DropReason(enum.Enum):
    """Why a datagram goes nowhere; the value is the name of its counter."""

    TOO_SHORT = "too_short"
    RESERVED_NOT_ZERO = "reserved_not_zero"
    FRAGMENT = "fragment"
    UNKNOWN_ADDRESS_TYPE = "unknown_address_type"
    TRUNCATED_ADDRESS = "truncated_address"
    EMPTY_NAME = "empty_name"
    PORT_ZERO = "port_zero"


_DROP_REASONS = {
    AddressFault.UNKNOWN_TYPE: DropReason.UNKNOWN_ADDRESS_TYPE,
    AddressFault.EMPTY_NAME: DropReason.EMPTY_NAME,
}


class DatagramError(ProtocolError):
    """Drop the datagram and count it; never answer it, never end the association.

    Attributes:
        reason: which counter.
    """

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason.value


@attrs.frozen
class Datagram:
    """A datagram without its header.

    Attributes:
        address: from the client, where it shall go; to the client, where it came from.
        data: the payload; may be empty.
    """

    address: Address
    data: bytes


def decode_datagram_untrusted(packet: Octets) -> Datagram:
    """Read one packet as it came from the client's socket.

    Raises:
        DatagramError: drop it.
    """
    if len(packet) < _PREFIX_LENGTH:
        raise DatagramError(DropReason.TOO_SHORT)
    if packet[0] or packet[1]:
        raise DatagramError(DropReason.RESERVED_NOT_ZERO)
    if packet[2]:  # reassembly is optional, and without it fragments MUST be dropped
        raise DatagramError(DropReason.FRAGMENT)
    try:
        decoded = decode_address_untrusted(packet, 3)
    except AddressError as exc:
        raise DatagramError(_DROP_REASONS[exc.fault]) from exc
    if decoded is None:
        raise DatagramError(DropReason.TRUNCATED_ADDRESS)
    address, end = decoded
    if address.port == 0:
        raise DatagramError(DropReason.PORT_ZERO)
    return Datagram(address, bytes(packet[end:]))


def header_untrusted(packet: bytes) -> bytes:
    """The octets of a packet's header, unless it is cut off or of an unknown type; nothing else is looked at.

    Never raises. Packets with the same header mean the same address or have the same fault, so what was found out about
    a header that `decode_datagram_untrusted` took need not be found out again.
    """
    match packet[_TYPE_AT : _TYPE_AT + 1]:
        case b"\1":
            return packet[:_IPV4_LENGTH]
        case b"\4":
            return packet[:_IPV6_LENGTH]
        case b"\3" if len(packet) > _PREFIX_LENGTH:
            return packet[: _NAME_REST + packet[_PREFIX_LENGTH]]
        case _:
            return b""


def encode_header(address: Address) -> bytes:
    """RSV, FRAG 00, ATYP, ADDR, PORT: 10 octets for IPv4, 22 for IPv6, 7 and the name's for a name."""
    return _PREFIX + address.encode()


def encode_datagram(address: Address, data: bytes) -> bytes:
    """A whole packet for the client's socket."""
    return encode_header(address) + data
