"""One LDAP connection: a request, its answer. Speaks `messages` over a `Transport`."""

import contextlib
import ssl
import threading
from collections.abc import Iterator
from typing import Final

import attrs

from auth.backend import Cause
from auth.ldap.ber import Allowance, BerError, TooMuchError
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
        decoding: held while a message is read, so that however many connections of one directory bring much to read
            at once, the rest of the program waits for one thread and not for a hundred.
    """

    def __init__(self, transport: Transport, decoding: "threading.Lock | None" = None) -> None:
        self._transport = transport
        self._decoding = decoding or threading.Lock()
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
        result = self._single(encode_bind(self._next(), dn, password), _BIND, deadline)
        # Here, where the words are still as they came: later they are cut, and some characters are replaced.
        return attrs.evolve(result, secret=password.decode(errors="replace") in result.diagnostic)

    def search(self, search: Search, deadline: Deadline, allowance: Allowance | None = None) -> Found:
        """Look for entries.

        Args:
            search: what to look for.
            deadline: for all of it.
            allowance: for this and other searches; None: this one has its own.

        Raises:
            DirectoryError: there is no answer, or it breaks the protocol or our limits.
        """
        self._transport.send(encode_search(self._next(), search), deadline)
        entries: list[Entry] = []
        references = 0
        extra = 0
        wanted = frozenset(name.lower() for name in search.attributes)
        messages = self._messages(deadline, allowance or Allowance(), wanted)
        while True:
            message = _next_found(messages)
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
        try:
            message = next(self._messages(deadline, Allowance(), frozenset()))
        except TooMuchError as error:
            raise _broken(str(error)) from None
        if message.tag != tag or not isinstance(message.answer, Result):
            raise _broken("an answer that belongs to something else")
        return message.answer

    def _messages(self, deadline: Deadline, allowance: Allowance, wanted: frozenset[str]) -> Iterator[Message]:
        """The answers to the last request, one after the other.

        Raises:
            TooMuchError: they are more than is allowed.
        """
        while True:
            message = self._message(deadline, allowance, wanted)
            if message.number == 0:  # a notice of disconnection, the only one there is (RFC 4511 section 4.4.1)
                raise DirectoryError(f"it says farewell: {message.answer}", Cause.CONNECT)
            if message.number != self._number:
                raise _broken("an answer to another question")
            yield message

    def _message(self, deadline: Deadline, allowance: Allowance, wanted: frozenset[str]) -> Message:
        try:
            while (length := message_length(self._buffer)) is None or len(self._buffer) < length:
                self._buffer += self._transport.receive(deadline)
            allowance.take(length)
            data = bytes(self._buffer[:length])
            del self._buffer[:length]
            with self._reading(deadline):
                return decode(data, allowance, wanted)
        except TooMuchError:
            raise
        except BerError as error:
            raise _broken(str(error)) from None

    @contextlib.contextmanager
    def _reading(self, deadline: Deadline) -> Iterator[None]:
        while not self._decoding.acquire(timeout=deadline.left_s()):
            pass  # once more, which raises: nothing is left
        try:
            yield
        finally:
            self._decoding.release()


def _next_found(messages: Iterator[Message]) -> Message:
    try:
        return next(messages)
    except TooMuchError as error:
        raise DirectoryError(
            f"it answers more than is taken: {error}", Cause.AMBIGUOUS, "narrow the bases or the filters"
        ) from None


def _broken(how: str) -> DirectoryError:
    return DirectoryError(
        f"it breaks the protocol: {how}", Cause.PROTOCOL, "is this an LDAP server, and its LDAP port?"
    )
