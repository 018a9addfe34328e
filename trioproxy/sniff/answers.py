"""Whether a server answers in kind: what merely begins like TLS or HTTP is neither before the server has spoken too."""

import re
from typing import Final, Protocol

from trioproxy.sniff.octets import MalformedError
from trioproxy.sniff.records import HandshakeReader, record_length
from trioproxy.sniff.tls import ClientHello

__all__ = ["Answer", "HttpAnswer", "TlsAnswer"]

_SERVER_HELLO: Final = 2
# Of a ServerHello without a key share 100 octets are usual, with the largest post-quantum one 1.7 KB.
_SERVER_HELLO_MAX: Final = 4_096
_ALERT: Final = 21  # the type of the record
_ALERT_LENGTH: Final = 2
_ALERT_RECORD: Final = 5 + _ALERT_LENGTH
_CLOSE_NOTIFY: Final = 0
_FATAL: Final = 2
_ALERT_LEVELS: Final = frozenset({1, 2})
# IANA's registry of TLS alerts; the numbers between are free.
_ALERT_DESCRIPTIONS: Final = frozenset(
    {0, 10, 20, 21, 22, 30, *range(40, 53), 60, 70, 71, 80, 86, 90, 100, *range(109, 117), 120, 121}
)
# With the space that belongs behind the code (RFC 9112 section 4), or without it, as many servers without a reason.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}[ \r]")
_STATUS_LENGTH: Final = 13
_STATUS_BEGINNING: Final = b"HTTP/1."
_SETTINGS_LENGTH: Final = 9  # octets of a frame's header: length, type, flags, stream
_SETTINGS: Final = 4
_SETTING: Final = 6  # octets of one setting
_FRAME_MAX: Final = 1 << 14  # before any setting allows more


class Answer(Protocol):
    """What a server must say for the finding to be real.

    Attributes:
        is_refusal: that was a no, and the server has nothing more to say.
    """

    is_refusal: bool

    def receive_data(self, data: bytes) -> bool | None:
        """Take what the server said, in any pieces; whether it is the answer, None: more is needed. Never raises."""


class TlsAnswer:
    """A ServerHello or HelloRetryRequest to this ClientHello, perhaps behind warnings; or an alert that ends it."""

    def __init__(self, hello: ClientHello) -> None:
        self.is_refusal = False
        self._hello = hello
        self._alert = bytearray()
        self._reader = HandshakeReader(_SERVER_HELLO, _SERVER_HELLO_MAX, alone=False)
        self._initial: int | None = None

    def receive_data(self, data: bytes) -> bool | None:
        """See `Answer`."""
        try:
            while data:
                if self._initial is None:
                    self._initial = data[0]
                if self._initial != _ALERT:
                    return self._receive_hello(data)
                verdict, data = self._receive_alert(data)
                if verdict is not None:
                    return verdict
        except MalformedError:
            return False
        return None

    def _receive_hello(self, data: bytes) -> bool | None:
        body = self._reader.receive_data_untrusted(data)
        return None if body is None else self._hello.is_answered_by_untrusted(body)

    def _receive_alert(self, data: bytes) -> tuple[bool | None, bytes]:
        """Whether this alert is an answer, and what comes behind it."""
        alert, missing = self._alert, _ALERT_RECORD - len(self._alert)
        alert += data[:missing]
        length = record_length(alert, _ALERT)
        if length is None or (length == _ALERT_LENGTH and len(alert) < _ALERT_RECORD):
            return None, b""
        level, description = alert[-2:]
        if length != _ALERT_LENGTH or level not in _ALERT_LEVELS or description not in _ALERT_DESCRIPTIONS:
            return False, b""
        if level == _FATAL or description == _CLOSE_NOTIFY:
            self.is_refusal = True
            return True, b""
        self._initial = None
        self._alert.clear()
        return None, data[missing:]


class HttpAnswer:
    """A status line; to the preface of HTTP/2 also the frame with which a server of it begins."""

    is_refusal = False  # of what HTTP says that is not the proxy's business

    def __init__(self, *, http2: bool) -> None:
        self._http2 = http2
        self._beginning = b""

    def receive_data(self, data: bytes) -> bool | None:
        """See `Answer`."""
        self._beginning += data[: _STATUS_LENGTH - len(self._beginning)]
        beginning = self._beginning
        if beginning.startswith(_STATUS_BEGINNING[: len(beginning)]):
            return None if len(beginning) < _STATUS_LENGTH else _STATUS_LINE.fullmatch(beginning) is not None
        if not self._http2:
            return False
        return None if len(beginning) < _SETTINGS_LENGTH else _is_settings(beginning)


def _is_settings(header: bytes) -> bool:
    length = int.from_bytes(header[:3], "big")
    return (
        header[3:_SETTINGS_LENGTH] == bytes((_SETTINGS, 0, 0, 0, 0, 0))
        and not length % _SETTING
        and length <= _FRAME_MAX
    )
