"""Everything that a directory may send in answer to a search.

The first octet of an input says in its low bits at how many places the stream is cut. The places follow as one octet
each, then the stream.
"""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from auth.backend import Cause
from auth.ldap.ber import BerError
from auth.ldap.connection import Connection, Found
from auth.ldap.deadline import Deadline
from auth.ldap.dn import DN
from auth.ldap.failure import DirectoryError
from auth.ldap.flavours import FLAVOURS
from auth.ldap.messages import MESSAGE_BYTES_MAX, Entry, Message, Result, Search, decode, message_length
from auth.ldap.person import person_of
from auth.ldap.rules import rules_of
from auth.ldap.status import KNOWN_STATUS_ATTRIBUTES, status_of
from tests.auth.ldap.asn1 import entry_of
from tests.protocol.driver import split

if TYPE_CHECKING:
    from auth.ldap.transport import Transport

__all__ = ["test_one_input"]

_PLACES_MASK = 0x3F
_SEARCH = Search("dc=x", "(uid=alice)", ("uid",), 2)
_NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
_HOUR = Deadline.after(3600)


class _Wire:
    """In place of a transport: gives the pieces, then its end."""

    encrypted = True

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)

    def send(self, _data: bytes, _deadline: Deadline) -> None:
        """The request, which nobody reads."""

    def receive(self, _deadline: Deadline) -> bytes:
        """The next piece; a real transport gives at least one byte."""
        for piece in self._pieces:
            if piece:
                return piece
        raise DirectoryError("it closed the connection", Cause.CONNECT)


def test_one_input(data: bytes) -> None:
    """However the stream is cut the same comes out: what was found, or that the directory could not tell."""
    if not data:
        return
    behind = 1 + (data[0] & _PLACES_MASK)
    places, stream = data[1:behind], data[behind:]
    whole = _searched([stream])
    assert whole == _searched(split(stream, places))
    assert isinstance(whole, Found) or whole[1] in (Cause.PROTOCOL, Cause.CONNECT, Cause.AMBIGUOUS)
    for raw, message in _messages(stream):
        _check_message(raw, message)
    if isinstance(whole, Found):
        assert len(whole.entries) <= _SEARCH.size_limit


def _searched(pieces: list[bytes]) -> Found | tuple[str, Cause]:
    try:
        return Connection(cast("Transport", _Wire(pieces))).search(_SEARCH, _HOUR)
    except DirectoryError as error:
        return error.problem, error.cause


def _messages(stream: bytes) -> Iterator[tuple[bytes, Message]]:
    """All messages up to the first that is none, whatever they answer."""
    while True:
        try:
            length = message_length(stream)
            assert length is None or 2 <= length <= MESSAGE_BYTES_MAX
            message = decode(stream[:length])
        except BerError:
            return
        assert length is not None
        yield stream[:length], message
        stream = stream[length:]


def _check_message(raw: bytes, message: Message) -> None:
    assert -(2**31) <= message.number < 2**31
    match message.answer:
        case Result() as result:
            assert str(result).isprintable()
            assert len(str(result)) < 300
        case Entry() as entry:
            assert (entry.dn, entry.attributes) == entry_of(raw)
            _check_entry(entry)


def _check_entry(entry: Entry) -> None:
    """Whatever is in an entry, it is a person, a status and rules, or a `DirectoryError`."""
    for read in (_read_name, _read_person, _read_status, _read_rules):
        with contextlib.suppress(DirectoryError):
            read(entry)


def _read_name(entry: Entry) -> None:
    for text in (entry.dn, *(value.decode("utf-8", "replace") for value in entry.values("memberOf"))):
        try:
            name = DN.parse(text)
        except ValueError:
            continue
        assert name == DN.parse(f" {name.text}")
        assert name != DN.parse(f"cn=more,{text}")
        assert DN.parse(f"cn=more,{text}").is_below(name)
        assert not name.is_below(DN.parse(f"cn=more,{text}"))


def _read_person(entry: Entry) -> None:
    person = person_of(entry, FLAVOURS["openldap"], "alice")
    assert person is None or (person.unique_id and person.username.lower() == b"alice")


def _read_status(entry: Entry) -> None:
    for name in KNOWN_STATUS_ATTRIBUTES:
        status = status_of(entry, [name], _NOW)
        assert status.valid_until is None or status.valid_until > _NOW


def _read_rules(entry: Entry) -> None:
    found = rules_of(entry, "trioproxyRule", None)
    assert len(found.texts if found else ()) == len(entry.values("trioproxyRule"))
