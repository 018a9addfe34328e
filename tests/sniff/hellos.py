"""Hellos of TLS: captured from real programs, made by Python's own TLS, and built by hand.

`captured/` holds the first record of a client, and of the server that answered it: curl 7.88 and `openssl` with OpenSSL
3.0, wget 1.21 with GnuTLS, Node.js 18, OpenJDK 17. Resumed means with a ticket (TLS 1.2) or a pre-shared key (TLS 1.3),
retry with a HelloRetryRequest, refused with an alert.
"""

import contextlib
import functools
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import trustme

__all__ = [
    "CAPTURED",
    "ECH_OUTER",
    "browser_hello",
    "captured",
    "client_hello",
    "extension",
    "hello_body",
    "message",
    "record",
    "server_hello",
    "shake_hands",
    "vector",
]

_FOLDER = Path(__file__).parent / "captured"
CAPTURED = sorted(path.stem for path in _FOLDER.glob("*.client"))
NAME = "www.example.org"


def captured(name: str) -> tuple[bytes, bytes]:
    """What the client said, and what the server answered (nothing, where only the client was captured)."""
    answer = _FOLDER / f"{name}.server"
    return (_FOLDER / f"{name}.client").read_bytes(), answer.read_bytes() if answer.exists() else b""


# Python's own TLS


_authority: Final = functools.cache(trustme.CA)


@functools.cache
def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert(NAME).configure_cert(context)
    return context


def _client_context(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _authority().configure_trust(context)
    context.maximum_version = version
    return context


def client_hello(name: str | None = NAME, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """The first flight of a client."""
    outgoing = ssl.MemoryBIO()
    # An address is checked as a name would be, but no ClientHello says it.
    client = _client_context(version).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name or "192.0.2.1")
    _step(client)
    return outgoing.read()


def shake_hands(version: ssl.TLSVersion, *, resume: bool = False) -> tuple[bytes, bytes]:
    """The first flights of a client and of the server that answers it."""
    context = _client_context(version)
    session = _handshake(context, None)[2] if resume else None
    return _handshake(context, session)[:2]


def _handshake(context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bytes, bytes, ssl.SSLSession | None]:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=NAME, session=session)
    server = _server_context().wrap_bio(to_server, to_client, server_side=True)
    _step(client)
    hello = to_server.read()
    to_server.write(hello)
    _step(server)
    answer = to_client.read()
    to_client.write(answer)
    for side in (client, server, client):
        _step(side)
    server.write(b"x")
    client.read(1)  # the tickets of TLS 1.3 come before it
    return hello, answer, client.session


def _step(side: ssl.SSLObject) -> None:
    with contextlib.suppress(ssl.SSLWantReadError):
        side.do_handshake()


# Built by hand


def vector(width: int, octets: bytes) -> bytes:
    """The octets behind their length."""
    return len(octets).to_bytes(width, "big") + octets


def extension(kind: int, octets: bytes) -> bytes:
    """One extension."""
    return kind.to_bytes(2, "big") + vector(2, octets)


def message(kind: int, body: bytes) -> bytes:
    """A handshake message."""
    return bytes((kind,)) + vector(3, body)


def record(fragment: bytes, kind: int = 22, version: int = 0x0301) -> bytes:
    """A record of the record layer."""
    return bytes((kind,)) + version.to_bytes(2, "big") + vector(2, fragment)


def hello_body(  # each argument is a field that a test may want to be wrong
    *,
    version: int = 0x0303,
    session_id: bytes = b"",
    cipher_suites: bytes = b"\x13\x01\xc0\x2f",
    compression_methods: bytes = b"\0",
    extensions: Iterable[bytes] | None = (),
) -> bytes:
    """The body of a ClientHello; None as extensions: from before there were any."""
    fixed = version.to_bytes(2, "big") + bytes(range(32))
    lists = vector(1, session_id) + vector(2, cipher_suites) + vector(1, compression_methods)
    return fixed + lists + (b"" if extensions is None else vector(2, b"".join(extensions)))


def server_hello(
    *,
    version: int = 0x0303,
    session_id: bytes = b"",
    cipher_suite: bytes = b"\xc0\x2f",
    compression: int = 0,
    extensions: Iterable[bytes] | None = (),
) -> bytes:
    """A ServerHello in its record."""
    fixed = version.to_bytes(2, "big") + bytes(range(32)) + vector(1, session_id) + cipher_suite + bytes((compression,))
    body = fixed + (b"" if extensions is None else vector(2, b"".join(extensions)))
    return record(message(2, body), version=0x0303)


def server_names(*names: bytes) -> bytes:
    """The extension server_name with these names of hosts."""
    return extension(0, vector(2, b"".join(b"\0" + vector(2, name) for name in names)))


ECH_OUTER = b"\0" + b"\0\1\0\1\x2a" + vector(2, bytes(32)) + vector(2, bytes(208))


def browser_hello(name: bytes = b"public.example.org") -> bytes:
    """What today's browsers send: GREASE everywhere, a post-quantum key share, ECH or what looks like it; 1.8 KB."""
    grease = 0x8A8A
    shares = b"".join(
        group.to_bytes(2, "big") + vector(2, bytes(length)) for group, length in ((grease, 1), (4588, 1216), (29, 32))
    )
    body = hello_body(
        session_id=bytes(range(32)),
        cipher_suites=b"\x3a\x3a" + bytes.fromhex("130113021303c02bc02fc02cc030cca9cca8c013c014009c009d002f0035"),
        extensions=(
            extension(grease, b""),
            extension(17613, vector(2, vector(1, b"h2"))),
            extension(16, vector(2, vector(1, b"h2") + vector(1, b"http/1.1"))),
            extension(23, b""),
            extension(45, vector(1, b"\1")),
            extension(0xFE0D, ECH_OUTER),
            extension(13, vector(2, bytes.fromhex("04030804040105030805050108060601"))),
            extension(18, b""),
            extension(10, vector(2, b"\x8a\x8a" + bytes.fromhex("11ec001d00170018"))),
            extension(5, b"\1\0\0\0\0"),
            extension(27, vector(1, b"\0\2")),
            extension(0xFF01, b"\0"),
            extension(51, vector(2, shares)),
            extension(43, vector(1, b"\x6a\x6a\3\4\3\3")),
            extension(11, vector(1, b"\0")),
            extension(35, b""),
            server_names(name),
            extension(0x4A4A, b"\0"),
        ),
    )
    return record(message(1, body))
