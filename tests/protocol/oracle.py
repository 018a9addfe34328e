"""A second opinion on what is legal, written as the regular expressions of the RFCs' tables.

It shares nothing with the decoders: a whole message is what an expression matches, and the beginning of one is what an
expression matches after it was continued by octets that are right wherever anything is right.
"""

import enum
import re

from trioproxy.protocol import State

__all__ = ["Outlook", "header_length", "lengths", "outlook"]


class Outlook(enum.Enum):
    """What can still become of some octets that are no whole message."""

    INCOMPLETE = enum.auto()
    ILLEGAL = enum.auto()


def _counted(shortest: int) -> bytes:
    """A length octet and as many octets as it says."""
    return b"(?:" + b"|".join(b"\\x%02x.{%d}" % (length, length) for length in range(shortest, 256)) + b")"


_ADDRESS = b"(?:\\x01.{4}|\\x04.{16}|\\x03" + _counted(1) + b")"
_REQUEST = b"\\x05(?:\\x01\\x00" + _ADDRESS + b"(?!\\x00\\x00)|[\\x02\\x03]\\x00" + _ADDRESS + b").."
_WHOLE = {
    State.GREETING: re.compile(b"\\x05" + _counted(1), re.DOTALL),
    State.SUBNEGOTIATION: re.compile(b"\\x01" + _counted(0) + _counted(0), re.DOTALL),
    State.REQUEST: re.compile(_REQUEST, re.DOTALL),
}
_HEADER = re.compile(b"\\x00\\x00\\x00" + _ADDRESS + b"(?!\\x00\\x00)..", re.DOTALL)
_LONGEST = 513
_CONTINUATION = {
    State.GREETING: b"\x05" + b"\x01" * _LONGEST,
    State.SUBNEGOTIATION: b"\x01" * _LONGEST,
    State.REQUEST: b"\x05\x01\x00\x01" + b"\x01" * _LONGEST,
}


def outlook(state: State, octets: bytes) -> int | Outlook:
    """The length of the message that begins these octets, or what can still become of them."""
    if (whole := _WHOLE[state].match(octets)) is not None:
        return whole.end()
    continued = octets + _CONTINUATION[state][len(octets) :] + b"\x01" * _LONGEST
    return Outlook.INCOMPLETE if _WHOLE[state].match(continued) else Outlook.ILLEGAL


def lengths(stream: bytes) -> tuple[list[int], Outlook | None]:
    """The lengths of the messages in a client's stream, read by a server that prefers the login and accepts it.

    The second part says what can become of the octets behind them; None if no message is awaited there.
    """
    found: list[int] = []
    awaited: State | None = State.GREETING
    rest = stream
    while awaited is not None:
        length = outlook(awaited, rest)
        if isinstance(length, Outlook):
            return found, length
        found.append(length)
        awaited = _awaited_behind(awaited, rest[:length])
        rest = rest[length:]
    return found, None


def _awaited_behind(state: State, message: bytes) -> State | None:
    if state is State.REQUEST:
        return None
    if state is State.SUBNEGOTIATION:
        return State.REQUEST
    if b"\x02" in message[2:]:
        return State.SUBNEGOTIATION
    return State.REQUEST if b"\x00" in message[2:] else None


def header_length(packet: bytes) -> int | None:
    """The length of the header of a datagram, None if the packet must be dropped."""
    header = _HEADER.match(packet)
    return header.end() if header else None
