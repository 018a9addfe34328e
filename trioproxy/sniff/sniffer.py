"""What one TCP flow is."""

from typing import ClassVar, Final

from trioproxy.sniff.answers import Answer
from trioproxy.sniff.finding import App, Finding
from trioproxy.sniff.greetings import Greeting, GreetingReader
from trioproxy.sniff.hello import HelloReader
from trioproxy.sniff.openings import OpeningReader
from trioproxy.sniff.records import HANDSHAKE
from trioproxy.sniff.said import Reader, Said
from trioproxy.sniff.text import TextReader

__all__ = ["Sniffer"]

_UNKNOWN: Final = Finding(App.UNKNOWN)
_ANY: Final = frozenset(App)
_TEXT_INITIALS: Final = range(0x21, 0x7F)  # printable, and not a space


class Sniffer:
    """Takes the first bytes of both sides and finds what they are. Nothing raises, whatever they are.

    The client's bytes decide alone if they can. A command such as `USER alice` needs the server's greeting too, in
    whichever order they come; a client that says nothing is judged by the greeting when the time is up. So a server's
    bytes have to go on to the client while nothing is found, or a client that waits for them never speaks.

    How the bytes of a side are cut into pieces makes no difference. At most LIMIT octets of each side are looked at and
    kept, and each of them a few times.

    Attributes:
        finding: what it is; None: that cannot be told as yet. Once there is one, it stays.
    """

    LIMIT: ClassVar[int] = 16_384  # octets of each side; heads of HTTP and ClientHellos are rarely longer than 8 KiB

    def __init__(self) -> None:
        self.finding: Finding | None = None
        self._reader: Reader | None = None
        self._said: Said = None
        self._client_room = self.LIMIT
        self._greeting_reader = GreetingReader()
        self._greeting: Greeting | None = None
        self._from_server = bytearray()  # until there is a finding: what it says may have to be an answer as well
        self._server_room = self.LIMIT
        self._answer: Answer | None = None
        self._confirmed: bool | None = None

    @property
    def confirmed(self) -> bool | None:
        """Whether the server answered as the finding demands; None: that cannot be told as yet.

        TLS must be answered by a ServerHello, HelloRetryRequest or alert, HTTP by a status line or, to HTTP/2, by the
        first frame of it. Nothing is demanded of other servers. Once it is told, it stays.
        """
        return self._confirmed

    @property
    def refused(self) -> bool:
        """Whether the server has refused the client, in kind: then nothing may follow but the end."""
        return self._answer is not None and self._answer.is_refusal

    def receive_client(self, data: bytes) -> None:
        """Take what the client sent; what is not needed is ignored."""
        if self.finding is not None or self._said is not None or not data:
            return
        if self._reader is None:
            self._reader = _reader(data[0])
        data = data[: self._client_room]
        self._client_room -= len(data)
        self._said = self._reader.receive_data(data)
        if self._said is None and not self._client_room:
            self._said = _UNKNOWN
        self._decide()

    def receive_server(self, data: bytes) -> None:
        """Take what the server sent; what is not needed is ignored."""
        data = data[: self._server_room]
        if not data or self._confirmed is not None:
            return
        self._server_room -= len(data)
        if self._answer is not None:
            self._confirm(self._answer, data)
            return
        self._from_server += data
        if self._greeting is None:
            self._greeting = self._greeting_reader.receive_data(data)
            if self._greeting is None and not self._server_room:
                self._greeting = Greeting()
            self._decide()

    def end_client(self) -> None:
        """The client will say no more: what it has begun stays unfinished; if it said nothing, the greeting decides."""
        if self.finding is None and self._said is None:
            self._said = _ANY if self._reader is None else _UNKNOWN
            self._decide()

    def time_out(self) -> None:
        """Find something now: nobody has said more for so long that the flow cannot wait any longer."""
        if self.finding is None:
            greeting = self._greeting if self._reader is None else None
            self._settle(Finding(greeting.choose(_ANY)) if greeting else _UNKNOWN)

    def _decide(self) -> None:
        said, greeting = self._said, self._greeting
        if isinstance(said, Finding):
            self._settle(said)
        elif said is not None and greeting is not None:
            self._settle(Finding(greeting.choose(said)))

    def _settle(self, finding: Finding) -> None:
        self.finding = finding
        self._answer = self._reader.answer if self._reader else None
        if self._answer is None:
            self._confirmed = True
        elif self._from_server:
            self._confirm(self._answer, bytes(self._from_server))
        self._reader, self._said, self._greeting = None, None, None
        self._greeting_reader, self._from_server = GreetingReader(), bytearray()

    def _confirm(self, answer: Answer, data: bytes) -> None:
        self._confirmed = answer.receive_data(data)
        if self._confirmed is None and not self._server_room:
            self._confirmed = False


def _reader(initial: int) -> Reader:
    if initial == HANDSHAKE:
        return HelloReader()
    return TextReader() if initial in _TEXT_INITIALS else OpeningReader(initial)
