"""What is measured: each measure leads load through one server and returns figures by name, chiefly `value`."""

import resource
import time
from collections.abc import Callable
from typing import Final

import attrs

from tests.bench.load import Figures, Load
from tests.bench.processes import cpu_s, memory_kib
from tests.bench.servers import CLIENTS, CROWD, Server
from tests.system.proxy import PASSWORD

__all__ = ["IDLE_SESSIONS", "MEASURES", "Lab", "Measure", "held", "idle_sessions_max", "warm"]

IDLE_SESSIONS: Final = 9_000  # two descriptors each, and 20,000 is a usual hard limit
_IDLE_SESSIONS_OF_PEERS: Final = 1_000  # a process or a thread each, in some: enough to see what one costs
_IDLE_S: Final = 10.0
_PACE: Final = 100  # round trips a second of each connection, where they are on a schedule
_RELAYS: Final = 32

_ALL: Final = ("straight", "full", "bare", "dante", "dante-n", "microsocks", "pproxy")
_WITH_UDP: Final = ("straight", "full", "bare", "dante", "dante-n")


@attrs.frozen
class Lab:
    """What measures work with.

    Attributes:
        load: the load generator.
        origin: where its connections end.
        other_origin: another process for a second load, so that the two meet in the server alone.
        seconds: how long a part of a measure lasts.
        quick: rough figures will do.
    """

    load: Load
    origin: str
    other_origin: str
    seconds: float
    quick: bool = False

    def run(self, server: Server, mode: str, options: str) -> Figures:
        """Load through this server for the usual time."""
        return self.load.run(mode, f"{options} -t {self.seconds}", server.way(self.origin))


@attrs.frozen
class Measure:
    """One of the things that are compared.

    Attributes:
        key: its name in the results and on the command line.
        title: for tables and pictures.
        unit: of `value`.
        run: measures one server.
        servers: those that it is run with.
        parts: how many times `Lab.seconds` it takes, about; for the estimate of the time that is left.
        extra_s: what comes on top.
        fresh: it needs a server that nobody has used.
        rounds_max: it is not repeated more often: it takes long, or hardly varies.
        more_is_better: how to read it.
    """

    key: str
    title: str
    unit: str
    run: Callable[[Lab, Server], Figures]
    servers: tuple[str, ...] = _ALL
    parts: float = 1.0
    extra_s: float = 0.3
    fresh: bool = False
    rounds_max: int = 1_000
    more_is_better: bool = True


def warm(lab: Lab, server: Server) -> None:
    """Let each address of the client log in once, so that the answer is remembered."""
    if server.login:
        lab.load.run("connrate", f"-t 0 -c {CLIENTS}", server.way(lab.origin))


def _new_sessions(lab: Lab, server: Server) -> Figures:
    warm(lab, server)
    figures = lab.run(server, "connrate", "-c 50")
    lost = figures["failed"] + figures["refused"] + figures["hung"]
    return {"value": figures["rate"], "p99_ms": figures["p99_ms"], "lost": lost}


def _bulk(options: str) -> Callable[[Lab, Server], Figures]:
    def run(lab: Lab, server: Server) -> Figures:
        warm(lab, server)
        before_s = cpu_s(server.pid) if server.pid else 0.0
        figures = lab.run(server, "bulk", options)
        used_s = cpu_s(server.pid) - before_s if server.pid else 0.0
        return {
            "value": figures["gbit_s"],
            "fairness": figures["fairness_min_over_max"],
            "cpu_s_per_gb": used_s / (figures["bytes"] / 1e9),
            "lost": figures["lost"],
        }

    return run


def _round_trips(lab: Lab, server: Server) -> Figures:
    warm(lab, server)
    figures = lab.run(server, "rtt", f"-c {_RELAYS} -s 64")
    return {"value": figures["rate"], "p99_ms": figures["p99_us"] / 1e3, "lost": figures["lost"]}


def _datagrams(size: int) -> Callable[[Lab, Server], Figures]:
    def run(lab: Lab, server: Server) -> Figures:
        warm(lab, server)
        figures = lab.run(server, "udp", f"-c 4 -s {size}")
        return {"value": figures["pps"], "loss": figures["loss"], "lost": figures["bad"]}

    return run


def _beside(lab: Lab, server: Server) -> Figures:
    warm(lab, server)
    options = f"-c {_RELAYS} -s 64"
    quiet = lab.run(server, "rtt", options)
    with lab.load.running("bulk", "-c 1 -t 600", server.way(lab.other_origin)) as flow:
        time.sleep(0.2)  # until it is at full speed
        beside = lab.run(server, "rtt", options)
        gbit_s = flow.finish()["gbit_s"]
    return {
        "value": beside["p99_us"] / 1e3,
        "quiet_ms": quiet["p99_us"] / 1e3,
        "gbit_s": gbit_s,
        "lost": quiet["lost"] + beside["lost"],
    }


def _while_hashing(lab: Lab, server: Server) -> Figures:
    warm(lab, server)
    options = f"-c {_RELAYS} -s 64 -r {_RELAYS * _PACE}"
    quiet = lab.run(server, "rtt", options)
    with lab.load.running("rtt", f"{options} -t 600", server.way(lab.origin)) as relays:
        time.sleep(0.2)  # until they are established
        crowd = server.way(lab.other_origin, f"crowd%d:{PASSWORD}")
        logins = lab.load.run("connrate", f"-t 0 -c {CROWD}", crowd)
        busy = relays.finish()
    return {
        "value": (busy["p99_us"] - quiet["p99_us"]) / 1e3,
        "quiet_ms": quiet["p99_us"] / 1e3,
        "max_ms": busy["max_us"] / 1e3,
        "logins_s": logins["elapsed_s"],
        "lost": busy["lost"] + CROWD - logins["ok"],
    }


def idle_sessions_max() -> int:
    """As many as one process can hold here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(IDLE_SESSIONS, hard // 2 - 500)


@attrs.frozen
class Holding:
    """Sessions that do nothing.

    Attributes:
        held: how many there are.
        kib_each: what one costs in memory.
        opened: figures of their opening.
        ended: to be called once: ends them; how many still worked.
    """

    held: int
    kib_each: float
    opened: Figures
    ended: Callable[[], float]


def held(lab: Lab, server: Server, count: int, during: Callable[[Holding], Figures]) -> Figures:
    """Open so many sessions, and measure what is to be measured while they are there."""
    assert server.pid is not None
    lab.load.run("connrate", "-t 0 -c 50", server.way(lab.origin))  # what it allocates once is not theirs
    time.sleep(0.5)
    before_kib = memory_kib(server.pid)
    with lab.load.running("idle", f"-c {count} -t 0", server.way(lab.origin)) as sessions:
        opened = sessions.first_line()
        time.sleep(0.5)
        kib_each = (memory_kib(server.pid) - before_kib) / count
        return during(Holding(count, kib_each, opened, lambda: sessions.rest()["alive"]))


def _idle(lab: Lab, server: Server) -> Figures:
    ours = server.key == "full"
    pid, for_s = server.pid, _IDLE_S if ours and not lab.quick else 2.0

    def during(holding: Holding) -> Figures:
        assert pid is not None
        before_s = cpu_s(pid)
        time.sleep(for_s)
        percent = (cpu_s(pid) - before_s) / for_s * 100
        lost = holding.held - holding.ended()
        return {"value": holding.kib_each, "cpu_percent": percent, "sessions": holding.held, "lost": lost}

    return held(lab, server, idle_sessions_max() if ours else _IDLE_SESSIONS_OF_PEERS, during)


MEASURES: Final = {
    measure.key: measure
    for measure in (
        Measure(
            "sessions",
            "New sessions, 50 at once",
            "per second",
            _new_sessions,
            ("straight", "full", "anonymous", "bare", "dante", "dante-n", "microsocks", "pproxy"),
        ),
        Measure("bulk1", "Bulk, 1 stream", "Gbit/s", _bulk("-c 1"), extra_s=0.8),
        Measure("down16", "Bulk, 16 streams down", "Gbit/s", _bulk("-c 16"), extra_s=0.8),
        Measure("up16", "Bulk, 16 streams up", "Gbit/s", _bulk("-c 16 -U"), extra_s=0.8),
        Measure("rtt", "64-byte round trips, 32 connections", "per second", _round_trips),
        Measure("udp200", "UDP echo, 200 bytes, 4 associations", "datagrams/s", _datagrams(200), _WITH_UDP),
        Measure("udp1200", "UDP echo, 1200 bytes, 4 associations", "datagrams/s", _datagrams(1200), _WITH_UDP),
        Measure(
            "beside",
            "Round trips beside one flow at full speed, p99",
            "ms",
            _beside,
            parts=2,
            extra_s=0.6,
            more_is_better=False,
        ),
        Measure(
            "hashing",
            "Delay of round trips while 200 logins hash, p99",
            "ms",
            _while_hashing,
            ("full",),
            extra_s=6.0,
            fresh=True,
            rounds_max=3,
            more_is_better=False,
        ),
        Measure(
            "idle",
            "Memory of an idle session",
            "KiB",
            _idle,
            ("full", "dante", "microsocks", "pproxy"),
            parts=0,
            extra_s=8.0,
            fresh=True,
            rounds_max=2,
            more_is_better=False,
        ),
    )
}
