"""The Basic Encoding Rules as far as LDAP answers use them (RFC 4511 section 5.1), read strictly.

ldap3's own reader clips a length that reaches too far without a word, and takes quadratic time for a long integer; what
decides over logins must do neither.
"""

from collections.abc import Iterator
from typing import Final

__all__ = ["BerError", "Element", "frame_length", "integer", "members", "read"]

Element = tuple[int, bytes]  # the tag, one byte, and the contents

_MULTI_BYTE_TAG: Final = 0x1F
_LONG_FORM: Final = 0x80
_LENGTH_BYTES_MAX: Final = 4
_INTEGER_BYTES_MAX: Final = 4  # INTEGER (0 .. 2147483647) and result codes
_HEADER_BYTES: Final = 2


class BerError(ValueError):
    """These bytes are no BER of the kind that LDAP allows."""


def frame_length(data: bytes | bytearray, maximum: int) -> int | None:
    """How long the element at the beginning is, header included; None: too few bytes to tell.

    Raises:
        BerError: it is no definite length, or beyond `maximum`.
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
        raise BerError(f"{length} bytes announced, at most {maximum} are taken")
    return length


def read(data: bytes) -> tuple[Element, bytes]:
    """The first element, and what follows it.

    Raises:
        BerError: there is none, or it reaches beyond the end.
    """
    length = frame_length(data, len(data))
    if length is None:
        raise BerError("it ends within an element")
    if length > len(data):
        raise BerError("an element reaches beyond the end")
    tag, first = data[0], data[1]
    if tag & _MULTI_BYTE_TAG == _MULTI_BYTE_TAG:
        raise BerError("a tag of several bytes")
    header = _HEADER_BYTES + (first - _LONG_FORM if first >= _LONG_FORM else 0)
    return (tag, data[header:length]), data[length:]


def members(contents: bytes) -> Iterator[Element]:
    """The elements of a constructed one.

    Raises:
        BerError: as `read`.
    """
    at = memoryview(contents)  # slices of it copy nothing, so that thousands of members take linear time
    while at:
        length = frame_length(bytes(at[:6]), len(at))
        if length is None:
            raise BerError("it ends within an element")
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
