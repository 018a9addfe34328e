"""What one TCP flow is: properties that hold for all of them."""

import gc
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.driver import split
from tests.protocol.strategies import damaged
from tests.sniff.flows import CONVERSATIONS, UNKNOWN, found, sniffed
from tests.sniff.hellos import browser_hello, client_hello, message, record
from trioproxy.sniff import App, Finding, Sniffer

_sides = st.one_of(
    st.sampled_from([side for conversation in CONVERSATIONS.values() for side in conversation]),
    damaged(st.sampled_from([side for conversation in CONVERSATIONS.values() for side in conversation])),
    st.binary(max_size=30),
)
_places = st.lists(st.integers(0, 700), max_size=12)


@given(_sides, _sides, _places, st.booleans(), st.booleans())
def test_any_split_gives_the_same(
    client: bytes, server: bytes, places: list[int], server_first: bool, times_out: bool
) -> None:
    """However the network cuts the two streams, the same is found and the same is confirmed."""
    outcomes = [
        sniffed(client, server, places=cuts, server_first=server_first, times_out=times_out)
        for cuts in ([], places, range(2_000))
    ]
    assert len({(outcome.finding, outcome.confirmed) for outcome in outcomes}) == 1


@given(_sides, _sides, st.lists(st.booleans(), max_size=12), _places)
def test_any_order_gives_the_same(client: bytes, server: bytes, turns: list[bool], places: list[int]) -> None:
    """However the pieces of the two sides are mixed, the same is found; a server cannot change it by being quick."""
    sniffer = Sniffer()
    from_client, from_server = split(client, places), split(server, places)
    for turn in turns:
        side, receive = (from_client, sniffer.receive_client) if turn else (from_server, sniffer.receive_server)
        if side:
            receive(side.pop(0))
    for piece in from_client:
        sniffer.receive_client(piece)
    for piece in from_server:
        sniffer.receive_server(piece)
    whole = sniffed(client, server)
    assert (whole.finding, whole.confirmed) == (sniffer.finding, sniffer.confirmed)


@given(_sides, _sides, st.binary(max_size=20), st.binary(max_size=20))
def test_what_was_found_stays(client: bytes, server: bytes, more: bytes, more_still: bytes) -> None:
    """Nothing that comes later changes a finding or its confirmation."""
    sniffer = sniffed(client, server)
    finding, confirmed = sniffer.finding, sniffer.confirmed
    sniffer.receive_client(more)
    sniffer.receive_server(more_still)
    sniffer.time_out()
    assert finding in (None, sniffer.finding)
    assert confirmed in (None, sniffer.confirmed)
    assert sniffer.finding is not None


@given(_sides, _sides)
def test_a_finding_is_consistent(client: bytes, server: bytes) -> None:
    """Names are canonical and belong to their protocols."""
    finding = found(client, server, times_out=True)
    assert finding is not None
    assert finding.sni is None or (finding.app is App.TLS and finding.sni == finding.sni.lower())
    assert finding.http_host is None or (finding.app is App.HTTP and finding.http_host == finding.http_host.lower())
    assert not finding.ech or finding.app is App.TLS


@pytest.mark.parametrize("size", [1, 5, 9, 200])
def test_a_hello_in_many_records(size: int) -> None:
    """Programs cut a ClientHello into records so that the name in it is not found; it is."""
    hello = client_hello()[5:]
    stream = b"".join(record(hello[at : at + size]) for at in range(0, len(hello), size))
    assert Finding(App.TLS, sni="www.example.org") == found(stream)


def test_early_data() -> None:
    """What stands behind the record of a ClientHello, as with 0-RTT, is not looked at."""
    assert found(browser_hello() + b"\x14\3\3\0\1\1\x17\3\3") == Finding(App.TLS, sni="public.example.org", ech=True)


@pytest.mark.parametrize(
    "stream",
    [
        b"\x16\3\1\2\0\1\0\1\xfc\3\3" + bytes(range(256)) * 3,
        b"\x16\3\1\2\0" + b"\x9d" * 600,
        record(message(1, bytes(508))),
        record(message(1, b"\3\3" + bytes(506))),
        b"\x16\3\1\x3f\xff\1\0\x40\1",
    ],
)
def test_a_false_record_is_not_tls(stream: bytes) -> None:
    """Peer-to-peer programs put the header of a record before their own protocol; that makes no ClientHello."""
    assert found(stream) == UNKNOWN


def test_a_hello_longer_than_the_limit() -> None:
    """What does not fit into the limit is not waited for to its end."""
    stream = record(message(1, bytes(16_380))[:16_384])
    assert found(stream[: Sniffer.LIMIT - 1]) is None
    assert found(stream) == UNKNOWN


def test_random_octets_are_unknown() -> None:
    """What peer-to-peer programs send on port 443: noise is never taken for anything."""
    source = random.Random(443)
    for _ in range(3_000):
        client, server = source.randbytes(source.randrange(1, 400)), source.randbytes(40)
        assert found(client, server, times_out=True) == UNKNOWN


def test_random_octets_behind_a_true_beginning() -> None:
    """Case 11: no beginning makes noise into anything but what the beginning alone is."""
    source = random.Random(80)
    beginnings = [
        side[: source.randrange(1, 30)] for conversation in CONVERSATIONS.values() for side in conversation if side
    ]
    for beginning in beginnings * 30:
        client = beginning + source.randbytes(300)
        assert found(client, times_out=True) in (UNKNOWN, found(beginning), found(client))


@pytest.mark.parametrize("octet", [b"\x16", b"\x13", b"\0", b"\3", b"x", b"\n", b"\xff"])
def test_memory_is_bounded(octet: bytes) -> None:
    """Of each side no more is kept than the limit, whatever is sent, and nothing once something was found."""
    sniffer = Sniffer()
    for _ in range(50):
        sniffer.receive_server(b"x" * 1_000)
        assert len(sniffer._from_server) <= Sniffer.LIMIT
        assert len(sniffer._greeting_reader._line) <= Sniffer.LIMIT
    for _ in range(50):
        sniffer.receive_client(octet * 1_000)
    assert sniffer.finding is not None
    assert not sniffer._from_server
    assert sniffer._reader is None


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_nothing_is_left_behind(name: str) -> None:
    """A sniffer is gone with its last reference: thousands of flows must not wait for the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        sniffed(*CONVERSATIONS[name], times_out=True)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("client", "server", "app"),
    [
        (b"", b"220 mail.example.org ESMTP\r\n", App.SMTP),
        (b"QUIT\r\n", b"* OK ready\r\n", App.UNKNOWN),
        (b"QUIT\r\n", b"+OK ready\r\n", App.POP3),
        (b"QUI", b"+OK ready\r\n", App.UNKNOWN),
        (client_hello()[:-1], b"", App.UNKNOWN),
        (client_hello(), b"", App.TLS),
    ],
)
@pytest.mark.parametrize("server_first", [False, True])
def test_a_client_that_ends(client: bytes, server: bytes, app: App, server_first: bool) -> None:
    """What it has begun to say stays unfinished; what it has said, or nothing, waits for the server's greeting."""
    sniffer = Sniffer()
    sniffer.receive_client(client)
    if server_first:
        sniffer.receive_server(server)
    sniffer.end_client()
    sniffer.receive_server(server)
    assert sniffer.finding is not None
    assert sniffer.finding.app is app
    sniffer.end_client()
    assert sniffer.finding.app is app


def test_nothing_is_no_octet() -> None:
    """The end of a stream is not the sniffer's business."""
    sniffer = sniffed(b"", b"")
    sniffer.receive_client(b"")
    sniffer.receive_server(b"")
    assert (sniffer.finding, sniffer.confirmed) == (None, None)
