"""Filters of searches as a server sees them: read from BER (RFC 4511 section 4.5.1.7), printed (RFC 4515), applied."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from tests.directories.ber import elements, one

__all__ = ["Attributes", "Filter", "Matcher", "read_filter"]

Attributes = Mapping[str, Sequence[bytes]]  # by lower-case name

BIT_AND: Final = "1.2.840.113556.1.4.803"
IN_CHAIN: Final = "1.2.840.113556.1.4.1941"


@attrs.frozen
class Matcher:
    """How a directory compares.

    Attributes:
        fold: what is left of a value when what does not matter is taken away.
        in_chain: whether an entry holds this value in this attribute, by itself or through others; None: unknown rule.
    """

    fold: Callable[[bytes], bytes] = bytes.lower
    in_chain: Callable[[Attributes, str, bytes], bool] | None = None


class Filter(ABC):
    """A filter or a part of one."""

    @abstractmethod
    def __str__(self) -> str:
        """As RFC 4515 writes it."""

    @abstractmethod
    def matches(self, entry: Attributes, matcher: Matcher) -> bool:
        """Whether this entry is one of those."""

    def values(self) -> Iterator[bytes]:
        """The assertion values in it, in order, as they came."""
        return iter(())


@attrs.frozen
class Joined(Filter):
    """And, or, not; `sign` is `&`, `|` or `!`."""

    sign: str
    parts: tuple[Filter, ...]

    def __str__(self) -> str:
        return f"({self.sign}{''.join(map(str, self.parts))})"

    def matches(self, entry: Attributes, matcher: Matcher) -> bool:
        found = [part.matches(entry, matcher) for part in self.parts]
        return {"&": all(found), "|": any(found), "!": not any(found)}[self.sign]

    def values(self) -> Iterator[bytes]:
        for part in self.parts:
            yield from part.values()


@attrs.frozen
class Compared(Filter):
    """An attribute and a value; `sign` is `=`, `>=`, `<=` or `~=`."""

    attribute: str
    sign: str
    value: bytes

    def __str__(self) -> str:
        return f"({self.attribute}{self.sign}{_escaped(self.value)})"

    def matches(self, entry: Attributes, matcher: Matcher) -> bool:
        assert self.sign == "=", f"not emulated: {self}"
        return matcher.fold(self.value) in map(matcher.fold, entry.get(self.attribute.lower(), ()))

    def values(self) -> Iterator[bytes]:
        yield self.value


@attrs.frozen
class Present(Filter):
    """An attribute with any value."""

    attribute: str

    def __str__(self) -> str:
        return f"({self.attribute}=*)"

    def matches(self, entry: Attributes, matcher: Matcher) -> bool:
        return self.attribute.lower() in entry


@attrs.frozen
class Substrings(Filter):
    """Pieces of a value; the first and the last may be empty: then anything may stand there."""

    attribute: str
    pieces: tuple[bytes, ...]

    def __str__(self) -> str:
        return f"({self.attribute}={'*'.join(map(_escaped, self.pieces))})"

    def matches(self, entry: Attributes, matcher: Matcher) -> bool:
        pieces = [matcher.fold(piece) for piece in self.pieces]
        return any(_fits(matcher.fold(value), pieces) for value in entry.get(self.attribute.lower(), ()))

    def values(self) -> Iterator[bytes]:
        yield from filter(None, self.pieces)


@attrs.frozen
class Extensible(Filter):
    """A comparison by a named rule."""

    attribute: str
    rule: str
    value: bytes
    of_dn: bool

    def __str__(self) -> str:
        return f"({self.attribute}{':dn' * self.of_dn}{self.rule and ':'}{self.rule}:={_escaped(self.value)})"

    def matches(self, entry: Attributes, matcher: Matcher) -> bool:
        """As RFC 4511 wants it, a rule that is not known matches nothing."""
        if self.rule == IN_CHAIN and matcher.in_chain is not None:
            return matcher.in_chain(entry, self.attribute.lower(), self.value)
        if self.rule == BIT_AND:
            wanted = int(self.value)
            return any(int(value) & wanted == wanted for value in entry.get(self.attribute.lower(), ()))
        return False

    def values(self) -> Iterator[bytes]:
        yield self.value


_JOINED: Final = {0xA0: "&", 0xA1: "|", 0xA2: "!"}
_COMPARED: Final = {0xA3: "=", 0xA5: ">=", 0xA6: "<=", 0xA8: "~="}


def read_filter(tag: int, contents: bytes) -> Filter:
    """A filter from tag and contents of its BER; one that is wrong fails an assertion."""
    if tag in _JOINED:
        return Joined(_JOINED[tag], tuple(read_filter(*part) for part in elements(contents)))
    if tag == 0x87:
        return Present(contents.decode())
    if tag == 0xA9:
        parts = dict(elements(contents))
        return Extensible(
            parts.get(0x82, b"").decode(), parts.get(0x81, b"").decode(), parts[0x83], bool(any(parts.get(0x84, b"")))
        )
    _, attribute, rest = one(contents)
    if tag in _COMPARED:
        [(_, value)] = elements(rest)
        return Compared(attribute.decode(), _COMPARED[tag], value)
    assert tag == 0xA4, f"no filter: {tag:#x}"
    [(_, listed)] = elements(rest)
    pieces = list(elements(listed))
    first = () if pieces[0][0] == 0x80 else (b"",)
    last = () if pieces[-1][0] == 0x82 else (b"",)
    return Substrings(attribute.decode(), (*first, *(piece for _, piece in pieces), *last))


def _escaped(value: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte not in b"*()\\" else f"\\{byte:02x}" for byte in value)


def _fits(value: bytes, pieces: Sequence[bytes]) -> bool:
    first, *middle, last = pieces
    if not value.startswith(first):
        return False
    at = len(first)
    for piece in middle:
        found = value.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(value) - len(last) >= at and value.endswith(last)
