"""The numbers of RFC 1928 and RFC 1929, one enum for each wire field so that a Method is never sent as a Reply."""

import enum

__all__ = [
    "SOCKS_VERSION",
    "SUBNEGOTIATION_VERSION",
    "AddressType",
    "AuthenticationStatus",
    "Command",
    "Method",
    "Reply",
]

SOCKS_VERSION = 5  # RFC 1928 section 3
SUBNEGOTIATION_VERSION = 1  # RFC 1929 section 2: the version of the sub-negotiation, not of SOCKS


class Method(enum.IntEnum):
    """METHOD of the greeting and its answer (RFC 1928 section 3)."""

    NO_AUTHENTICATION_REQUIRED = 0x00
    GSSAPI = 0x01
    USERNAME_PASSWORD = 0x02
    NO_ACCEPTABLE_METHODS = 0xFF


class AuthenticationStatus(enum.IntEnum):
    """STATUS of the username/password answer (RFC 1929 section 2: anything but 0 is a failure)."""

    SUCCESS = 0x00
    FAILURE = 0x01


class Command(enum.IntEnum):
    """CMD of the request (RFC 1928 section 4)."""

    CONNECT = 0x01
    BIND = 0x02
    UDP_ASSOCIATE = 0x03


class AddressType(enum.IntEnum):
    """ATYP of requests, replies and datagrams (RFC 1928 section 5)."""

    IPV4 = 0x01
    DOMAINNAME = 0x03
    IPV6 = 0x04


class Reply(enum.IntEnum):
    """REP of the reply (RFC 1928 section 6)."""

    SUCCEEDED = 0x00
    GENERAL_SOCKS_SERVER_FAILURE = 0x01
    CONNECTION_NOT_ALLOWED_BY_RULESET = 0x02
    NETWORK_UNREACHABLE = 0x03
    HOST_UNREACHABLE = 0x04
    CONNECTION_REFUSED = 0x05
    TTL_EXPIRED = 0x06
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_TYPE_NOT_SUPPORTED = 0x08
