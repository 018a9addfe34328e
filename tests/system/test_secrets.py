"""Case 36, 105, 106: no password anywhere, whatever happens; strangers write no lines into logs and records."""

import json
import re
import signal
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import socks

from tests.system.origins import tcp_origin, web_origin
from tests.system.proxy import USER, Proxy, proxy_url, run
from tests.system.waiting import PATIENCE_S, until

CANARY = "PW-CANARY"
RIGHT = f"{CANARY}-right"
WRONGS = [f"{CANARY}-wrong", f"{CANARY}-\u00e9\u4e2d", f"{CANARY}%20%22quoted", f"{CANARY}-" + "x" * 240]

# What the human log begins each line with.
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z \[\w+ *\] ")

HOSTILE = [
    b'new\r\n{"line": 1}\n2026-01-01T00:00:00Z [error    ] all is lost',
    b"clear\x1b[2J\x1b]0;title\x07",
    "turned\u202eround\u2066".encode(),
    "two\u2028lines\u2029\u0085".encode(),
    b"\"quoted\\\", 'and' {braces} %s <script>=cmd|",
    b"not utf-8 \xff\xfe\xc3",
    b"tab\tand\x7fdelete",
    b"x" * 255,
]


def _ask_with(proxy: Proxy, user: bytes, host: bytes, password: bytes) -> bytes:
    """One session by hand, as no well-behaved program would do it: the last thing the server says."""
    with socket.create_connection(proxy.addresses[0], PATIENCE_S) as sock:
        sock.sendall(b"\5\1\2")
        assert sock.recv(2) == b"\5\2"
        sock.sendall(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        said = sock.recv(2)
        if said == b"\1\0":
            sock.sendall(b"\5\1\0\3" + bytes([len(host)]) + host + (80).to_bytes(2))
            said = sock.recv(10)
        return said


def _everything_written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_canary_password_is_nowhere(small_proxy: Callable[..., Proxy]) -> None:
    """Case 36, 106: set, used, mistyped, tested, changed, at level debug: it is in no output, log, record or store."""
    proxy = small_proxy('[log]\nlevel = "debug"\n')
    outputs = [proxy.command("user", "passwd", USER, "--password-stdin", text=f"{RIGHT}\n")]
    with proxy, web_origin("127.0.0.1") as web:
        address = proxy.addresses[0]
        curl = run(["curl", "-sS", "-x", proxy_url(address, f"{USER}:{RIGHT}"), web.url()])
        assert curl.returncode == 0, curl.stderr
        for number, wrong in enumerate(WRONGS):
            source = ["--interface", f"127.0.0.{number + 2}"]
            refused = run(["curl", "-sS", *source, "-x", proxy_url(address, f"{USER}:{wrong}"), web.url()])
            assert refused.returncode != 0
        for password in (f"{CANARY}\0".encode(), f"{CANARY}\xff".encode("latin-1"), f"{CANARY}\r\n".encode()):
            assert _ask_with(proxy, USER.encode(), b"", password) == b"\1\1"
        outputs += [
            proxy.try_command("auth", "test", USER, "--password-stdin", text=text)
            for text in (f"{RIGHT}\n", f"{CANARY}-wrong\n", f"{CANARY}\ntwo lines\n")
        ]
        outputs += [
            proxy.command("user", "show", USER),
            proxy.command("user", "list", "--json"),
            proxy.try_command("user", "passwd", USER, "--password", f"{CANARY}-on-the-command-line"),
            proxy.try_command("user", "add", "bob", f"{CANARY}-on-the-command-line"),
            proxy.command("user", "passwd", USER, "--password-stdin", text=f"{CANARY}-new\n"),
        ]
        proxy.config_file.write_text("broken")
        proxy.signal(signal.SIGHUP)
        until("the reload to fail", lambda: "not reloaded" in proxy.log)
        proxy.counters()
        process = Path(f"/proc/{proxy.pid}")
        written = {name: (process / name).read_bytes() for name in ("cmdline", "environ")}
        assert re.search(r"^Max core file size +0 +0 ", (process / "limits").read_text(), re.MULTILINE)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        written |= _everything_written(proxy.folder)
    for done in outputs:
        arguments = " ".join(str(argument) for argument in done.args)
        written[f"output of {arguments}"] = (done.stdout + done.stderr).encode()
    assert "data/trioproxy.db" in written
    assert written["stderr"].count(b"login rejected") >= len(WRONGS)
    assert [name for name, content in written.items() if CANARY.encode() in content] == []


def test_a_generated_password_is_shown_once(small_proxy: Callable[..., Proxy]) -> None:
    """Case 106: `user add --generate` prints it once, and it works; nothing written holds it."""
    with small_proxy() as proxy, tcp_origin("127.0.0.1") as echo:
        said = proxy.command("user", "add", "bob", "--generate").stdout
        password = said.rpartition("password: ")[2].strip()
        proxy.command("rule", "add", "user:bob", "tcp:*(*)->*(*)")
        until("the user to be known", lambda: _can(proxy, echo, "bob", password))
        proxy.connect(echo, user="bob", password=password).close()
        written = _everything_written(proxy.folder)
    assert len(password) >= 16
    assert said.count(password) == 1
    assert [name for name, content in written.items() if password.encode() in content] == []


def _can(proxy: Proxy, target: tuple[str, int], user: str, password: str) -> bool:
    read = proxy.log.count("users and rules read again")
    return read >= 1 and _connects(proxy, target, user, password)


def _connects(proxy: Proxy, target: tuple[str, int], user: str, password: str) -> bool:
    try:
        proxy.connect(target, user=user, password=password).close()
    except socks.ProxyError:
        return False
    return True


def _unprintable(text: str) -> list[str]:
    """Characters that move a cursor, end a line, or turn text round."""
    return [character for character in text if unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Cs"}]


def test_nobody_writes_into_the_log(small_proxy: Callable[..., Proxy]) -> None:
    """Case 105: hostile user names, sent by a real client and by hand: each is one escaped line of the human log."""
    with small_proxy('[log]\nlevel = "debug"\n') as proxy, tcp_origin("127.0.0.1") as echo:
        before = proxy.log
        for number, name in enumerate(HOSTILE):
            source = f"127.0.2.{number + 1}"
            with pytest.raises(socks.ProxyError):  # PySocks sends UTF-8, what it is given
                proxy.connect(echo, user=name.decode("utf-8", "replace")[:80], password="x", source=source)
        for name in HOSTILE[:3]:
            assert _ask_with(proxy, name[:255], b"", b"x") == b"\1\1"
        wanted = len(HOSTILE) + 3
        until("the log", lambda: proxy.log.count("login rejected") >= wanted)
        lines = proxy.log.removeprefix(before).removesuffix("\n").split("\n")
    assert len(lines) == wanted
    assert [line for line in lines if not LOG_LINE.match(line)] == []
    assert [line for line in lines if _unprintable(line)] == []
    assert [line for line in lines if len(line) > 2_000] == []


def test_nobody_writes_into_the_records(small_proxy: Callable[..., Proxy]) -> None:
    """Case 105: hostile destination names: one line of valid JSON for each flow, escaped, its length bounded."""
    with small_proxy() as proxy:
        for host in HOSTILE:
            assert _ask_with(proxy, USER.encode(), host, b"wonderland")[:3] in {b"\5\1\0", b"\5\4\0"}
        records = proxy.data_dir / "records.jsonl"
        until("the records", lambda: records.read_bytes().count(b"\n") >= len(HOSTILE))
        content = records.read_bytes()
        log = proxy.log
    assert content.endswith(b"\n")
    lines = content.decode().removesuffix("\n").split("\n")
    assert len(lines) == len(HOSTILE)
    rows = [json.loads(line) for line in lines]
    assert all(row["user"] == USER and row["asked"].endswith(":80") for row in rows)
    assert [line for line in lines if _unprintable(line) or len(line) > 4_000] == []
    assert [row["asked"] for row in rows if _unprintable(row["asked"])] == []
    assert _unprintable(log.replace("\n", "")) == []


def test_one_record_for_each_flow(small_proxy: Callable[..., Proxy]) -> None:
    """Issue 2 item 8: who, from where, what was asked and judged, bytes each way, how it ended, by which rule."""
    with small_proxy() as proxy, tcp_origin("127.0.0.1") as echo:
        for size in (0, 1, 5_000):
            with proxy.connect(echo) as sock:
                sock.sendall(b"x" * size)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65_536):
                    continue
        proxy.command("rule", "add", "global", "deny tcp:*(*)->127.0.0.1(25)")
        until("the rule to hold", lambda: "0x02" in _refusal(proxy, ("127.0.0.1", 25)))
        assert "0x05" in _refusal(proxy, ("127.0.0.1", 9))
        failed = proxy.record(asked="127.0.0.1:9")
        rows = proxy.records(user=USER)
    finished = [row for row in rows if row["asked"] == f"127.0.0.1:{echo[1]}"]
    assert [(row["bytes_to_target"], row["bytes_to_client"]) for row in finished] == [(0, 0), (1, 1), (5_000, 5_000)]
    assert {(row["termination"], row["reply"], row["scope"], row["rule"]) for row in finished} == {
        ("client closed", 0, f"user:{USER}", "any:*(*)->*(*)")
    }
    assert {row["client"].rpartition(":")[0] for row in rows} == {"127.0.0.1"}
    assert {(row["tenant"], row["command"]) for row in rows} == {("main", "CONNECT")}
    assert len({row["session"] for row in rows}) == len(rows)
    [refused] = [row for row in rows if row["termination"] == "refused by rule" and row["reply"] == 2][-1:]
    assert (refused["scope"], refused["target"]) == ("global", "127.0.0.1:25")
    assert (failed["termination"], failed["reply"]) == ("connect failed", 5)


def _refusal(proxy: Proxy, target: tuple[str, int]) -> str:
    with pytest.raises(socks.ProxyError) as caught:
        proxy.connect(target)
    return str(caught.value)
