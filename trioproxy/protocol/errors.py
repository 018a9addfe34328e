"""Whose mistake it was, and what the client is told before we close."""

import enum
from collections.abc import Mapping
from types import MappingProxyType

from trioproxy.protocol.codes import (
    SOCKS_VERSION,
    SUBNEGOTIATION_VERSION,
    AddressType,
    AuthenticationStatus,
    Method,
    Reply,
)

__all__ = ["ANSWERS", "LocalProtocolError", "ProtocolError", "RemoteProtocolError", "Violation"]


class Violation(enum.Enum):
    """Each kind of mistake a client makes; the value is the name of its counter."""

    SOCKS4 = "socks4"
    HTTP = "http"
    TLS = "tls"
    NOT_SOCKS = "not_socks"
    NO_METHODS = "no_methods"
    BAD_SUBNEGOTIATION_VERSION = "bad_subnegotiation_version"
    BAD_REQUEST_VERSION = "bad_request_version"
    UNKNOWN_COMMAND = "unknown_command"
    RESERVED_NOT_ZERO = "reserved_not_zero"
    UNKNOWN_ADDRESS_TYPE = "unknown_address_type"
    EMPTY_NAME = "empty_name"
    PORT_ZERO = "port_zero"
    TRUNCATED = "truncated"
    TOO_MUCH_EARLY_DATA = "too_much_early_data"


def _failure(reply: Reply) -> bytes:
    # The one form of every failure: 10 bytes that tell nothing of our addresses (some servers echo the client's name).
    return bytes((SOCKS_VERSION, reply, 0, AddressType.IPV4)) + bytes(6)


_SILENCE = b""  # whoever speaks another protocol, or has gone, cannot read an answer of ours

ANSWERS: Mapping[Violation, bytes] = MappingProxyType(
    {
        # SOCKS4 has no password, so it stays shut; but its clients understand "rejected": version 0, code 91, zeros.
        Violation.SOCKS4: bytes((0x00, 0x5B)) + bytes(6),
        Violation.HTTP: _SILENCE,
        Violation.TLS: _SILENCE,
        Violation.NOT_SOCKS: _SILENCE,
        Violation.NO_METHODS: bytes((SOCKS_VERSION, Method.NO_ACCEPTABLE_METHODS)),
        Violation.BAD_SUBNEGOTIATION_VERSION: bytes((SUBNEGOTIATION_VERSION, AuthenticationStatus.FAILURE)),
        Violation.BAD_REQUEST_VERSION: _failure(Reply.GENERAL_SOCKS_SERVER_FAILURE),
        Violation.UNKNOWN_COMMAND: _failure(Reply.COMMAND_NOT_SUPPORTED),
        Violation.RESERVED_NOT_ZERO: _failure(Reply.GENERAL_SOCKS_SERVER_FAILURE),
        Violation.UNKNOWN_ADDRESS_TYPE: _failure(Reply.ADDRESS_TYPE_NOT_SUPPORTED),
        Violation.EMPTY_NAME: _failure(Reply.GENERAL_SOCKS_SERVER_FAILURE),
        Violation.PORT_ZERO: _failure(Reply.GENERAL_SOCKS_SERVER_FAILURE),
        Violation.TRUNCATED: _SILENCE,
        Violation.TOO_MUCH_EARLY_DATA: _SILENCE,
    }
)


class ProtocolError(Exception):
    """Somebody broke the protocol; the subclass says who."""


class LocalProtocolError(ProtocolError):
    """We asked for something that the state of the connection does not allow: a bug of ours."""


class RemoteProtocolError(ProtocolError):
    """The client broke the protocol: send `answer` (it may be empty), then close.

    Attributes:
        violation: which mistake it was.
        octet: the offending octet where there is one, so that a log can tell Tor's 0xF0 from noise.
    """

    def __init__(self, violation: Violation, octet: int | None = None) -> None:
        super().__init__(violation, octet)
        self.violation = violation
        self.octet = octet

    def __str__(self) -> str:
        detail = "" if self.octet is None else f" (0x{self.octet:02x})"
        return f"{self.violation.value}{detail}"

    @property
    def answer(self) -> bytes:
        """Exactly the bytes to send before closing."""
        return ANSWERS[self.violation]
