"""Case 111: SIGTERM drains, a second one ends at once, Ctrl-C does the same; a drain that takes too long is ended."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import socks

from tests.system.origins import Web, blob, digest, tcp_origin, web_origin
from tests.system.proxy import Proxy, environment, proxy_url
from tests.system.waiting import PATIENCE_S, measured, until

Maker = Callable[..., Proxy]


@contextmanager
def _half_a_download(proxy: Proxy, web: Web, folder: Path) -> "Iterator[tuple[subprocess.Popen[bytes], Path]]":
    """curl, in the middle of a download that does not go on: the process, and the file it writes."""
    output = folder / "downloaded"
    arguments = ["curl", "-sS", "-N", "-x", proxy_url(proxy.addresses[0]), "-o", str(output), web.url("/held")]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL, env=environment()) as curl:
        try:
            assert web.half.wait(PATIENCE_S)
            until("curl to have the first half", lambda: output.exists() and output.stat().st_size == 100_000)
            yield curl, output
        finally:
            curl.kill()


def _refused(proxy: Proxy) -> bool:
    try:
        socket.create_connection(proxy.addresses[0], PATIENCE_S).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was in the queue of the closing listener
        return False
    return False


def test_sigterm_drains(small_proxy: Maker, tmp_path: Path) -> None:
    """New connections are refused, a running transfer is finished, exit 0, and its record is written."""
    with small_proxy() as proxy, web_origin("127.0.0.1") as web, _half_a_download(proxy, web, tmp_path) as (curl, got):
        proxy.signal(signal.SIGTERM)
        until("new connections to be refused", lambda: _refused(proxy))
        assert proxy.alive
        assert curl.poll() is None
        web.go_on.set()
        assert curl.wait(PATIENCE_S) == 0
        assert digest(got.read_bytes()) == digest(blob(200_000))
        assert proxy.wait() == 0
        row = proxy.record()
        assert row["termination"] in {"client closed", "target closed"}
        assert "draining" in proxy.log
        assert "stopped" in proxy.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_second_signal_ends_at_once(small_proxy: Maker, tmp_path: Path, number: signal.Signals) -> None:
    """The client learns that something is missing (a reset, no orderly end), and the record says why."""
    with small_proxy() as proxy, web_origin("127.0.0.1") as web, _half_a_download(proxy, web, tmp_path) as (curl, _):
        proxy.signal(number)
        until("the drain to begin", lambda: "draining" in proxy.log)
        began_s = time.monotonic()
        proxy.signal(number)
        assert proxy.wait() == 0
        measured(f"the second signal ended it in {time.monotonic() - began_s:.3f} s")
        assert curl.wait(PATIENCE_S) != 0
        assert proxy.record()["termination"] == "server stopped"


def test_a_drain_that_takes_too_long(small_proxy: Maker, tmp_path: Path) -> None:
    """After `drain_s` what still runs is ended with a reset; exit 0."""
    with (
        small_proxy("[limits]\ndrain_s = 0.3\n") as proxy,
        web_origin("127.0.0.1") as web,
        _half_a_download(proxy, web, tmp_path) as (curl, _),
    ):
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        assert curl.wait(PATIENCE_S) != 0
        assert "drain time is over" in proxy.log
        assert proxy.record()["termination"] == "server stopped"


def test_a_handshake_while_draining(small_proxy: Maker) -> None:
    """Case 26: whoever was let in before may finish its handshake and its transfer; nobody sees half a reply."""
    with small_proxy() as proxy, tcp_origin("127.0.0.1") as echo:
        # PySocks speaks first when it connects, so the connection is made by hand and handed over.
        with socket.create_connection(proxy.addresses[0], PATIENCE_S) as early:
            early.sendall(b"\5\1\2")
            assert early.recv(2) == b"\5\2"
            proxy.signal(signal.SIGTERM)
            until("new connections to be refused", lambda: _refused(proxy))
            early.sendall(b"\1\5alice\12wonderland")
            assert early.recv(2) == b"\1\0"
            early.sendall(b"\5\1\0\1\x7f\0\0\1" + echo[1].to_bytes(2))
            assert early.recv(10)[:4] == b"\5\0\0\1"
            early.sendall(b"still here")
            assert early.recv(100) == b"still here"
        assert proxy.wait() == 0


def test_it_can_be_started_again_at_once(small_proxy: Maker) -> None:
    """The port of a server that has just stopped, with connections it has just ended, can be listened on again."""
    with small_proxy() as proxy, tcp_origin("127.0.0.1") as echo:
        address = proxy.addresses[0]
        with proxy.connect(echo) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            proxy.signal(signal.SIGTERM)
            until("the drain to begin", lambda: "draining" in proxy.log)
            proxy.signal(signal.SIGTERM)
            assert proxy.wait() == 0
        config = proxy.config_file.read_text().replace("127.0.0.1:0", f"127.0.0.1:{address[1]}")
        proxy.config_file.write_text(config)
        with proxy, proxy.connect(echo) as sock:
            sock.sendall(b"y")
            assert sock.recv(1) == b"y"


def test_a_killed_server_loses_nothing(small_proxy: Maker) -> None:
    """SIGKILL in the middle of a session: the store is whole, users and rules are there at the next start."""
    with small_proxy() as proxy, tcp_origin("127.0.0.1") as echo:
        with proxy.connect(echo):
            proxy.kill()
        with proxy, proxy.connect(echo) as sock:
            sock.sendall(b"z")
            assert sock.recv(1) == b"z"
        proxy.kill()
        with pytest.raises(socks.ProxyConnectionError):
            proxy.connect(echo)
