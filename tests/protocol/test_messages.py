"""The six messages, one by one."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.strategies import addresses, greetings, logins, requests
from trioproxy.protocol import (
    Address,
    AuthenticationReply,
    AuthenticationStatus,
    ClientMessage,
    Command,
    Greeting,
    Method,
    MethodSelection,
    RemoteProtocolError,
    Reply,
    ReplyMessage,
    Request,
    ServerMessage,
    UsernamePassword,
    Violation,
)
from trioproxy.protocol.messages import GREETING_LENGTH_MAX, REQUEST_LENGTH_MAX, USERNAME_PASSWORD_LENGTH_MAX

_TARGET = Address(IPv4Address("192.0.2.7"), 80)


@pytest.mark.parametrize(
    ("message", "octets"),
    [
        (Greeting((0, 1, 2)), "05 03 00 01 02"),
        (Greeting((0x80, 2, 2)), "05 03 80 02 02"),
        (UsernamePassword(b"bob", b"pw"), "01 03 62 6f 62 02 70 77"),
        (UsernamePassword(b"", b""), "01 00 00"),
        (UsernamePassword("bj\u00f6rn".encode(), b"p\xe4\xdf"), "01 06 62 6a c3 b6 72 6e 03 70 e4 df"),
        (Request(Command.CONNECT, _TARGET), "05 01 00 01 c0 00 02 07 00 50"),
        (Request(Command.BIND, Address.ZERO), "05 02 00 01 00 00 00 00 00 00"),
        (Request(Command.UDP_ASSOCIATE, Address(b"a", 0)), "05 03 00 03 01 61 00 00"),
    ],
)
def test_client_message(message: ClientMessage, octets: str) -> None:
    """Case 1: each message of a client is these octets, and these octets are the message."""
    wire = bytes.fromhex(octets)
    assert wire == message.encode()
    assert (message, len(wire)) == type(message).decode_untrusted(wire + b"rest")


@pytest.mark.parametrize(
    ("message", "octets"),
    [
        (MethodSelection(Method.NO_AUTHENTICATION_REQUIRED), "05 00"),
        (MethodSelection(Method.USERNAME_PASSWORD), "05 02"),
        (MethodSelection(Method.NO_ACCEPTABLE_METHODS), "05 ff"),
        (AuthenticationReply(AuthenticationStatus.SUCCESS), "01 00"),
        (AuthenticationReply(AuthenticationStatus.FAILURE), "01 01"),
        (ReplyMessage(Reply.SUCCEEDED, _TARGET), "05 00 00 01 c0 00 02 07 00 50"),
        (ReplyMessage(Reply.SUCCEEDED), "05 00 00 01 00 00 00 00 00 00"),
    ],
)
def test_server_message(message: ServerMessage, octets: str) -> None:
    """RFC 1928 sections 3 and 6, RFC 1929 section 2: each message of ours is these octets."""
    assert bytes.fromhex(octets) == message.encode()


@pytest.mark.parametrize("reply", [reply for reply in Reply if reply is not Reply.SUCCEEDED])
def test_failure_is_ten_octets(reply: Reply) -> None:
    """Case 20: a failure says its code and nothing else."""
    assert bytes((5, reply, 0, 1, 0, 0, 0, 0, 0, 0)) == ReplyMessage(reply).encode()


def test_failure_with_an_address_cannot_be_made() -> None:
    """CASES 1.9: a failure never tells an address of the network behind us."""
    with pytest.raises(ValueError, match="carries no address"):
        ReplyMessage(Reply.HOST_UNREACHABLE, _TARGET)


@given(st.one_of(greetings, logins, requests), st.binary(max_size=300))
def test_round_trip(message: ClientMessage, behind: bytes) -> None:
    """P1.b, P1.d: a legal message decodes to itself and leaves exactly what stands behind it."""
    octets = message.encode()
    assert (message, len(octets)) == type(message).decode_untrusted(octets + behind)


@given(st.one_of(greetings, logins, requests))
def test_every_beginning_needs_more(message: ClientMessage) -> None:
    """Case 8, P1.f: no beginning of a legal message is an error or a message."""
    octets = message.encode()
    assert [None] * len(octets) == [type(message).decode_untrusted(octets[:end]) for end in range(len(octets))]


@given(addresses)
def test_success_carries_the_address(address: Address) -> None:
    """RFC 1928 section 6: a success is VER, REP, RSV and the bound address."""
    assert b"\x05\x00\x00" + address.encode() == ReplyMessage(Reply.SUCCEEDED, address).encode()


@pytest.mark.parametrize(
    ("message", "length", "longest"),
    [
        (Greeting(tuple(range(255))), 257, GREETING_LENGTH_MAX),
        (UsernamePassword(b"u" * 255, b"p" * 255), 513, USERNAME_PASSWORD_LENGTH_MAX),
        (Request(Command.CONNECT, Address(b"n" * 255, 80)), 262, REQUEST_LENGTH_MAX),
    ],
)
def test_longest(message: ClientMessage, length: int, longest: int) -> None:
    """Case 2: the longest legal message of each kind is read whole."""
    octets = message.encode()
    assert len(octets) == length == longest
    assert (message, length) == type(message).decode_untrusted(octets)


@pytest.mark.parametrize(
    ("first", "violation"),
    [
        (b"\x04", Violation.SOCKS4),
        (b"\x16", Violation.TLS),
        *((bytes((initial,)), Violation.HTTP) for initial in b"CDGHOPT"),
        (b"\x00", Violation.NOT_SOCKS),
        (b"\x06", Violation.NOT_SOCKS),
        (b"S", Violation.NOT_SOCKS),  # SSH-2.0-...
        (b"\xff", Violation.NOT_SOCKS),
    ],
)
def test_other_protocols(first: bytes, violation: Violation) -> None:
    """Case 4: whatever is not SOCKS5 is known by its first octet and counted by kind."""
    with pytest.raises(RemoteProtocolError) as caught:
        Greeting.decode_untrusted(first)
    assert (violation, first[0]) == (caught.value.violation, caught.value.octet)


def test_no_methods() -> None:
    """Case 3: a greeting that offers nothing is told at NMETHODS."""
    with pytest.raises(RemoteProtocolError) as caught:
        Greeting.decode_untrusted(b"\x05\x00")
    assert caught.value.violation is Violation.NO_METHODS


@pytest.mark.parametrize("version", [0, 2, 5, 255])
def test_subnegotiation_version(version: int) -> None:
    """Case 5: a login of any version but 1 is told at its first octet."""
    with pytest.raises(RemoteProtocolError) as caught:
        UsernamePassword.decode_untrusted(bytes((version,)))
    assert (Violation.BAD_SUBNEGOTIATION_VERSION, version) == (caught.value.violation, caught.value.octet)


@pytest.mark.parametrize(
    ("octets", "violation"),
    [
        *((f"{version:02x}", Violation.BAD_REQUEST_VERSION) for version in (0, 1, 4, 255)),
        *((f"05 {command:02x}", Violation.UNKNOWN_COMMAND) for command in (0, 4, 9, 0xF0, 0xFF)),
        *((f"05 03 {reserved:02x}", Violation.RESERVED_NOT_ZERO) for reserved in (1, 5, 255)),
        *((f"05 01 00 {kind:02x}", Violation.UNKNOWN_ADDRESS_TYPE) for kind in (0, 2, 5, 255)),
        ("05 02 00 03 00", Violation.EMPTY_NAME),
    ],
)
def test_bad_request(octets: str, violation: Violation) -> None:
    """Case 6 and 7: a wrong octet of a request is told as soon as it is there, and not before."""
    wire = bytes.fromhex(octets)
    assert Request.decode_untrusted(wire[:-1]) is None
    with pytest.raises(RemoteProtocolError) as caught:
        Request.decode_untrusted(wire)
    assert (violation, wire[-1]) == (caught.value.violation, caught.value.octet)


def test_first_mistake_counts() -> None:
    """P1.g: of several mistakes in a request the first in the order of the stream is told."""
    violations = []
    for octets in (b"\x04\x09\x01\x02", b"\x05\x09\x01\x02", b"\x05\x01\x01\x02", b"\x05\x01\x00\x02"):
        with pytest.raises(RemoteProtocolError) as caught:
            Request.decode_untrusted(octets)
        violations.append(caught.value.violation)
    expected = ["BAD_REQUEST_VERSION", "UNKNOWN_COMMAND", "RESERVED_NOT_ZERO", "UNKNOWN_ADDRESS_TYPE"]
    assert expected == [violation.name for violation in violations]


def test_connect_to_port_zero() -> None:
    """CASES 1.9: nobody can connect to port 0, but BIND and UDP ASSOCIATE may not know their port yet."""
    with pytest.raises(RemoteProtocolError) as caught:
        Request.decode_untrusted(b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00")
    assert caught.value.violation is Violation.PORT_ZERO
    for command in (Command.BIND, Command.UDP_ASSOCIATE):
        request = Request(command, Address(IPv4Address("127.0.0.1"), 0))
        assert (request, 10) == Request.decode_untrusted(request.encode())


@pytest.mark.parametrize("port", [1, 256])
def test_connect_to_a_port_with_one_zero_octet(port: int) -> None:
    """RFC 1928 section 4: only both octets zero make port 0."""
    request = Request(Command.CONNECT, Address(IPv4Address("192.0.2.7"), port))
    assert (request, 10) == Request.decode_untrusted(request.encode())


def test_tolerated_reserved() -> None:
    """CASES 1.9: the knob reads over RSV, and over nothing else."""
    wire = b"\x05\x01\x07" + _TARGET.encode()
    assert (Request(Command.CONNECT, _TARGET), 10) == Request.decode_untrusted(wire, tolerate_reserved=True)
    with pytest.raises(RemoteProtocolError):
        Request.decode_untrusted(b"\x05\x09\x07", tolerate_reserved=True)


def test_password_does_not_print() -> None:
    """Case 36: no representation of a login shows the password."""
    login = UsernamePassword(b"bob", b"canary-7f3a")
    assert "bob" in repr(login)
    assert "canary" not in f"{login!r} {login}"


@pytest.mark.parametrize("methods", [(), (0,) * 256])
def test_impossible_greeting(methods: tuple[int, ...]) -> None:
    """RFC 1928 section 3: a greeting has 1 to 255 methods."""
    with pytest.raises(ValueError, match="methods"):
        Greeting(methods)


@pytest.mark.parametrize(("username", "password"), [(bytes(256), b""), (b"", bytes(256))])
def test_impossible_login(username: bytes, password: bytes) -> None:
    """RFC 1929 section 2: both parts are counted by one octet."""
    with pytest.raises(ValueError, match=r"username|password"):
        UsernamePassword(username, password)
