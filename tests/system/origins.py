"""What the programs reach through the proxy: small servers on loopback, in threads of the test."""

import contextlib
import hashlib
import random
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.system.waiting import PATIENCE_S

__all__ = [
    "GREETING",
    "Web",
    "blob",
    "closed_port",
    "digest",
    "dns_origin",
    "family_of",
    "free_port",
    "tcp_origin",
    "udp_echo",
    "web_origin",
]

GREETING = b"hello from the origin\n"


@lru_cache(maxsize=64)
def blob(size: int) -> bytes:
    """So many octets, always the same ones."""
    return random.Random(size).randbytes(size)


def digest(data: bytes) -> str:
    """The SHA-256 of it, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def family_of(host: str) -> socket.AddressFamily:
    """IPv6 if there is a colon in it."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


# ---- HTTP


class Web(ThreadingHTTPServer):
    """An HTTP server: `/` greets, `/blob/N` has N octets, `/held` stops half-way, `PUT /` answers with a digest.

    Attributes:
        asked: the paths of the requests so far.
        half: set when the first half of `/held` has been sent.
        go_on: lets `/held` send its second half.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, tls: ssl.SSLContext | None = None) -> None:
        self.address_family = family_of(host)
        self.tls = tls
        self.asked: list[str] = []
        self.half = threading.Event()
        self.go_on = threading.Event()
        super().__init__((host, 0), _WebHandler)

    def server_bind(self) -> None:
        """Without the look-up of our own name that HTTPServer makes."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]  # str for these families

    def get_request(self) -> tuple[socket.socket, object]:
        """The next connection; over TLS once something has come, as Python forgets to close one that is gone by then.

        Raises:
            OSError: it is gone.
        """
        sock, address = super().get_request()
        if self.tls is None:
            return sock, address
        try:
            sock.settimeout(PATIENCE_S)
            sock.recv(1, socket.MSG_PEEK)
            return self.tls.wrap_socket(sock, server_side=True), address
        except OSError:
            sock.close()
            raise

    def url(self, path: str = "/", host: str | None = None) -> str:
        """Where `path` is."""
        address = host or str(self.server_name)
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{f'[{address}]' if ':' in address else address}:{self.server_port}{path}"


class _WebHandler(BaseHTTPRequestHandler):
    server: Web
    timeout = PATIENCE_S * 2

    def do_GET(self) -> None:
        """Send what the path names."""
        self.server.asked.append(self.path)
        if self.path.startswith("/blob/"):
            self._answer(blob(int(self.path.rpartition("/")[2])))
        elif self.path == "/held":
            self._hold(blob(200_000))
        else:
            self._answer(GREETING)

    def do_PUT(self) -> None:
        """Read the body, and only then answer with its digest."""
        self.server.asked.append(self.path)
        self._answer(digest(self.rfile.read(int(self.headers["Content-Length"]))).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""

    def _answer(self, body: bytes) -> None:
        self._begin(len(body))
        self.wfile.write(body)

    def _hold(self, body: bytes) -> None:
        self._begin(len(body))
        self.wfile.write(body[: len(body) // 2])
        self.server.half.set()
        if self.server.go_on.wait(PATIENCE_S * 2):
            self.wfile.write(body[len(body) // 2 :])

    def _begin(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def handle(self) -> None:
        """A client that goes away in the middle, or speaks no TLS, is no error of ours."""
        try:
            super().handle()
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True


@contextmanager
def web_origin(host: str, tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    """An HTTP server on this address until the block ends; of HTTPS where it has certificates."""
    with Web(host, tls) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.shutdown()
            thread.join(PATIENCE_S)


# ---- TCP and UDP


def free_port(host: str = "127.0.0.1") -> int:
    """A port for a program that must be told its number: none of those that the system gives to clients."""
    while True:
        with socket.socket(family_of(host), socket.SOCK_STREAM) as sock, contextlib.suppress(OSError):
            sock.bind((host, random.randrange(10_000, 32_000)))
            return int(sock.getsockname()[1])


@contextmanager
def closed_port(host: str) -> Iterator[int]:
    """A port on which nobody listens, and nobody can begin to until the block ends."""
    with socket.socket(family_of(host), socket.SOCK_STREAM) as sock:
        sock.bind((host, 0))
        yield sock.getsockname()[1]


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, host: str, serve: Callable[[socket.socket], None]) -> None:
        self.address_family = family_of(host)
        self._serve = serve
        super().__init__((host, 0), socketserver.BaseRequestHandler)

    def finish_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        request.settimeout(PATIENCE_S * 2)
        try:
            self._serve(request)
        except OSError:
            return  # reset, or silent for too long: the client's end is what a test looks at


@contextmanager
def tcp_origin(host: str, serve: Callable[[socket.socket], None] | None = None) -> Iterator[tuple[str, int]]:
    """A TCP server until the block ends: its address. By default it echoes."""
    with _TcpServer(host, serve or _echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield host, server.server_address[1]
        finally:
            server.shutdown()
            thread.join(PATIENCE_S)


def _echo(client: socket.socket) -> None:
    while data := client.recv(65_536):
        client.sendall(data)


@contextmanager
def udp_echo(host: str) -> Iterator[tuple[str, int]]:
    """A UDP server that answers `echo:` and the datagram, until the block ends: its address."""
    with _udp_origin(host, lambda packet: b"echo:" + packet) as address:
        yield address


@contextmanager
def dns_origin(host: str) -> Iterator[tuple[str, int]]:
    """A name server until the block ends, by UDP and by TCP: every name is 192.0.2.53. Its address."""

    def serve(client: socket.socket) -> None:
        while length := client.recv(2, socket.MSG_WAITALL):
            answer = _dns_answer(client.recv(int.from_bytes(length), socket.MSG_WAITALL))
            client.sendall(struct.pack("!H", len(answer)) + answer)

    with tcp_origin(host, serve) as (_, port), _udp_origin(host, _dns_answer, port):
        yield host, port


def _dns_answer(query: bytes) -> bytes:
    """RFC 1035 section 4.1: the question, which ends behind the name, the type and the class, and one A record."""
    question = query[12 : query.index(b"\0", 12) + 5]
    header = query[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0)  # an answer, recursion desired and available
    return header + question + struct.pack("!3HIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton("192.0.2.53")


@contextmanager
def _udp_origin(host: str, answer_to: Callable[[bytes], bytes], port: int = 0) -> Iterator[tuple[str, int]]:
    with socket.socket(family_of(host), socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        stop = threading.Event()

        def answer() -> None:
            while not stop.is_set():
                packet, sender = sock.recvfrom(65_536)
                if not stop.is_set():
                    sock.sendto(answer_to(packet), sender)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield host, sock.getsockname()[1]
        finally:
            stop.set()
            with socket.socket(family_of(host), socket.SOCK_DGRAM) as waker:
                waker.sendto(b"", sock.getsockname())
            thread.join(PATIENCE_S)
