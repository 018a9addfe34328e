"""Clients that begin with a line of text: a request of HTTP, a banner of SSH, or a command that answers a greeting."""

from typing import TYPE_CHECKING, Final

from trioproxy.sniff.answers import Answer, HttpAnswer
from trioproxy.sniff.finding import App, Finding
from trioproxy.sniff.greetings import first_words, is_ssh_banner, is_text
from trioproxy.sniff.http import HEAD_END, HTTP2_PREFACE, is_request_line, request_host_untrusted
from trioproxy.sniff.octets import MalformedError
from trioproxy.sniff.said import Said

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TextReader"]

_UNKNOWN: Final = Finding(App.UNKNOWN)
_HTTP2_LINE: Final = HTTP2_PREFACE[: HTTP2_PREFACE.index(b"\n") + 1]
_LINE_END: Final = b"\r\n"


class TextReader:
    """Takes what a client sends in any pieces, until it is known. Each octet is looked at a few times."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self._stream = bytearray()
        self._looked_at = 0  # octets in which the end that is looked for does not begin
        # A function and not a method of ours: that would hold us in a cycle, and memory until it is found.
        self._go_on: Callable[[TextReader], Said] = TextReader._first_line

    def receive_data(self, data: bytes) -> Said:
        """Take more; None: more is needed. Never raises."""
        self._stream += data
        return self._go_on(self)

    def _first_line(self) -> Said:
        end = self._stream.find(b"\n", self._looked_at) + 1
        new = self._stream[self._looked_at : end or None]
        self._looked_at += len(new)
        if not is_text(new):
            return _UNKNOWN  # nothing is known of a line before its end, but noise shows at once
        if not end:
            return None
        line = bytes(self._stream[:end])
        if line == _HTTP2_LINE:
            self._go_on = TextReader._preface
        elif is_request_line(line):
            self._looked_at -= len(_LINE_END)  # without fields, it is the beginning of the end
            self._go_on = TextReader._head
        else:
            return _other_than_http(line)
        return self._go_on(self)

    def _preface(self) -> Said:
        if not HTTP2_PREFACE.startswith(self._stream[: len(HTTP2_PREFACE)]):
            return _UNKNOWN
        if len(self._stream) < len(HTTP2_PREFACE):
            return None
        self.answer = HttpAnswer(http2=True)
        return Finding(App.HTTP)

    def _head(self) -> Said:
        end = self._stream.find(HEAD_END, self._looked_at)
        if end < 0:
            self._looked_at = max(self._looked_at, len(self._stream) - len(HEAD_END) + 1)
            return None
        head = bytes(self._stream[: end + len(_LINE_END)])
        try:
            host = request_host_untrusted(head)
        except MalformedError:
            return _UNKNOWN
        self.answer = HttpAnswer(http2=False)
        return Finding(App.HTTP, http_host=host)


def _other_than_http(line: bytes) -> Said:
    banner = is_ssh_banner(line)
    if banner is not None:
        return Finding(App.SSH) if banner else _UNKNOWN
    return first_words(line) or _UNKNOWN
