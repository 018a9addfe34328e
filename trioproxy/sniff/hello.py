"""Clients that begin with a record of TLS."""

from typing import Final

from trioproxy.sniff.answers import Answer, TlsAnswer
from trioproxy.sniff.finding import App, Finding
from trioproxy.sniff.octets import MalformedError
from trioproxy.sniff.records import HandshakeReader
from trioproxy.sniff.said import Said
from trioproxy.sniff.tls import ClientHello

__all__ = ["HelloReader"]

_CLIENT_HELLO: Final = 1
_CLIENT_HELLO_MAX: Final = 1 << 14  # octets; more than that of a client is not looked at


class HelloReader:
    """Takes what a client sends in any pieces, until its ClientHello has come whole."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        # RFC 8446 section 5.1: before a change of keys, and one may follow, a message ends where its record ends.
        self._reader = HandshakeReader(_CLIENT_HELLO, _CLIENT_HELLO_MAX, alone=True)

    def receive_data(self, data: bytes) -> Said:
        """Take more; None: more is needed. Never raises."""
        try:
            body = self._reader.receive_data_untrusted(data)
            if body is None:
                return None
            hello = ClientHello.decode_untrusted(body)
        except MalformedError:
            return Finding(App.UNKNOWN)
        self.answer = TlsAnswer(hello)
        return Finding(App.TLS, sni=hello.sni, ech=hello.ech)
