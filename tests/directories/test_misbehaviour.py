"""Every misbehaviour is what its name says, so that a test which survives it has survived that."""

import resource
import socket
import time
from pathlib import Path

import ldap3
import pytest
from ldap3.core.exceptions import LDAPStartTLSError
from ldap3.protocol.rfc4511 import LDAPMessage
from pyasn1.codec.ber.decoder import decode
from pyasn1.error import PyAsn1Error

from tests.directories import ber
from tests.directories.authority import Authority
from tests.directories.clients import OF_LDAP3, client
from tests.directories.messages import START_TLS, Message, bind_result, disconnection, entry, extended_result
from tests.directories.misbehaviour import (
    GARBAGE,
    black_hole,
    close,
    close_within,
    endless,
    huge,
    reset,
    result_for,
    silent,
    slowly,
    start_tls_with_more,
)
from tests.directories.scripted import Reply, ScriptedServer

BIND = bytes.fromhex("300c020103600702010304008000")  # anonymous, number 3
SUCCESS = bytes.fromhex("300c02010361070a010004000400")


def _ask(server: ScriptedServer) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port))
    sock.sendall(BIND)
    return sock


def _all(sock: socket.socket) -> bytes:
    """All there is until its end."""
    received = b""
    while data := sock.recv(65_536):
        received += data
    return received


def test_silence() -> None:
    """Accepted, the request taken, nothing said: at the first word or from the beginning."""
    for server in (ScriptedServer([[silent]]), ScriptedServer(at_first=silent)):
        with server, _ask(server) as sock:
            sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                sock.recv(1)
        assert server.connections == 1


def test_a_black_hole() -> None:
    """Nobody is connected, and nobody refused, however often one tries."""
    with black_hole() as port:
        for _ in range(5):
            with pytest.raises(TimeoutError):
                socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0


def test_one_byte_after_the_other() -> None:
    """All of the message comes in the end, after all of its pauses."""
    received = b""
    with ScriptedServer([[slowly(bind_result(), interval_s=0.02)]]) as server, _ask(server) as sock:
        began_s = time.monotonic()
        while len(received) < len(SUCCESS):  # a busy machine can see two bytes at once
            received += sock.recv(100)
        took_s = time.monotonic() - began_s
    assert received == SUCCESS
    assert took_s > 0.02 * (len(SUCCESS) - 2)


@pytest.mark.parametrize("after", [None, 1, 13])
def test_an_end_within_a_message(after: int | None) -> None:
    """Some of it, and then an orderly end."""
    with ScriptedServer([[close_within(bind_result(), after=after)]]) as server, _ask(server) as sock:
        assert _all(sock) == SUCCESS[: after or 7]


def test_an_end_without_a_word() -> None:
    """Closed in order, and thrown away."""
    with ScriptedServer([[close], [reset]]) as server:
        with _ask(server) as sock:
            assert _all(sock) == b""
        with _ask(server) as sock, pytest.raises(ConnectionResetError):
            sock.recv(1)


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_garbage(name: str) -> None:
    """It reaches the client, and no strict reader takes it for a whole message with a bind's result in it."""
    with ScriptedServer([[GARBAGE[name], close]]) as server, _ask(server) as sock:
        received = _all(sock)
    assert received
    with pytest.raises((AssertionError, ValueError, IndexError)):
        _read_strictly(received)


def _read_strictly(data: bytes) -> int:
    """The result code of a bind."""
    tag, contents, rest = ber.one(data)
    assert (tag, rest) == (0x30, b"")
    (number_tag, number), (operation, inside), *more = ber.elements(contents)
    assert (number_tag, number, operation) == (0x02, b"\3", 0x61)
    assert [tag for tag, _ in more] in ([], [0xA0])
    (code_tag, code), (matched, _), (diagnostic, _), *_ = ber.elements(inside)
    assert (code_tag, matched, diagnostic) == (0x0A, 0x04, 0x04)
    assert 1 <= len(code) <= 4
    return code[0]


def test_the_strict_reader_takes_what_is_right() -> None:
    """Or the test above would say nothing."""
    assert [_read_strictly(bind_result(code).encoded(3)) for code in (0, 49)] == [0, 49]


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 40_000, 70_000])
def test_a_huge_entry_is_well_formed(size: int) -> None:
    """Its lengths are right at each level, for every form a length has."""
    with ScriptedServer([[huge(size), close]]) as server, _ask(server) as sock:
        received = _all(sock)
    decoded, rest = decode(received, asn1Spec=LDAPMessage())
    [attribute] = decoded["protocolOp"]["searchResEntry"]["attributes"]
    assert (int(decoded["messageID"]), rest) == (3, b"")
    assert [bytes(value) for value in attribute["vals"]] == [b"x" * size]


def test_100_mib_are_never_held() -> None:
    """All of it is sent, and the memory of the process stays where it was."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    received = 0
    with ScriptedServer([[huge(), close]]) as server, _ask(server) as sock:
        while count := len(sock.recv(1 << 20)):
            received += count
    assert received > 100 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 32 << 10


def test_an_endless_answer() -> None:
    """Entries until the client leaves."""
    with ScriptedServer([[endless()]]) as server, _ask(server) as sock:
        received = b""
        while len(received) < 1 << 20:
            received += sock.recv(65_536)
    first = ber.length_of(received)
    assert first is not None
    assert received[:first] == received[first : 2 * first]


@pytest.mark.parametrize(("code", "name"), [(51, "busy"), (52, "unavailable")])
def test_a_result_for_everything(code: int, name: str) -> None:
    """Binds and searches, in the client's words."""
    with ScriptedServer(result_for(code, "come back later")) as server:
        with client(server.port, "uid=alice", "x") as connection:
            connection.bind()
            bind = connection.result
            connection.search("", "(uid=x)", search_scope=ldap3.BASE)
            search = connection.result
    assert [(answer["description"], answer["message"]) for answer in (bind, search)] == [(name, "come back later")] * 2


def test_start_tls_refused_or_not_understood(tmp_path: Path) -> None:
    """A result other than success, and the answer of a server that does not know the request: no TLS begins."""
    ca = Authority(tmp_path).pem
    refused, unknown = extended_result(52, "no certificate"), extended_result(2, "unsupported extended operation")
    with ScriptedServer([[refused], [unknown]]) as server:
        for words in ("unavailable", "protocolError"):
            with client(server.port, ca=ca, start_tls=False) as connection:
                with pytest.raises(LDAPStartTLSError, match=f"startTLS failed - {words}"):
                    connection.start_tls()
    assert [request.oid for request in server.requests] == [START_TLS] * 2


@pytest.mark.parametrize("more", [bind_result().numbered(2), b"\x30"])
def test_more_behind_the_answer_to_start_tls(tmp_path: Path, more: Message | bytes) -> None:
    """It comes in the same piece as the answer, and then the server really would shake hands (case 53)."""
    authority = Authority(tmp_path)
    request = bytes.fromhex("301d02010377188016") + START_TLS.encode()
    with ScriptedServer([start_tls_with_more(authority.good().context(), more)]) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(request)
            received = sock.recv(1000)
            answer = extended_result(oid=START_TLS).encoded(3)
            assert received == answer + (more if isinstance(more, bytes) else more.encoded(3))
            with authority.client_context().wrap_socket(sock, server_hostname="localhost") as wrapped:
                assert wrapped.version() == "TLSv1.3"


@pytest.mark.filterwarnings(OF_LDAP3)
@pytest.mark.parametrize("from_the_start", [False, True])
def test_a_handshake_that_never_ends(tmp_path: Path, *, from_the_start: bool) -> None:
    """The client's hello is taken, and a record is begun that never becomes whole."""
    record = slowly(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + bytes(1000), interval_s=0.05)
    yes: Reply = [extended_result(oid=START_TLS), record]
    context = Authority(tmp_path).client_context()
    server = ScriptedServer(at_first=record) if from_the_start else ScriptedServer([yes])
    with server, socket.create_connection(("127.0.0.1", server.port)) as sock:
        if not from_the_start:
            sock.sendall(bytes.fromhex("301d02010377188016") + START_TLS.encode())
            sock.recv(len(extended_result(oid=START_TLS).encoded(3)))
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            context.wrap_socket(sock, server_hostname="localhost")


def test_a_farewell_behind_an_answer() -> None:
    """Two messages in one piece, the second unasked for."""
    with ScriptedServer([[bind_result(), disconnection(), close]]) as server, _ask(server) as sock:
        assert _all(sock) == SUCCESS + disconnection().encoded(0)


def test_lengths_and_numbers_are_encoded_as_they_should_be() -> None:
    """The own encoder against pyasn1, around the places where forms change."""
    for size in (0, 127, 128, 255, 256, 65_535, 65_536):
        value, rest = decode(ber.octets(b"x" * size))
        assert (len(value), rest) == (size, b"")
    for number in (-129, -128, -1, 0, 127, 128, 255, 256, 2**31 - 1, 2**31):
        assert int(decode(ber.integer(number))[0]) == number
    with pytest.raises(PyAsn1Error):
        decode(entry("uid=x", {"a": ["b"]}).encoded(1)[:-1])
