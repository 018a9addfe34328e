"""ATYP, ADDR and PORT: the part that requests, replies and datagrams share (RFC 1928 section 5)."""

import enum
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, TypeAlias, assert_never

import attrs

from trioproxy.protocol.codes import AddressType
from trioproxy.protocol.errors import ProtocolError

__all__ = ["Address", "AddressError", "AddressFault", "Host", "Octets", "decode_address_untrusted"]

Host: TypeAlias = IPv4Address | IPv6Address | bytes
Octets: TypeAlias = bytes | bytearray | memoryview

_NAME_LENGTH_MAX = 255  # what one length octet can say
_PORT_LENGTH = 2
_PORT_MAX = 0xFFFF
_TYPES = {int(kind): kind for kind in AddressType}


class AddressFault(enum.Enum):
    """Why no further octet can make an address of it."""

    UNKNOWN_TYPE = "unknown address type"
    EMPTY_NAME = "empty name"


class AddressError(ProtocolError):
    """The octets are no address. Requests answer it and datagrams are dropped, so each translates `fault`.

    Attributes:
        fault: what is wrong.
        octet: the offending octet.
    """

    def __init__(self, fault: AddressFault, octet: int) -> None:
        super().__init__(fault, octet)
        self.fault = fault
        self.octet = octet

    def __str__(self) -> str:
        return f"{self.fault.value} (0x{self.octet:02x})"


@attrs.frozen
class Address:
    """A host and a port as they stand in a message; nothing has been resolved or judged.

    Attributes:
        host: an IP address, or the 1 to 255 octets of a name exactly as the client sent them.
        port: 0 to 65535.
    """

    ZERO: ClassVar["Address"]  # 0.0.0.0:0, "no address"

    host: Host
    port: int

    def __attrs_post_init__(self) -> None:
        """Check both in one go: two are made for each session.

        Raises:
            ValueError: a name is empty or too long, or there is no such port.
        """
        if not 0 <= self.port <= _PORT_MAX:
            raise ValueError(f"a port is 0 to {_PORT_MAX}, not {self.port}")
        if isinstance(self.host, bytes) and not 1 <= len(self.host) <= _NAME_LENGTH_MAX:
            raise ValueError(f"a name has 1 to {_NAME_LENGTH_MAX} octets, not {len(self.host)}")

    def encode(self) -> bytes:
        """ATYP, ADDR and PORT."""
        port = self.port.to_bytes(_PORT_LENGTH, "big")
        match self.host:
            case IPv4Address():
                return bytes((AddressType.IPV4,)) + self.host.packed + port
            case IPv6Address():
                return bytes((AddressType.IPV6,)) + self.host.packed + port
            case bytes():
                return bytes((AddressType.DOMAINNAME, len(self.host))) + self.host + port
            case _:
                assert_never(self.host)


Address.ZERO = Address(IPv4Address(0), 0)


def decode_address_untrusted(octets: Octets, offset: int = 0) -> tuple[Address, int] | None:
    """Read the address that begins with the ATYP octet at `offset`.

    It looks at no more than two octets while the address is incomplete, so asking again for each octet that arrives
    costs nothing.

    Returns:
        The address and the offset behind it, or None if more octets are needed.

    Raises:
        AddressError: the type is unknown or the name is empty; told at the first offending octet.
    """
    if len(octets) <= offset:
        return None
    kind = _TYPES.get(octets[offset])
    if kind is None:
        raise AddressError(AddressFault.UNKNOWN_TYPE, octets[offset])
    start = offset + 1
    match kind:
        case AddressType.IPV4:
            length = 4
        case AddressType.IPV6:
            length = 16
        case AddressType.DOMAINNAME:
            if len(octets) == start:
                return None
            length = octets[start]
            if length == 0:
                raise AddressError(AddressFault.EMPTY_NAME, length)
            start += 1
        case _:
            assert_never(kind)
    end = start + length
    if len(octets) < end + _PORT_LENGTH:
        return None
    port = int.from_bytes(octets[end : end + _PORT_LENGTH], "big")
    return Address(_host(kind, bytes(octets[start:end])), port), end + _PORT_LENGTH


def _host(kind: AddressType, octets: bytes) -> Host:
    match kind:
        case AddressType.IPV4:
            return IPv4Address(octets)
        case AddressType.IPV6:
            return IPv6Address(octets)
        case AddressType.DOMAINNAME:
            return octets
        case _:
            assert_never(kind)
