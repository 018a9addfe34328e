"""Properties of the parser for all streams: P1 a to g of the catalogue."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.driver import LISTENING, drive, split
from tests.protocol.oracle import Outlook, lengths, outlook
from tests.protocol.strategies import ClientStream, client_streams, cuts, damaged, greetings, logins, requests
from trioproxy.protocol import (
    EARLY_DATA_MAX,
    NEED_DATA,
    RECEIVED_MAX,
    Greeting,
    Method,
    MethodSelection,
    RemoteProtocolError,
    ServerConnection,
    State,
    Violation,
)

_streams = damaged(client_streams().map(ClientStream.encode)) | st.binary(max_size=40)


def _connection_in(state: State) -> ServerConnection:
    """A connection in which the client has the word."""
    connection = ServerConnection()
    if state is State.GREETING:
        return connection
    method = Method.USERNAME_PASSWORD if state is State.SUBNEGOTIATION else Method.NO_AUTHENTICATION_REQUIRED
    connection.receive_data(Greeting((method,)).encode())
    connection.next_event()
    connection.send(MethodSelection(method))
    return connection


_beginnings = st.one_of(
    st.tuples(st.just(State.GREETING), damaged(greetings.map(Greeting.encode))),
    st.tuples(st.just(State.SUBNEGOTIATION), damaged(logins.map(lambda login: login.encode()))),
    st.tuples(st.just(State.REQUEST), damaged(requests.map(lambda request: request.encode()))),
    st.tuples(st.sampled_from(LISTENING), st.binary(max_size=12)),
)


@given(_streams, cuts, st.booleans())
def test_any_split_gives_the_same(stream: bytes, places: list[int], ended: bool) -> None:
    """P1.a, case 8: however the network cuts a stream, the same messages, mistakes and leavings come out."""
    end = [b""] if ended else []
    whole = drive([*split(stream, []), *end])
    assert whole == drive([*split(stream, places), *end])
    assert whole == drive([*split(stream, range(len(stream))), *end])


@given(client_streams(), cuts)
def test_nothing_is_lost_or_added(stream: ClientStream, places: list[int]) -> None:
    """P1.b, P1.d, case 1: a stream without fault gives its messages, and exactly the early data is left."""
    outcome = drive(split(stream.encode(), places))
    assert stream.messages == outcome.events
    assert stream.early_data == outcome.trailing_data
    assert (outcome.violation, outcome.state) == (None, State.REPLY)


@given(_streams, st.booleans())
def test_the_same_as_the_oracle(stream: bytes, ended: bool) -> None:
    """P1.d, P1.f: of any stream the messages, what is left and whether it is wrong are what the oracle says."""
    read, end = lengths(stream)
    outcome = drive([*split(stream, []), *([b""] if ended else [])])
    assert read == [len(event.encode()) for event in outcome.events]
    wrong = end is Outlook.ILLEGAL or (end is Outlook.INCOMPLETE and ended)
    assert wrong == (outcome.violation is not None)
    assert outcome.trailing_data == (b"" if outcome.state is State.CLOSED else stream[sum(read) :])


@given(_streams)
def test_what_was_read_is_what_was_sent(stream: bytes) -> None:
    """P1.b: the messages that were accepted, written again, are the octets that were consumed."""
    outcome = drive(split(stream, []))
    if outcome.violation is None and outcome.state is not State.CLOSED:
        written = b"".join(event.encode() for event in outcome.events)
        assert stream == written + outcome.trailing_data


@given(_streams, st.binary(max_size=20))
def test_a_mistake_stays(stream: bytes, more: bytes) -> None:
    """P1.c, P1.g: once a beginning is wrong, every continuation is wrong in the same way."""
    broken = drive(split(stream, []))
    if broken.violation is not None:
        assert broken == drive(split(stream + more, []))
        assert broken == drive([*split(stream, []), *split(more, [])])
        assert (broken.state, broken.trailing_data) == (State.CLOSED, b"")


@given(_beginnings)
def test_told_as_early_as_possible(beginning: tuple[State, bytes]) -> None:
    """P1.f: more data is asked for exactly while some continuation is legal (oracle: regular expressions)."""
    state, octets = beginning
    connection = _connection_in(state)
    if octets:
        connection.receive_data(octets)
    expected = outlook(state, octets)
    if expected is Outlook.ILLEGAL:
        with pytest.raises(RemoteProtocolError):
            connection.next_event()
    elif expected is Outlook.INCOMPLETE:
        assert connection.next_event() is NEED_DATA
        assert octets == connection.trailing_data
        assert connection.room >= EARLY_DATA_MAX
    else:
        assert connection.next_event() is not NEED_DATA
        assert octets[expected:] == connection.trailing_data


@given(client_streams(), st.data())
def test_the_end_is_a_mistake_inside_the_handshake_only(stream: ClientStream, data: st.DataObject) -> None:
    """Case 17: a stream cut short is truncated; ended behind its request it is not."""
    octets = stream.encode()
    handshake = len(octets) - len(stream.early_data)
    length = data.draw(st.integers(0, len(octets)))
    outcome = drive([*split(octets[:length], []), b""])
    assert outcome.violation == ((Violation.TRUNCATED, None) if length < handshake else None)


@given(_streams, cuts, st.integers(0, 200))
def test_too_much_is_too_much_however_it_is_cut(stream: bytes, places: list[int], over: int) -> None:
    """P1.a, case 12: no way of cutting lets more than RECEIVED_MAX octets in."""
    flood = stream + bytes(RECEIVED_MAX - len(stream) + 1 + over)
    assert drive([flood]).violation == (Violation.TOO_MUCH_EARLY_DATA, None)
    outcome = drive(split(flood, places))
    assert outcome.violation is not None or outcome.state is State.CLOSED
    assert outcome.trailing_data == b""


class _CountingBuffer(bytearray):
    """A buffer that counts the octets which are looked at."""

    looked_at = 0

    def __getitem__(self, key: object) -> object:  # type: ignore[override]
        found = super().__getitem__(key)  # type: ignore[call-overload]
        self.looked_at += len(found) if isinstance(found, bytearray) else 1
        return found


@pytest.mark.parametrize("state", LISTENING)
def test_octet_by_octet_is_linear(state: State) -> None:
    """P1.e: feeding the longest message octet by octet looks at no more than a few octets for each that arrives."""
    octets = {
        State.GREETING: Greeting(tuple(range(255))).encode(),
        State.SUBNEGOTIATION: b"\x01\xff" + bytes(255) + b"\xff" + bytes(255),
        State.REQUEST: b"\x05\x01\x00\x03\xff" + bytes(255) + b"\x00\x50",
    }[state]
    connection = _connection_in(state)
    connection._buffer = buffer = _CountingBuffer()
    for place in range(len(octets)):
        assert connection.next_event() is NEED_DATA
        connection.receive_data(octets[place : place + 1])
        assert len(buffer) <= 513
    assert connection.next_event() is not NEED_DATA
    assert buffer.looked_at <= 12 * len(octets)


def test_random_octets_never_surprise() -> None:
    """Case 11: random octets raise nothing but RemoteProtocolError (the fuzz target tries millions of them)."""
    source = random.Random(1928)
    violations = {drive([b"\x05" * source.randrange(2) + source.randbytes(9)]).violation for _ in range(5_000)}
    assert {violation[0] for violation in violations if violation} >= {
        Violation.SOCKS4,
        Violation.HTTP,
        Violation.TLS,
        Violation.NOT_SOCKS,
        Violation.NO_METHODS,
    }
