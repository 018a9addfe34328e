"""Hosts as they stand in a ClientHello and in an HTTP request, in their one spelling.

A name here never is an address to a resolver, just as with the names of requests: what ends in a number is an address
or nothing.
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

__all__ = ["canonical_authority", "canonical_name"]

_NAME_LENGTH_MAX: Final = 253  # RFC 1035 section 2.3.4: 255 octets on the wire, less the first length and the root
_NAME: Final = re.compile(rb"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")  # "_" is no LDH, but real hosts have it
_NUMBER: Final = re.compile(rb"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")  # the WHATWG's "ends in a number"
_AUTHORITY: Final = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[^\[\]:@/?#]{1,254})(?::([0-9]{0,5}))?")  # RFC 3986, 3.2
_PORT_MAX: Final = 65_535


def canonical_name(octets: bytes) -> str | None:
    """The name in lower case without the dot at its end; None: it is no host name, or an address."""
    name = octets.lower().removesuffix(b".")
    if len(name) > _NAME_LENGTH_MAX or not _NAME.fullmatch(name) or _NUMBER.fullmatch(name):
        return None
    return name.decode("ascii")


def canonical_authority(octets: bytes) -> tuple[str, int | None] | None:
    """The host and the port of `host`, `host:port` or `[IPv6]:port`; None: it is none of these.

    Returns:
        A canonical name, or an address as text without brackets; and the port, None where there is none.
    """
    found = _AUTHORITY.fullmatch(octets)
    if found is None:
        return None
    port = int(found[2]) if found[2] else None
    host = _address(found[1]) or canonical_name(found[1])
    if host is None or (port or 0) > _PORT_MAX:
        return None
    return host, port


def _address(octets: bytes) -> str | None:
    text = octets.decode("latin-1")
    try:
        if not text.startswith("["):
            return str(IPv4Address(text))
        address = IPv6Address(text[1:-1])
    except AddressValueError:
        return None
    return str(address.ipv4_mapped or address)
