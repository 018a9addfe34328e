"""STUN messages (RFC 8489), with which calls find and test their ways; TURN begins with them too."""

import struct
from typing import Final

__all__ = ["STUN_BEGINNING", "STUN_HEADER", "stun_length"]

STUN_HEADER: Final = 20  # octets
STUN_BEGINNING: Final = 8  # octets: type, length and the cookie, which only STUN has
_BEGINNING: Final = struct.Struct(">HHI")
_COOKIE: Final = 0x2112A442
_TYPE_MAX: Final = 0x3FFF  # the two highest bits are zero
_ALIGNMENT: Final = 4  # attributes are padded to it


def stun_length(octets: bytes) -> int | None:
    """The length of the message with this beginning, its header included; None: it is none. Never raises."""
    if len(octets) < STUN_BEGINNING:
        return None
    kind, length, cookie = _BEGINNING.unpack_from(octets)
    if kind > _TYPE_MAX or cookie != _COOKIE or length % _ALIGNMENT:
        return None
    return STUN_HEADER + int(length)
