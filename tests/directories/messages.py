"""What clients ask and servers answer (RFC 4511): requests read from their bytes, answers made of words.

`bind_result(49, "data 52e")` is an answer whose number is that of the request; `.numbered(7)` gives it another.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, Self

import attrs

from tests.directories.ber import element, elements, integer, octets, one, sequence
from tests.directories.filters import Filter, read_filter

__all__ = [
    "START_TLS",
    "Kind",
    "Message",
    "Request",
    "bind_result",
    "disconnection",
    "entry",
    "extended_result",
    "intermediate",
    "read_request",
    "reference",
    "search_done",
]

START_TLS: Final = "1.3.6.1.4.1.1466.20037"
DISCONNECTION: Final = "1.3.6.1.4.1.1466.20036"


class Kind(StrEnum):
    """What a client can ask for."""

    BIND = "bind"
    SEARCH = "search"
    EXTENDED = "extended"
    UNBIND = "unbind"
    ABANDON = "abandon"
    OTHER = "other"  # add, modify ...: nothing that a proxy should do


@attrs.frozen(kw_only=True)
class Request:
    """What came from a client.

    Attributes:
        kind: what it is.
        number: the message's.
        connection: the connection's, from 1.
        encrypted: whether it came through TLS.
        dn, password: of a simple bind.
        base, scope, filter, attributes, size_limit: of a search; the filter as RFC 4515 text, the scope 0, 1 or 2.
        follow_aliases: whether the search wants any alias to be followed.
        values: the assertion values of the filter, as they came.
        parsed: the filter, to be applied.
        oid: of an extended request.
    """

    kind: Kind
    number: int
    connection: int = 0
    encrypted: bool = False
    dn: str = ""
    password: bytes = b""
    base: str = ""
    scope: int = 0
    filter: str = ""
    values: tuple[bytes, ...] = ()
    parsed: Filter | None = attrs.field(default=None, repr=False)
    attributes: tuple[str, ...] = ()
    size_limit: int = 0
    follow_aliases: bool = False
    oid: str = ""


@attrs.frozen
class Message:
    """An answer.

    Attributes:
        operation: its BER.
        number: None: that of the request.
    """

    operation: bytes
    number: int | None = None

    def numbered(self, number: int) -> Self:
        """The same as the answer to another request."""
        return attrs.evolve(self, number=number)

    def encoded(self, number: int) -> bytes:
        """Its bytes, as the answer to the request of this number."""
        return sequence(integer(number if self.number is None else self.number), self.operation)


# ---- answers


def bind_result(code: int = 0, diagnostic: str = "", *, matched: str = "", referrals: Iterable[str] = ()) -> Message:
    """How a bind ended."""
    return Message(element(0x61, _result(code, diagnostic, matched, referrals)))


def search_done(code: int = 0, diagnostic: str = "", *, matched: str = "", referrals: Iterable[str] = ()) -> Message:
    """How a search ended."""
    return Message(element(0x65, _result(code, diagnostic, matched, referrals)))


def extended_result(code: int = 0, diagnostic: str = "", *, oid: str = "", referrals: Iterable[str] = ()) -> Message:
    """How an extended request ended."""
    return Message(element(0x78, _result(code, diagnostic, "", referrals), octets(oid, 0x8A) if oid else b""))


def entry(dn: str | bytes, attributes: Mapping[str, Iterable[str | bytes]]) -> Message:
    """An entry found."""
    listed = [sequence(octets(name), element(0x31, *map(octets, values))) for name, values in attributes.items()]
    return Message(element(0x64, octets(dn), sequence(*listed)))


def reference(*urls: str) -> Message:
    """A continuation reference: more is to be found there."""
    return Message(element(0x73, *map(octets, urls)))


def intermediate(oid: str = "1.3.6.1.4.1.4203.1.9.1.4", value: bytes = b"") -> Message:
    """Something that comes before the end (RFC 4511 section 4.13); by default what RFC 4533 sends."""
    return Message(element(0x79, octets(oid, 0x80), octets(value, 0x81)))


def disconnection(code: int = 52, diagnostic: str = "the server is going down") -> Message:
    """The notice of disconnection, which nobody has asked for (RFC 4511 section 4.4.1)."""
    return extended_result(code, diagnostic, oid=DISCONNECTION).numbered(0)


def _result(code: int, diagnostic: str, matched: str, referrals: Iterable[str]) -> bytes:
    urls = [octets(url) for url in referrals]
    return integer(code, 0x0A) + octets(matched) + octets(diagnostic) + (element(0xA3, *urls) if urls else b"")


# ---- requests


def read_request(data: bytes) -> Request:
    """A request from the bytes of one whole message; one that is wrong fails an assertion."""
    tag, contents, rest = one(data)
    assert tag == 0x30, data[:16]
    assert not rest, rest
    (tag, number), (operation, inside) = list(elements(contents))[:2]
    assert tag == 0x02
    return _OPERATIONS.get(operation, _other)(int.from_bytes(number, signed=True), inside)


def _bind(number: int, contents: bytes) -> Request:
    (_, version), (_, dn), (how, password) = elements(contents)
    assert version == b"\3"
    assert how == 0x80, "no simple bind"
    return Request(kind=Kind.BIND, number=number, dn=dn.decode(), password=password)


def _search(number: int, contents: bytes) -> Request:
    (_, base), (_, scope), (_, aliases), (_, size), _, (_, types_only), wanted, (_, names) = elements(contents)
    assert types_only == b"\0"
    parsed = read_filter(*wanted)
    return Request(
        kind=Kind.SEARCH,
        number=number,
        base=base.decode(),
        scope=scope[0],
        filter=str(parsed),
        values=tuple(parsed.values()),
        parsed=parsed,
        attributes=tuple(name.decode() for _, name in elements(names)),
        size_limit=int.from_bytes(size),
        follow_aliases=aliases != b"\0",
    )


def _extended(number: int, contents: bytes) -> Request:
    return Request(kind=Kind.EXTENDED, number=number, oid=dict(elements(contents))[0x80].decode())


def _unbind(number: int, contents: bytes) -> Request:
    assert not contents
    return Request(kind=Kind.UNBIND, number=number)


def _abandon(number: int, contents: bytes) -> Request:
    return Request(kind=Kind.ABANDON, number=number)


def _other(number: int, contents: bytes) -> Request:
    return Request(kind=Kind.OTHER, number=number)


_OPERATIONS: Final = {0x60: _bind, 0x63: _search, 0x77: _extended, 0x42: _unbind, 0x50: _abandon}
