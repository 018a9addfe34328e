"""Questions to name servers (RFC 1035)."""

import struct
from typing import Final

from trioproxy.sniff.octets import Cursor, MalformedError

__all__ = ["is_dns_query_untrusted"]

_HEADER: Final = struct.Struct(">HHHHHH")
_QUERY, _NOTIFY, _UPDATE = 0, 4, 5  # what is in use; IQUERY and STATUS are history
_OPCODES: Final = frozenset({_QUERY, _NOTIFY, _UPDATE})
_CLASSES: Final = frozenset({1, 3, 4, 254, 255})  # IN, CH, HS, NONE, ANY
_ANSWER: Final = 0x8000
_RESERVED_OR_RCODE: Final = 0x004F
_RECORD_MIN: Final = 11  # octets of the shortest record: the root, type, class, time to live, length
_LABEL_MAX: Final = 63
_NAME_MAX: Final = 255
_POINTER: Final = 0xC0


def is_dns_query_untrusted(message: bytes) -> bool:
    """Whether this is a query, NOTIFY or UPDATE, all of it: one question, and records that end where it ends.

    Never raises.
    """
    if len(message) < _HEADER.size:
        return False
    _, flags, questions, answers, authorities, additional = _HEADER.unpack_from(message)
    opcode = flags >> 11 & 0xF
    records = answers + authorities + additional
    if (
        flags & (_ANSWER | _RESERVED_OR_RCODE)
        or opcode not in _OPCODES
        or questions != 1
        or (answers and opcode == _QUERY)
        or records * _RECORD_MIN > len(message)
    ):
        return False
    try:
        cursor = Cursor(message, _HEADER.size)
        _question(cursor)
        for _ in range(records):
            _record(cursor)
        cursor.finish()
    except MalformedError:
        return False
    return True


def _question(cursor: Cursor) -> None:
    _name(cursor, may_point=False)  # nothing stands before it to which it could point
    if not cursor.number(2) or cursor.number(2) not in _CLASSES:
        raise MalformedError("no question")


def _record(cursor: Cursor) -> None:
    _name(cursor, may_point=True)
    cursor.take(8)  # type, class, time to live
    cursor.vector(2)


def _name(cursor: Cursor, *, may_point: bool) -> None:
    """Skip a name. A pointer ends it; where it points to is of no interest."""
    left = _NAME_MAX
    while length := cursor.number(1):
        if length >= _POINTER and may_point:
            cursor.take(1)
            return
        left -= 1 + length
        if length > _LABEL_MAX or left < 1:
            raise MalformedError("no name")
        cursor.take(length)
