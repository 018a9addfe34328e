"""Flows driven through a sniffer, and what real programs say in them."""

from collections.abc import Iterable

from tests.protocol.driver import split
from tests.sniff.hellos import CAPTURED, browser_hello, captured
from trioproxy.sniff import App, Finding, Sniffer

__all__ = ["CONVERSATIONS", "TEXTS", "UNKNOWN", "found", "sniffed"]

UNKNOWN = Finding(App.UNKNOWN)

# What programs said: curl 7.88, wget 1.21, OpenSSH 9.2. The client, and the server that spoke before it or answered.
TEXTS: dict[str, tuple[bytes, bytes, Finding]] = {
    "curl_get": (
        b"GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        Finding(App.HTTP, http_host="127.0.0.1"),
    ),
    "curl_proxy": (
        (
            b"GET http://www.example.org/x HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: curl/7.88.1\r\n"
            b"Accept: */*\r\nProxy-Connection: Keep-Alive\r\n\r\n"
        ),
        b"HTTP/1.0 404 Not Found\r\n",
        Finding(App.HTTP, http_host="www.example.org"),
    ),
    "curl_connect": (
        (
            b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: www.example.org:443\r\nUser-Agent: curl/7.88.1\r\n"
            b"Proxy-Connection: Keep-Alive\r\n\r\n"
        ),
        b"HTTP/1.1 407\r\n",
        Finding(App.HTTP, http_host="www.example.org"),
    ),
    "curl_http2": (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + bytes.fromhex("000012 04 00 00000000 000300000064 000402000000 000200000000"),
        bytes.fromhex("000006 04 00 00000000 000300000080"),
        Finding(App.HTTP),
    ),
    "wget_get": (
        (
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: Wget/1.21.3\r\nAccept: */*\r\n"
            b"Accept-Encoding: identity\r\nConnection: Keep-Alive\r\n\r\n"
        ),
        b"HTTP/1.0 500 Oh\r\n",
        Finding(App.HTTP, http_host="127.0.0.1"),
    ),
    "openssh": (b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10\r\n", b"SSH-2.0-dropbear_2022.83\r\n", Finding(App.SSH)),
    "curl_ftp": (b"USER anonymous\r\n", b"220 (vsFTPd 3.0.3)\r\n", Finding(App.FTP)),
    "curl_smtp": (b"EHLO client\r\n", b"220 mx.example.org ESMTP Postfix\r\n", Finding(App.SMTP)),
    "curl_imap": (
        b"A001 CAPABILITY\r\n",
        b"* OK [CAPABILITY IMAP4rev1 STARTTLS] Dovecot ready.\r\n",
        Finding(App.IMAP),
    ),
    "curl_pop3": (b"CAPA\r\n", b"+OK Dovecot ready.\r\n", Finding(App.POP3)),
}

# The same with binary protocols.
CONVERSATIONS: dict[str, tuple[bytes, bytes]] = (
    {name: (client, server) for name, (client, server, _) in TEXTS.items()}
    | {name: captured(name) for name in CAPTURED}
    | {
        "browser": (browser_hello(), b""),
        "bittorrent": (b"\x13BitTorrent protocol" + bytes(48), b"\x13BitTorrent protocol" + bytes(48)),
        "rdp": (
            bytes.fromhex("0300002c27e00000000000")
            + b"Cookie: mstshash=eltons\r\n"
            + bytes.fromhex("0100080000000000"),
            bytes.fromhex("030000130ed000001234000209080000000000"),
        ),
        "dns": (bytes.fromhex("001d 1234 0100 0001 0000 0000 0000 076578616d706c65036f7267000001 0001"), b""),
        "turn": (bytes.fromhex("0003 0008 2112a442 000102030405060708090a0b 0019000411000000"), b""),
        "ssh_with_words_before": (b"", b"Welcome\r\nto this machine\r\nSSH-2.0-OpenSSH_9.2\r\n"),
        "noise": (bytes(range(0x80, 0x100)), b""),
    }
)


def sniffed(
    client: bytes,
    server: bytes = b"",
    *,
    places: Iterable[int] = (),
    server_first: bool = False,
    times_out: bool = False,
) -> Sniffer:
    """A sniffer that was given all this, cut at these places, one side behind the other."""
    sniffer = Sniffer()
    cuts = list(places)
    sides = [(client, sniffer.receive_client), (server, sniffer.receive_server)]
    for octets, receive in reversed(sides) if server_first else sides:
        for piece in split(octets, cuts):
            receive(piece)
    if times_out:
        sniffer.time_out()
    return sniffer


def found(client: bytes, server: bytes = b"", *, server_first: bool = False, times_out: bool = False) -> Finding | None:
    """What is found when all this has come."""
    return sniffed(client, server, server_first=server_first, times_out=times_out).finding
