"""The first bytes of both sides of a flow, and of a datagram.

The first octet of an input says in its low bits at how many places the streams are cut, with 0x40 that the server
speaks first, and with 0x80 that the time runs out. The places follow as one octet each, then two octets with the length
of what the client says, then that, then what the server says.
"""

from tests.protocol.driver import split
from tests.sniff.flows import sniffed
from tests.sniff.oracle import canonical, is_client_hello, request_host
from trioproxy.sniff import App, Finding, Sniffer, datagram_app

__all__ = ["test_one_input"]

_PLACES_MASK = 0x3F
_SERVER_FIRST = 0x40
_TIMES_OUT = 0x80
_HEAD_END = b"\r\n\r\n"


def test_one_input(data: bytes) -> None:
    """However the streams are cut and mixed, the same is found, and it is what the oracles say."""
    if not data:
        return
    behind = 1 + (data[0] & _PLACES_MASK)
    places = data[1:behind]
    length = int.from_bytes(data[behind : behind + 2], "big")
    client, server = data[behind + 2 : behind + 2 + length], data[behind + 2 + length :]
    server_first, times_out = bool(data[0] & _SERVER_FIRST), bool(data[0] & _TIMES_OUT)
    whole = sniffed(client, server, server_first=server_first, times_out=times_out)
    cut = sniffed(client, server, places=places, server_first=server_first, times_out=times_out)
    mixed = _mixed(client, server, places, times_out=times_out)
    assert (whole.finding, whole.confirmed) == (cut.finding, cut.confirmed) == (mixed.finding, mixed.confirmed)
    assert (whole.confirmed is None) or whole.finding is not None
    _check_alone(client)
    if whole.finding is not None:
        _check_finding(whole.finding, client)
    assert isinstance(datagram_app(client), App)


def _mixed(client: bytes, server: bytes, places: bytes, *, times_out: bool) -> Sniffer:
    """Each side has its turn by one place, as long as it has something left."""
    sniffer = Sniffer()
    sides = [(split(client, places), sniffer.receive_client), (split(server, places), sniffer.receive_server)]
    for turn in [*places, *([0, 1] * (len(places) + 1))]:
        pieces, receive = sides[turn % 2]
        if pieces:
            receive(pieces.pop(0))
    if times_out:
        sniffer.time_out()
    return sniffer


def _check_alone(client: bytes) -> None:
    """What the client alone can decide is TLS or HTTP exactly when the oracles say so."""
    finding = sniffed(client).finding
    app = finding.app if finding else None
    body = _hello(client)
    assert (app is App.TLS) == (body is not None and is_client_hello(body))
    head, end, _ = client.partition(_HEAD_END)
    host = request_host(head + b"\r\n") if end else None
    assert (app is App.HTTP) == (host is not None or client.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    assert app is not App.HTTP or (finding and finding.http_host == (host or None))


def _hello(stream: bytes) -> bytes | None:
    """The body of the ClientHello that the records hold, if its end is the end of a record."""
    message = b""
    while not (len(message) >= 4 and len(message) >= 4 + int.from_bytes(message[1:4], "big")):
        length = int.from_bytes(stream[3:5], "big")
        fragment, stream, header = stream[5 : 5 + length], stream[5 + length :], stream[:3]
        known = header[:2] == b"\x16\3" and header[2:] in (b"\0", b"\1", b"\2", b"\3", b"\4")
        if not known or not 0 < length == len(fragment) <= 1 << 14:
            return None
        message += fragment
    fits = message[:1] == b"\1" and len(message) == 4 + int.from_bytes(message[1:4], "big")
    return message[4:] if fits else None


def _check_finding(finding: Finding, client: bytes) -> None:
    assert finding.sni is None or (finding.app is App.TLS and finding.sni == canonical(finding.sni.encode()))
    assert finding.sni is None or finding.sni.encode() in client.lower() or client.startswith(b"\x16")
    assert finding.http_host is None or finding.app is App.HTTP
    assert not finding.ech or finding.app is App.TLS
