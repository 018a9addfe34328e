"""Protocols in which the server speaks first, and what a client says first in them: SSH, SMTP, FTP, IMAP, POP3."""

import re
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from trioproxy.sniff.finding import App

__all__ = ["Greeting", "GreetingReader", "first_words", "is_ssh_banner", "is_text"]

_NOT_TEXT: Final = re.compile(rb"[^\t\r\n\x20-\x7e\x80-\xff]")
# RFC 4253 section 4.2; 1.99 is a server that speaks SSH 1 too. GitHub's and others have a minus where none may be.
_SSH_BANNER: Final = re.compile(rb"SSH-(?:2\.0|1\.99)-[\x20-\x7e]+\r?\n")
_SSH_BANNER_MAX: Final = 255
_SSH_PREFIX: Final = b"SSH-"
_LINES_MAX: Final = 1_024  # before the banner of an SSH server; OpenSSH's client reads so many


@attrs.frozen
class Greeting:
    """What a server's first words leave possible.

    Attributes:
        apps: the protocols that begin so; none if it is no greeting that we know.
        likely: the one of them that its text speaks of.
    """

    apps: frozenset[App] = frozenset()
    likely: App | None = None

    def choose(self, apps: AbstractSet[App]) -> App:
        """The protocol that is possible here and there; UNKNOWN if there is none, or no way to choose."""
        common = self.apps & apps
        if len(common) == 1:
            return next(iter(common))
        return self.likely if self.likely in common else App.UNKNOWN


_MAIL_OR_FILES: Final = frozenset({App.SMTP, App.FTP})
# The replies with which a server begins, whether it is ready or turns the client away: RFC 5321 section 4.3.2, RFC 959
# section 5.4, RFC 9051 section 7.1, RFC 1939 section 4.
_GREETINGS: Final = (
    (re.compile(rb"(?:220|421)[ -].*|220\r?\n", re.DOTALL), _MAIL_OR_FILES),
    (re.compile(rb"554[ -].*", re.DOTALL), frozenset({App.SMTP})),
    (re.compile(rb"120[ -].*", re.DOTALL), frozenset({App.FTP})),
    (re.compile(rb"\* (?:OK|PREAUTH|BYE) .*", re.DOTALL | re.IGNORECASE), frozenset({App.IMAP})),
    (re.compile(rb"(?:\+OK|-ERR)[ \r\n].*", re.DOTALL), frozenset({App.POP3})),
)
_LIKELY: Final = ((re.compile(rb"smtp", re.IGNORECASE), App.SMTP), (re.compile(rb"ftp", re.IGNORECASE), App.FTP))

# What clients of these protocols say before they have logged in.
_FIRST_WORDS: Final = (
    (App.SMTP, b"EHLO HELO HELP NOOP QUIT RSET"),
    (App.FTP, b"ACCT AUTH CLNT FEAT HELP HOST LANG NOOP OPTS PBSZ QUIT SYST USER"),
    (App.POP3, b"APOP AUTH CAPA LANG QUIT STLS USER UTF8"),
)
_APPS_OF_WORD: Final = {
    word: frozenset(app for app, words in _FIRST_WORDS if word in words.split())
    for word in b" ".join(words for _, words in _FIRST_WORDS).split()
}
_WORD: Final = re.compile(rb"([A-Za-z0-9]{3,4})(?: [^\r\n]*)?\r?\n")
# A tag (RFC 9051 section 9) and a command that needs no login.
_TAGGED: Final = re.compile(
    rb"[^\x00-\x20(){%*\"\\+\x7f-\xff]+ (?:CAPABILITY|NOOP|LOGOUT|STARTTLS|AUTHENTICATE|LOGIN|ENABLE|ID)"
    rb"(?: [^\r\n]*)?\r?\n",
    re.IGNORECASE,
)


def first_words(line: bytes) -> frozenset[App]:
    """The protocols in which a client may begin with this line, if the server's greeting agrees."""
    word = _WORD.fullmatch(line)
    apps = _APPS_OF_WORD.get(word[1].upper(), frozenset()) if word else frozenset()
    return apps | {App.IMAP} if _TAGGED.fullmatch(line) else apps


def is_ssh_banner(line: bytes) -> bool | None:
    """Whether this line is an SSH banner; None: it does not begin like one."""
    if not line.startswith(_SSH_PREFIX):
        return None
    return len(line) <= _SSH_BANNER_MAX and _SSH_BANNER.fullmatch(line) is not None


def is_text(octets: bytes | bytearray) -> bool:
    """Whether these octets can be part of a line: no controls, any character set."""
    return _NOT_TEXT.search(octets) is None


class GreetingReader:
    """Takes what a server says in any pieces, until its first words are known. Each octet is looked at a few times."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._looked_at = 0  # octets of the line in which there is no end
        self._lines = 0

    def receive_data(self, data: bytes) -> Greeting | None:
        """Take more; None: more is needed. Never raises."""
        self._line += data
        while (end := self._line.find(b"\n", self._looked_at)) >= 0:
            line = bytes(self._line[: end + 1])
            del self._line[: end + 1]
            self._looked_at = 0
            self._lines += 1
            greeting = self._greeting(line)
            if greeting is not None:
                return greeting
        if not is_text(self._line[self._looked_at :]):
            return Greeting()
        self._looked_at = len(self._line)
        return None

    def _greeting(self, line: bytes) -> Greeting | None:
        """What this line tells; None: an SSH server may say such things before its banner."""
        banner = is_ssh_banner(line)
        if banner is not None:
            return Greeting(frozenset({App.SSH})) if banner else Greeting()
        if not is_text(line) or self._lines == _LINES_MAX:
            return Greeting()
        if self._lines == 1:
            for pattern, apps in _GREETINGS:
                if pattern.fullmatch(line):
                    return Greeting(apps, next((app for word, app in _LIKELY if word.search(line)), None))
        return None
