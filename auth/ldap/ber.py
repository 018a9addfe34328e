"""The Basic Encoding Rules as far as LDAP answers use them (RFC 4511 section 5.1), read strictly.

ldap3's own reader clips a length that reaches too far without a word, and takes quadratic time for a long integer; what
decides over logins must do neither.
"""

from collections.abc import Iterator
from typing import Final

import attrs

__all__ = ["Allowance", "BerError", "Element", "TooMuchError", "frame_length", "integer", "members", "read"]

Element = tuple[int, bytes]  # the tag, one byte, and the contents

_MULTI_BYTE_TAG: Final = 0x1F
_LONG_FORM: Final = 0x80
_LENGTH_BYTES_MAX: Final = 4
_INTEGER_BYTES_MAX: Final = 4  # INTEGER (0 .. 2147483647) and result codes
_HEADER_BYTES: Final = 2
_CREDIBLE_MAX: Final = 16 << 20  # no entry is larger; whoever announces more does not speak LDAP


class BerError(ValueError):
    """These bytes are no BER of the kind that LDAP allows."""


class TooMuchError(BerError):
    """More than we take. Whoever may write entries can bring this about, so it is no failure of the server."""


@attrs.define
class Allowance:
    """What the answers to one question may cost us, in memory and in time.

    Attributes:
        bytes_left: of all messages; 4 MiB are 1,000 groups of 4 KiB.
        elements_left: attributes and values, however short; reading 20,000 takes 50 ms.
    """

    bytes_left: int = 4 << 20
    elements_left: int = 20_000

    def take(self, size: int) -> None:
        """Take so many bytes.

        Raises:
            TooMuchError: nothing is left of them.
        """
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise TooMuchError("an answer of more bytes than are taken")

    def take_element(self) -> None:
        """Take one attribute or value.

        Raises:
            TooMuchError: nothing is left of them.
        """
        self.elements_left -= 1
        if self.elements_left < 0:
            raise TooMuchError("an answer of more values than are taken")


def frame_length(data: bytes | bytearray, maximum: int) -> int | None:
    """How long the element at the beginning is, header included; None: too few bytes to tell.

    Raises:
        BerError: it is no definite length, or one that nobody means.
        TooMuchError: it is beyond `maximum`.
    """
    if len(data) < _HEADER_BYTES:
        return None
    first = data[1]
    if first < _LONG_FORM:
        return _HEADER_BYTES + first
    count = first - _LONG_FORM
    if not 1 <= count <= _LENGTH_BYTES_MAX:
        raise BerError("a length that is indefinite or of too many bytes")
    if len(data) < _HEADER_BYTES + count:
        return None
    length = _HEADER_BYTES + count + int.from_bytes(data[_HEADER_BYTES : _HEADER_BYTES + count], "big")
    if length > maximum:
        kind = TooMuchError if length <= _CREDIBLE_MAX else BerError
        raise kind(f"{length} bytes announced, at most {maximum} are taken")
    return length


def read(data: bytes) -> tuple[Element, bytes]:
    """The first element, and what follows it.

    Raises:
        BerError: there is none, or it reaches beyond the end.
    """
    length = _inner_length(data)
    tag, first = data[0], data[1]
    if tag & _MULTI_BYTE_TAG == _MULTI_BYTE_TAG:
        raise BerError("a tag of several bytes")
    header = _HEADER_BYTES + (first - _LONG_FORM if first >= _LONG_FORM else 0)
    return (tag, data[header:length]), data[length:]


def _inner_length(data: bytes | memoryview) -> int:
    try:
        length = frame_length(bytes(data[: _HEADER_BYTES + _LENGTH_BYTES_MAX]), len(data))
    except TooMuchError:
        raise BerError("an element reaches beyond the end") from None
    if length is None:
        raise BerError("it ends within an element")
    if length > len(data):
        raise BerError("an element reaches beyond the end")
    return length


def members(contents: bytes, allowance: Allowance) -> Iterator[Element]:
    """The elements of a constructed one.

    Raises:
        BerError: as `read`.
        TooMuchError: there are more than are allowed.
    """
    at = memoryview(contents)  # slices of it copy nothing, so that thousands of members take linear time
    while at:
        length = _inner_length(at)
        allowance.take_element()
        element, _ = read(bytes(at[:length]))
        yield element
        at = at[length:]


def integer(contents: bytes) -> int:
    """An INTEGER or ENUMERATED.

    Raises:
        BerError: it has no bytes, or more than LDAP's have.
    """
    if not 1 <= len(contents) <= _INTEGER_BYTES_MAX:
        raise BerError("an integer of no or too many bytes")
    return int.from_bytes(contents, "big", signed=True)
