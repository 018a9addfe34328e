"""Hypothesis strategies for legal messages, for whole streams of a client, and for streams with a mistake in them."""

import attrs
from hypothesis import strategies as st

from trioproxy.protocol import Address, Command, Greeting, Method, Request, UsernamePassword

__all__ = [
    "ClientStream",
    "addresses",
    "client_streams",
    "cuts",
    "damaged",
    "greetings",
    "logins",
    "ports",
    "requests",
]

ports = st.integers(0, 65_535)
_hosts = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6), st.binary(min_size=1, max_size=255))
addresses = st.builds(Address, _hosts, ports)
_destinations = st.builds(Address, _hosts, st.integers(1, 65_535))

greetings = st.builds(Greeting, st.lists(st.integers(0, 255), min_size=1, max_size=255).map(tuple))
logins = st.builds(UsernamePassword, st.binary(max_size=255), st.binary(max_size=255))
requests = st.one_of(
    st.builds(Request, st.just(Command.CONNECT), _destinations),
    st.builds(Request, st.sampled_from([Command.BIND, Command.UDP_ASSOCIATE]), addresses),
)
_speakable = st.sampled_from([Method.NO_AUTHENTICATION_REQUIRED, Method.USERNAME_PASSWORD])


@attrs.frozen
class ClientStream:
    """All that a client without fault sends to a server that prefers the login, and early data behind it."""

    greeting: Greeting
    login: UsernamePassword | None
    request: Request
    early_data: bytes

    @property
    def messages(self) -> tuple[Greeting | UsernamePassword | Request, ...]:
        """The messages in the order of the stream."""
        return (self.greeting, *([self.login] if self.login else []), self.request)

    def encode(self) -> bytes:
        """Everything pipelined, as one piece."""
        return b"".join(message.encode() for message in self.messages) + self.early_data


@st.composite
def client_streams(draw: st.DrawFn) -> ClientStream:
    """A client that offers at least one method we speak."""
    others = draw(st.lists(st.integers(0, 255), max_size=5))
    place = draw(st.integers(0, len(others)))
    methods = (*others[:place], draw(_speakable), *others[place:])
    login = draw(logins) if Method.USERNAME_PASSWORD in methods else None
    return ClientStream(Greeting(methods), login, draw(requests), draw(st.binary(max_size=40)))


@st.composite
def damaged(draw: st.DrawFn, octets: st.SearchStrategy[bytes]) -> bytes:
    """The octets with one of them changed, taken out or put in, or the end cut off; or no damage at all."""
    whole = draw(octets)
    place = draw(st.integers(0, len(whole)))
    junk = draw(st.binary(max_size=1))
    rest = draw(st.sampled_from([whole[place:], whole[place + 1 :], b""]))
    return whole[:place] + junk + rest


cuts = st.lists(st.integers(0, 700), max_size=12)
