"""One LDAP connection: a request, its answer. Speaks `messages` over a `Transport`."""

import contextlib
import ssl
from collections.abc import Iterator
from typing import Final

import attrs

from auth.backend import Cause
from auth.ldap.ber import BerError
from auth.ldap.deadline import Deadline
from auth.ldap.failure import DirectoryError
from auth.ldap.messages import (
    Entry,
    Message,
    Reference,
    Result,
    Search,
    decode,
    encode_bind,
    encode_search,
    encode_start_tls,
    encode_unbind,
    message_length,
)
from auth.ldap.transport import Transport

__all__ = ["Connection", "Found"]

_BIND, _EXTENDED = 0x61, 0x78
_ANSWER_BYTES_MAX: Final = 4 << 20  # of one search: 1,000 groups of 4 KiB
_FAREWELL_S: Final = 0.1
_EXTRA_MESSAGES_MAX: Final = 100  # references and intermediate answers beside the entries


@attrs.frozen
class Found:
    """What a search brought.

    Attributes:
        entries: at most as many as were asked for.
        references: how many times it said that more may be elsewhere.
        result: how it ended.
    """

    entries: tuple[Entry, ...]
    references: int
    result: Result


class Connection:
    """For one thread at a time. After a `DirectoryError` it is good for nothing but `close`.

    Args:
        transport: connected.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._buffer = bytearray()
        self._number = 0

    def start_tls(self, context: ssl.SSLContext, name: str, deadline: Deadline, *, ask: bool) -> str:
        """Make it safe, or fail: there is no way back to plain text. Returns what the certificate says.

        Args:
            context: verifies.
            name: of the host, which the certificate must have.
            deadline: for all of it.
            ask: ask for it first, as ldap:// needs it.

        Raises:
            DirectoryError: no TLS, or not with a certificate that we accept.
        """
        if ask:
            result = self._single(encode_start_tls(self._next()), _EXTENDED, deadline)
            if result.code:
                raise DirectoryError(
                    f"StartTLS is refused: {result}", Cause.TLS, "set up TLS in the directory, or use ldaps:// in urls"
                )
            if self._buffer:  # whoever sits on the line put words into the mouth of the server
                raise DirectoryError("bytes in plain text behind the answer to StartTLS", Cause.TLS)
        return self._transport.start_tls(context, name, deadline)

    def bind(self, dn: str, password: bytes, deadline: Deadline) -> Result:
        """Log in. Neither may be empty.

        Raises:
            DirectoryError: there is no answer.
        """
        return self._single(encode_bind(self._next(), dn, password), _BIND, deadline)

    def search(self, search: Search, deadline: Deadline) -> Found:
        """Look for entries.

        Raises:
            DirectoryError: there is no answer, or it breaks the protocol or our limits.
        """
        self._transport.send(encode_search(self._next(), search), deadline)
        entries: list[Entry] = []
        references = 0
        extra = 0
        messages = self._messages(deadline)
        while True:
            message = next(messages)
            match message.tag, message.answer:
                case 0x65, Result() as result:
                    return Found(tuple(entries), references, result)
                case 0x64, Entry() as entry:
                    entries.append(entry)
                case 0x73, Reference():
                    references += 1
                    extra += 1
                case 0x79, _:
                    extra += 1
                case _:
                    raise _broken("an answer that belongs to no search")
            if len(entries) > search.size_limit:
                raise _broken(f"more than the {search.size_limit} entries asked for")
            if extra > _EXTRA_MESSAGES_MAX:
                raise _broken("an endless answer")

    def is_stale(self) -> bool:
        """Whether the server has ended it."""
        return bool(self._buffer) or self._transport.is_stale()

    def close(self) -> None:
        """Say farewell if that takes no time, and close."""
        with contextlib.suppress(DirectoryError):
            self._transport.send(encode_unbind(self._next()), Deadline.after(_FAREWELL_S))
        self._transport.close()

    def abandon(self) -> None:
        """Close it without a word: the other side does not listen, or cannot be trusted."""
        self._transport.close()

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _single(self, request: bytes, tag: int, deadline: Deadline) -> Result:
        self._transport.send(request, deadline)
        message = next(self._messages(deadline))
        if message.tag != tag or not isinstance(message.answer, Result):
            raise _broken("an answer that belongs to something else")
        return message.answer

    def _messages(self, deadline: Deadline) -> Iterator[Message]:
        """The answers to the last request, one after the other."""
        taken = 0
        while True:
            message, size = self._message(deadline)
            taken += size
            if message.number == 0:  # a notice of disconnection, the only one there is (RFC 4511 section 4.4.1)
                raise DirectoryError(f"it says farewell: {message.answer}", Cause.CONNECT)
            if message.number != self._number:
                raise _broken("an answer to another question")
            if taken > _ANSWER_BYTES_MAX:
                raise _broken(f"an answer of more than {_ANSWER_BYTES_MAX} bytes")
            yield message

    def _message(self, deadline: Deadline) -> tuple[Message, int]:
        try:
            while (length := message_length(self._buffer)) is None or len(self._buffer) < length:
                self._buffer += self._transport.receive(deadline)
            data = bytes(self._buffer[:length])
            del self._buffer[:length]
            return decode(data), length
        except BerError as error:
            raise _broken(str(error)) from None


def _broken(how: str) -> DirectoryError:
    return DirectoryError(
        f"it breaks the protocol: {how}", Cause.PROTOCOL, "is this an LDAP server, and its LDAP port?"
    )
