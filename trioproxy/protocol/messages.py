"""The six messages of the TCP connection; what the client sends can be read and written, what we send can be written.

Each `decode_untrusted` reads from the start of a buffer. It needs a constant number of steps while the message is
incomplete and tells an error at the first octet that no continuation could mend.
"""

from typing import Self

import attrs

from trioproxy.protocol.address import Address, AddressError, AddressFault, Octets, decode_address_untrusted
from trioproxy.protocol.codes import (
    SOCKS_VERSION,
    SUBNEGOTIATION_VERSION,
    AuthenticationStatus,
    Command,
    Method,
    Reply,
)
from trioproxy.protocol.errors import RemoteProtocolError, Violation

__all__ = [
    "GREETING_LENGTH_MAX",
    "REQUEST_LENGTH_MAX",
    "USERNAME_PASSWORD_LENGTH_MAX",
    "AuthenticationReply",
    "Greeting",
    "MethodSelection",
    "ReplyMessage",
    "Request",
    "UsernamePassword",
]

_OCTET_MAX = 255  # what one length octet can say
# The longest legal messages in octets. Tor stops at 512 and so refuses the longest legal login; we do not.
GREETING_LENGTH_MAX = 2 + _OCTET_MAX
USERNAME_PASSWORD_LENGTH_MAX = 3 + _OCTET_MAX + _OCTET_MAX
REQUEST_LENGTH_MAX = 5 + _OCTET_MAX + 2

_RESERVED = 0x00
_TLS_HANDSHAKE = 0x16  # the content type of a ClientHello's record (RFC 8446 section 5.1)
_HTTP_INITIALS = frozenset(b"CDGHOPT")  # CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT TRACE (RFC 9110 section 9)

_VIOLATIONS = {
    AddressFault.UNKNOWN_TYPE: Violation.UNKNOWN_ADDRESS_TYPE,
    AddressFault.EMPTY_NAME: Violation.EMPTY_NAME,
}

_COMMANDS = {int(command): command for command in Command}


@attrs.frozen
class Greeting:
    """The methods that the client offers (RFC 1928 section 3).

    Attributes:
        methods: 1 to 255 raw numbers in the client's order; unknown and repeated ones are kept.
    """

    methods: tuple[int, ...]

    def __attrs_post_init__(self) -> None:
        """Check the number of methods; one octet says it.

        Raises:
            ValueError: none, or too many.
        """
        if not 1 <= len(self.methods) <= _OCTET_MAX:
            raise ValueError(f"a greeting offers 1 to {_OCTET_MAX} methods, not {len(self.methods)}")

    def encode(self) -> bytes:
        """VER, NMETHODS, METHODS."""
        return bytes((SOCKS_VERSION, len(self.methods), *self.methods))

    @classmethod
    def decode_untrusted(cls, octets: Octets) -> tuple[Self, int] | None:
        """The greeting and its length, or None if more octets are needed.

        Raises:
            RemoteProtocolError: SOCKS4, HTTP, TLS, NOT_SOCKS or NO_METHODS.
        """
        if not octets:
            return None
        if octets[0] != SOCKS_VERSION:
            raise RemoteProtocolError(_other_protocol(octets[0]), octets[0])
        if len(octets) == 1:
            return None
        count = octets[1]
        if count == 0:
            raise RemoteProtocolError(Violation.NO_METHODS)
        end = 2 + count
        return (cls(tuple(octets[2:end])), end) if len(octets) >= end else None


def _other_protocol(octet: int) -> Violation:
    if octet == 4:  # noqa: PLR2004 - the version this is not
        return Violation.SOCKS4
    if octet == _TLS_HANDSHAKE:
        return Violation.TLS
    return Violation.HTTP if octet in _HTTP_INITIALS else Violation.NOT_SOCKS


@attrs.frozen
class MethodSelection:
    """The method we chose of those offered (RFC 1928 section 3)."""

    method: Method

    def encode(self) -> bytes:
        """VER, METHOD."""
        return bytes((SOCKS_VERSION, self.method))


@attrs.frozen
class UsernamePassword:
    """A login (RFC 1929 section 2), octets as sent: the RFC names no character set.

    Attributes:
        username: 0 to 255 octets; the RFC wants 1 to 255, but an empty one is a refused login, not a broken stream.
        password: the same; never printed.
    """

    username: bytes = attrs.field(validator=attrs.validators.max_len(_OCTET_MAX))
    password: bytes = attrs.field(validator=attrs.validators.max_len(_OCTET_MAX), repr=False)

    def encode(self) -> bytes:
        """VER, ULEN, UNAME, PLEN, PASSWD."""
        username = bytes((len(self.username),)) + self.username
        password = bytes((len(self.password),)) + self.password
        return bytes((SUBNEGOTIATION_VERSION,)) + username + password

    @classmethod
    def decode_untrusted(cls, octets: Octets) -> tuple[Self, int] | None:
        """The login and its length, or None if more octets are needed.

        Raises:
            RemoteProtocolError: BAD_SUBNEGOTIATION_VERSION.
        """
        if not octets:
            return None
        if octets[0] != SUBNEGOTIATION_VERSION:
            raise RemoteProtocolError(Violation.BAD_SUBNEGOTIATION_VERSION, octets[0])
        if len(octets) == 1:
            return None
        username_end = 2 + octets[1]
        if len(octets) <= username_end:
            return None
        end = username_end + 1 + octets[username_end]
        if len(octets) < end:
            return None
        return cls(bytes(octets[2:username_end]), bytes(octets[username_end + 1 : end])), end


@attrs.frozen
class AuthenticationReply:
    """Whether the login was accepted (RFC 1929 section 2)."""

    status: AuthenticationStatus

    def encode(self) -> bytes:
        """VER (of the sub-negotiation), STATUS."""
        return bytes((SUBNEGOTIATION_VERSION, self.status))


@attrs.frozen
class Request:
    """What the client wants (RFC 1928 section 4)."""

    command: Command
    address: Address

    def encode(self) -> bytes:
        """VER, CMD, RSV, ATYP, DST.ADDR, DST.PORT."""
        return bytes((SOCKS_VERSION, self.command, _RESERVED)) + self.address.encode()

    @classmethod
    def decode_untrusted(cls, octets: Octets, *, tolerate_reserved: bool = False) -> tuple[Self, int] | None:
        """The request and its length, or None if more octets are needed.

        Args:
            octets: what has arrived.
            tolerate_reserved: read over a RSV octet that is not zero, as some servers do.

        Raises:
            RemoteProtocolError: BAD_REQUEST_VERSION, UNKNOWN_COMMAND, RESERVED_NOT_ZERO, UNKNOWN_ADDRESS_TYPE,
                EMPTY_NAME or PORT_ZERO.
        """
        _check_request_head(octets[:3], tolerate_reserved=tolerate_reserved)
        try:
            decoded = decode_address_untrusted(octets, 3)
        except AddressError as exc:
            raise RemoteProtocolError(_VIOLATIONS[exc.fault], exc.octet) from exc
        if decoded is None:
            return None
        address, end = decoded
        command = _COMMANDS[octets[1]]
        # BIND and UDP ASSOCIATE may say "unknown yet" with port 0; nobody can connect to it.
        if address.port == 0 and command is Command.CONNECT:
            raise RemoteProtocolError(Violation.PORT_ZERO)
        return cls(command, address), end


def _check_request_head(head: Octets, *, tolerate_reserved: bool) -> None:
    """Check as much of VER, CMD and RSV as is there."""
    if len(head) > 0 and head[0] != SOCKS_VERSION:
        raise RemoteProtocolError(Violation.BAD_REQUEST_VERSION, head[0])
    if len(head) > 1 and head[1] not in _COMMANDS:
        raise RemoteProtocolError(Violation.UNKNOWN_COMMAND, head[1])
    if len(head) > 2 and head[2] != _RESERVED and not tolerate_reserved:  # noqa: PLR2004 - the octet read beside it
        raise RemoteProtocolError(Violation.RESERVED_NOT_ZERO, head[2])


def _check_failure_address(message: "ReplyMessage", _attribute: object, address: Address) -> None:
    if message.reply is not Reply.SUCCEEDED and address != Address.ZERO:
        raise ValueError("a failure reply carries no address")  # always the same 10 octets, so that it tells nothing


@attrs.frozen
class ReplyMessage:
    """What became of the request (RFC 1928 section 6).

    Attributes:
        reply: the code.
        address: BND.ADDR and BND.PORT; `Address.ZERO` in every failure.
    """

    reply: Reply
    address: Address = attrs.field(default=Address.ZERO, validator=_check_failure_address)

    def encode(self) -> bytes:
        """VER, REP, RSV, ATYP, BND.ADDR, BND.PORT; 10 octets for a failure."""
        return bytes((SOCKS_VERSION, self.reply, _RESERVED)) + self.address.encode()
