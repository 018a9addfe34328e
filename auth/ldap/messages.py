"""LDAP messages as bytes (RFC 4511), without input and output. Requests are encoded by ldap3.

The filter of a search is text (RFC 4515) in which everything that came from outside was escaped by `escaped`.
"""

import enum
import re
import warnings
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final, TypeAlias

import attrs

with warnings.catch_warnings():
    # ldap3 asks pyasn1 for two names that have become others; whoever runs with -W error must be able to import it.
    warnings.simplefilter("ignore", DeprecationWarning)
    from ldap3 import BASE, DEREF_NEVER, SUBTREE
    from ldap3.core.exceptions import LDAPExceptionError
    from ldap3.core.results import RESULT_CODES
    from ldap3.operation.extended import extended_operation
    from ldap3.operation.search import search_operation
    from ldap3.operation.unbind import unbind_operation
    from ldap3.protocol.convert import PyAsn1Error
    from ldap3.protocol.rfc4511 import (
        AuthenticationChoice,
        BindRequest,
        LDAPMessage,
        MessageID,
        ProtocolOp,
        Simple,
        Version,
    )
    from ldap3.utils.asn1 import encode

from auth.ldap.ber import Allowance, BerError, frame_length, integer, members, read

__all__ = [
    "BUSY_CODES",
    "MESSAGE_BYTES_MAX",
    "Answer",
    "Entry",
    "Message",
    "Reference",
    "Result",
    "ResultCode",
    "Search",
    "check_filter",
    "decode",
    "encode_bind",
    "encode_search",
    "encode_start_tls",
    "encode_unbind",
    "escaped",
    "message_length",
]

# A user with 1,000 groups of 200 bytes each fits in; what is longer is a mistake or an attack on our memory.
MESSAGE_BYTES_MAX: Final = 1 << 20

_START_TLS: Final = "1.3.6.1.4.1.1466.20037"
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_@")
_NO_ESCAPE: Final = re.compile(r"\\(?![0-9a-fA-F]{2})")  # which ldap3 would send as it is

_PARTS_MAX: Final = 3
_SEQUENCE, _SET, _OCTETS, _INTEGER, _ENUMERATED = 0x30, 0x31, 0x04, 0x02, 0x0A


class ResultCode(enum.IntEnum):
    """Those of RFC 4511 appendix A that mean something to us."""

    SUCCESS = 0
    OPERATIONS_ERROR = 1
    TIME_LIMIT_EXCEEDED = 3
    SIZE_LIMIT_EXCEEDED = 4
    REFERRAL = 10
    ADMIN_LIMIT_EXCEEDED = 11
    NO_SUCH_OBJECT = 32
    INVALID_CREDENTIALS = 49
    INSUFFICIENT_ACCESS_RIGHTS = 50
    BUSY = 51
    UNAVAILABLE = 52
    UNWILLING_TO_PERFORM = 53


# Another server of the same directory may have time.
BUSY_CODES: Final = frozenset(
    {ResultCode.TIME_LIMIT_EXCEEDED, ResultCode.ADMIN_LIMIT_EXCEEDED, ResultCode.BUSY, ResultCode.UNAVAILABLE}
)


@attrs.frozen
class Search:
    """What to look for.

    Attributes:
        base: where to begin, a DN.
        filter: RFC 4515.
        attributes: what of each entry is wanted.
        size_limit: the server stops after so many entries.
        subtree: everything below the base; False: the base alone.
    """

    base: str
    filter: str
    attributes: tuple[str, ...]
    size_limit: int
    subtree: bool = True


@attrs.frozen
class Result:
    """How an operation ended.

    Attributes:
        code: RFC 4511 appendix A; 0 is success.
        diagnostic: the server's words.
        secret: a password stands in them, so they are not shown.
    """

    code: int
    diagnostic: str = attrs.field(default="", repr=False)
    secret: bool = attrs.field(default=False, eq=False)

    def __str__(self) -> str:
        words = "".join(character if character.isprintable() else "?" for character in self.diagnostic[:200])
        words = "(not shown: the password stands in it)" if self.secret else words
        name = RESULT_CODES.get(self.code, "unknown result")
        return f"{name} ({self.code})" + (f": {words}" if words else "")


@attrs.frozen
class Entry:
    """One entry found.

    Attributes:
        dn: its name.
        attributes: by lower-case description, options included; the values are bytes.
    """

    dn: str
    attributes: Mapping[str, tuple[bytes, ...]]

    def values(self, name: str) -> tuple[bytes, ...]:
        """All values of an attribute, none if it is not there."""
        return self.attributes.get(name.lower(), ())


@attrs.frozen
class Reference:
    """A continuation reference: more may be elsewhere. We go nowhere."""


Answer: TypeAlias = Result | Entry | Reference | None  # None: an intermediate response, which says nothing to us


@attrs.frozen
class Message:
    """One answer of the server.

    Attributes:
        number: of the request it belongs to; 0: unasked for.
        tag: which kind of answer it is.
        answer: what it says.
    """

    number: int
    tag: int
    answer: Answer


def escaped(value: str | bytes) -> str:
    """A value as it may stand in a filter (RFC 4515 section 3): all but letters, digits and `.-_@` as octets."""
    octets = value.encode() if isinstance(value, str) else value
    return "".join(chr(octet) if octet in _PLAIN else f"\\{octet:02x}" for octet in octets)


def check_filter(text: str) -> None:
    """Look whether this is a filter.

    Raises:
        ValueError: it is none.
    """
    if _NO_ESCAPE.search(text):
        raise ValueError(f"{text!r} is no LDAP filter: a backslash stands before two hexadecimal digits")
    try:
        encode_search(1, Search("", text, (), 1))
    except PyAsn1Error:  # pages of it
        raise ValueError(f"{text!r} is no LDAP filter") from None
    except (LDAPExceptionError, AttributeError, IndexError, TypeError, RecursionError) as error:
        raise ValueError(f"{text!r} is no LDAP filter: {error}") from None


def encode_bind(number: int, dn: str, password: bytes) -> bytes:
    """A simple bind.

    The password goes as it came: ldap3's SASLprep would make another one of some.

    Raises:
        ValueError: without name or password it would be an anonymous bind, to which servers say yes (RFC 4513 5.1.2).
    """
    if not dn or not password:
        raise ValueError("a bind needs a name and a password")
    request = BindRequest()
    request["version"] = Version(3)
    request["name"] = dn
    request["authentication"] = AuthenticationChoice().setComponentByName("simple", Simple(password))
    return _encode(number, "bindRequest", request)


def encode_search(number: int, search: Search, time_limit_s: int = 0) -> bytes:
    """A search that follows no alias."""
    scope = SUBTREE if search.subtree else BASE
    request = search_operation(
        search.base,
        search.filter,
        scope,
        DEREF_NEVER,
        list(search.attributes) or None,
        search.size_limit,
        time_limit_s,
        types_only=False,
        auto_escape=False,
        auto_encode=False,
    )
    return _encode(number, "searchRequest", request)


def encode_start_tls(number: int) -> bytes:
    """RFC 4511 section 4.14."""
    return _encode(number, "extendedReq", extended_operation(_START_TLS))


def encode_unbind(number: int) -> bytes:
    """The farewell; no answer comes."""
    return _encode(number, "unbindRequest", unbind_operation())


def message_length(data: bytes | bytearray) -> int | None:
    """How long the message at the beginning is; None: too few bytes to tell.

    Raises:
        BerError: it is none, or too long.
    """
    if data and data[0] != _SEQUENCE:
        raise BerError("that is no LDAP message")
    return frame_length(data, MESSAGE_BYTES_MAX)


def decode(data: bytes, allowance: Allowance | None = None, wanted: frozenset[str] | None = None) -> Message:
    """Read one whole message.

    Args:
        data: the message.
        allowance: what may be read, of this and other messages.
        wanted: the attributes asked for, in lower case; others are passed over unread. None: all.

    Raises:
        BerError: it is none that a server may send.
        TooMuchError: it has more attributes and values than are allowed.
    """
    allowance = allowance or Allowance()
    (tag, contents), rest = read(data)
    if tag != _SEQUENCE or rest:
        raise BerError("that is no LDAP message")
    (number, body), parts = _expect(contents, _INTEGER), list(islice(members(contents, allowance), _PARTS_MAX + 1))
    if not 1 < len(parts) <= _PARTS_MAX:  # with controls or without; none of them means anything to us
        raise BerError("a message with too few or too many parts")
    (operation, inside), _ = read(body)
    return Message(integer(number), operation, _decode_operation(operation, inside, allowance, wanted))


def _decode_operation(tag: int, contents: bytes, allowance: Allowance, wanted: frozenset[str] | None) -> Answer:
    match tag:
        case 0x61 | 0x65 | 0x78:
            return _decode_result(contents, allowance)
        case 0x64:
            return _decode_entry(contents, allowance, wanted)
        case 0x73:
            return Reference()
        case 0x79:
            return None
        case _:
            raise BerError(f"an answer of an unknown kind, tag {tag:#x}")


def _decode_result(contents: bytes, allowance: Allowance) -> Result:
    code, rest = _expect(contents, _ENUMERATED)
    _, rest = _expect(rest, _OCTETS)
    diagnostic, rest = _expect(rest, _OCTETS)
    for _ in members(rest, allowance):  # referrals, SASL credentials, names of extended results: not for us
        pass
    return Result(integer(code), diagnostic.decode(errors="replace"))


def _decode_entry(contents: bytes, allowance: Allowance, wanted: frozenset[str] | None) -> Entry:
    name, rest = _expect(contents, _OCTETS)
    listed, rest = _expect(rest, _SEQUENCE)
    if rest:
        raise BerError("an entry with too many parts")
    attributes: dict[str, tuple[bytes, ...]] = {}
    for tag, element in members(listed, allowance):
        if tag != _SEQUENCE:
            raise BerError("an attribute that is none")
        raw, values = _expect(element, _OCTETS)
        description = _text(raw).lower()
        if wanted is not None and description.partition(";")[0] not in wanted:
            continue
        if description in attributes:
            raise BerError("an entry with an attribute twice")
        attributes[description] = _decode_values(values, allowance)
    return Entry(_text(name), attributes)


def _decode_values(data: bytes, allowance: Allowance) -> tuple[bytes, ...]:
    listed, rest = _expect(data, _SET)
    values = tuple(members(listed, allowance))
    if rest or any(kind != _OCTETS for kind, _ in values):
        raise BerError("an attribute with values that are none")
    return tuple(value for _, value in values)


def _expect(data: bytes, tag: int) -> tuple[bytes, bytes]:
    (found, contents), rest = read(data)
    if found != tag:
        raise BerError(f"tag {found:#x} where {tag:#x} belongs")
    return contents, rest


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BerError("a name that is no UTF-8") from None


def _encode(number: int, kind: str, request: Any) -> bytes:  # noqa: ANN401 - a structure of pyasn1
    message = LDAPMessage()
    message["messageID"] = MessageID(number)
    message["protocolOp"] = ProtocolOp().setComponentByName(kind, request)
    encoded: bytes = encode(message)
    return encoded
