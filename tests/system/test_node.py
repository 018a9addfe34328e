"""The npm package socks (Node.js) through the running server: CONNECT, BIND and UDP ASSOCIATE, IPv4 and IPv6."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import pytest

from tests.system.origins import family_of, tcp_origin, udp_echo
from tests.system.proxy import PASSWORD, USER, Proxy, authority, environment
from tests.system.waiting import PATIENCE_S

SCRIPT = Path(__file__).parent / "node" / "client.mjs"


class Node:
    """A running script: what it says, line by line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @classmethod
    @contextmanager
    def run(cls, command: str, proxy: tuple[str, int], login: bool, **options: object) -> Iterator[Self]:
        """Start it; it is ended with the block."""
        server: dict[str, object] = {"host": proxy[0], "port": proxy[1]}
        if login:
            server |= {"userId": USER, "password": PASSWORD}
        arguments: list[str | Path] = ["node", SCRIPT, command, json.dumps({"proxy": server, **options})]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment()) as process:
            try:
                yield cls(process)
            finally:
                process.kill()

    def hears(self, event: str) -> dict[str, Any]:
        """The next line, which must be this event."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        said: dict[str, Any] = json.loads(line or '{"event": "nothing more"}')
        assert said.pop("event") == event, said
        if "address" in said:  # IPv6 addresses are written out in full
            said["address"]["host"] = str(ip_address(said["address"]["host"]))
        return said

    def ends(self) -> int:
        """Its exit code."""
        return self._process.wait(PATIENCE_S)


def _target(host: str, port: int = 0) -> dict[str, object]:
    return {"host": host, "port": port}


@pytest.mark.parametrize("login", [True, False], ids=["login", "anonymous"])
def test_connect(login_address: tuple[str, int], anonymous_address: tuple[str, int], family: str, login: bool) -> None:
    """RFC 1928 section 4: CONNECT; the target answers and ends, the client ends after it."""

    def answer(client: socket.socket) -> None:
        client.sendall(b"heard: " + client.recv(100))

    with (
        tcp_origin(family, answer) as (host, port),
        Node.run(
            "connect", login_address if login else anonymous_address, login, destination=_target(host, port)
        ) as node,
    ):
        node.hears("established")
        assert node.hears("ended") == {"received": "heard: hello from node\n"}
        assert node.ends() == 0


def test_bind(proxy: Proxy, login_address: tuple[str, int], family: str) -> None:
    """Case 85: two replies; the target connects right after the first one, and bytes go both ways."""
    with Node.run("bind", login_address, True, destination=_target(family)) as node:
        bound = node.hears("bound")["address"]
        assert (bound["host"], bound["port"] > 0) == (family, True)
        with socket.create_connection((bound["host"], bound["port"]), PATIENCE_S) as target:
            name = target.getsockname()[:2]
            assert node.hears("established")["address"] == _target(*name)
            assert target.recv(100) == b"hello from node\n"
            target.sendall(b"hello from the target\n")
            target.shutdown(socket.SHUT_WR)
            assert node.hears("ended") == {"received": "hello from the target\n"}
            assert target.recv(100) == b""
        assert node.ends() == 0
    row = proxy.record(command="BIND", target=authority(name))
    assert (row["user"], row["bytes_to_target"], row["bytes_to_client"]) == (USER, 16, 22)


def test_bind_when_somebody_else_connects(proxy: Proxy) -> None:
    """Case 86: the peer is checked; another one gets no byte, and the second reply is `05 02`."""
    with Node.run("bind", proxy.addresses[0], True, destination=_target("127.0.0.1")) as node:
        bound = node.hears("bound")["address"]
        with pytest.raises(ConnectionResetError):  # perhaps before it knows that it was connected
            _first_octets((bound["host"], bound["port"]), "127.0.0.3")
        assert "NotAllowed" in node.hears("failed")["message"]
        with pytest.raises(ConnectionRefusedError):
            _first_octets((bound["host"], bound["port"]), "127.0.0.1")


def _first_octets(address: tuple[str, int], source: str) -> bytes:
    with socket.create_connection(address, PATIENCE_S, (source, 0)) as sock:
        return sock.recv(100)


def test_bind_is_not_for_everybody(anonymous_address: tuple[str, int], family: str) -> None:
    """Issue 2 item 6: no global rule allows BIND, so a client without a login gets `05 02`."""
    with Node.run("bind", anonymous_address, False, destination=_target(family)) as node:
        assert "NotAllowed" in node.hears("failed")["message"]


def test_udp_associate(proxy: Proxy, login_address: tuple[str, int]) -> None:
    """RFC 1928 section 7: one association, targets of both families and a name; each answer names its sender."""
    with udp_echo("127.0.0.1") as four, udp_echo("::1") as six, udp_echo("127.0.0.1") as named:
        datagrams = [
            {"to": _target(*four), "text": "over IPv4"},
            {"to": _target(*six), "text": "over IPv6"},
            {"to": _target("localhost", named[1]), "text": "by name"},
        ]
        nobody = "::" if ":" in login_address[0] else "0.0.0.0"
        with Node.run("associate", login_address, True, destination=_target(nobody), datagrams=datagrams) as node:
            relay = node.hears("established")["address"]
            assert relay["host"] == login_address[0]
            answers = {answer["text"]: answer["from"]["port"] for answer in (node.hears("datagram") for _ in datagrams)}
            assert answers == {"echo:over IPv4": four[1], "echo:over IPv6": six[1], "echo:by name": named[1]}
            assert node.ends() == 0
        rows = [proxy.record(target=authority(target), command="UDP_ASSOCIATE") for target in (four, six, named)]
    assert [row["asked"] for row in rows] == [authority(four), authority(six), f"localhost:{named[1]}"]
    # CASES 75: the association has ended with its TCP connection
    with socket.socket(family_of(relay["host"]), socket.SOCK_DGRAM) as late:
        late.settimeout(PATIENCE_S)
        late.connect((relay["host"], relay["port"]))
        late.send(b"too late")
        with pytest.raises(ConnectionRefusedError):
            late.recv(100)


def test_a_fragment_is_dropped(proxy: Proxy, login_address: tuple[str, int]) -> None:
    """RFC 1928 section 7, CASES 78: FRAG other than 0 is dropped; the association goes on, and the record counts it."""
    with udp_echo("127.0.0.1") as target:
        fragment = {"to": _target(*target), "text": "fragment", "fragment": 1}
        whole = {"to": _target(*target), "text": "whole"}
        nobody = "::" if ":" in login_address[0] else "0.0.0.0"
        with Node.run(
            "associate", login_address, True, destination=_target(nobody), datagrams=[fragment, whole]
        ) as node:
            node.hears("established")
            assert node.hears("datagram")["text"] == "echo:whole"
        assert proxy.record(target=authority(target))["bytes_to_target"] == len("whole")
    listener = authority(login_address)
    counted = proxy.record(command="UDP_ASSOCIATE", listener=listener, counts={"fragment": 1})
    assert counted["target"] is None
