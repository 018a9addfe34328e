"""Distinguished names that can be compared: whether two mean the same entry, and what lies below what."""

import re
import unicodedata
from typing import Final, Self

import attrs

from auth.backend import Cause
from auth.ldap.failure import DirectoryError

__all__ = ["DN", "answered_dn", "escaped_in_dn"]

_ESCAPED: Final = re.compile(rb"\\([0-9a-fA-F]{2})|\\(.)", re.DOTALL)
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")
_DN_LENGTH_MAX: Final = 4096  # no real name has a tenth of that, and fifty of them may go into one filter

# One `cn=staff` and what stands behind it. No quantifier gives anything back: a text has one reading, found in linear
# time. ldap3's parser guesses, and refuses `#04024869`, `cn=a=b`, OIDs and escaped spaces at the end.
_PIECE: Final = re.compile(
    r" *+(?P<kind>[A-Za-z][A-Za-z0-9-]*+|\d++(?:\.\d++)*+) *+= *+"
    r"(?:#(?P<octets>(?:[0-9a-fA-F]{2})++) *+"
    r"|(?!#)(?P<value>(?:[^\\\"+,;<>\0]|\\[0-9a-fA-F]{2}|\\[ \"#+,;<=>\\])*+))"
    r"(?P<separator>[+,]|\Z)",
    re.ASCII,
)


@attrs.frozen
class DN:
    """A distinguished name (RFC 4514).

    Two are equal if they differ in case, in spacing or in how they are escaped only. Attribute types are compared as
    they are written, and a value in hexadecimal BER (`#...`) with its like only: an OID in place of `cn` makes two
    differ, which refuses too much and never too little.

    Attributes:
        text: as the directory wrote it.
    """

    text: str = attrs.field(eq=False)
    _parts: tuple[frozenset[tuple[str, str | bytes]], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name.

        Raises:
            ValueError: it is none, or empty: a bind with an empty name is an anonymous one (RFC 4513 section 5.1).
        """
        if not 0 < len(text) <= _DN_LENGTH_MAX:
            raise ValueError(f"a distinguished name has 1 to {_DN_LENGTH_MAX} characters")
        parts: list[frozenset[tuple[str, str | bytes]]] = []
        together: dict[str, str | bytes] = {}
        at, separator = 0, ","
        while separator:
            piece = _PIECE.match(text, at)
            if piece is None or piece["kind"].lower() in together:  # two values of one kind: which one is the name?
                raise ValueError(f"{text!r} is no distinguished name, see character {at + 1}")
            octets = piece["octets"]
            together[piece["kind"].lower()] = _compared(piece["value"]) if octets is None else bytes.fromhex(octets)
            at, separator = piece.end(), piece["separator"]
            if separator != "+":
                parts.append(frozenset(together.items()))
                together = {}
        return cls(text, tuple(parts))

    def is_below(self, base: "DN") -> bool:
        """Whether the entry is `base` itself or lies somewhere below it."""
        return self._parts[-len(base._parts) :] == base._parts  # noqa: SLF001 - another of the same class

    def value_of(self, kind: str) -> str | None:
        """What the name's first component says for an attribute (lower case), as `cn=staff,ou=groups` does for `cn`."""
        value = dict(self._parts[0]).get(kind.lower())
        return value if isinstance(value, str) else None


def answered_dn(name: str | bytes) -> DN:
    """A name that a directory gave us.

    Raises:
        DirectoryError: it is none that we can read. That is no failure of the server, which asking another would mend:
            whoever may make entries can make one with a name of any length.
    """
    try:
        return DN.parse(name if isinstance(name, str) else name.decode())
    except ValueError as error:
        raise DirectoryError(f"it names an entry that can be none: {error}", Cause.AMBIGUOUS) from None


def escaped_in_dn(value: str) -> str:
    """A value as it may stand in a distinguished name (RFC 4514 section 2.4)."""
    return "".join(chr(octet) if octet in _PLAIN else f"\\{octet:02x}" for octet in value.encode())


def _compared(value: str) -> str:
    """The value of an attribute as caseIgnoreMatch compares it (RFC 4518): neither case nor spaces count."""
    raw = _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()) if found[1] else found[2], value.encode())
    text = raw.decode(errors="surrogateescape")
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
    return " ".join(filter(None, text.split(" ")))  # str.split() alone would take controls for spaces
