"""Requests of HTTP and their hosts."""

import http.client
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.strategies import damaged
from tests.sniff.flows import UNKNOWN, found
from tests.sniff.oracle import request_host
from trioproxy.sniff import App, Finding
from trioproxy.sniff.http import request_host_untrusted
from trioproxy.sniff.octets import MalformedError


class _Wire(io.BytesIO):
    """In place of a socket: keeps what is sent."""

    def sendall(self, data: bytes) -> None:
        """Keep it."""
        self.write(data)


def _said_by_http_client(method: str, url: str, host: str, **headers: str) -> bytes:
    connection = http.client.HTTPConnection(host)
    wire = _Wire()
    connection.sock = wire  # as much of a socket as it takes to send
    connection.request(method, url, headers=headers)
    return wire.getvalue()


def _host(head: bytes) -> str | None:
    """As the oracle says it: "" for no host, None for no request."""
    try:
        return request_host_untrusted(head) or ""
    except MalformedError:
        return None


@pytest.mark.parametrize(
    ("method", "url", "host", "expected"),
    [
        ("GET", "/", "www.Example.org", "www.example.org"),
        ("POST", "/a%20b?c#d", "example.org:8080", "example.org"),
        ("DELETE", "/", "[2001:db8::1]:80", "2001:db8::1"),
        ("OPTIONS", "*", "192.0.2.1", "192.0.2.1"),
        ("M-SEARCH", "/", "localhost", "localhost"),
    ],
)
def test_pythons_own_client(method: str, url: str, host: str, expected: str) -> None:
    """The host is the one that was connected to, without its port."""
    assert Finding(App.HTTP, http_host=expected) == found(_said_by_http_client(method, url, host, Cookie="a=b; c"))


_LINE = b"GET / HTTP/1.1\r\n"
_HOST = b"Host: example.org\r\n"


@pytest.mark.parametrize(
    ("head", "host"),
    [
        (_LINE + _HOST, "example.org"),
        (_LINE + b"X: y\r\nhOST:EXAMPLE.org.:80 \t\r\nZ:\r\n", "example.org"),
        (_LINE + b"X-Host: a\r\n" + _HOST, "example.org"),
        (_LINE + b"X: \r\n" + _HOST + b"Cookie: \xe9 \t~\r\n", "example.org"),
        (b"GET / HTTP/1.0\r\n", ""),
        (b"GET / HTTP/1.0\r\n" + _HOST, "example.org"),
        (b"GET /caf\xc3\xa9 HTTP/1.1\r\n" + _HOST, "example.org"),
        (b"GET http://Example.org HTTP/1.1\r\n" + _HOST, "example.org"),
        (b"GET HTTP://example.org:80/x?y HTTP/1.1\r\n" + _HOST, "example.org"),
        (b"GET http://example.org?y HTTP/1.0\r\n", "example.org"),
        (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n", "example.org"),
        (b"CONNECT [2001:db8::1]:443 HTTP/1.0\r\n", "2001:db8::1"),
        (b"OPTIONS * HTTP/1.1\r\n" + _HOST, "example.org"),
    ],
)
def test_requests(head: bytes, host: str) -> None:
    """RFC 9112 section 3.2: the four forms of a target, and the field Host."""
    assert host == _host(head) == request_host(head)
    assert Finding(App.HTTP, http_host=host or None) == found(head + b"\r\n")


@pytest.mark.parametrize(
    "head",
    [
        _LINE,
        _LINE + _HOST + _HOST,
        _LINE + _HOST + b"HOST: other.example\r\n",
        _LINE + b"Host:\r\n",
        _LINE + b"Host: a b\r\n",
        _LINE + b"Host: a, b\r\n",
        _LINE + b"Host: user@example.org\r\n",
        _LINE + b"Host: example.org:x\r\n",
        _LINE + b"Host: 127.1\r\n",
        _LINE + b"Host: example.org/\r\n",
        _LINE + b"Host : example.org\r\n",
        _LINE + b" Host: example.org\r\n",
        _LINE + b"X: y\r\n" + b" folded\r\n" + _HOST,
        _LINE + b"X: y\nHost: other.example\r\n" + _HOST,
        _LINE + b"X: y\rHost: other.example\r\n" + _HOST,
        _LINE + b"X: \0\r\n" + _HOST,
        _LINE + b": y\r\n" + _HOST,
        _LINE + b"nonsense\r\n" + _HOST,
        b"GET / HTTP/1.1\n" + _HOST,
        b"GET  / HTTP/1.1\r\n" + _HOST,
        b"GET /  HTTP/1.1\r\n" + _HOST,
        b"GET /\t HTTP/1.1\r\n" + _HOST,
        b" GET / HTTP/1.1\r\n" + _HOST,
        b"GET / HTTP/1.1 \r\n" + _HOST,
        b"GET / HTTP/1.2\r\n" + _HOST,
        b"GET / HTTP/2.0\r\n" + _HOST,
        b"GET / http/1.1\r\n" + _HOST,
        b"GET /\r\n" + _HOST,
        b"GET HTTP/1.1\r\n" + _HOST,
        b"G\xc9T / HTTP/1.1\r\n" + _HOST,
        b"G(T / HTTP/1.1\r\n" + _HOST,
        b"A" * 33 + b" / HTTP/1.1\r\n" + _HOST,
        b"GET example.org HTTP/1.1\r\n" + _HOST,
        b"GET * HTTP/1.1\r\n" + _HOST,
        b"GET ftp://example.org/ HTTP/1.1\r\n" + _HOST,
        b"GET http:///x HTTP/1.1\r\n" + _HOST,
        b"GET http://other.example/ HTTP/1.1\r\n" + _HOST,
        b"GET http://example.org@other.example/ HTTP/1.0\r\n",
        b"CONNECT example.org HTTP/1.0\r\n",
        b"CONNECT example.org: HTTP/1.0\r\n",
        b"CONNECT /x HTTP/1.0\r\n",
        b"CONNECT other.example:443 HTTP/1.1\r\n" + _HOST,
    ],
)
def test_in_doubt(head: bytes) -> None:
    """RFC 9112 sections 3.2 and 11.2: what two programs may read in two ways is not taken for HTTP."""
    assert _host(head) is None
    assert request_host(head) is None
    assert found(head + b"\r\n") == UNKNOWN


_names = st.sampled_from([b"example.org", b"other.example", b"a:80", b"[::1]", b"127.1", b"a b", b"", b"192.0.2.1."])
_targets = st.sampled_from(
    [b"/", b"/x y", b"*", b"http://example.org", b"https://a:80/?", b"example.org:443", b"a:", b"http://a#b", b"\xff"]
)
_fields = st.tuples(st.sampled_from([b"Host:", b"host: ", b"X:", b"X", b"Host :"]), _names).map(b"".join)
_heads = st.builds(
    lambda method, target, version, fields: b"\r\n".join([b" ".join((method, target, version)), *fields, b""]),
    st.sampled_from([b"GET", b"CONNECT", b"OPTIONS", b"G T", b""]),
    _targets,
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2"]),
    st.lists(_fields, max_size=3),
)


@given(_heads | damaged(_heads) | st.binary(max_size=40))
def test_the_same_as_the_oracle(head: bytes) -> None:
    """A head is a request for the host that a reader written in another way finds, or none."""
    assert request_host(head) == _host(head)
