"""What the first bytes of a flow are. Pure: bytes come in, findings come out, and nothing is decrypted."""

from trioproxy.sniff.datagrams import datagram_app
from trioproxy.sniff.finding import SERVER_FIRST, App, Finding
from trioproxy.sniff.sniffer import Sniffer

__all__ = ["SERVER_FIRST", "App", "Finding", "Sniffer", "datagram_app"]
