"""Binary protocols in which the client speaks first."""

import pytest

from tests.sniff.flows import CONVERSATIONS, UNKNOWN, found, sniffed
from trioproxy.sniff import App, Finding

_QUERY = bytes.fromhex("1234 0100 0001 0000 0000 0000 00 0002 0001")  # the name servers of the root: the shortest


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def _rdp(parts: str) -> bytes:
    request = bytes.fromhex(parts)
    return b"\3\0" + (5 + len(request)).to_bytes(2, "big") + bytes((len(request),)) + request


@pytest.mark.parametrize(
    ("name", "app"), [("bittorrent", App.BITTORRENT), ("rdp", App.RDP), ("dns", App.DNS), ("turn", App.STUN)]
)
def test_conversations(name: str, app: App) -> None:
    """Each is found, and whatever the server answers will do."""
    client, server = CONVERSATIONS[name]
    sniffer = sniffed(client, server)
    assert (Finding(app), True) == (sniffer.finding, sniffer.confirmed)


def test_bittorrent() -> None:
    """BEP 3: the handshake begins with twenty octets that never change."""
    beginning = b"\x13BitTorrent protocol"
    assert Finding(App.BITTORRENT) == found(beginning)
    assert found(beginning[:-1]) is None
    assert found(b"\x13BitTorrent Protocol") == UNKNOWN


@pytest.mark.parametrize(
    "packet",
    [
        _rdp("e0 0000 0000 00"),
        _rdp("e0 0000 0000 00 01 00 0800 03000000"),
        _rdp("e0 0000 0000 00" + b"tsv://MS Terminal Services Plugin.1.Sessions\r\n".hex()),
        _rdp("e0 0000 0000 00 01 08 0800 03000000 06 00 2400" + "ab" * 16 + "00" * 16),
    ],
)
def test_rdp(packet: bytes) -> None:
    """[MS-RDPBCGR] section 2.2.1.1: a cookie or token, a wish for security, a correlation; each may be missing."""
    assert Finding(App.RDP) == found(packet)
    assert Finding(App.RDP) == found(packet + b"more")
    assert found(packet[:-1]) is None


@pytest.mark.parametrize(
    "packet",
    [
        _rdp("e0 0000 0000"),
        _rdp("e0 0000 0001 00 c0010a c1020100 c2020102"),  # S7 on port 102
        _rdp("d0 0000 0000 00"),
        _rdp("e0 0000 0000 00 01 00 0900 03000000"),
        _rdp("e0 0000 0000 00 00"),
        b"\3\0\0\x0b\7\xe0\0\0\0\0\0",
        b"\3\0\1\4" + bytes(256),
        b"\3\1\0\x0b\6\xe0\0\0\0\0\0",
        b"\3\0\0\4",
    ],
)
def test_not_rdp(packet: bytes) -> None:
    """Others use the same frame, with parameters of their own."""
    assert found(packet, times_out=True) == UNKNOWN


def test_stun() -> None:
    """RFC 8489 section 5 (and TURN, RFC 8656, over TCP): the cookie tells it from everything else."""
    assert Finding(App.STUN) == found(bytes.fromhex("0001 0000 2112a442"))
    assert found(bytes.fromhex("0001 0000 2112a4")) is None
    assert found(bytes.fromhex("0001 0000 2112a443")) == UNKNOWN
    assert found(bytes.fromhex("0001 0002 2112a442")) == UNKNOWN


def test_dns() -> None:
    """RFC 1035 section 4.2.2: a message behind its length; more may follow."""
    assert Finding(App.DNS) == found(_framed(_QUERY))
    assert Finding(App.DNS) == found(_framed(_QUERY) * 2)
    assert found(_framed(_QUERY)[:-1]) is None
    assert found(b"\0") is None
    assert found(_framed(_QUERY[:-1])) == UNKNOWN
    assert found(_framed(_QUERY + b"\0")) == UNKNOWN


def test_what_begins_alike() -> None:
    """A query whose length and id look like the frame of RDP, or long ones, are looked at again as queries."""
    long = bytes.fromhex("0024 0100 0001 0000 0000 0001 00 0002 0001 00 0029 1000 00000000")
    long += _framed(bytes(0x0300 - len(long) - 2))
    assert _framed(long).startswith(b"\3\0\0\x24")
    assert Finding(App.DNS) == found(_framed(long))


@pytest.mark.parametrize("initial", [0x04, 0x10, 0x14, 0x15, 0x17, 0x1F, 0x20, 0x0D, 0x7F, 0x80, 0xFF])
def test_noise(initial: int) -> None:
    """Most first octets begin nothing at all, and others only what does not fit."""
    assert found(bytes((initial, 0)) + b"\x80" * 20_000) == UNKNOWN
