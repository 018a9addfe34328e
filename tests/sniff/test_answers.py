"""Whether a server answers in kind."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.strategies import damaged
from tests.sniff.flows import sniffed
from tests.sniff.hellos import (
    CAPTURED,
    browser_hello,
    captured,
    client_hello,
    extension,
    hello_body,
    message,
    record,
    server_hello,
    shake_hands,
)
from trioproxy.sniff import App, Sniffer
from trioproxy.sniff.http import HTTP2_PREFACE

_ANSWERED = [name for name in CAPTURED if captured(name)[1]]
_REQUEST = b"GET / HTTP/1.0\r\n\r\n"
_SELECTED = extension(43, b"\3\4")
_SESSION_ID = bytes(range(32))
_MODERN = record(
    message(
        1, hello_body(session_id=_SESSION_ID, extensions=(extension(43, b"\4\3\4\3\3"),), compression_methods=b"\0\1")
    )
)
_OLD = record(message(1, hello_body(version=0x0302, extensions=None, compression_methods=b"\0\1")))


def _confirmed(client: bytes, server: bytes) -> bool | None:
    return sniffed(client, server).confirmed


@pytest.mark.parametrize("name", _ANSWERED)
def test_real_servers(name: str) -> None:
    """TLS 1.2 and 1.3, resumed, with a HelloRetryRequest, or refused with an alert: told at the end of the message."""
    client, server = captured(name)
    assert _confirmed(client, server) is True
    assert _confirmed(client, server + b"more") is True
    assert all(_confirmed(client, server[:end]) is None for end in range(len(server)))


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_pythons_own_server(version: ssl.TLSVersion, resume: bool) -> None:
    """It answers the client that it spoke with; what answered another session does not."""
    client, server = shake_hands(version, resume=resume)
    assert _confirmed(client, server) is True
    if version is ssl.TLSVersion.TLSv1_3:
        assert _confirmed(client_hello(), server) is False


@pytest.mark.parametrize(
    ("client", "server", "answers"),
    [
        (_OLD, server_hello(version=0x0302), True),
        (_OLD, server_hello(version=0x0301, session_id=b"another"), True),
        (_OLD, server_hello(version=0x0302, compression=1, extensions=None), True),
        (_OLD, server_hello(version=0x0303), False),
        (_OLD, server_hello(version=0x0302, compression=2), False),
        (_OLD, server_hello(version=0x0302, cipher_suite=b"\x01\xc0"), False),
        (_OLD, server_hello(extensions=(_SELECTED,)), False),
        (_MODERN, server_hello(session_id=_SESSION_ID, cipher_suite=b"\x13\x01", extensions=(_SELECTED,)), True),
        (_MODERN, server_hello(cipher_suite=b"\x13\x01", extensions=(_SELECTED,)), False),
        (_MODERN, server_hello(session_id=_SESSION_ID, extensions=(_SELECTED,), version=0x0302), False),
        (_MODERN, server_hello(session_id=_SESSION_ID, extensions=(_SELECTED,), compression=1), False),
        (_MODERN, server_hello(session_id=_SESSION_ID, extensions=(extension(43, b"\3\3"),)), False),
        (_MODERN, server_hello(session_id=_SESSION_ID, extensions=(extension(43, b"\0\3\4"),)), False),
        (_MODERN, server_hello(extensions=()), True),
        (_MODERN, server_hello(version=0x0302), False),
        (_MODERN, server_hello(version=0x0304), False),
        (_MODERN, server_hello(session_id=bytes(33)), False),
        (_MODERN, server_hello(extensions=(extension(23, b""), extension(23, b""))), False),
        (_MODERN, record(message(2, bytes(70)[:34] + b"\0\xc0")), False),
        (_MODERN, record(message(1, bytes(70))), False),
        (_MODERN, record(message(2, bytes(4_097))), False),
        (_MODERN, record(b"\1\1", kind=20), False),
        (_MODERN, record(b"\2\x28", kind=21), True),
        (_MODERN, record(b"\1\x70", kind=21) + b"more", False),
        (_MODERN, record(b"\1\x70", kind=21) * 2, None),
        (_MODERN, record(b"\1\x70", kind=21) * 2 + server_hello(version=0x0304), False),
        (_MODERN, record(b"\1\x70", kind=21) * 2 + server_hello(extensions=()), True),
        (_MODERN, record(b"\1\x70", kind=21) + record(b"\2\x28", kind=21), True),
        (_MODERN, record(b"\1\0", kind=21), True),
        (_MODERN, record(b"\3\x28", kind=21), False),
        (_MODERN, record(b"\2\x27", kind=21), False),
        (_MODERN, record(b"\2\x28\0", kind=21), False),
        (_MODERN, record(b"\2\x28", kind=21, version=0x0200), False),
        (_MODERN, record(b"\2\x28", kind=21)[:4], None),
        (_MODERN, record(b"\2\x28", kind=21)[:6], None),
        (_MODERN, b"HTTP/1.1 400 Bad Request\r\n", False),
        (_MODERN, b"\x80", False),
        (_MODERN, b"\x16\3", None),
        (
            browser_hello(),
            server_hello(session_id=_SESSION_ID, cipher_suite=b"\x13\x03", extensions=(_SELECTED,)),
            True,
        ),
    ],
)
def test_tls(client: bytes, server: bytes, answers: bool | None) -> None:
    """RFC 8446 sections 4.1.3, 4.2.1 and 6: of what was offered, in a version that was offered, to this session."""
    assert answers is _confirmed(client, server)
    if answers is not None:  # however it is cut
        pieces = Sniffer()
        pieces.receive_client(client)
        for octet in server:
            pieces.receive_server(bytes((octet,)))
        assert pieces.confirmed is answers


@pytest.mark.parametrize(
    ("server", "refused"),
    [
        (record(b"\2\x28", kind=21), True),
        (record(b"\1\0", kind=21), True),
        (record(b"\1\x70", kind=21), False),
        (server_hello(extensions=()), False),
        (b"", False),
    ],
)
def test_an_alert_that_ends_it_is_a_refusal(server: bytes, refused: bool) -> None:
    """RFC 5246 section 7.2: behind a fatal alert, or the notice of the end, nothing comes."""
    assert sniffed(_MODERN, server).refused is refused
    assert sniffed(_REQUEST, server).refused is False
    assert Sniffer().refused is False


@pytest.mark.parametrize(
    ("client", "server", "answers"),
    [
        (_REQUEST, b"HTTP/1.1 200 OK", True),
        (_REQUEST, b"HTTP/1.0 999\r", True),
        (_REQUEST, b"HTTP/1.1 200", None),
        (_REQUEST, b"HTT", None),
        (_REQUEST, b"HTTP/1.1 2000", False),
        (_REQUEST, b"HTTP/1.2 200 ", False),
        (_REQUEST, b"HTTP/1.1 020 ", False),
        (_REQUEST, b"HTTP/2.0", False),
        (_REQUEST, b"<html>", False),
        (_REQUEST, bytes.fromhex("000006 04 00 00000000"), False),
        (HTTP2_PREFACE, b"HTTP/1.1 505 No", True),
        (HTTP2_PREFACE, bytes.fromhex("000000 04 00 00000000"), True),
        (HTTP2_PREFACE, bytes.fromhex("000012 04 00 00000000") + b"more", True),
        (HTTP2_PREFACE, bytes.fromhex("000012 04 00 000000"), None),
        (HTTP2_PREFACE, bytes.fromhex("000005 04 00 00000000"), False),
        (HTTP2_PREFACE, bytes.fromhex("004002 04 00 00000000"), False),
        (HTTP2_PREFACE, bytes.fromhex("000000 04 01 00000000"), False),
        (HTTP2_PREFACE, bytes.fromhex("000000 07 00 00000000"), False),
        (HTTP2_PREFACE, bytes.fromhex("000000 04 00 00000001"), False),
    ],
)
def test_http(client: bytes, server: bytes, answers: bool | None) -> None:
    """RFC 9112 section 4: a status line; RFC 9113 section 3.4: SETTINGS is the first frame of a server."""
    assert answers is _confirmed(client, server)


def test_a_server_that_spoke_too_early() -> None:
    """What was said before the client was known counts: HTTP/2 may begin so, other answers cannot come before."""
    assert sniffed(HTTP2_PREFACE, bytes(3) + b"\4" + bytes(5), server_first=True).confirmed is True
    early = sniffed(_MODERN, b"220 hello\r\n", server_first=True)
    assert early.finding is not None
    assert early.finding.app is App.TLS
    assert early.confirmed is False


def test_an_answer_without_end() -> None:
    """A server that wraps each octet in a record is read up to the limit, and then it is no answer."""
    wrapped = b"".join(record(octet) for octet in (b"\2", b"\0", b"\x0f", b"\0", *[b"\0"] * 4_000))
    assert _confirmed(_MODERN, wrapped[: Sniffer.LIMIT - 1]) is None
    assert _confirmed(_MODERN, wrapped) is False


@given(
    st.sampled_from([captured(name) for name in _ANSWERED]),
    st.data(),
    st.lists(st.integers(0, 300), max_size=9),
)
def test_any_split_gives_the_same(conversation: tuple[bytes, bytes], data: st.DataObject, places: list[int]) -> None:
    """An answer, whole or damaged, is the same however it is cut."""
    client, server = conversation
    server = data.draw(damaged(st.just(server)) | st.binary(max_size=20))
    whole = sniffed(client, server)
    cut = sniffed(client, server, places=places)
    assert (whole.finding, whole.confirmed) == (cut.finding, cut.confirmed)
    assert cut.confirmed is sniffed(client, server, places=range(400)).confirmed
