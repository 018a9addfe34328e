"""One connection, from the greeting to the relay or to the end."""

import re
from ipaddress import IPv4Address

import pytest

from tests.protocol.driver import LISTENING
from trioproxy.protocol import (
    EARLY_DATA_MAX,
    NEED_DATA,
    RECEIVED_MAX,
    TRANSITIONS,
    Address,
    AuthenticationReply,
    AuthenticationStatus,
    Command,
    Greeting,
    LocalProtocolError,
    Method,
    MethodSelection,
    RemoteProtocolError,
    Reply,
    ReplyMessage,
    Request,
    ServerConnection,
    ServerMessage,
    State,
    Step,
    UsernamePassword,
    Violation,
)

_TARGET = Address(IPv4Address("192.0.2.7"), 80)
_BOUND = Address(IPv4Address("198.51.100.1"), 49_152)
_GREETING = Greeting((0, 2))
_LOGIN = UsernamePassword(b"bob", b"secret")
_CONNECT = Request(Command.CONNECT, _TARGET)
_NO_AUTHENTICATION = MethodSelection(Method.NO_AUTHENTICATION_REQUIRED)
_USERNAME_PASSWORD = MethodSelection(Method.USERNAME_PASSWORD)
_NO_METHOD = MethodSelection(Method.NO_ACCEPTABLE_METHODS)
_ACCEPTED = AuthenticationReply(AuthenticationStatus.SUCCESS)
_REJECTED = AuthenticationReply(AuthenticationStatus.FAILURE)
_SUCCEEDED = ReplyMessage(Reply.SUCCEEDED, _BOUND)
_REFUSED = ReplyMessage(Reply.CONNECTION_NOT_ALLOWED_BY_RULESET)

# The shortest way to each state: octets of the client and messages of ours, in turn.
_WAY: dict[State, tuple[bytes | ServerMessage, ...]] = {
    State.GREETING: (),
    State.METHOD: (_GREETING.encode(),),
    State.SUBNEGOTIATION: (_GREETING.encode(), _USERNAME_PASSWORD),
    State.STATUS: (_GREETING.encode(), _USERNAME_PASSWORD, _LOGIN.encode()),
    State.REQUEST: (_GREETING.encode(), _NO_AUTHENTICATION),
    State.REPLY: (_GREETING.encode(), _NO_AUTHENTICATION, _CONNECT.encode()),
    State.SECOND_REPLY: (_GREETING.encode(), _NO_AUTHENTICATION, Request(Command.BIND, _TARGET).encode(), _SUCCEEDED),
    State.OPEN: (_GREETING.encode(), _NO_AUTHENTICATION, _CONNECT.encode(), _SUCCEEDED),
    State.CLOSED: (_GREETING.encode(), _NO_METHOD),
}


def _connection_in(state: State) -> ServerConnection:
    connection = ServerConnection()
    for said in _WAY[state]:
        if isinstance(said, bytes):
            connection.receive_data(said)
            assert connection.next_event() is not NEED_DATA
        else:
            connection.send(said)
    assert connection.state is state
    return connection


def test_login_and_connect() -> None:
    """RFC 1928 sections 3 to 6, RFC 1929: the whole story of a client with a login."""
    connection = ServerConnection()
    assert connection.next_event() is NEED_DATA
    connection.receive_data(_GREETING.encode())
    assert connection.next_event() == _GREETING
    assert connection.send(_USERNAME_PASSWORD) == b"\x05\x02"
    assert connection.next_event() is NEED_DATA
    connection.receive_data(_LOGIN.encode())
    assert connection.next_event() == _LOGIN
    assert connection.send(_ACCEPTED) == b"\x01\x00"
    connection.receive_data(_CONNECT.encode())
    assert connection.next_event() == _CONNECT
    assert connection.send(_SUCCEEDED) == b"\x05\x00\x00\x01\xc6\x33\x64\x01\xc0\x00"
    assert connection.state is State.OPEN


def test_bind_replies_twice() -> None:
    """RFC 1928 section 4: BIND is open after its second success reply only."""
    connection = _connection_in(State.REQUEST)
    connection.receive_data(Request(Command.BIND, _TARGET).encode() + b"early")
    connection.next_event()
    states = []
    for address in (_BOUND, _TARGET):
        with pytest.raises(LocalProtocolError):
            connection.take_trailing_data()
        connection.send(ReplyMessage(Reply.SUCCEEDED, address))
        states.append(connection.state)
    assert states == [State.SECOND_REPLY, State.OPEN]
    assert connection.take_trailing_data() == b"early"


@pytest.mark.parametrize("state", [State.REPLY, State.SECOND_REPLY])
def test_failure_closes(state: State) -> None:
    """RFC 1928 section 6: a failure reply, to BIND also the second one, ends the connection."""
    connection = _connection_in(state)
    assert connection.send(_REFUSED) == b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"
    assert connection.state is State.CLOSED


def test_udp_associate_is_open_after_one_reply() -> None:
    """RFC 1928 section 7: UDP ASSOCIATE has one reply."""
    connection = _connection_in(State.REQUEST)
    connection.receive_data(Request(Command.UDP_ASSOCIATE, Address.ZERO).encode())
    connection.next_event()
    connection.send(_SUCCEEDED)
    assert connection.state is State.OPEN


def test_rejected_login_closes() -> None:
    """Case 29: behind a wrong login nothing is read, though the request is there already."""
    connection = _connection_in(State.SUBNEGOTIATION)
    connection.receive_data(_LOGIN.encode() + _CONNECT.encode())
    connection.next_event()
    assert connection.send(_REJECTED) == b"\x01\x01"
    assert connection.state is State.CLOSED
    assert connection.trailing_data == b""
    with pytest.raises(LocalProtocolError):
        connection.next_event()


def test_no_method_closes() -> None:
    """Case 31: behind `05 FF` nothing is read, though the request is there already."""
    connection = ServerConnection()
    connection.receive_data(_GREETING.encode() + _CONNECT.encode())
    connection.next_event()
    assert connection.send(_NO_METHOD) == b"\x05\xff"
    with pytest.raises(LocalProtocolError):
        connection.next_event()
    assert connection.trailing_data == b""


@pytest.mark.parametrize(
    ("offered", "method", "problem"),
    [
        ((0x80,), Method.NO_AUTHENTICATION_REQUIRED, "did not offer"),
        ((0,), Method.USERNAME_PASSWORD, "did not offer"),
        ((0, 1, 2), Method.GSSAPI, "not spoken here"),
    ],
)
def test_method_that_cannot_be_chosen(offered: tuple[int, ...], method: Method, problem: str) -> None:
    """RFC 1928 section 3, case 18: only an offered method that we speak can be chosen, and FF remains possible."""
    connection = ServerConnection()
    connection.receive_data(Greeting(offered).encode())
    connection.next_event()
    with pytest.raises(LocalProtocolError, match=problem):
        connection.send(MethodSelection(method))
    assert connection.state is State.METHOD
    assert connection.send(_NO_METHOD) == b"\x05\xff"


def test_request_instead_of_login() -> None:
    """Case 15: a request where the login belongs is a login of a bad version."""
    connection = _connection_in(State.SUBNEGOTIATION)
    connection.receive_data(_CONNECT.encode())
    with pytest.raises(RemoteProtocolError) as caught:
        connection.next_event()
    assert (caught.value.violation, caught.value.answer) == (Violation.BAD_SUBNEGOTIATION_VERSION, b"\x01\x01")


def test_everything_pipelined() -> None:
    """Case 9: greeting, login, request and 60 KiB in one piece; the early data is whole and comes after success."""
    early_data = bytes(range(256)) * 240
    connection = ServerConnection()
    connection.receive_data(_GREETING.encode() + _LOGIN.encode() + _CONNECT.encode() + early_data)
    assert connection.next_event() == _GREETING
    connection.send(_USERNAME_PASSWORD)
    assert connection.next_event() == _LOGIN
    connection.send(_ACCEPTED)
    assert connection.next_event() == _CONNECT
    assert early_data == connection.trailing_data
    with pytest.raises(LocalProtocolError):
        connection.take_trailing_data()
    connection.send(_SUCCEEDED)
    assert early_data == connection.take_trailing_data()
    assert connection.take_trailing_data() == b""


def test_early_data_of_a_refused_request_is_discarded() -> None:
    """CASES 1.8: early data is delivered after success only, and what follows a refusal is forgotten too."""
    connection = _connection_in(State.REPLY)
    connection.receive_data(b"early")
    connection.send(_REFUSED)
    connection.receive_data(b"late")
    assert connection.trailing_data == b""
    with pytest.raises(LocalProtocolError):
        connection.take_trailing_data()


def test_early_data_arrives_until_it_is_taken() -> None:
    """CASES 1.8: what arrives while the reply is on its way belongs to the relay as well."""
    connection = _connection_in(State.OPEN)
    connection.receive_data(b"late")
    assert connection.take_trailing_data() == b"late"


@pytest.mark.parametrize("state", [State.REPLY, State.SECOND_REPLY, State.OPEN])
def test_end_behind_the_request(state: State) -> None:
    """CASES 1.9, half-close: a client may end its side behind the request; that is remembered and no error."""
    connection = _connection_in(state)
    ends = []
    for data in (b"GET /", b"", b""):
        connection.receive_data(data)
        ends.append(connection.client_eof)
    assert ends == [False, True, True]
    assert connection.trailing_data == b"GET /"
    assert connection.state is state


@pytest.mark.parametrize("state", LISTENING)
@pytest.mark.parametrize("beginning", [b"", b"\x05", b"\x05\x01"])
def test_end_inside_a_message(state: State, beginning: bytes) -> None:
    """Case 17: the end of the stream inside a message, or where one is awaited, has no answer."""
    connection = _connection_in(state)
    connection.receive_data(beginning.replace(b"\x05", b"\x01") if state is State.SUBNEGOTIATION else beginning)
    connection.receive_data(b"")
    with pytest.raises(RemoteProtocolError) as caught:
        connection.next_event()
    assert (caught.value.violation, caught.value.answer) == (Violation.TRUNCATED, b"")


def test_end_behind_a_whole_message() -> None:
    """Case 17: what was complete before the end is still told."""
    connection = ServerConnection()
    connection.receive_data(_GREETING.encode())
    connection.receive_data(b"")
    assert connection.next_event() == _GREETING
    connection.send(_NO_AUTHENTICATION)
    with pytest.raises(RemoteProtocolError, match="truncated"):
        connection.next_event()


def test_data_behind_the_end() -> None:
    """A stream that goes on behind its end is a bug of ours."""
    connection = ServerConnection()
    connection.receive_data(b"")
    with pytest.raises(LocalProtocolError, match="end of stream"):
        connection.receive_data(b"\x05")


def test_room_is_what_may_still_come() -> None:
    """Case 12: a connection takes 64 KiB of early data behind the longest messages, and says how much is left."""
    connection = ServerConnection()
    assert connection.room == RECEIVED_MAX == 257 + 513 + 262 + 65_536
    assert EARLY_DATA_MAX == 65_536
    connection.receive_data(Greeting((2,) * 255).encode())
    connection.next_event()
    connection.send(_USERNAME_PASSWORD)
    connection.receive_data(UsernamePassword(b"u" * 255, b"p" * 255).encode())
    connection.next_event()
    connection.send(_ACCEPTED)
    connection.receive_data(Request(Command.CONNECT, Address(b"n" * 255, 80)).encode())
    connection.next_event()
    assert connection.room == EARLY_DATA_MAX
    connection.receive_data(bytes(EARLY_DATA_MAX))
    assert connection.room == 0
    connection.receive_data(b"")  # the end of the stream needs no room
    assert len(connection.trailing_data) == EARLY_DATA_MAX


@pytest.mark.parametrize("state", [state for state in State if state is not State.CLOSED])
def test_more_than_room(state: State) -> None:
    """Case 12: in every state one octet too many ends the connection, and nothing of it is kept."""
    connection = _connection_in(state)
    with pytest.raises(RemoteProtocolError) as caught:
        connection.receive_data(bytes(connection.room + 1))
    assert (caught.value.violation, caught.value.answer) == (Violation.TOO_MUCH_EARLY_DATA, b"")
    assert connection.state is State.CLOSED
    assert connection.trailing_data == b""


def test_broken_stays_broken() -> None:
    """P1.c: after a mistake every call tells the same mistake, and the state leaks nothing."""
    connection = _connection_in(State.REQUEST)
    connection.receive_data(b"\x05\xf0")
    for _ in range(2):
        with pytest.raises(RemoteProtocolError) as caught:
            connection.next_event()
        assert (caught.value.violation, caught.value.octet) == (Violation.UNKNOWN_COMMAND, 0xF0)
    for data in (b"\x05\x01", b""):
        with pytest.raises(RemoteProtocolError) as caught:
            connection.receive_data(data)
        assert (caught.value.violation, caught.value.octet) == (Violation.UNKNOWN_COMMAND, 0xF0)
    assert connection.state is State.CLOSED
    assert connection.trailing_data == b""
    assert not connection.client_eof


def test_tolerated_reserved() -> None:
    """CASES 1.9: the knob for RSV reaches the request."""
    wire = b"\x05\x01\x07" + _TARGET.encode()
    for tolerate in (True, False):
        connection = ServerConnection(tolerate_reserved=tolerate)
        connection.receive_data(_GREETING.encode() + wire)
        connection.next_event()
        connection.send(_NO_AUTHENTICATION)
        if tolerate:
            assert connection.next_event() == _CONNECT
        else:
            with pytest.raises(RemoteProtocolError, match="reserved_not_zero"):
                connection.next_event()


@pytest.mark.parametrize("state", [state for state in State if state not in LISTENING])
def test_no_event_when_it_is_our_turn(state: State) -> None:
    """Law 3: in these states no octet of the client is read as a message, whatever has arrived."""
    connection = _connection_in(state)
    connection.receive_data(_CONNECT.encode())
    with pytest.raises(LocalProtocolError, match=re.escape(str(state))):
        connection.next_event()


_MESSAGES: dict[ServerMessage, set[State]] = {
    _NO_AUTHENTICATION: {State.METHOD},
    _USERNAME_PASSWORD: {State.METHOD},
    _NO_METHOD: {State.METHOD},
    _ACCEPTED: {State.STATUS},
    _REJECTED: {State.STATUS},
    _SUCCEEDED: {State.REPLY, State.SECOND_REPLY},
    _REFUSED: {State.REPLY, State.SECOND_REPLY},
}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("message", list(_MESSAGES))
def test_what_may_be_sent(state: State, message: ServerMessage) -> None:
    """Law 3: each message of ours has its states; in any other it is an error of ours that changes nothing."""
    connection = _connection_in(state)
    if state in _MESSAGES[message]:
        assert message.encode() == connection.send(message)
        assert connection.state is not state
    else:
        with pytest.raises(LocalProtocolError):
            connection.send(message)
        assert connection.state is state


def test_table_has_no_way_around_the_login() -> None:
    """Law 3: in the table a request is reached by method 00 or by an accepted login, and nothing leaves CLOSED."""
    ways = {(state, step) for (state, step), target in TRANSITIONS.items() if target is State.REQUEST}
    assert ways == {(State.METHOD, Step.CHOSE_NO_AUTHENTICATION), (State.STATUS, Step.ACCEPTED)}
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.CLOSED}
    assert set(TRANSITIONS.values()) == set(State) - {State.GREETING}
    assert {step for _, step in TRANSITIONS} == set(Step)
