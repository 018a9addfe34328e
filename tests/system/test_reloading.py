"""Case 108, 110: SIGHUP reads the configuration again, all of it or nothing; sessions live on."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import socks

from tests.system.origins import free_port, tcp_origin
from tests.system.proxy import LOOPBACK_FLOOR, PASSWORD, USER, Proxy
from tests.system.waiting import PATIENCE_S, measured, until

RELOADS = 25
CLIENTS = 4


def _config(*ports: int, more: str = "") -> str:
    listeners = "".join(f'[[listener]]\naddress = "127.0.0.1:{port}"\n' for port in ports)
    return f"{LOOPBACK_FLOOR}{more}\n{listeners}"


@contextmanager
def _running(folder: Path, *ports: int) -> Iterator[Proxy]:
    rules = {f"user:{USER}": ["tcp:*(*)->*(*)"]}
    with Proxy(folder, _config(*ports)).seed({USER: PASSWORD}, rules) as proxy:
        yield proxy


def _reload(proxy: Proxy, answer: str = "configuration reloaded") -> None:
    """Send SIGHUP and wait for this answer in the log."""
    before = proxy.log.count(answer)
    proxy.signal(signal.SIGHUP)
    until(f"{answer!r} in the log", lambda: proxy.log.count(answer) > before)


def _echoes(sock: socket.socket, text: bytes) -> bool:
    sock.sendall(text)
    return sock.recv(100) == text


@pytest.mark.parametrize(
    "broken",
    ["[[listener]]\naddress = 5", 'not toml at all "', '[[listener]]\naddress = "198.51.100.1:1080"', None],
    ids=["wrong-value", "no-toml", "cannot-listen", "no-file"],
)
def test_a_broken_configuration_changes_nothing(tmp_path: Path, broken: str | None) -> None:
    """Case 108: the old one stays, the log says so, the running session and new ones work."""
    with _running(tmp_path, 0) as proxy, tcp_origin("127.0.0.1") as echo, proxy.connect(echo) as old:
        if broken is None:
            proxy.config_file.unlink()
        else:
            proxy.config_file.write_text(broken)
        _reload(proxy, "configuration not reloaded, the old one stays in force")
        assert _echoes(old, b"old")
        with proxy.connect(echo) as new:
            assert _echoes(new, b"new")
        assert proxy.counters()["reload_failed"] == 1


def test_a_listener_comes_and_another_goes(tmp_path: Path) -> None:
    """Case 108: the new listener serves, the old one refuses, the session that came through it goes on."""
    stays, goes, comes = free_port(), free_port(), free_port()
    with (
        _running(tmp_path, stays, goes) as proxy,
        tcp_origin("127.0.0.1") as echo,
        proxy.connect(echo) as one,
        proxy.connect(echo, listener=1) as two,
    ):
        proxy.config_file.write_text(_config(stays, comes))
        _reload(proxy)
        assert _echoes(one, b"one")
        assert _echoes(two, b"two")
        with pytest.raises(socks.ProxyConnectionError):
            proxy.connect(echo, listener=1)
        proxy.addresses[1] = ("127.0.0.1", comes)
        for listener in (0, 1):
            with proxy.connect(echo, listener=listener) as new:
                assert _echoes(new, b"new")


def test_new_settings_hold_for_new_requests(tmp_path: Path) -> None:
    """Case 108: a limit that was lowered holds for the next session; the one above it is not ended."""
    port = free_port()
    with _running(tmp_path, port) as proxy, tcp_origin("127.0.0.1") as echo, proxy.connect(echo) as old:
        proxy.config_file.write_text(_config(port, more="[limits]\nsessions_per_user_max = 1\n"))
        _reload(proxy)
        with pytest.raises(socks.ProxyError, match="0x01"):
            proxy.connect(echo)
        assert _echoes(old, b"old")


def test_the_floor_is_part_of_it(tmp_path: Path) -> None:
    """Case 108: a network whose floor is closed again is refused to new requests, and a session to it is ended."""
    port = free_port()
    with _running(tmp_path, port) as proxy, tcp_origin("127.0.0.1") as echo, proxy.connect(echo) as old:
        proxy.config_file.write_text(_config(port).replace(LOOPBACK_FLOOR, ""))
        _reload(proxy)
        with pytest.raises(socks.ProxyError, match="0x02"):
            proxy.connect(echo)
        with pytest.raises(ConnectionResetError):
            old.recv(1)


def test_the_records_are_opened_anew(tmp_path: Path) -> None:
    """Rotated records: after SIGHUP the next one goes into a new file."""
    with _running(tmp_path, 0) as proxy, tcp_origin("127.0.0.1") as echo:
        proxy.connect(echo).close()
        first = proxy.record()
        records = proxy.data_dir / "records.jsonl"
        records.rename(proxy.data_dir / "records.1")
        _reload(proxy)
        proxy.connect(echo).close()
        until("the new file", records.exists)
        assert proxy.record()["session"] == first["session"] + 1
        assert records.stat().st_mode & 0o777 == 0o600


def test_the_same_configuration_changes_nothing(tmp_path: Path) -> None:
    """Case 110: counters, penalties and what a user holds stay as they were."""
    with _running(tmp_path, 0) as proxy, tcp_origin("127.0.0.1") as echo, proxy.connect(echo) as old:
        for number in range(6):
            with pytest.raises(socks.ProxyError):
                proxy.connect(echo, user=f"nobody{number}", password="guess", source="127.0.0.7")
        before = until("the refused to be gone", lambda: (now := proxy.counters())["open_sessions"] == 1 and now)
        _reload(proxy)
        after = proxy.counters()
        assert {name: after.get(name) for name in before} == before
        assert after.keys() - before.keys() == {"reloads"}
        with pytest.raises(socks.ProxyError):  # the penalty still holds there, and nowhere else
            proxy.connect(echo, source="127.0.0.7")
        with proxy.connect(echo, source="127.0.0.8") as other:
            assert _echoes(other, b"other")
        assert _echoes(old, b"old")


def test_many_reloads_under_load(tmp_path: Path) -> None:
    """Case 108: 25 reloads, in turn with and without a second listener, while 4 clients come and go: none is lost."""
    port, second = free_port(), free_port()
    failures: list[Exception] = []
    done = 0
    stop = threading.Event()

    def come_and_go() -> None:
        nonlocal done
        while not stop.is_set():
            try:
                with proxy.connect(echo) as sock:
                    assert _echoes(sock, b"x" * 50)
                done += 1
            except (OSError, AssertionError) as exc:
                failures.append(exc)
                return

    with _running(tmp_path, port) as proxy, tcp_origin("127.0.0.1") as echo, proxy.connect(echo) as old:
        clients = [threading.Thread(target=come_and_go) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            for number in range(RELOADS):
                proxy.config_file.write_text(_config(port, second) if number % 2 else _config(port))
                _reload(proxy)
        finally:
            stop.set()
            for client in clients:
                client.join(PATIENCE_S)
        assert _echoes(old, b"old")
        measured(f"{RELOADS} reloads, {done} sessions")
        assert failures == []
        assert done > RELOADS
        assert proxy.counters()["reloads"] == RELOADS
