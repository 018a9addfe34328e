"""The smallest server: it feeds a connection piece by piece and notes what came of it."""

import itertools
from collections.abc import Iterable, Sequence

import attrs

from trioproxy.protocol import (
    NEED_DATA,
    AuthenticationReply,
    AuthenticationStatus,
    ClientMessage,
    Greeting,
    Method,
    MethodSelection,
    RemoteProtocolError,
    Request,
    ServerConnection,
    ServerMessage,
    State,
    UsernamePassword,
    Violation,
)

__all__ = ["LISTENING", "Outcome", "drive", "split"]

LISTENING = (State.GREETING, State.SUBNEGOTIATION, State.REQUEST)  # where the client has the word


@attrs.frozen
class Outcome:
    """What a connection made of a stream.

    Attributes:
        events: the client's messages in order.
        violation: what was wrong and the octet that showed it, or None.
        trailing_data: what belongs to no message.
        state: where it all ended.
    """

    events: tuple[ClientMessage, ...]
    violation: tuple[Violation, int | None] | None
    trailing_data: bytes
    state: State


def drive(pieces: Iterable[bytes]) -> Outcome:
    """Prefer the login, accept every login, and leave the request unanswered."""
    connection = ServerConnection()
    events: list[ClientMessage] = []
    violation = None
    try:
        for piece in pieces:
            connection.receive_data(piece)
            _answer(connection, events)
    except RemoteProtocolError as exc:
        violation = (exc.violation, exc.octet)
    return Outcome(tuple(events), violation, connection.trailing_data, connection.state)


def _answer(connection: ServerConnection, events: list[ClientMessage]) -> None:
    while connection.state in LISTENING:
        event = connection.next_event()
        if event is NEED_DATA:
            return
        events.append(event)
        if (answer := _answer_to(event)) is not None:
            connection.send(answer)


def _answer_to(event: ClientMessage) -> ServerMessage | None:
    match event:
        case Greeting():
            return MethodSelection(_preferred(event.methods))
        case UsernamePassword():
            return AuthenticationReply(AuthenticationStatus.SUCCESS)
        case Request():
            return None


def _preferred(offered: tuple[int, ...]) -> Method:
    for method in (Method.USERNAME_PASSWORD, Method.NO_AUTHENTICATION_REQUIRED):
        if method in offered:
            return method
    return Method.NO_ACCEPTABLE_METHODS


def split(octets: bytes, places: Sequence[int]) -> list[bytes]:
    """Cut the octets at these places; no piece is empty, since an empty one means the end."""
    edges = [0, *sorted({place for place in places if 0 < place < len(octets)}), len(octets)]
    return [octets[start:end] for start, end in itertools.pairwise(edges) if start < end]
