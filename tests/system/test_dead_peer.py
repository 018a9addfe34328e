"""Case 98: the cable of a client is pulled. Its sessions end after `dead_after_s`, idle or not; others live on."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.system.namespaces import Machine, machine, popen
from tests.system.proxy import PASSWORD, USER, Proxy, environment
from tests.system.waiting import measured, until

SERVER, CLIENT = "10.99.0.1", "10.99.0.2"
DEAD_AFTER_S = 2.0
SILENT_PORT, TALKING_PORT = 7001, 7002

CONFIG = f"""
[[listener]]
address = "{SERVER}:1080"
[[listener]]
address = "127.0.0.1:1080"
[limits]
dead_after_s = {DEAD_AFTER_S}
"""

# Both send one line; the second one goes on, so that there is always something that nobody acknowledges.
TARGETS = f"""
import socket, threading
def serve(port, more):
    listening = socket.create_server(("{SERVER}", port))
    while True:
        client, _ = listening.accept()
        threading.Thread(target=talk, args=(client, more), daemon=True).start()
def talk(client, more):
    try:
        client.sendall(b"hello\\n")
        while more:
            client.sendall(b"more\\n")
            threading.Event().wait(0.1)
        client.recv(1)
    except OSError:
        pass
threading.Thread(target=serve, args=({TALKING_PORT}, True), daemon=True).start()
print("ready", flush=True)
serve({SILENT_PORT}, False)
"""


@contextmanager
def _two_machines(folder: Path) -> Iterator[tuple[Machine, Machine]]:
    """A server's machine and a client's, and a cable between them."""
    one, two = folder / "one", folder / "two"
    one.mkdir()
    two.mkdir()
    with machine(folder=one) as server, machine(folder=two) as client:
        ends = ["name", "cable", "netns", str(server.pid), "type", "veth", "peer", "name", "cable", "netns"]
        server.run("true")
        # Made from outside: the two machines do not know each other.
        made = subprocess.run(
            ["ip", "link", "add", *ends, str(client.pid)], check=False, capture_output=True, env=environment()
        )
        if made.returncode != 0:
            pytest.skip(f"no pair of network devices can be made here: {made.stderr.decode().strip()}")
        for here, address in ((server, SERVER), (client, CLIENT)):
            here.run("ip", "address", "add", f"{address}/24", "dev", "cable")
            here.run("ip", "link", "set", "cable", "up")
        yield server, client


def _session(here: Machine, proxy: str, port: int) -> "subprocess.Popen[bytes]":
    login = ["--proxy", f"{proxy}:1080", "--proxy-type", "socks5", "--proxy-auth", f"{USER}:{PASSWORD}"]
    return subprocess.Popen(
        here.inside("ncat", *login, SERVER, str(port)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )


def _line(stream: IO[bytes] | None) -> bytes:
    assert stream is not None
    return stream.readline()


@pytest.mark.usefixtures("as_root")
def test_the_cable_is_pulled(tmp_path: Path) -> None:
    """Keep-alive ends the silent session, TCP_USER_TIMEOUT the one with unacknowledged data; both are recorded."""
    with _two_machines(tmp_path) as (server, client), ExitStack() as stack:
        targets = stack.enter_context(popen(server.inside(sys.executable, "-c", TARGETS), tmp_path / "targets"))
        stack.callback(targets.kill)
        until("the targets", lambda: "ready" in (tmp_path / "targets").read_text())
        proxy = Proxy(tmp_path, CONFIG, prefix=server.inside()).seed(
            {USER: PASSWORD}, {f"user:{USER}": ["tcp:*(*)->*(*)"]}
        )
        stack.enter_context(proxy)
        sessions = [
            stack.enter_context(_session(*where))
            for where in (
                (client, SERVER, SILENT_PORT),
                (client, SERVER, TALKING_PORT),
                (server, "127.0.0.1", SILENT_PORT),
            )
        ]
        for session in sessions:
            stack.callback(session.kill)
            assert _line(session.stdout) == b"hello\n"
        client.run("ip", "link", "set", "cable", "down")
        began_s = time.monotonic()
        rows = until("both records", lambda: (rows := proxy.records(listener=f"{SERVER}:1080"))[1:] and rows)
        took_s = time.monotonic() - began_s
        measured(f"both sessions had ended after {took_s:.1f} s, with dead_after_s = {DEAD_AFTER_S:g}")
        assert {row["asked"] for row in rows} == {f"{SERVER}:{port}" for port in (SILENT_PORT, TALKING_PORT)}
        assert {row["termination"] for row in rows} == {"client reset"}
        assert proxy.records(listener="127.0.0.1:1080") == []
        assert sessions[2].poll() is None
