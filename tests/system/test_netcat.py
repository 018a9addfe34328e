"""ncat with a login, OpenBSD's nc without (it cannot log in), and proxychains4: half-close, names, refusals."""

import socket
from pathlib import Path

import pytest

from tests.system.origins import GREETING, Web, blob, digest, tcp_origin, web_origin
from tests.system.proxy import PASSWORD, USER, Proxy, authority, run
from tests.system.wrapped import chained


def _digest_at_end(client: socket.socket) -> None:
    """Read until the client has ended its direction, and only then answer."""
    received = bytearray()
    while data := client.recv(65_536):
        received += data
    client.sendall(f"{len(received)} {digest(bytes(received))}\n".encode())


def _ncat(proxy: tuple[str, int], login: str | None, target: tuple[str, int]) -> list[str]:
    auth = ["--proxy-auth", login] if login else []
    return ["ncat", "--proxy", authority(proxy), "--proxy-type", "socks5", *auth, target[0], str(target[1])]


def _nc(proxy: tuple[str, int], target: tuple[str, int]) -> list[str]:
    # -N: shut the network socket down for writing at the end of the input
    return ["nc.openbsd", "-N", "-X", "5", "-x", authority(proxy), target[0], str(target[1])]


@pytest.mark.parametrize("program", ["ncat", "ncat-without-login", "nc"])
def test_an_upload_that_ends_with_a_half_close(
    login_address: tuple[str, int], anonymous_address: tuple[str, int], family: str, program: str
) -> None:
    """Case 95, CASES 1.9: the client ends its direction, the target answers only then; nothing is lost."""
    text = blob(500_000).hex()
    with tcp_origin(family, _digest_at_end) as target:
        commands = {
            "ncat": _ncat(login_address, f"{USER}:{PASSWORD}", target),
            "ncat-without-login": _ncat(anonymous_address, None, target),
            "nc": _nc(anonymous_address, target),
        }
        done = run(commands[program], text=text)
    assert done.stdout == f"{len(text)} {digest(text.encode())}\n", done.stderr


def test_a_name(proxy: Proxy, login_address: tuple[str, int], anonymous_address: tuple[str, int]) -> None:
    """CASES 5a: ncat and nc leave the name to the proxy."""
    with tcp_origin("127.0.0.1", _digest_at_end) as (_, port):
        for command in (
            _ncat(login_address, f"{USER}:{PASSWORD}", ("localhost", port)),
            _nc(anonymous_address, ("localhost", port)),
        ):
            assert run(command, text="abc").stdout == f"3 {digest(b'abc')}\n"
    rows = proxy.records(asked=f"localhost:{port}")
    assert [row["user"] for row in rows] == [USER, None]


def test_refusals(login_address: tuple[str, int], anonymous_address: tuple[str, int], family: str) -> None:
    """Case 18, 20, 27: a wrong password, no login where one is wanted, a denied target: each program says no."""
    wrong_password = run(_ncat(login_address, f"{USER}:wrong", (family, 9)))
    no_login = run(_nc(login_address, (family, 9)))
    denied = run(_ncat(anonymous_address, None, (family, 25)))
    denied_nc = run(_nc(anonymous_address, (family, 25)))
    assert "authentication failed" in wrong_password.stderr.lower(), wrong_password
    assert "no acceptable" in no_login.stderr.lower() or "authentication method" in no_login.stderr.lower(), no_login
    assert "not allowed by ruleset" in denied.stderr.lower(), denied
    assert "not allowed by ruleset" in denied_nc.stderr.lower(), denied_nc
    assert 0 not in {wrong_password.returncode, no_login.returncode, denied.returncode, denied_nc.returncode}


@pytest.mark.parametrize("login", [(USER, PASSWORD), None], ids=["login", "anonymous"])
def test_proxychains(
    login_address: tuple[str, int],
    anonymous_address: tuple[str, int],
    web: Web,
    login: tuple[str, str] | None,
    tmp_path: Path,
) -> None:
    """An unchanged program below proxychains4: an address of each family, the proxy reached over each."""
    address = login_address if login else anonymous_address
    done = run(chained(tmp_path, address, ["curl", "-sS", web.url()], login))
    assert (done.returncode, done.stdout.encode()) == (0, GREETING), done.stderr


def test_proxychains_with_a_name(proxy: Proxy, login_address: tuple[str, int], tmp_path: Path) -> None:
    """CASES 5a: with `proxy_dns` the name reaches the proxy."""
    with web_origin("127.0.0.1") as web:
        done = run(chained(tmp_path, login_address, ["curl", "-sS", web.url(host="localhost.localdomain")]))
        assert done.returncode != 0 or done.stdout.encode() == GREETING
        assert proxy.record(asked=f"localhost.localdomain:{web.server_port}")["user"] == USER


def test_proxychains_with_a_wrong_password(login_address: tuple[str, int], web: Web, tmp_path: Path) -> None:
    """Case 27: nothing reaches the target, and the program learns that it is not connected."""
    done = run(chained(tmp_path, login_address, ["curl", "-sS", web.url()], (USER, "wrong")))
    assert done.returncode != 0
    assert web.asked == []
