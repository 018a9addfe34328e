"""The server's side of one SOCKS5 connection, without any input or output.

Feed what the client sent to `receive_data`, ask `next_event` what it means, and write what `send` returns. The order of
RFC 1928 is the table `TRANSITIONS`: a request cannot be read before a method was agreed on and the login accepted.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias, assert_never

from trioproxy.protocol.codes import AuthenticationStatus, Command, Method, Reply
from trioproxy.protocol.errors import LocalProtocolError, RemoteProtocolError, Violation
from trioproxy.protocol.messages import (
    GREETING_LENGTH_MAX,
    REQUEST_LENGTH_MAX,
    USERNAME_PASSWORD_LENGTH_MAX,
    AuthenticationReply,
    Greeting,
    MethodSelection,
    ReplyMessage,
    Request,
    UsernamePassword,
)

__all__ = [
    "EARLY_DATA_MAX",
    "NEED_DATA",
    "RECEIVED_MAX",
    "TRANSITIONS",
    "ClientMessage",
    "NeedData",
    "ServerConnection",
    "ServerMessage",
    "State",
    "Step",
]

ClientMessage: TypeAlias = Greeting | UsernamePassword | Request
ServerMessage: TypeAlias = MethodSelection | AuthenticationReply | ReplyMessage

EARLY_DATA_MAX = 65_536  # octets that a client may send ahead of our success reply; OpenSSH and Tor clients do so
# Octets of one client before the relay takes over. All of them are counted, not only those that wait in the buffer, so
# that how the network cut the stream never decides what is accepted.
RECEIVED_MAX = GREETING_LENGTH_MAX + USERNAME_PASSWORD_LENGTH_MAX + REQUEST_LENGTH_MAX + EARLY_DATA_MAX


class NeedData(enum.Enum):
    """The type of `NEED_DATA`."""

    NEED_DATA = enum.auto()


NEED_DATA: Final = NeedData.NEED_DATA


class State(enum.Enum):
    """Who is expected to say what next."""

    GREETING = "the client's greeting"
    METHOD = "our choice of method"
    SUBNEGOTIATION = "the client's login"
    STATUS = "our answer to the login"
    REQUEST = "the client's request"
    REPLY = "our reply"
    SECOND_REPLY = "our second reply to BIND"
    OPEN = "the relay"
    CLOSED = "nothing: close the connection"

    __hash__ = object.__hash__  # there is one of each; Enum's own is Python code, and the table is asked ten times


class Step(enum.Enum):
    """What leads from one state to the next."""

    GREETED = "greeting received"
    CHOSE_NO_AUTHENTICATION = "method 00 sent"
    CHOSE_USERNAME_PASSWORD = "method 02 sent"  # noqa: S105 - the name of a step
    CHOSE_NOTHING = "method FF sent"
    LOGGED_IN = "login received"
    ACCEPTED = "status 00 sent"
    REJECTED = "status 01 sent"
    REQUESTED = "request received"
    BIND_LISTENING = "first success reply to BIND sent"
    SUCCEEDED = "success reply sent"
    FAILED = "failure reply sent"
    VIOLATED = "the client broke the protocol"

    __hash__ = object.__hash__  # as above


TRANSITIONS: Mapping[tuple[State, Step], State] = MappingProxyType(
    {
        (State.GREETING, Step.GREETED): State.METHOD,
        (State.GREETING, Step.VIOLATED): State.CLOSED,
        (State.METHOD, Step.CHOSE_NO_AUTHENTICATION): State.REQUEST,
        (State.METHOD, Step.CHOSE_USERNAME_PASSWORD): State.SUBNEGOTIATION,
        (State.METHOD, Step.CHOSE_NOTHING): State.CLOSED,
        (State.METHOD, Step.VIOLATED): State.CLOSED,
        (State.SUBNEGOTIATION, Step.LOGGED_IN): State.STATUS,
        (State.SUBNEGOTIATION, Step.VIOLATED): State.CLOSED,
        (State.STATUS, Step.ACCEPTED): State.REQUEST,
        (State.STATUS, Step.REJECTED): State.CLOSED,  # RFC 1929: the server MUST close
        (State.STATUS, Step.VIOLATED): State.CLOSED,
        (State.REQUEST, Step.REQUESTED): State.REPLY,
        (State.REQUEST, Step.VIOLATED): State.CLOSED,
        (State.REPLY, Step.BIND_LISTENING): State.SECOND_REPLY,
        (State.REPLY, Step.SUCCEEDED): State.OPEN,
        (State.REPLY, Step.FAILED): State.CLOSED,
        (State.REPLY, Step.VIOLATED): State.CLOSED,
        (State.SECOND_REPLY, Step.SUCCEEDED): State.OPEN,
        (State.SECOND_REPLY, Step.FAILED): State.CLOSED,
        (State.SECOND_REPLY, Step.VIOLATED): State.CLOSED,
        (State.OPEN, Step.VIOLATED): State.CLOSED,
    }
)

_CLIENT_SPEAKS = frozenset({State.GREETING, State.SUBNEGOTIATION, State.REQUEST})
_STEP_OF_METHOD = {
    Method.NO_AUTHENTICATION_REQUIRED: Step.CHOSE_NO_AUTHENTICATION,
    Method.USERNAME_PASSWORD: Step.CHOSE_USERNAME_PASSWORD,
    Method.NO_ACCEPTABLE_METHODS: Step.CHOSE_NOTHING,
}


class ServerConnection:
    """One client, from the greeting until the relay may begin or the connection must be closed.

    Args:
        tolerate_reserved: accept requests whose RSV octet is not zero.
    """

    def __init__(self, *, tolerate_reserved: bool = False) -> None:
        self._tolerate_reserved = tolerate_reserved
        self._state = State.GREETING
        self._buffer = bytearray()
        self._received = 0
        self._client_eof = False
        self._offered: tuple[int, ...] = ()
        self._command: Command | None = None
        # What made the error and not the error itself: that would hold its traceback, and through it us, in a cycle.
        self._violation: tuple[Violation, int | None] | None = None

    @property
    def state(self) -> State:
        """Where the connection stands; see `TRANSITIONS`."""
        return self._state

    @property
    def client_eof(self) -> bool:
        """Whether the client has said that it will send no more (a half-close that the relay must carry on)."""
        return self._client_eof

    @property
    def room(self) -> int:
        """How many octets may still be received.

        Read no more than that from the socket: the rest waits in the kernel, and nothing is lost. While a message is
        awaited there are at least EARLY_DATA_MAX left, so waiting for NEED_DATA never means reading nothing.
        """
        return RECEIVED_MAX - self._received

    @property
    def trailing_data(self) -> bytes:
        """Octets that belong to no message read so far; behind the request they are the early data."""
        return bytes(self._buffer)

    def take_trailing_data(self) -> bytes:
        """Hand the early data to the relay.

        Raises:
            LocalProtocolError: the request has not succeeded, so nothing may be delivered.
        """
        if self._state is not State.OPEN:
            raise LocalProtocolError(f"early data is delivered after success only, not in {self._state}")
        early_data = bytes(self._buffer)
        self._buffer.clear()
        return early_data

    def receive_data(self, data: bytes) -> None:
        """Take what the client sent; empty means that it will send no more.

        Raises:
            RemoteProtocolError: the client has already broken the protocol, or this is more than `room`.
            LocalProtocolError: there was an end before this.
        """
        if self._violation is not None:
            raise RemoteProtocolError(*self._violation)
        if not data:
            self._client_eof = True
            return
        if self._client_eof:
            raise LocalProtocolError("data behind the client's end of stream")
        if self._state is State.CLOSED:
            return  # what follows a refusal is for nobody, and telling the client so twice helps nobody
        if len(data) > self.room:
            raise self._remember(RemoteProtocolError(Violation.TOO_MUCH_EARLY_DATA))
        self._received += len(data)
        self._buffer += data

    def next_event(self) -> ClientMessage | NeedData:
        """The next message of the client, or NEED_DATA if it has not arrived whole.

        Raises:
            RemoteProtocolError: the client broke the protocol, now or before; send its `answer` and close.
            LocalProtocolError: it is our turn to `send`, or the handshake is over.
        """
        if self._violation is not None:
            raise RemoteProtocolError(*self._violation)
        if not self._buffer and not self._client_eof and self._state in _CLIENT_SPEAKS:
            return NEED_DATA  # asked before anything has come, as every message is
        try:
            decoded = self._decode()
        except RemoteProtocolError as exc:
            self._remember(exc)
            raise
        if decoded is None:
            if self._client_eof:
                raise self._remember(RemoteProtocolError(Violation.TRUNCATED))
            return NEED_DATA
        message, length, step = decoded
        del self._buffer[:length]
        self._advance(step)
        return message

    def send(self, message: ServerMessage) -> bytes:
        """Say something to the client.

        Returns:
            The octets to write.

        Raises:
            LocalProtocolError: the state does not allow it, or the client did not offer the method.
        """
        self._advance(self._sent_step(message))
        return message.encode()

    def _decode(self) -> tuple[ClientMessage, int, Step] | None:
        """The message that may come now, its length, and what it leads to."""
        state = self._state
        if state is State.GREETING:
            greeting = Greeting.decode_untrusted(self._buffer)
            if greeting is None:
                return None
            self._offered = greeting[0].methods
            return *greeting, Step.GREETED
        if state is State.REQUEST:
            request = Request.decode_untrusted(self._buffer, tolerate_reserved=self._tolerate_reserved)
            if request is None:
                return None
            self._command = request[0].command
            return *request, Step.REQUESTED
        if state is State.SUBNEGOTIATION:
            login = UsernamePassword.decode_untrusted(self._buffer)
            return None if login is None else (*login, Step.LOGGED_IN)
        raise LocalProtocolError(f"the client has nothing to say in {state}")

    def _sent_step(self, message: ServerMessage) -> Step:
        match message:
            case MethodSelection():
                return self._method_step(message.method)
            case AuthenticationReply():
                return Step.ACCEPTED if message.status is AuthenticationStatus.SUCCESS else Step.REJECTED
            case ReplyMessage():
                if message.reply is not Reply.SUCCEEDED:
                    return Step.FAILED
                first_of_two = self._command is Command.BIND and self._state is State.REPLY
                return Step.BIND_LISTENING if first_of_two else Step.SUCCEEDED
            case _:
                assert_never(message)

    def _method_step(self, method: Method) -> Step:
        step = _STEP_OF_METHOD.get(method)
        if step is None:
            raise LocalProtocolError(f"{method!r} is not spoken here")
        # 3proxy answers 00 to a client that offered only 80, and a client that believes it sends its request in clear.
        if step is not Step.CHOSE_NOTHING and method not in self._offered:
            raise LocalProtocolError(f"the client did not offer {method!r}")
        return step

    def _advance(self, step: Step) -> None:
        state = TRANSITIONS.get((self._state, step))
        if state is None:
            raise LocalProtocolError(f"no {step} in {self._state}")
        self._state = state
        if state is State.CLOSED:
            self._buffer.clear()  # early data of a refused request is for nobody

    def _remember(self, error: RemoteProtocolError) -> RemoteProtocolError:
        self._violation = (error.violation, error.octet)
        self._advance(Step.VIOLATED)
        return error
