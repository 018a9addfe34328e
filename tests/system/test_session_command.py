"""`trioproxy session` beside a running server: an administrator looks who does what, and ends some of it."""

import json
import socket
from pathlib import Path

import pytest

from tests.system.origins import tcp_origin
from tests.system.proxy import LOOPBACK_FLOOR, Proxy
from tests.system.waiting import until

CONFIG = f'[[listener]]\naddress = "127.0.0.1:0"\n{LOOPBACK_FLOOR}'
USERS = {"alice": "wonderland", "bob": "builder"}
RULES = {"global": ["any:*(*)->*(*)"]}


@pytest.fixture
def proxy(tmp_path: Path) -> Proxy:
    """An installation with two users."""
    return Proxy(tmp_path, CONFIG).seed(USERS, RULES)


def is_reset(sock: socket.socket) -> bool:
    """Whether it ends with a reset, sooner or later."""
    with sock, pytest.raises(ConnectionResetError):
        sock.recv(1)
    return True


def test_lists_and_kills(proxy: Proxy) -> None:
    """The table for people, JSON for programs, ids and filters for `kill`."""
    with proxy, tcp_origin("127.0.0.1") as origin:
        connections = {user: proxy.connect(origin, user=user, password=USERS[user]) for user in USERS}
        rows = json.loads(proxy.command("session", "list", "--json").stdout)
        assert {row["user"] for row in rows} == set(USERS)
        ids = {row["user"]: str(row["session"]) for row in rows}

        header, *lines = proxy.command("session", "list", "--user", "alice").stdout.splitlines()
        assert header.split()[:3] == ["ID", "USER", "CLIENT"]
        [line] = lines
        assert line.split()[:2] == [ids["alice"], "alice"]
        assert line.endswith("global any:*(*)->*(*)")

        killed = proxy.command("session", "kill", ids["alice"])
        assert killed.stdout.splitlines()[-1] == "1 session ended"
        assert is_reset(connections["alice"])
        again = proxy.try_command("session", "kill", ids["alice"])
        assert (again.returncode, again.stderr) == (1, f"trioproxy: not running, or not meant: {ids['alice']}\n")

        proxy.command("session", "kill", "--source", "127.0.0.0/8")
        assert is_reset(connections["bob"])
        assert proxy.command("session", "list").stdout == "no sessions\n"
        assert proxy.record(user="bob")["termination"] == "ended by an administrator"


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["kill"], "which sessions?", 2),
        (["kill", "7", "--all"], "--all goes with nothing else", 2),
        (["kill", "seven"], "seven", 2),
        (["list", "--source", "everywhere"], "everywhere", 1),
        (["list", "--source", "300.1.1.1"], "--source: '300.1.1.1' is no address and no network", 1),
        (["list", "--source", "10.1.2.3/16"], "has bits behind the prefix: the network is 10.1.0.0/16", 1),
        (["list", "--target", "a..b"], "a..b", 1),
        (["list", "--tenant", "physics"], "there is no tenant 'physics'", 1),
        (["list", "--user", "physics/alice"], "there is no tenant 'physics'", 1),
        (["list"], "no server runs with this store", 1),
    ],
)
def test_what_cannot_be_done_is_said(proxy: Proxy, arguments: list[str], said: str, code: int) -> None:
    """And a server is not even asked."""
    done = proxy.try_command("session", *arguments)
    assert done.returncode == code
    assert said in done.stderr


@pytest.mark.parametrize("action", ["list", "kill"])
def test_a_name_that_nobody_has(proxy: Proxy, action: str) -> None:
    """During an incident nobody must take a typing mistake for a user who is gone."""
    with proxy:
        assert proxy.try_command("session", action, "--user", "alice").stderr == ""
        done = proxy.try_command("session", action, "--user", "alcie")
        assert (done.returncode, done.stderr) == (0, "note: there is no local user alcie; a typing mistake?\n")


def test_works_after_kill_9(proxy: Proxy) -> None:
    """The socket that a killed server leaves is in nobody's way."""
    with proxy:
        proxy.kill()
    assert "no server runs" in proxy.try_command("session", "list").stderr
    with proxy:
        assert until("an answer", lambda: proxy.command("session", "list").stdout) == "no sessions\n"
