"""Case 107: nobody reads the log any more, or the disk for the records is full: the service goes on, and it counts."""

import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import socks

from tests.system.origins import tcp_origin
from tests.system.proxy import LOOPBACK_FLOOR, PASSWORD, USER, Proxy, run
from tests.system.waiting import until

Maker = Callable[..., Proxy]
PIPE_BYTES = 4_096  # the smallest there is


def _echoes(proxy: Proxy, echo: tuple[str, int]) -> bool:
    with proxy.connect(echo) as sock:
        sock.sendall(b"round trip")
        return sock.recv(100) == b"round trip"


def _make_it_say_something(proxy: Proxy, times: int) -> None:
    """Each refused login is one line of the log."""
    for number in range(times):
        with pytest.raises(socks.ProxyError):
            proxy.connect(("127.0.0.1", 9), user=f"nobody{number}", password="x", source=f"127.0.3.{number + 1}")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A small pipe: where it is read, where it is written."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield reader, writer
    for end in (reader, writer):
        with contextlib.suppress(OSError):  # the test has closed it
            os.close(end)


def test_the_reader_of_the_log_has_gone(small_proxy: Maker, pipe: tuple[int, int]) -> None:
    """Case 107: writing fails (EPIPE); sessions, reloads and the end with exit 0 go on."""
    reader, writer = pipe
    with small_proxy(stderr=writer) as proxy, tcp_origin("127.0.0.1") as echo:
        os.close(reader)
        os.close(writer)
        _make_it_say_something(proxy, 5)
        proxy.signal(signal.SIGHUP)
        proxy.signal(signal.SIGUSR1)
        assert _echoes(proxy, echo)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0


def test_the_reader_of_the_log_has_stopped(small_proxy: Maker, pipe: tuple[int, int]) -> None:
    """Case 107: the pipe is full and nobody reads: no session waits for it, and neither does the end."""
    reader, writer = pipe
    with small_proxy(stderr=writer) as proxy, tcp_origin("127.0.0.1") as echo:
        os.set_blocking(reader, False)
        _make_it_say_something(proxy, 60)
        assert _echoes(proxy, echo)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        assert len(os.read(reader, 1 << 20)) > PIPE_BYTES - 500


@pytest.fixture
def full_disk(tmp_path: Path, as_root: None) -> Iterator[Path]:
    """A folder on a disk of its own, with room for one page more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = run(["mount", "-t", "tmpfs", "-o", "size=16k", "trioproxy-test", str(folder)])
    if mounted.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        (folder / "ballast").write_bytes(b"x" * 12_288)
        yield folder
    finally:
        run(["umount", "-l", str(folder)])


def test_the_disk_for_the_records_is_full(small_proxy: Maker, full_disk: Path) -> None:
    """Case 107: records are lost and counted; sessions go on; when there is room again, whole lines are written."""
    records = full_disk / "records.jsonl"
    with small_proxy(f'[log]\nrecords = "{records}"\n') as proxy, tcp_origin("127.0.0.1") as echo:

        def is_full() -> bool:
            assert _echoes(proxy, echo)
            return records.stat().st_size >= 4_096

        until("the disk to be full", is_full)
        assert all(_echoes(proxy, echo) for _ in range(10))
        (full_disk / "ballast").unlink()
        before = records.stat().st_size
        assert all(_echoes(proxy, echo) for _ in range(3))
        until("records to be written again", lambda: records.stat().st_size > before)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        whole = [line for line in records.read_bytes().split(b"\n") if line.startswith(b"{") and line.endswith(b"}")]
        assert len(whole) >= 10
        assert "stopped" in proxy.log


def test_the_disk_for_the_store_is_full(tmp_path: Path, full_disk: Path) -> None:
    """Case 113: a command that cannot write says so in one line and changes nothing; the server serves on."""
    store = full_disk / "trioproxy.db"
    listener = '[[listener]]\naddress = "127.0.0.1:0"\n[log]\nrecords = "none"\n'
    proxy = Proxy(tmp_path, f'{LOOPBACK_FLOOR}[store]\nurl = "sqlite:///{store}"\n{listener}')
    ballast = full_disk / "ballast"
    ballast.unlink()
    assert run(["mount", "-o", "remount,size=1m", str(full_disk)]).returncode == 0
    proxy.command("user", "add", USER, "--password-stdin", text=PASSWORD)
    proxy.command("rule", "add", f"user:{USER}", "tcp:*(*)->*(*)")
    with proxy, tcp_origin("127.0.0.1") as echo:
        assert _echoes(proxy, echo)
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as opened:
            while opened.write(b"x" * 4_096):
                continue
        added = 0
        while (done := proxy.try_command("rule", "add", "global", f"deny tcp:*(*)->*({added + 1})")).returncode == 0:
            added += 1
            assert added < 50
        assert done.stdout == ""
        assert done.stderr == f"trioproxy: {store}: the disk is full\n"
        assert _echoes(proxy, echo)
        ballast.unlink()
        proxy.command("rule", "add", "global", "deny tcp:*(*)->*(60000)")
        listed = json.loads(proxy.command("rule", "list", "global", "--json").stdout)
        assert [rule["rule"] for rule in listed] == [
            *(f"deny tcp:*(*)->*({port})" for port in range(1, added + 1)),
            "deny tcp:*(*)->*(60000)",
        ]
        assert _echoes(proxy, echo)
