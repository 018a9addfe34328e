"""Clients that begin with a line of text."""

import pytest

from tests.sniff.flows import TEXTS, UNKNOWN, found, sniffed
from trioproxy.sniff import App, Finding, Sniffer
from trioproxy.sniff.http import HTTP2_PREFACE
from trioproxy.sniff.text import TextReader


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("server_first", [False, True])
def test_real_programs(name: str, server_first: bool) -> None:
    """Whoever is heard first, the same is found, and the server's answer fits."""
    client, server, finding = TEXTS[name]
    sniffer = sniffed(client, server, server_first=server_first)
    assert (finding, True) == (sniffer.finding, sniffer.confirmed)


@pytest.mark.parametrize(
    ("banner", "app"),
    [
        (b"SSH-2.0-libssh2_1.10.0\n", App.SSH),
        (b"SSH-1.99-Cisco-1.25\r\n", App.SSH),
        (b"SSH-2.0-x\r\nand the key exchange", App.SSH),
        (b"SSH-2.0-\r\n", App.UNKNOWN),
        (b"SSH-1.5-old\r\n", App.UNKNOWN),
        (b"SSH-2.0-x\xff\r\n", App.UNKNOWN),
        (b"SSH-2.0-x\ry\r\n", App.UNKNOWN),
        (b"SSH-2.0-" + b"x" * 245 + b"\r\n", App.SSH),
        (b"SSH-2.0-" + b"x" * 246 + b"\r\n", App.UNKNOWN),
        (b"SSH- / HTTP/1.0\r\n\r\n", App.HTTP),
    ],
)
def test_ssh(banner: bytes, app: App) -> None:
    """RFC 4253 section 4.2: a line of at most 255 octets that names the version."""
    assert Finding(app) == found(banner)
    assert found(banner[: banner.index(b"\n")]) in (None, UNKNOWN)


@pytest.mark.parametrize("end", range(len(HTTP2_PREFACE) + 1))
def test_preface(end: int) -> None:
    """RFC 9113 section 3.4: all of the preface, octet for octet."""
    assert found(HTTP2_PREFACE[:end]) == (None if end < len(HTTP2_PREFACE) else Finding(App.HTTP))
    if 16 < end < len(HTTP2_PREFACE):
        assert found(HTTP2_PREFACE[:end] + b"?") == UNKNOWN


@pytest.mark.parametrize(
    "octets",
    [
        b"GET \0",
        b"A\x80\x7f",
        b"POST / HTTP/1.1\x01",
        b"USER \0\r\n",
        b"hello\r\n",
        b"RFB 003.008\n",
        b"x y z\r\n",
        b"}\x01",
    ],
)
def test_noise(octets: bytes) -> None:
    """A control character, or a first line that begins nothing, is enough to know."""
    assert found(octets) == UNKNOWN


def test_a_line_without_end() -> None:
    """What may still become a line is waited for, and not for longer than the limit."""
    assert found(b"x" * (Sniffer.LIMIT - 1)) is None
    assert found(b"x" * Sniffer.LIMIT) == UNKNOWN
    assert found(b"GET /" + b"x" * Sniffer.LIMIT) == UNKNOWN


def test_a_head_without_end() -> None:
    """A head must have come whole within the limit: a second host may stand in its last line."""
    head = b"GET / HTTP/1.1\r\nHost: example.org\r\nCookie: "
    most = head + b"x" * (Sniffer.LIMIT - len(head) - 4) + b"\r\n\r\n"
    assert Finding(App.HTTP, http_host="example.org") == found(most)
    assert found(most[:-1]) is None
    assert found(most[:-4] + b"x\r\n\r\n") == UNKNOWN


class _Counted(bytearray):
    """Counts the octets that are searched or taken out."""

    octets = 0

    def find(self, sub: bytes, start: int = 0) -> int:  # type: ignore[override]
        """As a bytearray's."""
        self.octets += len(self) - start
        return super().find(sub, start)

    def __getitem__(self, key: object) -> object:  # type: ignore[override]
        found = super().__getitem__(key)  # type: ignore[call-overload]
        self.octets += len(found)
        return found


@pytest.mark.parametrize(
    "stream",
    [
        b"x" * 9_000,
        b"GET /" + b"x" * 4_000 + b" HTTP/1.1\r\n" + b"a: b\r\n" * 700 + b"Host: x\r\n\r\n",
        b"USER " + b"x" * 9_000 + b"\r\n",
    ],
)
def test_work_is_linear(stream: bytes) -> None:
    """However the stream is cut, no octet is looked at more than a few times."""
    reader = TextReader()
    reader._stream = counted = _Counted()
    for at in range(len(stream)):
        reader.receive_data(stream[at : at + 1])
    assert len(counted) == len(stream)
    assert counted.octets <= 6 * len(stream)
