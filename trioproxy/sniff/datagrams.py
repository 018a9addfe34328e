"""What a flow of datagrams is, told from its first one. Nothing is decrypted, though anybody could."""

import re
import struct
from typing import Final

from trioproxy.sniff.dns import is_dns_query_untrusted
from trioproxy.sniff.finding import App
from trioproxy.sniff.octets import Cursor, MalformedError
from trioproxy.sniff.stun import stun_length

__all__ = ["datagram_app"]

_LONG_HEADER: Final = 0xC0  # the form and the fixed bit (RFC 9000 section 17.2)
_QUIC_DATAGRAM_MIN: Final = 1_200  # octets: a client must fill up its first one (RFC 9000 section 14.1)
_DESTINATION_MIN: Final = 8  # octets of the connection id that a client makes up (RFC 9000 section 7.2)
_CONNECTION_ID_MAX: Final = 20
_PACKET_TYPE: Final = 0x30
# The type of an Initial packet. Version 1, version 2 (RFC 9369 section 3.2), and the drafts that became version 1.
_INITIALS: Final = {1: 0x00, 0x6B3343CF: 0x10} | dict.fromkeys(range(0xFF00001D, 0xFF000023), 0x00)
# RFC 9000 section 15: a version that no server has, so that it must name its own; behind the ids is anything.
_GREASE_MASK, _GREASE = 0x0F0F0F0F, 0x0A0A0A0A
_PROTECTED_MIN: Final = 4 + 16  # octets of a packet number and a sample (RFC 9001 section 5.4.2)

_UTP: Final = struct.Struct(">BBHIIIHH")  # BEP 29: type and version, extension, id, two times, window, two numbers
_UTP_SYN: Final = 0x41
_TRACKER_CONNECT: Final = bytes.fromhex("0000041727101980 00000000")  # BEP 15; a transaction id follows
_TRACKER_CONNECT_LENGTH: Final = 16
_BENCODED: Final = re.compile(rb"i-?[0-9]{1,20}e|[del]|(0|[1-9][0-9]{0,4}):")
_OPENING: Final = frozenset({b"d", b"l"})
_NESTED_MAX: Final = 32  # messages of the DHT nest four deep
_DHT_KINDS: Final = frozenset({b"q", b"r", b"e"})  # query, response, error (BEP 5)


def datagram_app(payload: bytes) -> App:
    """What a client's first datagram to a target begins; any later one may look like nothing. Never raises."""
    if stun_length(payload) == len(payload):
        return App.STUN
    if is_dns_query_untrusted(payload):
        return App.DNS
    if _is_bittorrent(payload):
        return App.BITTORRENT
    try:
        _check_quic_initial(payload)
    except MalformedError:
        return App.UNKNOWN
    return App.QUIC


def _check_quic_initial(payload: bytes) -> None:
    if len(payload) < _QUIC_DATAGRAM_MIN or payload[0] & _LONG_HEADER != _LONG_HEADER:
        raise MalformedError("not a client's first datagram of QUIC")
    cursor = Cursor(payload, 1)
    version = cursor.number(4)
    cursor.vector(1, _DESTINATION_MIN, _CONNECTION_ID_MAX)
    cursor.vector(1, 0, _CONNECTION_ID_MAX)
    if version & _GREASE_MASK == _GREASE:
        return
    if _INITIALS.get(version) != payload[0] & _PACKET_TYPE:
        raise MalformedError("no version of QUIC, or not its first packet")
    cursor.take(_variable_number(cursor))  # the token
    if _variable_number(cursor) not in range(_PROTECTED_MIN, cursor.left + 1):
        raise MalformedError("a packet longer than its datagram, or shorter than can be")


def _variable_number(cursor: Cursor) -> int:
    """RFC 9000 section 16: the two highest bits say how many octets there are."""
    first = cursor.number(1)
    more = (1 << (first >> 6)) - 1
    return (first & 0x3F) << 8 * more | cursor.number(more)


def _is_bittorrent(payload: bytes) -> bool:
    if payload.startswith(_TRACKER_CONNECT):
        return len(payload) == _TRACKER_CONNECT_LENGTH
    return _is_utp_syn(payload) or _is_dht(payload)


def _is_utp_syn(payload: bytes) -> bool:
    """A SYN has nothing to acknowledge, has measured no delay, and carries nothing but extensions."""
    if len(payload) < _UTP.size:
        return False
    kind, extension, _, _, delay, _, _, acknowledged = _UTP.unpack_from(payload)
    if kind != _UTP_SYN or delay or acknowledged:
        return False
    cursor = Cursor(payload, _UTP.size)
    try:
        while extension:
            extension = cursor.number(1)
            cursor.vector(1)
        cursor.finish()
    except MalformedError:
        return False
    return True


def _is_dht(payload: bytes) -> bool:
    """A dictionary, whole and in bencoding (BEP 3), which says that it is a query, a response or an error."""
    return payload[:1] == b"d" and _dictionary(payload).get(b"y") in _DHT_KINDS


def _dictionary(payload: bytes) -> dict[bytes, bytes]:
    """The dictionary that the payload is, with empty texts for what is no text; empty if it is none.

    Not recursive, and each octet is looked at once.
    """
    items: list[bytes] = []  # keys and values in turn
    depth, at = 0, 0
    while token := _BENCODED.match(payload, at):
        text_end = token.end() + int(token[1] or 0)
        text, at = payload[token.end() : text_end], text_end
        opens, closes = token[0] in _OPENING, token[0] == b"e"
        if depth == 1 and not closes:
            items.append(text)
        depth += opens - closes
        if not 0 < depth <= _NESTED_MAX:
            break
    whole = depth == 0 and at == len(payload) and len(items) % 2 == 0
    return dict(zip(items[::2], items[1::2], strict=True)) if whole else {}
