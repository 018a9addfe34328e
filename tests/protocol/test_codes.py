"""The numbers on the wire."""

import enum

import pytest

from trioproxy.protocol import (
    SOCKS_VERSION,
    SUBNEGOTIATION_VERSION,
    AddressType,
    AuthenticationStatus,
    Command,
    Method,
    Reply,
)


@pytest.mark.parametrize(
    ("field", "numbers"),
    [
        (Method, {"NO_AUTHENTICATION_REQUIRED": 0, "GSSAPI": 1, "USERNAME_PASSWORD": 2, "NO_ACCEPTABLE_METHODS": 0xFF}),
        (AuthenticationStatus, {"SUCCESS": 0, "FAILURE": 1}),
        (Command, {"CONNECT": 1, "BIND": 2, "UDP_ASSOCIATE": 3}),
        (AddressType, {"IPV4": 1, "DOMAINNAME": 3, "IPV6": 4}),
        (
            Reply,
            {
                "SUCCEEDED": 0,
                "GENERAL_SOCKS_SERVER_FAILURE": 1,
                "CONNECTION_NOT_ALLOWED_BY_RULESET": 2,
                "NETWORK_UNREACHABLE": 3,
                "HOST_UNREACHABLE": 4,
                "CONNECTION_REFUSED": 5,
                "TTL_EXPIRED": 6,
                "COMMAND_NOT_SUPPORTED": 7,
                "ADDRESS_TYPE_NOT_SUPPORTED": 8,
            },
        ),
    ],
)
def test_numbers(field: type[enum.IntEnum], numbers: dict[str, int]) -> None:
    """RFC 1928 sections 3 to 6, RFC 1929 section 2: each field has exactly these values."""
    assert numbers == {member.name: member.value for member in field}


def test_versions() -> None:
    """RFC 1928 section 3 and RFC 1929 section 2: the sub-negotiation counts its own versions."""
    assert (SOCKS_VERSION, SUBNEGOTIATION_VERSION) == (5, 1)
