"""Names as they arrive and names as they are compared: one spelling for each user, group and tenant.

Every look-up, rule, cache key and counter uses the canonical form, so two spellings of one person can never be two
accounts, nor one spelling two people. The mapping is that of the UsernameCaseMapped profile (RFC 8265 section 3.3:
lower case, then NFC) without its width mapping, and it is idempotent by check, not by hope: a service whose mapping was
not once handed accounts to strangers (Spotify, 2013).
"""

import re
import unicodedata
from typing import Final

__all__ = ["NAME_BYTES_MAX", "canonical_group", "canonical_tenant", "canonical_username", "decode_untrusted"]

NAME_BYTES_MAX: Final = 255  # UTF-8; RFC 1929 section 2 has one length byte for the name, and one for the password

# "/" and ":" separate tenant, kind and name in a scope, "," and quotes belong to the rule grammar and to CSV, and a
# backslash is an escape in each of them and in LDAP.
_SEPARATORS: Final = frozenset('/:,"\\')

# Controls, format characters (zero width, bidirectional overrides), surrogates, private use, unassigned (they get their
# case mapping in a later Unicode version: the Spotify case), and every space but U+0020, which look like it.
_UNFIT_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})

_TENANT: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")  # fits a DNS label and a metric's label, needs no quoting


def decode_untrusted(raw: bytes) -> str:
    """Read a user name or password off the wire: UTF-8, and if it is not that, Latin-1.

    RFC 1929 names no character set. curl, git and apt send UTF-8, OpenJDK sends ISO-8859-1. The C1 controls stand in no
    Latin-1 text, so bytes that need them are read as nothing rather than guessed at.

    Raises:
        ValueError: it holds NUL, or is neither UTF-8 nor Latin-1 text.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
        if any("\x80" <= character <= "\x9f" for character in text):
            raise ValueError("neither UTF-8 nor Latin-1 text") from None
    if "\0" in text:
        raise ValueError("it holds a NUL byte")
    return text


def canonical_username(raw: str) -> str:
    """The one spelling of a user name.

    Raises:
        ValueError: this can be no user name; the message says why and does not repeat the name.
    """
    return _canonical(raw, "user name")


def canonical_group(raw: str) -> str:
    """The one spelling of a group's name; the same rules as for users.

    Raises:
        ValueError: this can be no group name; the message says why.
    """
    return _canonical(raw, "group name")


def canonical_tenant(raw: str) -> str:
    """The one spelling of a tenant's name: up to 63 of `a-z 0-9 . _ -`, beginning with a letter or digit.

    Raises:
        ValueError: this can be no tenant name; the message says what may be.
    """
    # ASCII is asked for before lower(), which would turn the Kelvin sign into a plain k.
    name = raw.lower() if raw.isascii() else ""
    if not _TENANT.fullmatch(name):
        raise ValueError("a tenant name is 1 to 63 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit")
    return name


def _canonical(raw: str, kind: str) -> str:
    if len(raw) > NAME_BYTES_MAX:  # before any work; what is longer as characters is longer as bytes on the wire
        raise ValueError(f"a {kind} has 1 to {NAME_BYTES_MAX} bytes")
    name = _map(raw)
    if _map(name) != name:
        raise ValueError(f"this {kind} has no stable lower-case form")
    if any(unicodedata.category(character) in _UNFIT_CATEGORIES and character != " " for character in name):
        raise ValueError(f"a {kind} holds no control, invisible or unassigned characters")
    if not 1 <= len(name.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"a {kind} has 1 to {NAME_BYTES_MAX} bytes")
    if not _SEPARATORS.isdisjoint(name):
        raise ValueError(f'a {kind} holds none of / : , " \\')
    if name != name.strip(" "):
        raise ValueError(f"a {kind} neither begins nor ends with a space")
    return name


def _map(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
