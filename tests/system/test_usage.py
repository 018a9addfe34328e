"""`trioproxy usage` beside a running server: its totals are those of the flow log, whatever happens to the server."""

import contextlib
import json
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import socks

from tests.system.origins import Web, tcp_origin, udp_echo, web_origin
from tests.system.proxy import PASSWORD, USER, Proxy, proxy_url, run
from tests.system.waiting import PATIENCE_S, measured, until
from trioproxy.store import usage_path

Maker = Callable[..., Proxy]
Sums = tuple[int, int, int]  # flows, bytes to the client, bytes to the target


def _usage(proxy: Proxy, by: str = "user", *more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(proxy.command("usage", "--by", by, "--since", "2d", "--json", *more).stdout)
    return found


def _sums(row: dict[str, Any]) -> Sums:
    return row["flows"], row["bytes_to_client"], row["bytes_to_target"]


def _of_the_log(rows: list[dict[str, Any]]) -> Sums:
    return len(rows), sum(row["bytes_to_client"] for row in rows), sum(row["bytes_to_target"] for row in rows)


def _equal(proxy: Proxy) -> bool:
    return _sums(_usage(proxy)["totals"]) == _of_the_log(proxy.records())


def _download(proxy: Proxy, web: Web, size: int) -> None:
    done = run(["curl", "-sS", "-o", "/dev/null", "-x", proxy_url(proxy.addresses[0]), web.url(f"/blob/{size}")])
    assert done.returncode == 0, done.stderr


def _echo(proxy: Proxy, echo: tuple[str, int], size: int = 1_000) -> None:
    with proxy.connect(echo) as sock:
        sock.sendall(b"x" * size)
        received = 0
        while received < size:
            received += len(sock.recv(65_536))


def _echo_udp(proxy: Proxy, udp: tuple[str, int]) -> None:
    with socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.set_proxy(socks.SOCKS5, *proxy.addresses[0], username=USER, password=PASSWORD)
        sock.settimeout(PATIENCE_S)
        sock.bind(("127.0.0.1", 0))
        for size in (1, 1_000):
            sock.sendto(b"z" * size, udp)
            sock.recvfrom(65_536)


def test_totals_are_those_of_the_flow_log(small_proxy: Maker) -> None:
    """TCP flows, refused ones and those of another tenant: each report adds up to the records."""
    second = '[[listener]]\naddress = "127.0.0.1:0"\ntenant = "physics"\n[tenant.physics]\n'
    rules = {"user:physics/bob": ["tcp:*(*)->*(*)"], "global": ["deny any:*(*)->*(25)"]}
    proxy = small_proxy(listener=second).seed({"physics/bob": "secret"}, rules)
    with proxy, web_origin("127.0.0.1") as web, tcp_origin("127.0.0.1") as echo, udp_echo("127.0.0.1") as udp:
        for size in (0, 1, 70_000, 3_000_000):
            _download(proxy, web, size)
        for _ in range(3):
            with pytest.raises(socks.ProxyError):
                proxy.connect(("127.0.0.1", 25))
        for _ in range(20):
            _echo(proxy, echo)
        _echo_udp(proxy, udp)
        with proxy.connect(echo, listener=1, user="bob", password="secret") as sock:
            sock.sendall(b"y" * 500)
            assert sock.recv(65_536)
        until("the usage to be written", lambda: _equal(proxy))
        records = proxy.records()
        for by in ("user", "target", "app", "day"):
            found = _usage(proxy, by)
            assert _sums(found["totals"]) == _of_the_log(records)
            rows = list(map(_sums, found["rows"]))
            assert tuple(map(sum, zip(*rows, strict=True))) == _of_the_log(records)
        by_user = {row["key"]: _sums(row) for row in _usage(proxy)["rows"]}
        assert by_user == {
            "alice": _of_the_log(proxy.records(tenant="main", user="alice")),
            "physics/bob": _of_the_log(proxy.records(tenant="physics", user="bob")),
        }
        assert {row["key"]: _sums(row) for row in _usage(proxy, "group")["rows"]} == {
            "system-proxy": by_user["alice"],
            "physics/system-proxy": by_user["physics/bob"],
        }
        assert _sums(_usage(proxy, "user", "--tenant", "physics")["totals"]) == by_user["physics/bob"]
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0


def test_the_end_writes_everything(small_proxy: Maker) -> None:
    """SIGTERM directly behind the last flow: nothing waits for the next second."""
    with small_proxy() as proxy, tcp_origin("127.0.0.1") as echo:
        for _ in range(50):
            _echo(proxy, echo)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        assert _equal(proxy)
        assert proxy.records()


def test_kill_9_loses_some_seconds_at_most(small_proxy: Maker) -> None:
    """What was finished five seconds before is there; nothing is there twice, also after the next start."""
    with small_proxy() as proxy, tcp_origin("127.0.0.1") as echo:
        for _ in range(30):
            _echo(proxy, echo)
        give_up_s = time.monotonic() + 6
        while time.monotonic() < give_up_s:
            _echo(proxy, echo)
        proxy.signal(signal.SIGKILL)
        killed_at = datetime.now(UTC)
        proxy.wait()
        records, written = proxy.records(), _sums(_usage(proxy)["totals"])[0]
        early = [row for row in records if killed_at - datetime.fromisoformat(row["started_at"]) > timedelta(seconds=5)]
        measured(f"{len(records)} flows in the log, {len(records) - written} not written, {len(early)} had to be")
        assert 30 <= len(early) <= written
        proxy.start()
        for _ in range(5):
            _echo(proxy, echo)
        until("the usage to be written", lambda: _sums(_usage(proxy)["totals"])[0] == written + 5)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        assert _sums(_usage(proxy)["totals"])[0] == written + 5


def test_a_reload_changes_the_retention(small_proxy: Maker) -> None:
    """SIGHUP: from 0 days on nothing is written; flows of before are there until the next hourly look."""
    with small_proxy("[usage]\nretention_days = 0\n") as proxy, tcp_origin("127.0.0.1") as echo:
        _echo(proxy, echo)
        until("the first record", lambda: len(proxy.records()) == 1)
        text = proxy.config_file.read_text()
        proxy.config_file.write_text(text.replace("retention_days = 0", "retention_days = 7"))
        proxy.signal(signal.SIGHUP)
        until("the reload", lambda: "configuration reloaded" in proxy.log)
        _echo(proxy, echo)
        until("the usage to be written", lambda: _sums(_usage(proxy)["totals"])[0] == 1)


def test_case_113_a_locked_usage_store(small_proxy: Maker) -> None:
    """Case 113: another program holds the lock: sessions, rules and reports go on, and nothing is lost."""
    with small_proxy() as proxy, tcp_origin("127.0.0.1") as echo:
        _echo(proxy, echo)
        until("the usage to be written", lambda: _equal(proxy))
        with closing(sqlite3.connect(usage_path(proxy.data_dir / "trioproxy.db"), isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            for _ in range(20):
                _echo(proxy, echo)
            until("the trouble in the log", lambda: "usage cannot be written" in proxy.log)
            proxy.command("rule", "add", "global", "deny any:*(*)->*(25)")
            assert _sums(_usage(proxy)["totals"])[0] == 1
            _echo(proxy, echo)
            holder.execute("ROLLBACK")
        until("the usage to be written", lambda: _equal(proxy))
        assert proxy.log.count("usage cannot be written") == 1
        counters = proxy.counters()
        assert counters["usage_write_failed"] >= 1
        assert counters.get("usage_merged", 0) == counters.get("usage_lost", 0) == 0


def test_case_113_a_removed_usage_store(small_proxy: Maker) -> None:
    """Case 113: who removes the file begins anew; the server does not mind."""
    with small_proxy() as proxy, tcp_origin("127.0.0.1") as echo:
        _echo(proxy, echo)
        until("the usage to be written", lambda: _equal(proxy))
        usage_path(proxy.data_dir / "trioproxy.db").unlink()
        for _ in range(3):
            _echo(proxy, echo)
        until("the new file", lambda: _sums(_usage(proxy)["totals"])[0] == 3)


def test_case_113_a_full_disk(small_proxy: Maker, tmp_path: Path, as_root: None) -> None:
    """Case 113: with no room for usage sessions go on; when there is room again, all of it is written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if run(["mount", "-t", "tmpfs", "-o", "size=256k", "trioproxy-test", str(disk)]).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        proxy = small_proxy(f'[store]\nurl = "sqlite:///{disk}/trioproxy.db"\n')
        shutil.move(proxy.data_dir / "trioproxy.db", disk / "trioproxy.db")
        with proxy, tcp_origin("127.0.0.1") as echo:
            _echo(proxy, echo)
            until("the usage to be written", lambda: _equal(proxy))
            with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
                while ballast.write(b"x" * 4_096):
                    continue
            for port in range(1, 41):  # nobody listens there
                with pytest.raises(socks.ProxyError):
                    proxy.connect(("127.0.0.1", port))
            until("the trouble in the log", lambda: "usage cannot be written" in proxy.log)
            _echo(proxy, echo)
            (disk / "ballast").unlink()
            until("the usage to be written", lambda: _equal(proxy))
            assert len(proxy.records()) == 42
    finally:
        run(["umount", "-l", str(disk)])
