"""What a ClientHello says, and whether a ServerHello answers it. Nothing is decrypted.

A ClientHello is one only if every length in it is true: bytes that merely begin like TLS are not TLS.
"""

import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Self

import attrs

from trioproxy.sniff.names import canonical_name
from trioproxy.sniff.octets import Cursor, MalformedError

__all__ = ["ClientHello"]

_TLS_1_3: Final = 0x0304
# What stands where the version once stood (RFC 8446 section 4.1.2); TLS 1.3 says its own in an extension.
_LEGACY_VERSIONS: Final = frozenset({0x0300, 0x0301, 0x0302, 0x0303})
_LEGACY_OF_TLS_1_3: Final = 0x0303
_RANDOM_LENGTH: Final = 32
_SESSION_ID_MAX: Final = 32
_NO_COMPRESSION: Final = 0  # every ClientHello must offer it

_SERVER_NAME: Final = 0
_PRE_SHARED_KEY: Final = 41
_SUPPORTED_VERSIONS: Final = 43
_ENCRYPTED_CLIENT_HELLO: Final = 0xFE0D
_NAME_TYPE_AT, _NAME_AT = 2, 5  # of the first name in server_name: behind the list's length, behind its own
_HOST_NAME: Final = 0  # the type of a name
_OUTER: Final = 0  # the type of an encrypted ClientHello that a client sends


@attrs.frozen
class ClientHello:
    """What is needed of a ClientHello (RFC 8446 section 4.1.2).

    Attributes:
        versions: those that the client speaks; what is no version at all (GREASE, RFC 8701) is kept.
        session_id: what a server of TLS 1.3 sends back.
        cipher_suites: numbers of two octets, one behind the other.
        compression_methods: one octet each.
        sni: the canonical name; None: there is none, several, or one that is no host name.
        ech: there is an encrypted ClientHello inside, or (RFC 9849 section 6.2, GREASE) what nobody but the server can
            tell from one.
    """

    versions: frozenset[int]
    session_id: bytes
    cipher_suites: bytes
    compression_methods: bytes
    sni: str | None
    ech: bool

    @classmethod
    def decode_untrusted(cls, body: bytes) -> Self:
        """Read the body of a handshake message, all of it.

        Raises:
            MalformedError: it is no ClientHello.
        """
        cursor = Cursor(body)
        legacy_version = _legacy_version(cursor)
        session_id = cursor.vector(1, most=_SESSION_ID_MAX)
        cipher_suites = cursor.vector(2, least=2)
        compression_methods = cursor.vector(1, least=1)
        if len(cipher_suites) % 2 or _NO_COMPRESSION not in compression_methods:
            raise MalformedError("no list of cipher suites, or no way without compression")
        extensions = _extensions(cursor)
        for kind, octets in extensions.items():
            check = _CHECKS.get(kind)
            if check is not None:
                check(octets)
        if _PRE_SHARED_KEY in extensions and next(reversed(extensions)) != _PRE_SHARED_KEY:
            raise MalformedError("a pre-shared key that is not last")
        return cls(
            _versions(legacy_version, extensions.get(_SUPPORTED_VERSIONS)),
            session_id,
            cipher_suites,
            compression_methods,
            _server_name(extensions.get(_SERVER_NAME)),
            _is_encrypted(extensions.get(_ENCRYPTED_CLIENT_HELLO)),
        )

    def is_answered_by_untrusted(self, body: bytes) -> bool:
        """Whether this is the body of a ServerHello, or HelloRetryRequest, to this ClientHello. Never raises."""
        try:
            return self._is_answered_by(Cursor(body))
        except MalformedError:
            return False

    def _is_answered_by(self, answer: Cursor) -> bool:
        version = _legacy_version(answer)
        session_id = answer.vector(1, most=_SESSION_ID_MAX)
        suite, compression = answer.take(2), answer.number(1)
        selected = _extensions(answer).get(_SUPPORTED_VERSIONS)
        if selected is not None:
            # RFC 8446 sections 4.1.3 and 4.2.1: only TLS 1.3 is selected so, and it sends the session id back.
            if version != _LEGACY_OF_TLS_1_3 or session_id != self.session_id or compression != _NO_COMPRESSION:
                return False
            version = int.from_bytes(selected, "big") if selected == _TLS_1_3.to_bytes(2, "big") else 0
        offered = self.cipher_suites
        return (
            version in self.versions
            and compression in self.compression_methods
            and any(offered[at : at + 2] == suite for at in range(0, len(offered), 2))
        )


def _legacy_version(cursor: Cursor) -> int:
    """The version with which both hellos begin; the random number behind it is skipped."""
    version = cursor.number(2)
    if version not in _LEGACY_VERSIONS:
        raise MalformedError("no version that a hello begins with")
    cursor.take(_RANDOM_LENGTH)
    return version


_EXTENSION_HEADER: Final = struct.Struct(">HH")


def _extensions(cursor: Cursor) -> dict[int, bytes]:
    """All that is left, in the order of the message; hellos older than extensions end here."""
    if not cursor.left:
        return {}
    octets = cursor.vector(2)
    cursor.finish()
    found: dict[int, bytes] = {}
    at, end = 0, len(octets)
    while at < end:  # not through the cursor: a hello has a dozen, and this is most of its cost
        if end - at < _EXTENSION_HEADER.size:
            raise MalformedError("an extension without its header")
        kind, length = _EXTENSION_HEADER.unpack_from(octets, at)
        at += _EXTENSION_HEADER.size + length
        if kind in found or at > end:
            raise MalformedError("an extension that reaches beyond the end, or twice the same")
        found[kind] = octets[at - length : at]
    return found


def _numbers(octets: bytes, width: int, size: int) -> None:
    """Check a list of numbers of `size` octets behind its length of `width` octets."""
    length = len(octets) - width
    if length < size or length % size or int.from_bytes(octets[:width], "big") != length:
        raise MalformedError("no list of numbers")


_EMPTY_LIST: Final = bytes(2)


def _vectors(octets: bytes, before: int, width: int, *, none: bool = False) -> None:
    """Check a list behind its length of two octets; an item is `before` octets and a vector that is not empty.

    Args:
        octets: all of it.
        before: how many octets stand in front of the vector.
        width: how many octets its length has.
        none: the list may be empty.
    """
    at, end = 2, len(octets)
    while at < end:
        at += before + width
        length = int.from_bytes(octets[at - width : at], "big")  # cut off at the end, then `at` is beyond it
        if not length:
            raise MalformedError("an empty item")
        at += length
    if at != end or int.from_bytes(octets[:2], "big") != end - 2 or (octets == _EMPTY_LIST and not none):
        raise MalformedError("no list of such items")


def _pre_shared_keys(octets: bytes) -> None:
    cursor = Cursor(octets)
    identities = Cursor(cursor.vector(2, least=7))
    binders = Cursor(cursor.vector(2, least=33))
    cursor.finish()
    while identities.left:
        identities.vector(2, least=1)
        identities.take(4)
    while binders.left:
        binders.vector(1, least=32)


# Only extensions with lengths inside, so that no length of a hello goes unchecked; the rest is a server's business.
_CHECKS: Final[Mapping[int, Callable[[bytes], None]]] = {
    _SERVER_NAME: partial(_vectors, before=1, width=2),
    10: partial(_numbers, width=2, size=2),  # supported_groups
    11: partial(_numbers, width=1, size=1),  # ec_point_formats
    13: partial(_numbers, width=2, size=2),  # signature_algorithms
    16: partial(_vectors, before=0, width=1),  # application_layer_protocol_negotiation
    27: partial(_numbers, width=1, size=2),  # compress_certificate
    _PRE_SHARED_KEY: _pre_shared_keys,
    _SUPPORTED_VERSIONS: partial(_numbers, width=1, size=2),
    45: partial(_numbers, width=1, size=1),  # psk_key_exchange_modes
    50: partial(_numbers, width=2, size=2),  # signature_algorithms_cert
    51: partial(_vectors, before=2, width=2, none=True),  # key_share
}


def _versions(legacy_version: int, supported: bytes | None) -> frozenset[int]:
    if supported is None:
        return frozenset(version for version in _LEGACY_VERSIONS if version <= legacy_version)
    pairs = struct.unpack(f">{len(supported) // 2}H", supported[1:])
    versions = frozenset(pairs)
    if versions.isdisjoint(_LEGACY_VERSIONS) and _TLS_1_3 not in versions:
        raise MalformedError("no version that anybody speaks")
    return versions


def _server_name(octets: bytes | None) -> str | None:
    """The name in an extension that was checked (RFC 6066 section 3)."""
    if octets is None or octets[_NAME_TYPE_AT] != _HOST_NAME:
        return None
    name = octets[_NAME_AT:]
    # Only one name of a type is allowed; with several, servers differ about the one they take.
    return canonical_name(name) if octets[_NAME_TYPE_AT + 1 : _NAME_AT] == len(name).to_bytes(2, "big") else None


def _is_encrypted(octets: bytes | None) -> bool:
    """RFC 9849 section 5; the inner form stands in what is encrypted, and in the open it encrypts nothing."""
    if octets is None:
        return False
    cursor = Cursor(octets)
    if cursor.number(1) != _OUTER:
        return False
    cursor.take(5)  # the key derivation, the cipher, the number of the server's key
    cursor.vector(2)  # empty in the second hello, behind a HelloRetryRequest
    cursor.vector(2, least=1)
    cursor.finish()
    return True
