"""The internet of the pages: a program that serves on addresses of a test's own machine, and says "ready" first.

    python internet.py CERTIFICATE KEY

It needs nothing but Python, as it runs where no package of ours has to be found.
"""

import socketserver
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

WEB: Final = "93.184.215.14"  # www.example.org, ports 80 and 443
FILES: Final = "93.184.215.16"  # files.example.org, ports 80 and 443: 30 MB whatever is asked for
TUNNEL: Final = "93.184.215.20"  # tunnel.example.net, port 443: answers whatever it hears, in no protocol
PEER: Final = "93.184.215.30"  # port 3478 of UDP: echoes

PAGE: Final = b"<h1>It works</h1>\n"
FILE_BYTES: Final = 30_000_000


class _Web(BaseHTTPRequestHandler):
    size = 0  # of what is sent; 0: the page

    def do_GET(self) -> None:
        """The page, or so many bytes."""
        self.send_response(200)
        self.send_header("Content-Length", str(self.size or len(PAGE)))
        self.end_headers()
        if not self.size:
            self.wfile.write(PAGE)
        for _ in range(self.size // 100_000):
            self.wfile.write(bytes(100_000))

    def handle(self) -> None:
        """Who goes away in the middle, or speaks no TLS, is no error."""
        try:
            super().handle()
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""


class _Files(_Web):
    size = FILE_BYTES


class _Tunnel(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        """Answer whatever is said."""
        if self.request.recv(65_536):
            self.request.sendall(b"hello from the tunnel\n")


class _Peer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        """Echo."""
        packet, sock = self.request
        sock.sendto(packet, self.client_address)


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def main(certificate: str, key: str) -> None:
    """Serve until the end of standard input."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    servers: list[socketserver.BaseServer] = [_Tcp((TUNNEL, 443), _Tunnel), socketserver.UDPServer((PEER, 3478), _Peer)]
    for address, handler in ((WEB, _Web), (FILES, _Files)):
        secure = ThreadingHTTPServer((address, 443), handler)
        secure.socket = tls.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
        servers += [secure, ThreadingHTTPServer((address, 80), handler)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)  # noqa: T201 - for the test that waits
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
