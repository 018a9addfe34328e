"""What servers say first, and what clients answer."""

import pytest

from tests.sniff.flows import UNKNOWN, found, sniffed
from trioproxy.sniff import App, Finding, Sniffer
from trioproxy.sniff.greetings import Greeting, GreetingReader, first_words

_MAIL_OR_FILES = frozenset({App.SMTP, App.FTP})


def _greeting(octets: bytes) -> Greeting | None:
    return GreetingReader().receive_data(octets)


@pytest.mark.parametrize(
    ("line", "apps", "likely"),
    [
        (b"220 mx.example.org ESMTP Postfix\r\n", _MAIL_OR_FILES, App.SMTP),
        (b"220-mx.example.org Microsoft SMTP server\r\n", _MAIL_OR_FILES, App.SMTP),
        (b"220 (vsFTPd 3.0.3)\r\n", _MAIL_OR_FILES, App.FTP),
        (b"220-------- Welcome to Pure-FTPd --------\r\n", _MAIL_OR_FILES, App.FTP),
        (b"220 ready\n", _MAIL_OR_FILES, None),
        (b"220\r\n", _MAIL_OR_FILES, None),
        (b"421 Too many connections\r\n", _MAIL_OR_FILES, None),
        (b"554 No SMTP service here\r\n", frozenset({App.SMTP}), App.SMTP),
        (b"120 Ready in 5 minutes\r\n", frozenset({App.FTP}), None),
        (b"* OK IMAP4rev1 ready\r\n", frozenset({App.IMAP}), None),
        (b"* PREAUTH welcome back\r\n", frozenset({App.IMAP}), None),
        (b"* bye overloaded\r\n", frozenset({App.IMAP}), None),
        (b"+OK POP3 <1896.697170952@dbc.mtview.ca.us>\r\n", frozenset({App.POP3}), None),
        (b"+OK\r\n", frozenset({App.POP3}), None),
        (b"-ERR closed\r\n", frozenset({App.POP3}), None),
        (b"SSH-2.0-OpenSSH_9.2\r\n", frozenset({App.SSH}), None),
        (b"hello\r\nSSH-1.99-x\r\n", frozenset({App.SSH}), None),
        (b"SSH-1.5-old\r\n", frozenset(), None),
        (b"hello\0\r\n", frozenset(), None),
        (b"\x4a\0\0\0\x0a8.0.36", frozenset(), None),
    ],
)
def test_greetings(line: bytes, apps: frozenset[App], likely: App | None) -> None:
    """The first line of a server tells which protocols are left."""
    assert Greeting(apps, likely) == _greeting(line)


@pytest.mark.parametrize(
    "line", [b"220 no end", b"221 bye\r\n", b"2200\r\n", b"+OKAY\r\n", b"* NO\r\n", b"220", b"RFB 003.008\n"]
)
def test_undecided(line: bytes) -> None:
    """A line that has not ended may become a greeting; behind one that is none the banner of SSH may come."""
    assert _greeting(line) is None


@pytest.mark.parametrize(("before", "app"), [(1_022, App.SSH), (1_023, App.SSH), (1_024, App.UNKNOWN)])
def test_lines_before_a_banner(before: int, app: App) -> None:
    """RFC 4253 section 4.2 allows any lines before the banner; 1,023 are read, like OpenSSH's client does."""
    assert Finding(app) == found(b"", b"\n" * before + b"SSH-2.0-x\r\n", times_out=True)


def test_a_greeting_without_end() -> None:
    """What a server says is looked at up to the limit."""
    greeting = b"220 " + b"x" * (Sniffer.LIMIT - 6) + b"\r\n"
    assert Finding(App.FTP) == found(b"FEAT\r\n", greeting)
    assert found(b"FEAT\r\n", greeting[:-1]) is None
    assert found(b"FEAT\r\n", b"x" + greeting) == UNKNOWN


@pytest.mark.parametrize(
    ("line", "apps"),
    [
        (b"EHLO client\r\n", {App.SMTP}),
        (b"helo client\n", {App.SMTP}),
        (b"USER alice\r\n", {App.FTP, App.POP3}),
        (b"QUIT\r\n", {App.SMTP, App.FTP, App.POP3}),
        (b"a1 LOGIN alice secret\r\n", {App.IMAP}),
        (b"2 capability\r\n", {App.IMAP}),
        (b"USER LOGIN\r\n", {App.FTP, App.POP3, App.IMAP}),
        (b"HELO", set()),
        (b"HELO\rx\r\n", set()),
        (b"EHLOX client\r\n", set()),
        (b"a1 SELECT inbox\r\n", set()),
        (b"+ LOGIN x\r\n", set()),
        (b"MAIL FROM:<>\r\n", set()),
        (b"hello\r\n", set()),
    ],
)
def test_first_words(line: bytes, apps: set[App]) -> None:
    """What a client may say before it has logged in; other words begin nothing."""
    assert apps == first_words(line)


@pytest.mark.parametrize(
    ("client", "server", "app"),
    [
        (b"USER alice\r\n", b"220 ready\r\n", App.FTP),
        (b"USER alice\r\n", b"+OK ready\r\n", App.POP3),
        (b"EHLO x\r\n", b"220 ProFTPD\r\n", App.SMTP),
        (b"QUIT\r\n", b"220 mail.example.org ESMTP\r\n", App.SMTP),
        (b"QUIT\r\n", b"220 ftp.example.org\r\n", App.FTP),
        (b"QUIT\r\n", b"220 example.org\r\n", App.UNKNOWN),
        (b"CAPA\r\n", b"220 example.org ESMTP\r\n", App.UNKNOWN),
        (b"EHLO x\r\n", b"* OK ready\r\n", App.UNKNOWN),
        (b"EHLO x\r\n", b"SSH-2.0-x\r\n", App.UNKNOWN),
        (b"EHLO x\r\n", b"\0\r\n", App.UNKNOWN),
        (b"SSH-2.0-x\r\n", b"220 example.org ESMTP\r\n", App.SSH),
    ],
)
@pytest.mark.parametrize("server_first", [False, True])
def test_both_must_agree(client: bytes, server: bytes, app: App, server_first: bool) -> None:
    """A command means what the greeting allows; the text of the greeting only says which of two is likely."""
    assert Finding(app) == found(client, server, server_first=server_first)


@pytest.mark.parametrize(
    ("server", "app"),
    [
        (b"", App.UNKNOWN),
        (b"220", App.UNKNOWN),
        (b"220 example.org\r\n", App.UNKNOWN),
        (b"220 example.org ESMTP\r\n", App.SMTP),
        (b"220 Welcome to the FTP server\r\n", App.FTP),
        (b"* OK\r\n", App.UNKNOWN),
        (b"* OK ready\r\n", App.IMAP),
        (b"+OK\r\n", App.POP3),
        (b"SSH-2.0-x\r\n", App.SSH),
        (b"\x4a\0\0\0\x0a8.0.36", App.UNKNOWN),
    ],
)
def test_a_client_that_says_nothing(server: bytes, app: App) -> None:
    """Nothing is decided before the time is up; then the greeting decides, if it leaves one protocol."""
    assert found(b"", server) is None
    sniffer = sniffed(b"", server, times_out=True)
    assert (Finding(app), True) == (sniffer.finding, sniffer.confirmed)


@pytest.mark.parametrize("client", [b"EHLO x\r\n", b"EH", b"SSH-2.0-x", b"GET / HTTP/1.1\r\n", b"\x16\3\1", b"\3"])
def test_too_little_in_time(client: bytes) -> None:
    """A client that has begun, and neither it nor the server goes on, is nothing that we know."""
    assert found(client) is None
    assert found(client, times_out=True) == UNKNOWN
