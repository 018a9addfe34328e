"""P1, stateful: any order of events on a connection, against a model that knows only who has the word."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.protocol.driver import LISTENING
from tests.protocol.strategies import addresses, damaged, greetings, logins, requests
from trioproxy.protocol import (
    NEED_DATA,
    RECEIVED_MAX,
    AuthenticationReply,
    AuthenticationStatus,
    ClientMessage,
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
)

_likely_greetings = st.builds(Greeting, st.sampled_from([(0, 2), (0,), (2,), (0, 1, 2), (1,), (0x80,)]))
_octets = st.one_of(
    *(
        messages.map(lambda message: message.encode())
        for messages in (_likely_greetings, _likely_greetings, greetings, logins, requests)
    )
)
_said = st.one_of(
    st.builds(MethodSelection, st.sampled_from(Method)),
    st.builds(AuthenticationReply, st.sampled_from(AuthenticationStatus)),
    st.builds(ReplyMessage, st.sampled_from([reply for reply in Reply if reply is not Reply.SUCCEEDED])),
    st.builds(ReplyMessage, st.just(Reply.SUCCEEDED), addresses),
)
_sensible = st.fixed_dictionaries(
    {
        State.GREETING: _likely_greetings,
        State.METHOD: st.builds(MethodSelection, st.sampled_from([Method(0), Method(2)])),
        State.SUBNEGOTIATION: logins,
        State.STATUS: st.just(AuthenticationReply(AuthenticationStatus.SUCCESS)),
        State.REQUEST: requests,
        State.REPLY: st.just(ReplyMessage(Reply.SUCCEEDED)),
        State.SECOND_REPLY: st.just(ReplyMessage(Reply.SUCCEEDED)),
    }
)


class ConnectionMachine(RuleBasedStateMachine):
    """Feeds, ends and answers in any order; `trace` is what was agreed on, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = ServerConnection()
        self.trace: list[str] = []
        self.sent_octets = 0
        self.command: Command | None = None
        self.broken: tuple[object, ...] | None = None

    @rule(octets=_octets | damaged(_octets) | st.binary(min_size=1, max_size=3), place=st.integers(1, 600))
    @precondition(lambda self: not self.connection.client_eof)
    def feed(self, octets: bytes, place: int) -> None:
        """The client sends something, whole or its beginning."""
        self._receive(octets[:place])

    @rule(said=_sensible)
    def proceed(self, said: dict[State, ClientMessage | ServerMessage]) -> None:
        """Whoever has the word says what belongs here: without this rule hardly a run would see a request."""
        message = said.get(self.connection.state)
        if isinstance(message, MethodSelection | AuthenticationReply | ReplyMessage):
            self.send(message)
        elif message is not None and not self.connection.client_eof:
            self._receive(message.encode())
            self.ask()

    @rule()
    @precondition(lambda self: len(self.trace) > 1)
    def end(self) -> None:
        """The client ends its side."""
        self._receive(b"")

    def _receive(self, data: bytes) -> None:
        if self.broken is None:
            self.sent_octets += len(data) if self.connection.state is not State.CLOSED else 0
            self.connection.receive_data(data)
        else:
            with pytest.raises(RemoteProtocolError) as caught:
                self.connection.receive_data(data)
            assert caught.value.args == self.broken

    @rule()
    def ask(self) -> None:
        """The server asks what the client said."""
        if self.broken is not None:
            with pytest.raises(RemoteProtocolError) as caught:
                self.connection.next_event()
            assert caught.value.args == self.broken
        elif self.connection.state not in LISTENING:
            with pytest.raises(LocalProtocolError):
                self.connection.next_event()
        else:
            self._listen()

    def _listen(self) -> None:
        try:
            event = self.connection.next_event()
        except RemoteProtocolError as exc:
            self.broken = exc.args
            return
        if event is not NEED_DATA:
            self.trace.append(type(event).__name__)
        if isinstance(event, Request):
            self.command = event.command

    @rule(message=_said)
    def send(self, message: ServerMessage) -> None:
        """The server says anything at all."""
        state = self.connection.state
        try:
            octets = self.connection.send(message)
        except LocalProtocolError:
            assert self.connection.state is state
        else:
            assert octets == message.encode()
            self.trace.append(f"{type(message).__name__} {octets[1]:02x}")

    @rule()
    def take(self) -> None:
        """The relay asks for the early data."""
        replies = 2 if self.command is Command.BIND else 1
        if self.broken is None and self.trace.count("ReplyMessage 00") == replies:
            self.connection.take_trailing_data()
        else:
            with pytest.raises(LocalProtocolError):
                self.connection.take_trailing_data()

    @invariant()
    def no_request_without_permission(self) -> None:
        """No request is read before method 00 was agreed on or a login was accepted."""
        if "Request" in self.trace:
            before = self.trace[: self.trace.index("Request")]
            login = ["MethodSelection 02", "UsernamePassword", "AuthenticationReply 00"]
            assert before in (["Greeting", "MethodSelection 00"], ["Greeting", *login])

    @invariant()
    def bounded(self) -> None:
        """What is kept never exceeds what was sent, and that never the limit."""
        assert len(self.connection.trailing_data) <= self.sent_octets <= RECEIVED_MAX
        assert self.connection.room >= RECEIVED_MAX - self.sent_octets

    @invariant()
    def broken_is_closed(self) -> None:
        """A connection whose client broke the protocol is closed."""
        assert self.broken is None or self.connection.state is State.CLOSED


ConnectionMachine.TestCase.settings = settings(stateful_step_count=30)
TestConnectionMachine = ConnectionMachine.TestCase
