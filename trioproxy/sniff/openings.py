"""Binary protocols in which the client speaks first, over TCP: RDP, BitTorrent, STUN, DNS."""

import re
from collections.abc import Callable
from typing import Final

import attrs

from trioproxy.sniff.answers import Answer
from trioproxy.sniff.dns import is_dns_query_untrusted
from trioproxy.sniff.finding import App, Finding
from trioproxy.sniff.said import Said
from trioproxy.sniff.stun import STUN_BEGINNING, stun_length

__all__ = ["OpeningReader"]


@attrs.frozen
class _Opening:
    """How to recognise one protocol.

    Attributes:
        initials: what the first octet may be.
        length: how many octets of a stream must be there to tell; 0: it cannot be this protocol. For a longer
            beginning of the same stream the same, unless it was more than there was.
        check: whether so many octets are its beginning.
    """

    app: App
    initials: range
    length: Callable[[bytearray], int]
    check: Callable[[bytes], bool]


_BITTORRENT: Final = b"\x13BitTorrent protocol"  # BEP 3; under its own encryption it looks like noise, and is UNKNOWN

_TPKT_HEADER: Final = 4  # RFC 2126 section 4.3: version 3, reserved, length
_CONNECTION_REQUEST_LENGTHS: Final = range(11, 4 + 1 + 254 + 1)  # the indicator is one octet, and 255 is reserved
# [MS-RDPBCGR] section 2.2.1.1: references and class of zero, a routing token or cookie, RDP_NEG_REQ, correlation info.
# Other users of X.224 send parameters instead.
_CONNECTION_REQUEST: Final = re.compile(
    rb"\xe0\0\0\0\0\0(?:[\x20-\x7e]+\r\n)?(?:\x01.\x08\0.{4})?(?:\x06\0\x24\0.{32})?", re.DOTALL
)

_DNS_LENGTH: Final = 2  # octets (RFC 1035 section 4.2.2)
_DNS_QUERY_MIN: Final = 12 + 5  # octets: the header, and a question about the root


def _rdp_length(stream: bytearray) -> int:
    if len(stream) < _TPKT_HEADER:
        return _TPKT_HEADER
    length = int.from_bytes(stream[2:_TPKT_HEADER], "big")
    return length if length in _CONNECTION_REQUEST_LENGTHS and not stream[1] else 0


def _is_connection_request(packet: bytes) -> bool:
    indicator, request = packet[_TPKT_HEADER], packet[_TPKT_HEADER + 1 :]
    return indicator == len(request) and _CONNECTION_REQUEST.fullmatch(request) is not None


def _dns_length(stream: bytearray) -> int:
    if len(stream) < _DNS_LENGTH:
        return _DNS_LENGTH
    length = int.from_bytes(stream[:_DNS_LENGTH], "big")
    return _DNS_LENGTH + length if length >= _DNS_QUERY_MIN else 0


# Asked in this order: of what begins alike the shorter comes first, so that none waits for octets that never come.
_OPENINGS: Final = (
    _Opening(App.BITTORRENT, range(0x13, 0x14), lambda _stream: len(_BITTORRENT), _BITTORRENT.__eq__),
    _Opening(App.RDP, range(3, 4), _rdp_length, _is_connection_request),
    _Opening(
        App.STUN, range(2), lambda _stream: STUN_BEGINNING, lambda beginning: stun_length(beginning) is not None
    ),  # requests have types of less than 0x0100, TURN's included
    # Queries of 4 KiB and more there are none; so less noise begins like one.
    _Opening(App.DNS, range(0x10), _dns_length, lambda message: is_dns_query_untrusted(message[_DNS_LENGTH:])),
)


class OpeningReader:
    """Takes what a client sends in any pieces, until it is known which of these protocols it is."""

    answer: Answer | None = None  # how these servers answer is not looked at

    def __init__(self, initial: int) -> None:
        self._stream = bytearray()
        self._openings = [opening for opening in _OPENINGS if initial in opening.initials]

    def receive_data(self, data: bytes) -> Said:
        """Take more; None: more is needed. Never raises."""
        self._stream += data
        while self._openings:
            opening = self._openings[0]
            length = opening.length(self._stream)
            if length > len(self._stream):
                return None
            if length and opening.check(bytes(self._stream[:length])):
                return Finding(opening.app)
            del self._openings[0]
        return Finding(App.UNKNOWN)
