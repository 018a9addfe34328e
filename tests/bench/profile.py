"""Where the time of a new session goes: `python -m tests.bench.profile`, or `make profile`.

Two runs of the same load. The first without a profiler: user and system time of the proxy for each session, from
`/proc/PID/stat`. The second under cProfile, which makes every call dearer: its shares say what to look at, its sums do
not say how long anything takes.
"""

import argparse
import os
import pstats
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.bench.load import Load
from tests.bench.processes import cpu_user_system_s, free_port, listens
from tests.bench.servers import OPEN, Anonymous
from tests.system.proxy import environment
from tests.system.waiting import until
from trioproxy.policy import Scope, parse_rule
from trioproxy.store import Store

__all__ = ["main"]

SESSIONS: Final = "_start_session"  # called once for each

# What a function belongs to, by where it stands; the first that fits.
PARTS: Final = (
    ("the kernel", "<method '"),
    ("the kernel", "<function socket.close"),
    ("protocol", "trioproxy/protocol/"),
    ("policy", "trioproxy/policy/"),
    ("relay", "trioproxy/relay/"),
    ("engine", "trioproxy/engine/"),
    ("records", "trioproxy/accounting/"),
    ("session", "trioproxy/"),
    ("login", "auth/"),
    ("addresses", "ipaddress.py"),
    ("Trio", "/trio/"),
)
KERNEL: Final = ("socket.socket", "select.epoll", "close")


def main() -> None:
    """Run both, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each of the two runs lasts (default: 3)")
    parser.add_argument("--rows", type=int, default=25, help="how many functions are listed (default: 25)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trioproxy-profile-") as folder:
        load = Load.build(Path(folder))
        with load.origin() as origin:
            plain(load, origin, options.seconds)
            profiled(load, origin, Path(folder), options.seconds, options.rows)


def plain(load: Load, origin: str, seconds: float) -> None:
    """How much processor time a session costs."""
    with Anonymous() as server:
        assert server.pid is not None
        before = cpu_user_system_s(server.pid)
        figures = load.run("connrate", f"-c 50 -t {seconds}", server.way(origin))
        user_s, system_s = (after - begin for after, begin in zip(cpu_user_system_s(server.pid), before, strict=True))
    print(f"{figures['rate']:,.0f} new sessions/s, 50 at once, no login, records on")
    print(f"of the proxy's processor time each takes {user_s / figures['ok'] * 1e6:.0f} us in user mode", end=" ")
    print(f"and {system_s / figures['ok'] * 1e6:.0f} us in the kernel")


def profiled(load: Load, origin: str, folder: Path, seconds: float, rows: int) -> None:
    """Which functions take it."""
    with under_profiler(folder) as port:
        load.run("connrate", f"-c 50 -t {seconds}", ("-n", "8", "-x", f"127.0.0.1:{port}", "-o", origin))
    report(pstats.Stats(str(folder / "profile")), rows)


@contextmanager
def under_profiler(folder: Path) -> Iterator[int]:
    """A proxy whose profile is in the folder when it has ended; its port."""
    port = free_port()
    store = folder / "trioproxy.db"
    with Store.open(store, create=True) as opened:
        opened.rules.replace({Scope.parse(scope): [*map(parse_rule, OPEN[scope])] for scope in OPEN})
    config = Anonymous.config(port)
    (folder / "site.toml").write_text(
        f'{config}records = "{folder}/records.jsonl"\n[store]\nurl = "sqlite:///{store}"\n', encoding="utf-8"
    )
    command = [sys.executable, "-m", "cProfile", "-o", str(folder / "profile"), "-m", "trioproxy"]
    process = subprocess.Popen(
        [*command, "serve", "--config", str(folder / "site.toml")], env=environment(), stderr=subprocess.DEVNULL
    )
    try:
        until("the proxy listens", lambda: listens(port))
        yield port
    finally:
        for _ in range(2):
            process.send_signal(signal.SIGINT)
        process.wait()


def report(stats: pstats.Stats, rows: int) -> None:
    """Calls of each session, shares of the parts, and the functions that take most."""
    table = stats.stats  # type: ignore[attr-defined]  # what its own print methods read
    sessions = next(row[0] for (_, _, name), row in table.items() if name == SESSIONS)
    # What happens less often than every second session is not what a session costs.
    often = {key: row for key, row in table.items() if row[0] >= sessions / 2 and "poll" not in key[2]}
    total = sum(row[2] for row in often.values())
    print(f"\nunder the profiler: {sum(row[0] for row in often.values()) / sessions:.0f} calls for each session\n")
    parts: defaultdict[str, float] = defaultdict(float)
    for key, row in often.items():
        parts[part_of(*key)] += row[2]
    for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"{seconds / total:6.1%}  {part}")
    print(f"\n{'share':>6}  calls  function")
    for (file, line, name), row in sorted(often.items(), key=lambda item: -item[1][2])[:rows]:
        where = f"{os.path.relpath(file)}:{line} " if line else ""
        print(f"{row[2] / total:6.1%}  {row[0] / sessions:5.1f}  {where}{name}")


def part_of(file: str, _line: int, name: str) -> str:
    """What a function belongs to."""
    if any(word in name for word in KERNEL):
        return "the kernel"
    return next((part for part, place in PARTS if place in file), "Python")


if __name__ == "__main__":
    main()
