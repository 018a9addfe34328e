"""The scripted server says what it is told to, in well-formed LDAP, keeps what it was asked, leaves nothing behind."""

import socket
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path

import ldap3
import pytest
from ldap3.core.exceptions import LDAPSessionTerminatedByServerError
from ldap3.protocol.rfc4511 import LDAPMessage
from pyasn1.codec.ber.decoder import decode

from tests.directories.authority import Authority
from tests.directories.clients import OF_LDAP3, client
from tests.directories.messages import (
    START_TLS,
    Kind,
    Message,
    Request,
    bind_result,
    disconnection,
    entry,
    extended_result,
    intermediate,
    reference,
    search_done,
)
from tests.directories.scripted import Reply, ScriptedServer, Wire, start_tls_answer
from tests.system.waiting import until

ALICE = "uid=alice,dc=example"


def test_it_binds_searches_and_remembers() -> None:
    """Entries of text and octets, references, intermediate responses, results: ldap3 sees what was meant."""
    found: dict[str, list[str | bytes]] = {
        "uid": ["alice"],
        "objectGUID": [bytes(range(256))],
        "cn": ["\u00e4", "b"],
    }
    replies: list[Reply] = [
        [bind_result()],
        [
            intermediate(),
            entry(ALICE, found),
            reference("ldap://other.example/dc=x"),
            search_done(4, "too many", matched="dc=example"),
        ],
    ]
    with ScriptedServer(replies) as server, client(server.port, ALICE, "secret") as connection:
        assert connection.bind()
        connection.search("dc=example", "(uid=alice)", attributes=["uid", "cn"], size_limit=2)
        [extra, first, second] = connection.response
        connection.unbind()
    assert first["dn"] == ALICE
    assert first["raw_attributes"] == {
        "uid": [b"alice"],
        "objectGUID": [bytes(range(256))],
        "cn": ["\u00e4".encode(), b"b"],
    }
    assert extra["type"] == "intermediateResponse"
    assert second["uri"] == ["ldap://other.example/dc=x"]
    result = connection.result
    assert (result["result"], result["message"], result["dn"]) == (4, "too many", "dc=example")
    bind, search, unbind = server.requests
    assert (bind.kind, bind.dn, bind.password) == (Kind.BIND, ALICE, b"secret")
    assert (bind.number + 1, search.number + 1) == (search.number, unbind.number)
    assert (search.base, search.scope, search.filter) == ("dc=example", 2, "(uid=alice)")
    assert (search.attributes, search.size_limit) == (("uid", "cn"), 2)
    assert unbind.kind is Kind.UNBIND
    assert server.connections == 1


@pytest.mark.parametrize(
    ("written", "text", "values"),
    [
        (r"(uid=a\2a\28\29\5c\00)", r"(uid=a\2a\28\29\5c\00)", (b"a*()\\\0",)),
        ("(cn=\u00e4)", r"(cn=\c3\a4)", ("\u00e4".encode(),)),
        ("(|(a=1)(&(b=*)(!(c=x*y**z))))", "(|(a=1)(&(b=*)(!(c=x*y*z))))", (b"1", b"x", b"y", b"z")),
        ("(c=*end)", "(c=*end)", (b"end",)),
        ("(c=start*)", "(c=start*)", (b"start",)),
        ("(n>=5)", "(n>=5)", (b"5",)),
        ("(n<=5)", "(n<=5)", (b"5",)),
        ("(n~=5)", "(n~=5)", (b"5",)),
        ("(member:1.2.840.113556.1.4.1941:=cn=x)", "(member:1.2.840.113556.1.4.1941:=cn=x)", (b"cn=x",)),
        ("(ou:dn:=x)", "(ou:dn:=x)", (b"x",)),
    ],
)
def test_filters_are_read_as_they_were_meant(written: str, text: str, values: tuple[bytes, ...]) -> None:
    """RFC 4515 both ways: encoded by ldap3, printed by us, with the raw values beside it."""
    with ScriptedServer([[search_done()]]) as server, client(server.port) as connection:
        connection.search("", written, search_scope=ldap3.BASE)
    [search] = server.searches
    assert (search.filter, search.values, search.scope) == (text, values, 0)


@pytest.mark.parametrize(
    "message",
    [
        bind_result(49, "data 52e", matched="dc=x", referrals=["ldap://a", "ldap://b"]),
        search_done(10, referrals=["ldap://a/" + "x" * 200]),
        extended_result(oid=START_TLS),
        entry(ALICE, {"description": ["x" * 70_000]}),
        entry(b"uid=\xff", {"empty": []}),
        reference("ldap://a", "ldap://b"),
        intermediate(value=b"x"),
        disconnection(),
    ],
)
@pytest.mark.parametrize("number", [0, 1, 127, 128, 32_768, 2**31 - 1])
def test_messages_are_well_formed(message: Message, number: int) -> None:
    """ldap3's own definition of an LDAP message takes each of them, whole."""
    decoded, rest = decode(message.encoded(number), asn1Spec=LDAPMessage())
    assert (int(decoded["messageID"]), rest) == (number if message.number is None else message.number, b"")


def test_replies_of_a_list_go_to_the_requests_in_order() -> None:
    """Over all connections; a wrong number goes out as it was said."""
    with ScriptedServer([[bind_result(49)], [bind_result(53)], [bind_result().numbered(77)]]) as server:
        codes = []
        for _ in range(2):
            with client(server.port, ALICE, "x") as connection:
                connection.bind()
                codes.append(connection.result["result"])
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(bytes.fromhex("300c020105600702010304008000"))
            assert sock.recv(100) == bytes.fromhex("300c02014d61070a010004000400")
    assert codes == [49, 53]
    assert [request.connection for request in server.binds] == [1, 2, 3]
    assert server.requests[-1].number == 5


@pytest.mark.filterwarnings(OF_LDAP3)
@pytest.mark.parametrize("by_script", [False, True])
def test_start_tls(tmp_path: Path, *, by_script: bool) -> None:
    """Offered by the server or answered by the script: what follows is encrypted, and marked as that."""
    authority = Authority(tmp_path)
    context = authority.good().context()

    def script(request: Request) -> Reply:
        return start_tls_answer(context) if request.kind is Kind.EXTENDED else [bind_result()]

    with ScriptedServer(script, start_tls=None if by_script else context) as server:
        with client(server.port, ALICE, "x", ca=authority.pem) as connection:
            assert connection.bind()
    extended, bind = server.requests
    assert (extended.oid, extended.encrypted, bind.encrypted) == (START_TLS, False, True)


def test_what_is_no_ldap_and_no_tls_is_counted(tmp_path: Path) -> None:
    """A handshake where there is no TLS; a client that does not trust the certificate."""
    authority = Authority(tmp_path)
    stranger = Authority(tmp_path / "..").client_context()
    with ScriptedServer() as plain, ScriptedServer(tls=authority.good().context()) as encrypted:
        for server in (plain, encrypted):
            with socket.create_connection(("127.0.0.1", server.port)) as sock, pytest.raises(ssl.SSLError):
                stranger.wrap_socket(sock, server_hostname="localhost")
        until("both to notice", lambda: plain.strangers == encrypted.handshakes_failed == 1)
    assert (plain.handshakes_failed, encrypted.strangers, encrypted.requests) == (0, 0, [])


def test_a_farewell_ends_it_for_ldap3() -> None:
    """RFC 4511 section 4.4.1, as another client understands it."""
    with ScriptedServer([[disconnection()]]) as server, client(server.port, ALICE, "x") as connection:
        with pytest.raises(LDAPSessionTerminatedByServerError):
            connection.bind()


# ---- failures and the end


def _bind(server: ScriptedServer) -> None:
    with server, client(server.port, ALICE, "x") as connection:
        connection.bind()


def test_what_a_script_raises_is_raised_in_the_test() -> None:
    """At the end of the block, whatever the client made of it."""

    def script(request: Request) -> Reply:
        raise ZeroDivisionError(request.dn)

    with pytest.raises(ZeroDivisionError, match=ALICE):
        _bind(ScriptedServer(script))


def test_a_request_that_nobody_expected_is_a_failure() -> None:
    """The list was too short."""
    with pytest.raises(AssertionError, match="nobody has said what to answer"):
        _bind(ScriptedServer([]))


def test_a_request_that_is_malformed_is_a_failure() -> None:
    """The server reads strictly: what it records was really said."""

    def send(server: ScriptedServer, data: bytes) -> None:
        with server, socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(data)
            assert sock.recv(100) == b""

    with pytest.raises(AssertionError, match="5 bytes of 2"):
        send(ScriptedServer(), bytes.fromhex("30050201016003"))


def test_nothing_is_left_when_clients_stay(tmp_path: Path) -> None:
    """Idle, in a handshake, in an act that waits: the end of the block ends all of it, threads, sockets, port."""

    def wait(wire: Wire) -> None:
        wire.sleep(3600)

    context = Authority(tmp_path).good().context()
    before = set(threading.enumerate())
    stack = ExitStack()
    with ScriptedServer() as idle, ScriptedServer(tls=context) as shaking, ScriptedServer(at_first=wait) as waiting:
        ports = [server.port for server in (idle, shaking, waiting) for _ in range(5)]
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for port in ports]
    with stack:
        assert [client.recv(1) for client in clients] == [b""] * 15
    assert [server.connections for server in (idle, shaking, waiting)] == [5, 5, 5]
    assert set(threading.enumerate()) <= before
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", idle.port)) != 0
    with ScriptedServer(port=idle.port) as reopened:
        assert reopened.port == idle.port


def test_a_connection_that_nobody_served_is_counted() -> None:
    """So that `connections == 0` after the block means that nobody ever came."""
    for _ in range(100):
        with ScriptedServer() as server:
            socket.create_connection(("127.0.0.1", server.port)).close()
        assert server.connections == 1
