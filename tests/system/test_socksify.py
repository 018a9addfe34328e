"""Dante's socksify: unchanged programs for UDP and TCP below its preloaded library."""

import sys
from pathlib import Path

import pytest

from tests.system.origins import GREETING, udp_echo, web_origin
from tests.system.proxy import PASSWORD, USER, Proxy, authority, run
from tests.system.wrapped import socksified

THREE_DATAGRAMS = """
import socket, sys
connected, target = sys.argv[1] == "connected", (sys.argv[2], int(sys.argv[3]))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(20)
    if connected:
        sock.connect(target)
    for number in range(3):
        text = b"datagram %d" % number
        sock.send(text) if connected else sock.sendto(text, target)
        print(sock.recv(100).decode())
"""


def _socksify(
    folder: Path, proxy: tuple[str, int], *command: str, text: str | None = None, login: bool = True
) -> tuple[int, str, str]:
    """Run a program below socksify: exit code, standard output, standard error."""
    words, env = socksified(folder, proxy, command, (USER, PASSWORD) if login else None)
    done = run(words, text=text, env=env)
    return done.returncode, done.stdout, done.stderr


def test_udp_with_netcat(proxy: Proxy, udp: tuple[str, int], tmp_path: Path) -> None:
    """RFC 1928 section 7: `nc -u` to a target of each family; the datagrams went through the proxy."""
    client = ["nc.openbsd", "-u", "-W", "1", udp[0], str(udp[1])]
    code, output, errors = _socksify(tmp_path, proxy.addresses[0], *client, text="hello")
    assert (code, output) == (0, "echo:hello"), errors
    row = proxy.record(target=authority(udp), command="UDP_ASSOCIATE")
    assert (row["user"], row["bytes_to_target"], row["bytes_to_client"]) == (USER, 5, 10)


@pytest.mark.parametrize("how", ["connected", "unconnected"])
def test_udp_with_the_socket_calls_of_a_program(proxy: Proxy, how: str, tmp_path: Path) -> None:
    """RFC 1928 section 7: connect and send, or sendto, as programs do; three round trips in one association."""
    with udp_echo("127.0.0.1") as target:
        program = [sys.executable, "-c", THREE_DATAGRAMS, how, target[0], str(target[1])]
        code, output, errors = _socksify(tmp_path, proxy.addresses[0], *program)
        assert (code, output.splitlines()) == (0, [f"echo:datagram {number}" for number in range(3)]), errors
        row = proxy.record(target=authority(target), command="UDP_ASSOCIATE")
    assert row["bytes_to_target"] == 3 * len("datagram 0")


@pytest.mark.parametrize("login", [True, False], ids=["login", "anonymous"])
def test_tcp(proxy: Proxy, login: bool, tmp_path: Path) -> None:
    """RFC 1928 section 4: CONNECT for an unchanged program."""
    with web_origin("127.0.0.1") as web:
        address = proxy.addresses[0 if login else 2]
        code, output, errors = _socksify(tmp_path, address, "curl", "-sS", web.url(), login=login)
        assert (code, output.encode()) == (0, GREETING), errors
        assert proxy.record(target=f"127.0.0.1:{web.server_port}")["user"] == (USER if login else None)


def test_no_association_without_a_login(proxy: Proxy, tmp_path: Path) -> None:
    """Issue 2 item 6: no global rule allows UDP; the program's datagram goes nowhere, least of all directly."""
    with udp_echo("127.0.0.1") as target:
        client = ["nc.openbsd", "-u", "-W", "1", "-w", "1", target[0], str(target[1])]
        _, output, _ = _socksify(tmp_path, proxy.addresses[2], *client, text="hello", login=False)
    assert output == ""
    assert proxy.record(command="UDP_ASSOCIATE", user=None)["termination"] == "refused by rule"
