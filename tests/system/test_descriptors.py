"""Case 101: 256 descriptors, 400 clients: the server survives, what runs goes on, the log stays calm, it recovers."""

import contextlib
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import socks

from tests.system.origins import tcp_origin
from tests.system.proxy import Proxy
from tests.system.waiting import measured, until

DESCRIPTORS = 256
CLIENTS = 400
HELD = 20
WATCHED_S = 1.0


@pytest.fixture
def own_descriptors() -> Iterator[None]:
    """The test itself holds both ends of what goes through the proxy."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _used_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _open(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _echoes(sock: socket.socket) -> bool:
    sock.sendall(b"round trip")
    return sock.recv(100) == b"round trip"


def _crowd(address: tuple[str, int], keep: contextlib.ExitStack) -> None:
    """Clients that connect, say a greeting, and wait."""
    for number in range(CLIENTS):
        # From many addresses: what is tested is not the limit for one of them.
        sock = socket.socket()
        keep.enter_context(sock)
        sock.bind((f"127.0.1.{number % 250 + 1}", 0))
        sock.setblocking(False)
        sock.connect_ex(address)


@pytest.mark.usefixtures("own_descriptors")
@pytest.mark.parametrize("reserve", [64, 0], ids=["with-reserve", "until-EMFILE"])
def test_more_clients_than_descriptors(small_proxy: Callable[..., Proxy], reserve: int) -> None:
    """Case 101. With the reserve, clients are turned away in time; without it, accept(2) itself fails."""
    prefix = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]
    limits = f"[limits]\ndescriptors_reserve = {reserve}\n"
    with (
        contextlib.ExitStack() as held,
        small_proxy(limits, prefix=prefix) as proxy,
        tcp_origin("127.0.0.1") as echo,
    ):
        sessions = [held.enter_context(proxy.connect(echo)) for _ in range(HELD)]
        idle = _open(proxy.pid)
        lines, began_s = proxy.log.count("\n"), time.monotonic()
        with contextlib.ExitStack() as crowd:
            _crowd(proxy.addresses[0], crowd)
            until("the descriptors to be used up", lambda: _open(proxy.pid) >= DESCRIPTORS - reserve - 8)
            assert all(_echoes(sock) for sock in sessions)
            # It must not spin while clients wait to be accepted: a second is watched, nothing is waited for.
            used_s = _used_s(proxy.pid)
            time.sleep(WATCHED_S)
            used_s = _used_s(proxy.pid) - used_s
            assert all(_echoes(sock) for sock in sessions)
            took_s = time.monotonic() - began_s
            said = proxy.log.count("\n") - lines
        freed_s = time.monotonic()
        until("a new session", lambda: _is_served(proxy, echo))
        measured(f"reserve {reserve}: recovered {time.monotonic() - freed_s:.3f} s after the crowd had left")
        measured(f"{said} lines of log in {took_s:.1f} s; {used_s:.2f} s of CPU in {WATCHED_S:g} s")
        assert said <= 1 + took_s
        assert used_s < WATCHED_S / 2
        assert all(_echoes(sock) for sock in sessions)
        until("the descriptors to be given back", lambda: _open(proxy.pid) <= idle)
        counters = proxy.counters()
        counter = "descriptors_reserve_limit" if reserve else "accept_failed"
        assert counters[counter] > 0
        assert "internal_error" not in counters


@pytest.mark.usefixtures("own_descriptors")
def test_more_sessions_than_descriptors(small_proxy: Callable[..., Proxy]) -> None:
    """Case 20, 101: the session for whose target no descriptor is left gets REP 01, or no answer; the others go on."""
    with (
        small_proxy(prefix=["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]) as proxy,
        tcp_origin("127.0.0.1") as echo,
        contextlib.ExitStack() as held,
    ):
        sessions: list[socket.socket] = []

        def hold_one_more() -> None:
            sessions.append(held.enter_context(proxy.connect(echo)))

        with pytest.raises(socks.ProxyError, match=r"0x01|Connection closed|reset"):
            _repeat(hold_one_more, DESCRIPTORS)
        measured(f"{len(sessions)} sessions with {DESCRIPTORS} descriptors")
        assert len(sessions) > (DESCRIPTORS - 64) // 2 - 20
        assert all(_echoes(sock) for sock in sessions)
        sessions.pop().close()
        until("a new session", lambda: _is_served(proxy, echo))


def _repeat(work: Callable[[], None], times: int) -> None:
    for _ in range(times):
        work()


def _is_served(proxy: Proxy, echo: tuple[str, int]) -> bool:
    try:
        with proxy.connect(echo) as sock:
            return _echoes(sock)
    except (socks.ProxyError, ConnectionError):
        return False
