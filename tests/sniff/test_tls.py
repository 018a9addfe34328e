"""ClientHellos and what answers them."""

import ssl
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.strategies import damaged
from tests.sniff.flows import UNKNOWN, found
from tests.sniff.hellos import (
    CAPTURED,
    ECH_OUTER,
    browser_hello,
    captured,
    client_hello,
    extension,
    hello_body,
    message,
    record,
    server_names,
    vector,
)
from tests.sniff.oracle import is_client_hello
from trioproxy.sniff import App, Finding
from trioproxy.sniff.octets import MalformedError
from trioproxy.sniff.tls import ClientHello

_BODIES = {name: captured(name)[0][9:] for name in CAPTURED} | {"browser": browser_hello()[9:]}


def _decoded(body: bytes) -> ClientHello | None:
    try:
        return ClientHello.decode_untrusted(body)
    except MalformedError:
        return None


def _extensions_at(body: bytes) -> int:
    suites_at = 35 + body[34]
    compression_at = suites_at + 2 + int.from_bytes(body[suites_at : suites_at + 2], "big")
    return compression_at + 1 + body[compression_at]


def _with(*extensions: bytes) -> ClientHello | None:
    return _decoded(hello_body(extensions=extensions))


@pytest.mark.parametrize("name", _BODIES)
def test_real_clients(name: str) -> None:
    """Every real client is recognised, and nothing of its hello can be cut off, unless all extensions are."""
    body = _BODIES[name]
    assert is_client_hello(body)
    hello = _decoded(body)
    assert hello is not None
    assert hello.ech == (name == "browser")
    without_extensions = _extensions_at(body)
    assert [without_extensions] == [end for end in range(len(body)) if _decoded(body[:end]) is not None]
    assert _decoded(body + b"\0") is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("asked", "sni"),
    [
        ("www.example.org", "www.example.org"),
        ("B\xfccher.example", "xn--bcher-kva.example"),
        ("192.0.2.1", None),
        (None, None),
    ],
)
def test_pythons_own_client(version: ssl.TLSVersion, asked: str | None, sni: str | None) -> None:
    """The name is the one that the client asked for; there is none for an address."""
    assert Finding(App.TLS, sni=sni) == found(client_hello(asked, version))


@pytest.mark.parametrize(
    ("names", "sni"),
    [
        (server_names(b"Example.ORG"), "example.org"),
        (server_names(b"example.org."), "example.org"),
        (server_names(b"a.example", b"b.example"), None),
        (server_names(b"a.example", b"a.example"), None),
        (server_names(b"192.0.2.1"), None),
        (server_names(b"nul\0.example.org"), None),
        (server_names(b"a" * 300), None),
        (extension(0, vector(2, b"\1" + vector(2, b"example.org"))), None),
        (extension(0, vector(2, b"\1" + vector(2, b"x") + b"\0" + vector(2, b"example.org"))), None),
        (extension(0, vector(2, b"\0" + vector(2, b"example.org") + b"\1" + vector(2, b"x"))), None),
    ],
)
def test_server_name(names: bytes, sni: str | None) -> None:
    """RFC 6066 section 3: one name that is the name of a host; all else is TLS, but names nothing."""
    hello = _with(names)
    assert hello is not None
    assert sni == hello.sni


@pytest.mark.parametrize(
    ("octets", "ech"),
    [(ECH_OUTER, True), (b"\0\0\1\0\1\7" + vector(2, b"") + vector(2, b"x"), True), (b"\1", False), (b"\2x", False)],
)
def test_encrypted_client_hello(octets: bytes, ech: bool) -> None:
    """RFC 9849 section 5: the outer form, also that of a second hello; the inner form hides nothing."""
    hello = _with(extension(0xFE0D, octets), server_names(b"public.example"))
    assert hello is not None
    assert (ech, "public.example") == (hello.ech, hello.sni)


def _psk(identities: bytes, binders: bytes) -> bytes:
    return extension(41, vector(2, identities) + vector(2, binders))


_IDENTITY, _BINDER = vector(2, b"ticket") + bytes(4), vector(1, bytes(32))


@pytest.mark.parametrize(
    "body",
    [
        hello_body(version=0x0304),
        hello_body(version=0x0002),
        hello_body(session_id=bytes(33)),
        hello_body(cipher_suites=b""),
        hello_body(cipher_suites=b"\x13\x01\x13"),
        hello_body(compression_methods=b""),
        hello_body(compression_methods=b"\1"),
        *(
            hello_body(extensions=extensions)
            for extensions in (
                (extension(23, b""), extension(23, b"")),
                (b"\0",),
                (b"\0\x17\0",),
                (b"\0\x17\0\1",),
                (extension(0, b""),),
                (extension(0, b"\0\0"),),
                (extension(0, b"\0\4\0\0\1a\0"),),
                (extension(0, b"\0\3\0\0\0"),),
                (extension(0, vector(2, b"\0" + vector(2, b"a") + b"\0")),),
                (extension(10, b""),),
                (extension(10, b"\0\0"),),
                (extension(10, b"\0\3\0\1\2"),),
                (extension(10, b"\0\4\0\1"),),
                (extension(11, b"\0"),),
                (extension(16, b"\0\0"),),
                (extension(16, b"\0\1\0"),),
                (extension(16, b"\0\2\2h"),),
                (extension(16, b"\0\3\2h"),),
                (extension(43, b"\2\x7a\x7a"),),
                (extension(43, b"\3\3\4"),),
                (extension(51, b""),),
                (extension(51, b"\0\4\0\x1d\0\0"),),
                (extension(51, b"\0\3\0\x1d\0"),),
                (extension(0xFE0D, b""),),
                (extension(0xFE0D, ECH_OUTER + b"\0"),),
                (extension(0xFE0D, ECH_OUTER[:-1]),),
                (_psk(_IDENTITY, _BINDER), extension(23, b"")),
                (_psk(b"", _BINDER),),
                (_psk(_IDENTITY, b""),),
                (_psk(_IDENTITY[:-1], _BINDER),),
                (_psk(_IDENTITY, _BINDER + b"\0"),),
            )
        ),
    ],
)
def test_not_tls(body: bytes) -> None:
    """What no server of TLS would take is not TLS, wherever the fault is."""
    assert _decoded(body) is None
    assert not is_client_hello(body)
    assert found(record(message(1, body))) == UNKNOWN


@pytest.mark.parametrize(
    "extensions",
    [
        None,
        (),
        (extension(51, b"\0\0"),),
        (extension(43, b"\4\x7a\x7a\3\4"),),
        (extension(0x7A7A, b"any"), extension(0xABCD, b"")),
        (extension(23, b""), _psk(_IDENTITY * 2, _BINDER * 2)),
    ],
)
def test_unusual_but_tls(extensions: Iterable[bytes] | None) -> None:
    """What a server may well take is TLS: no extensions, no key share as yet, GREASE, a pre-shared key."""
    body = hello_body(extensions=extensions)
    assert _decoded(body) is not None
    assert is_client_hello(body)


def test_ssl_2_is_not_tls() -> None:
    """Its hello has another frame, and it has been forbidden since RFC 6176."""
    assert (
        found(bytes.fromhex("802e0100020015000000100100800200800300800400800500800600400700c0") + bytes(16)) == UNKNOWN
    )


@pytest.mark.parametrize("name", CAPTURED)
def test_lengths_that_lie(name: str) -> None:
    """No octet can be changed so that a length does not fit any more; where another one does, it is another hello."""
    body = _BODIES[name]
    for at in range(len(body)):
        for value in {0, 1, 0xFF, body[at] ^ 1, body[at] ^ 0x80, (body[at] + 2) % 256, (body[at] - 2) % 256}:
            changed = body[:at] + bytes((value,)) + body[at + 1 :]
            assert is_client_hello(changed) == (_decoded(changed) is not None), (at, value)


def _length_places(body: bytes) -> list[int]:
    """Where the lengths are that the message itself is made of: of its lists, and of all its extensions."""
    suites_at = 35 + body[34]
    compression_at = suites_at + 2 + int.from_bytes(body[suites_at : suites_at + 2], "big")
    at = _extensions_at(body)
    places = [34, suites_at, suites_at + 1, compression_at, at, at + 1]
    at += 2
    while at < len(body):
        places += [at + 2, at + 3]
        at += 4 + int.from_bytes(body[at + 2 : at + 4], "big")
    return places


@pytest.mark.parametrize("name", ["java", "node", "openssl_tls_1_2", "openssl_tls_1_3_resumed", "browser"])
def test_hardly_another_length_fits(name: str) -> None:
    """Of each length of a list or an extension hardly any other value makes a hello, and if it does, a true one.

    It is one where an extension that may hold anything takes in the next ones whole.
    """
    body = _BODIES[name]
    places = _length_places(body)
    changes = [
        body[:at] + bytes((value,)) + body[at + 1 :] for at in places for value in range(256) if value != body[at]
    ]
    fitting = [changed for changed in changes if _decoded(changed) is not None]
    assert all(is_client_hello(changed) for changed in fitting)
    assert 100 * len(fitting) < len(changes)


_numbers = st.integers(0, 0xFFFF).map(lambda number: number.to_bytes(2, "big"))
_known = st.sampled_from([0, 5, 10, 11, 13, 16, 21, 23, 27, 35, 41, 43, 45, 50, 51, 0xFE0D, 0xFF01, 0x8A8A])
_insides = st.one_of(
    st.binary(max_size=12),
    st.lists(_numbers, max_size=4).map(lambda items: vector(1, b"".join(items))),
    st.lists(_numbers, max_size=4).map(lambda items: vector(2, b"".join(items))),
    st.lists(st.binary(max_size=9), max_size=3).map(
        lambda items: vector(2, b"".join(vector(1, item) for item in items))
    ),
    st.lists(st.binary(max_size=9), max_size=3).map(
        lambda items: vector(2, b"".join(b"\0" + vector(2, item) for item in items))
    ),
    st.lists(st.tuples(_numbers, st.binary(max_size=9)), max_size=3).map(
        lambda items: vector(2, b"".join(group + vector(2, share) for group, share in items))
    ),
    st.sampled_from([ECH_OUTER, ECH_OUTER[:-1], b"\3\3\4", b"\2\3\4", _psk(_IDENTITY, _BINDER)[4:]]),
)
_bodies = st.builds(
    hello_body,
    version=st.sampled_from([0x0303, 0x0301, 0x0300, 0x0304, 0x0200]),
    session_id=st.binary(max_size=33),
    cipher_suites=st.binary(max_size=6),
    compression_methods=st.sampled_from([b"\0", b"\1\0", b"\1", b""]),
    extensions=st.none() | st.lists(st.builds(extension, _known, _insides), max_size=6),
)


@given(_bodies | damaged(_bodies) | damaged(st.sampled_from(list(_BODIES.values()))))
def test_the_same_as_the_oracle(body: bytes) -> None:
    """A hello is what a grammar of the RFCs, written in another way, says is one."""
    assert is_client_hello(body) == (_decoded(body) is not None)


@given(damaged(damaged(st.sampled_from(list(_BODIES.values())))), damaged(st.binary(max_size=60)))
def test_nothing_raises(body: bytes, answer: bytes) -> None:
    """Whatever a client and a server say, there is a yes or a no."""
    hello = _decoded(body)
    assert hello is None or hello.is_answered_by_untrusted(answer) in (True, False)
