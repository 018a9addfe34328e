"""The first handshake message of a TLS stream, put together from its records (RFC 8446 section 5.1)."""

from typing import Final

from trioproxy.sniff.octets import MalformedError

__all__ = ["HANDSHAKE", "VERSIONS", "HandshakeReader", "record_length"]

HANDSHAKE: Final = 22  # the type of the record
VERSIONS: Final = frozenset({0x0300, 0x0301, 0x0302, 0x0303, 0x0304})  # SSL 3.0 to TLS 1.3
_RECORD_HEADER: Final = 5  # type, version, length
_FRAGMENT_MAX: Final = 1 << 14  # octets of an unencrypted record
_MESSAGE_HEADER: Final = 4  # type, length


class HandshakeReader:
    """Takes a stream in any pieces and gives the body of its first handshake message.

    Each octet is looked at a few times however the stream is cut, and each message may be spread over any number of
    records.

    Args:
        kind: the type that the message must have.
        length_max: of the body; what is longer is malformed.
        alone: nothing may stand behind the message in its record.
    """

    def __init__(self, kind: int, length_max: int, *, alone: bool) -> None:
        self._kind = kind
        self._length_max = length_max
        self._alone = alone
        self._unread = bytearray()
        self._record_left = 0  # octets of the present record that have not been read
        self._message = bytearray()

    def receive_data_untrusted(self, data: bytes) -> bytes | None:
        """Take more of the stream.

        Returns:
            The body of the message, or None: more is needed.

        Raises:
            MalformedError: these are no records, or not this message.
        """
        self._unread += data
        while self._unread:
            if not self._record_left:
                length = record_length(self._unread[:_RECORD_HEADER], HANDSHAKE)
                if length is None:
                    return None
                self._record_left = length
                del self._unread[:_RECORD_HEADER]
            self._take_fragment()
            if (end := self._end()) and len(self._message) >= end:
                return bytes(self._message[_MESSAGE_HEADER:end])
        return None

    def _take_fragment(self) -> None:
        fragment = self._unread[: self._record_left]
        del self._unread[: len(fragment)]
        self._record_left -= len(fragment)
        self._message += fragment

    def _end(self) -> int | None:
        """Where the message ends; None: its header has not come whole."""
        message = self._message
        if message and message[0] != self._kind:
            raise MalformedError("not the handshake message that comes first")
        if len(message) < _MESSAGE_HEADER:
            return None
        length = int.from_bytes(message[1:_MESSAGE_HEADER], "big")
        if length > self._length_max:
            raise MalformedError("a handshake message of more octets than are looked at")
        end = _MESSAGE_HEADER + length
        if self._alone and len(message) + self._record_left > end:
            raise MalformedError("something stands behind the message in its record")
        return end


def record_length(record: bytes | bytearray, kind: int) -> int | None:
    """The length that a record of this kind says it has; None: its header has not come whole.

    Raises:
        MalformedError: it is no such record.
    """
    if record[0] != kind:
        raise MalformedError("not a record of the kind that comes first")
    if len(record) < _RECORD_HEADER:
        return None
    length = int.from_bytes(record[3:_RECORD_HEADER], "big")
    if int.from_bytes(record[1:3], "big") not in VERSIONS or not 1 <= length <= _FRAGMENT_MAX:
        raise MalformedError("a record of no known version, or of no possible length")
    return length
