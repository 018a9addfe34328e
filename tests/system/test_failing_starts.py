"""Issue 2 item 2: what is in the way of a start is said in one clear line, exit 1, and nothing is damaged."""

import hashlib
import os
import socket
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.system.proxy import PASSWORD, USER, Proxy, command, run

LISTENER = '[[listener]]\naddress = "127.0.0.1:0"\n'

# Root may read everything, so the server is started as a root that may not.
_READ_ANYTHING = "-dac_override,-dac_read_search"
LIKE_OTHERS = (
    ("setpriv", f"--bounding-set={_READ_ANYTHING}", f"--inh-caps={_READ_ANYTHING}") if os.geteuid() == 0 else ()
)


def _said(proxy: Proxy) -> list[str]:
    """Start it, which must fail: what it says."""
    proxy.launch()
    try:
        assert proxy.wait() == 1
    finally:
        proxy.kill()
    assert proxy.output == ""
    return proxy.log.splitlines()


def _files(folder: Path) -> dict[str, str]:
    """What is in the folder, but for the files that say what happened, and SQLite's own beside its database."""
    ours = {"stdout", "stderr"}
    passing = ("-wal", "-shm", "records.jsonl")
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ours and not path.name.endswith(passing)
    }


def _with_store(folder: Path, config: str = LISTENER, prefix: Sequence[str] = ()) -> Proxy:
    return Proxy(folder, config, prefix=prefix).seed({USER: PASSWORD}, {f"user:{USER}": ["tcp:*(*)->*(*)"]})


@pytest.fixture(params=["127.0.0.1", "::1"])
def taken(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address and port on which somebody listens already."""
    host = str(request.param)
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as other:
        yield f"[{host}]:{other.getsockname()[1]}" if ":" in host else f"{host}:{other.getsockname()[1]}"


def test_a_port_in_use(taken: str, tmp_path: Path) -> None:
    """The line names the address, the reason and what to do; the store is as it was."""
    proxy = _with_store(tmp_path, f'{LISTENER}[[listener]]\naddress = "{taken}"\n')
    before = _files(tmp_path)
    [line] = _said(proxy)
    assert line.startswith(f"trioproxy: cannot listen on {taken}: Address already in use")
    assert "ss -ltnp" in line
    assert _files(tmp_path) == before


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    """The same for an address of another machine."""
    [line] = _said(_with_store(tmp_path, '[[listener]]\naddress = "198.51.100.1:1080"\n'))
    assert line.startswith("trioproxy: cannot listen on 198.51.100.1:1080: Cannot assign requested address")


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    """The line names the file; nothing is made."""
    proxy = Proxy(tmp_path, LISTENER)
    proxy.config_file.unlink()
    [line] = _said(proxy)
    assert str(proxy.config_file) in line
    assert "No such file" in line
    assert not proxy.data_dir.exists()


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    """The same for a file without permission."""
    proxy = Proxy(tmp_path, LISTENER, prefix=LIKE_OTHERS)
    proxy.config_file.chmod(0)
    [line] = _said(proxy)
    assert str(proxy.config_file) in line
    assert "Permission denied" in line
    assert not proxy.data_dir.exists()


def test_a_broken_configuration(tmp_path: Path) -> None:
    """Issue 2: it starts nothing and lists every error with its path, each on its own line."""
    config = '[[listener]]\naddress = "127.0.0.1:99999"\n[limits]\nhandshake_s = -1\nidle = 3\n[polcy]\n'
    proxy = Proxy(tmp_path, config)
    lines = _said(proxy)
    for path in ("listener[0].address", "limits.handshake_s", "limits.idle", "polcy"):
        assert sum(f"{path}:" in line for line in lines) == 1, (path, lines)
    assert len(lines) == 4
    assert all(line.startswith(f"trioproxy: {proxy.config_file}: ") for line in lines)
    assert not proxy.data_dir.exists()


def test_an_open_proxy_needs_two_words(tmp_path: Path) -> None:
    """Case 33: without login beyond loopback only where that is said twice."""
    everybody = '[[listener]]\naddress = "0.0.0.0:0"\nanonymous = true\n'
    [line] = _said(Proxy(tmp_path, everybody))
    assert "listener[0].anonymous" in line
    with Proxy(tmp_path, f"{everybody}anonymous_beyond_loopback = true\n") as proxy:
        assert proxy.addresses[0][0] == "0.0.0.0"


def _garbage(store: Path) -> None:
    store.write_bytes(b"no database at all\n" * 1_000)


def _cut_off(store: Path) -> None:
    store.write_bytes(store.read_bytes()[:5_000])


def _scribbled_over(store: Path) -> None:
    content = bytearray(store.read_bytes())
    content[4_096:12_288] = b"\xa5" * 8_192
    store.write_bytes(content)


def _of_another_program(store: Path) -> None:
    store.unlink()
    database = sqlite3.connect(store)
    database.execute("CREATE TABLE recipe (name TEXT)")
    database.commit()
    database.close()


def _from_the_future(store: Path) -> None:
    database = sqlite3.connect(store)
    database.execute("PRAGMA user_version = 9999")
    database.close()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_garbage, "not a trioproxy store"),
        (_cut_off, "damaged"),
        (_scribbled_over, "damaged"),
        (_of_another_program, "another program"),
        (_from_the_future, "newer trioproxy"),
    ],
    ids=["garbage", "cut-off", "scribbled-over", "another-program", "newer"],
)
def test_a_broken_store(tmp_path: Path, damage: Callable[[Path], None], why: str) -> None:
    """Case 113: one line that says what it is; the file keeps every octet, so that it can be looked at or restored."""
    proxy = _with_store(tmp_path)
    damage(proxy.data_dir / "trioproxy.db")
    before = _files(tmp_path)
    [line] = _said(proxy)
    assert line.startswith(f"trioproxy: {proxy.data_dir / 'trioproxy.db'}: ")
    assert why in line
    assert _files(tmp_path) == before


@pytest.mark.parametrize("mode", [0, stat.S_IRUSR | stat.S_IXUSR], ids=["no-permission", "read-only"])
def test_a_data_folder_that_cannot_be_used(tmp_path: Path, mode: int) -> None:
    """One line that names the place; a store that is in it keeps what it had."""
    proxy = _with_store(tmp_path, prefix=LIKE_OTHERS)
    before = _files(tmp_path)
    proxy.data_dir.chmod(mode)
    try:
        [line] = _said(proxy)
        asked = run([*LIKE_OTHERS, *command("user", "passwd", USER, "--generate"), *proxy.options()])
    finally:
        proxy.data_dir.chmod(stat.S_IRWXU)
    assert line.startswith(f"trioproxy: {proxy.data_dir}")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr.startswith(f"trioproxy: {proxy.data_dir}")
    assert asked.stderr.count("\n") == 1
    assert _files(tmp_path) == before


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    """The same where the folder should be."""
    proxy = Proxy(tmp_path, LISTENER)
    proxy.data_dir.write_text("something else")
    [line] = _said(proxy)
    assert str(proxy.data_dir) in line
    assert proxy.data_dir.read_text() == "something else"


def test_records_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder where the file of the records should be: one line with its name."""
    (tmp_path / "records").mkdir()
    [line] = _said(_with_store(tmp_path, f'{LISTENER}[log]\nrecords = "{tmp_path}/records"\n'))
    assert line.startswith(f"trioproxy: {tmp_path}/records: ")
    assert line.endswith("Is a directory")
