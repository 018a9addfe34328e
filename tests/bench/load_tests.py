"""What must hold under load for longer than a test may take: `make load`. It prints a verdict for each case.

For example:
  make load                                  a minute each
  make load ARGS="--seconds 600 idle"        9,000 idle sessions for ten minutes
  make load ARGS="rate"                      1,000 new sessions a second
"""

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from tests.bench.load import Figures, Load
from tests.bench.measures import Holding, Lab, held, idle_sessions_max, warm
from tests.bench.processes import cpu_s, time_wait
from tests.bench.servers import Anonymous, Full

__all__ = ["CASES", "Check", "main"]

_RATE: Final = 1_000
_SOURCES: Final = 60_000  # 127.0.1.1 to 127.0.235.96
_NEW_BESIDE_IDLE: Final = 50  # a second, for so many seconds, to see what new sessions take
_NEW_S: Final = 5.0


@attrs.frozen
class Check:
    """One thing that must hold."""

    what: str
    figure: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it does."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"  {'ok ' if self.met else 'NOT'} {self.what}: {self.figure:,.4g}, wanted {sign} {self.limit:,g}"


# ---- 1,000 new sessions a second


def rate(lab: Lab) -> list[Check]:
    """1,000 new CONNECT/s from 60,000 addresses: answered, within 250 ms, and no address runs out of ports."""
    with Anonymous() as server, _peak_of(time_wait) as waiting:
        options = f"-r {_RATE} -t {lab.seconds}"
        figures = lab.load.run("connrate", options, (*server.way(lab.origin), "-n", str(_SOURCES)))
        unconnected = _records(server.proxy.data_dir / "records.jsonl", "connect failed")
    sys.stdout.write(f"  {_text(figures)} time_wait_peak={waiting[0]}\n")
    asked = _RATE * lab.seconds
    return [
        Check("share of sessions asked for that were begun", figures["started"] / asked, 0.999, at_least=True),
        Check("share answered", (figures["ok"] + figures["refused"]) / figures["started"], 0.999, at_least=True),
        Check("p99 of the handshake, ms", figures["handshake_p99_ms"], 250),
        Check("clients without a free port", figures["no_address"], 0),
        Check("targets that could not be connected", unconnected, 0),
    ]


@contextmanager
def _peak_of(ask: Callable[[], int]) -> Iterator[list[int]]:
    """Ask twice a second; the one number in the list is the highest answer."""
    peak, ended = [ask()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            peak[0] = max(peak[0], ask())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _records(path: Path, termination: str) -> int:
    """Records of sessions that ended so."""
    with path.open(encoding="utf-8") as lines:
        return sum(json.loads(line)["termination"] == termination for line in lines)


# ---- 9,000 idle sessions


def idle(lab: Lab) -> list[Check]:
    """9,000 idle relays in one process: small, nearly free, and all alive; new sessions are quick beside them."""
    with Full() as server:
        warm(lab, server)
        pid = server.pid
        assert pid is not None

        def during(holding: Holding) -> Figures:
            before_s, begun_s = cpu_s(pid), time.monotonic()
            time.sleep(lab.seconds)
            percent = (cpu_s(pid) - before_s) / (time.monotonic() - begun_s) * 100
            warm(lab, server)
            new = lab.load.run("connrate", f"-r {_NEW_BESIDE_IDLE} -t {_NEW_S}", server.way(lab.origin))
            lost = holding.held - holding.ended() + new["failed"] + new["refused"]
            return {
                "sessions": holding.held,
                "kib_each": holding.kib_each,
                "cpu_percent": percent,
                "handshake_p99_ms": new["handshake_p99_ms"],
                "lost": lost,
            }

        figures = held(lab, server, idle_sessions_max(), during)
    sys.stdout.write(f"  {_text(figures)}\n")
    return [
        Check("memory of each, KiB", figures["kib_each"], 64),
        Check("processor while nothing happens, %", figures["cpu_percent"], 2),
        Check("p99 of the handshake of new sessions, ms", figures["handshake_p99_ms"], 50),
        Check("sessions lost", figures["lost"], 0),
    ]


def _text(figures: Figures) -> str:
    return " ".join(f"{name}={figure:g}" for name, figure in figures.items())


# ---- all of them

CASES: Final[Mapping[str, tuple[str, Callable[[Lab], list[Check]]]]] = {
    "rate": ("case 102: 1,000 new sessions a second", rate),
    "idle": ("case 100: 9,000 idle sessions in one process", idle),
}


def main() -> None:
    """Run the cases; exit code 1 if anything does not hold."""
    summary, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.load_tests",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each case lasts (default: 60)")
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], metavar="CASE", help=f"{', '.join(CASES)}")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # every server ends with its block
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        load = Load.build(Path(folder))
        with load.origin() as origin:
            lab = Lab(load, origin, origin, options.seconds)
            for key in options.cases or CASES:
                title, run = CASES[key]
                sys.stdout.write(f"{title}, {options.seconds:g} s\n")
                sys.stdout.flush()
                checks = run(lab)
                failed |= not all(check.met for check in checks)
                sys.stdout.write("\n".join(map(str, checks)) + "\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
