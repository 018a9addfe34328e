"""Quotas of a server process: what is left after it was killed, and what everybody can see of them."""

import contextlib
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import socks

from tests.system.origins import Web, tcp_origin, web_origin
from tests.system.proxy import Proxy, proxy_url, run
from tests.system.waiting import measured, until
from trioproxy.store import UsageStore, usage_path

Maker = Callable[..., Proxy]


def _used(proxy: Proxy) -> int:
    with UsageStore.open(usage_path(proxy.data_dir / "trioproxy.db"), create=False) as store:
        return sum(store.quotas_used(datetime.now(UTC) - timedelta(days=40)).values())


def _download(proxy: Proxy, web: Web, size: int) -> int:
    """The exit code of curl."""
    url = web.url(f"/blob/{size}")
    return run(["curl", "-sS", "-o", "/dev/null", "-x", proxy_url(proxy.addresses[0]), url]).returncode


def _exchange(sock: socket.socket, size: int) -> None:
    sock.sendall(bytes(size))
    received = 0
    while received < size:
        received += len(sock.recv(65_536))


def test_kill_9_loses_five_seconds_at_most(small_proxy: Maker) -> None:
    """What a running flow had moved five seconds before is counted, and nothing is counted that did not flow."""
    with small_proxy() as proxy, tcp_origin("127.0.0.1") as echo:
        proxy.command("limit", "set", "user:alice", "quota=1GB/month")
        moved: list[tuple[float, int]] = []
        with proxy.connect(echo) as sock:
            begun_s, total = time.monotonic(), 0
            while time.monotonic() - begun_s < 7:
                _exchange(sock, 10_000)
                total += 20_000
                moved.append((time.monotonic(), total))
                time.sleep(0.01)
            proxy.signal(signal.SIGKILL)
            killed_s = time.monotonic()
            proxy.wait()
        early = max(count for at_s, count in moved if at_s < killed_s - 5)
        used = _used(proxy)
        missing_s = killed_s - max((at_s for at_s, count in moved if count <= used), default=begun_s)
        measured(f"the last {missing_s:.1f} s are missing")
        assert early <= used <= total
        proxy.start()
        with proxy.connect(echo) as sock:
            _exchange(sock, 10_000)
        until("the rest to be written", lambda: _used(proxy) == used + 20_000)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0


def test_a_quota_ends_downloads(small_proxy: Maker) -> None:
    """Curl gets what is left, then nothing; after a restart neither; more of it, and it goes on."""
    with small_proxy() as proxy, web_origin("127.0.0.1") as web:
        proxy.command("limit", "set", "user:alice", "quota=3MB/day")
        until("the limit to hold", lambda: "users and rules read again" in proxy.log)
        assert _download(proxy, web, 3_000_000) in {0, 56}
        until("the end of the quota", lambda: _download(proxy, web, 1) == 97)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        proxy.start()
        with pytest.raises(socks.ProxyError, match="not allowed"), proxy.connect(("127.0.0.1", 9)):
            pass
        assert proxy.counters()["refused_by_quota"] == 1
        proxy.command("limit", "set", "user:alice", "quota=1GB/day")
        until("the limit to hold", lambda: _download(proxy, web, 1) == 0)


def test_sigterm_writes_everything(small_proxy: Maker) -> None:
    """Directly behind the last byte of a flow that runs: what was relayed is what is counted."""
    with small_proxy("[limits]\ndrain_s = 0.1\n") as proxy, tcp_origin("127.0.0.1") as echo:
        proxy.command("limit", "set", "tenant:main", "quota=1GB/week", "--together")
        until("the limit to hold", lambda: "users and rules read again" in proxy.log)
        with contextlib.closing(proxy.connect(echo)) as sock:
            _exchange(sock, 123_456)
            proxy.signal(signal.SIGTERM)
            assert proxy.wait() == 0
        assert _used(proxy) == 2 * 123_456
        assert proxy.record(user="alice")["bytes_to_client"] == 123_456
