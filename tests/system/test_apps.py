"""Rules about what the traffic is, with real programs: curl, nc and ncat, which know nothing of them."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.system.origins import GREETING, Web, blob, digest, tcp_origin, web_origin
from tests.system.proxy import LOOPBACK_FLOOR, PASSWORD, USER, Proxy, authority, proxy_url, run

RESET = 56  # CURLE_RECV_ERROR
WRONG_APP = "not allowed for what the traffic is"
NAME = "www.example.org"
BANNER = b"SSH-2.0-test\r\n"

CONFIG = f"""
[[listener]]
address = "127.0.0.1:0"
[[listener]]
address = "127.0.0.1:0"
anonymous = true
{LOOPBACK_FLOOR}
"""
RULES = {
    "global": [
        "tcp:*(*)->127.0.0.1(*) app=tls",
        "tcp:*(*)->127.0.0.2(*) app=http",
        "tcp:*(*)->127.0.0.3(*) app=ssh",
        f"tcp:*(*)->127.0.0.4(*) sni={NAME}",
    ]
}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A server whose rules ask what the traffic is."""
    with Proxy(tmp_path_factory.mktemp("proxy"), CONFIG).seed({USER: PASSWORD}, RULES) as running:
        yield running


@pytest.fixture(scope="module")
def authority_of_web() -> trustme.CA:
    """Who signs the certificates of web servers."""
    return trustme.CA()


@pytest.fixture
def tls(authority_of_web: trustme.CA) -> ssl.SSLContext:
    """The certificate of a web server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority_of_web.issue_cert(NAME, "other.example.com", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority_of_web: trustme.CA, tmp_path: Path) -> Path:
    """For curl."""
    authority_of_web.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


def curl(proxy: Proxy, url: str, *more: str | Path) -> tuple[int, bytes]:
    """What curl ends with, and the page."""
    done = run(["curl", "-sS", "-x", proxy_url(proxy.addresses[0], scheme="socks5"), *more, url])
    return done.returncode, done.stdout.encode()


def found(web: Web, name: str) -> tuple[str, str]:
    """Tells curl where `name` is."""
    return "--resolve", f"{name}:{web.server_port}:{web.server_name}"


def test_only_real_tls(proxy: Proxy, tls: ssl.SSLContext, ca_file: Path) -> None:
    """Issue item 6: HTTPS passes, and the record has its name; HTTP to the same port is cut unheard."""
    with web_origin("127.0.0.1", tls) as web:
        secure = curl(proxy, web.url(host=NAME), "--cacert", ca_file, *found(web, NAME))
        assert secure == (0, GREETING)
        row = proxy.record(target=f"127.0.0.1:{web.server_port}", app="tls")
        assert row["sni"] == NAME
        assert row["bytes_to_client"] > len(GREETING)
        assert curl(proxy, f"http://127.0.0.1:{web.server_port}/")[0] == RESET
        row = proxy.record(target=f"127.0.0.1:{web.server_port}", termination=WRONG_APP)
        assert (row["app"], row["bytes_to_target"], row["bytes_to_client"]) == ("http", 0, 0)
        assert web.asked == ["/"]


def test_much_through_tls(proxy: Proxy, tls: ssl.SSLContext, ca_file: Path, tmp_path: Path) -> None:
    """Nothing is lost behind the first bytes."""
    size = 30_000_000
    with web_origin("127.0.0.1", tls) as web:
        page = tmp_path / "page"
        options = ("--cacert", ca_file, *found(web, NAME), "-o", page)
        assert curl(proxy, web.url(f"/blob/{size}", host=NAME), *options) == (0, b"")
        assert digest(page.read_bytes()) == digest(blob(size))


def test_only_real_http(proxy: Proxy, tls: ssl.SSLContext, ca_file: Path) -> None:
    """The other way round: what is encrypted does not go where HTTP alone may."""
    with web_origin("127.0.0.2") as web:
        assert curl(proxy, web.url()) == (0, GREETING)
        assert proxy.record(target=f"127.0.0.2:{web.server_port}")["app"] == "http"
    with web_origin("127.0.0.2", tls) as web:
        assert curl(proxy, web.url(host=NAME), "--cacert", ca_file, *found(web, NAME))[0] != 0
        assert proxy.record(target=f"127.0.0.2:{web.server_port}")["termination"] == WRONG_APP


def test_names(proxy: Proxy, tls: ssl.SSLContext, ca_file: Path) -> None:
    """Issue item 6: `sni=` lets one name pass, and another one at the same address not."""
    with web_origin("127.0.0.4", tls) as web:
        for name, right in ((NAME, True), ("other.example.com", False)):
            code, page = curl(proxy, web.url(host=name), "--cacert", ca_file, *found(web, name))
            assert (code == 0, page) == (right, GREETING if right else b"")
            row = proxy.record(target=f"127.0.0.4:{web.server_port}", sni=name)
            assert (row["termination"] != WRONG_APP) == right


def _greet(client: socket.socket) -> None:
    client.sendall(BANNER)
    client.sendall(b"heard " + client.recv(100))


@pytest.mark.parametrize("program", ["nc", "ncat"])
def test_banners_of_ssh(proxy: Proxy, program: str) -> None:
    """Issue item 6: the server's banner goes on to a client that waits for it; noise is not told to the server."""
    with tcp_origin("127.0.0.3", _greet) as target:
        address = authority(proxy.addresses[1])
        command = {
            "nc": ["nc.openbsd", "-N", "-X", "5", "-x", address],
            "ncat": ["ncat", "--proxy", address, "--proxy-type", "socks5"],
        }[program]
        done = run([*command, target[0], str(target[1])], text=BANNER.decode())
        assert done.stdout.splitlines() == ["SSH-2.0-test", "heard SSH-2.0-test"]
        assert proxy.record(target=authority(target))["app"] == "ssh"
    with tcp_origin("127.0.0.3", _greet) as target:
        done = run([*command, target[0], str(target[1])], text="noise\n")
        assert "heard" not in done.stdout
        assert proxy.record(target=authority(target))["termination"] == WRONG_APP
