"""How cost grows: with sessions, with rules, with streams."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from tests.bench.load import Figures, LoadError
from tests.bench.measures import Holding, Lab, held, idle_sessions_max, warm
from tests.bench.processes import memory_kib
from tests.bench.runner import Progress
from tests.bench.servers import RULES, SERVERS, Full, Server, ServerError

__all__ = ["GROWTHS", "Growth", "Panel", "estimate_s", "run_growths"]

# What was found: by growth, then by server, then by the number that grows.
Grown = dict[str, dict[str, dict[int, Figures]]]


@attrs.frozen
class Panel:
    """One figure that is drawn over the number that grows."""

    figure: str
    title: str


@attrs.frozen
class Growth:
    """Something that can be more or less, and what it does to the cost.

    Attributes:
        key: its name in the results and on the command line.
        title: for tables and pictures.
        axis: what grows.
        points: how far.
        run: measures one server at one point.
        servers: those that it is run with.
        panels: what is shown.
        parts: how many times `Lab.seconds` a point takes, about; for the estimate of the time that is left.
        extra_s: what comes on top.
    """

    key: str
    title: str
    axis: str
    points: tuple[int, ...]
    run: Callable[[Lab, str, int], Figures]
    servers: tuple[str, ...]
    panels: tuple[Panel, ...]
    parts: float = 2.0
    extra_s: float = 2.0

    def points_for(self, lab: Lab) -> tuple[int, ...]:
        """Those that are measured: every other one where rough figures will do."""
        return self.points[::2] if lab.quick else self.points

    def point_s(self, lab: Lab) -> float:
        """How long one point will take."""
        return self.parts * lab.seconds + self.extra_s


def _sessions(lab: Lab, name: str, count: int) -> Figures:
    with SERVERS[name]() as server:
        warm(lab, server)
        pid = server.pid
        assert pid is not None

        def during(holding: Holding) -> Figures:
            trips = lab.run(server, "rtt", "-c 32 -s 64")
            new = lab.run(server, "connrate", "-c 50")
            return {
                "memory_mib": memory_kib(pid) / 1024,
                "kib_each": holding.kib_each,
                "round_trips": trips["rate"],
                "new_sessions": new["rate"],
                "handshake_p99_ms": holding.opened["handshake_p99_ms"],
            }

        return held(lab, server, min(count, idle_sessions_max()), during)


def _rules_of(count: int) -> type[Server]:
    """The usual server with so many more rules, in the layers for everybody and of the tenant."""
    half = count // 2
    more = {
        "global": [f"deny any:*(*)->host{n}.example.net(*)" for n in range(half)],
        "tenant:main": [f"tcp:*(*)->10.{n // 256}.{n % 256}.0/24(22,443)" for n in range(count - half)],
    }

    class WithRules(Full):
        rules = {scope: [*more.get(scope, ()), *RULES[scope]] for scope in RULES}  # noqa: RUF012 - as its base has it

    return WithRules


def _rules(lab: Lab, name: str, count: int) -> Figures:
    assert name == "full"
    with _rules_of(count)() as server:
        warm(lab, server)
        new = lab.run(server, "connrate", "-c 50")
        datagrams = lab.run(server, "udp", "-c 4 -s 200")
        return {"new_sessions": new["rate"], "datagrams": datagrams["pps"]}


def _streams(lab: Lab, name: str, count: int) -> Figures:
    with SERVERS[name]() as server:
        warm(lab, server)
        figures = lab.run(server, "bulk", f"-c {count}")
        return {"gbit_s": figures["gbit_s"], "fairness": figures["fairness_min_over_max"]}


GROWTHS: Final[Mapping[str, Growth]] = {
    growth.key: growth
    for growth in (
        Growth(
            "grow-sessions",
            "More idle sessions",
            "idle sessions",
            (10, 100, 1_000, 3_000, 9_000),
            _sessions,
            ("full",),
            (
                Panel("memory_mib", "MiB of the whole process"),
                Panel("round_trips", "round trips/s of 32 others"),
                Panel("new_sessions", "new sessions/s beside them"),
            ),
            extra_s=5.0,
        ),
        Growth(
            "grow-rules",
            "More rules",
            "rules",
            (10, 100, 1_000, 10_000),
            _rules,
            ("full",),
            (Panel("new_sessions", "new sessions/s"), Panel("datagrams", "datagrams/s of 200 bytes")),
        ),
        Growth(
            "grow-streams",
            "More streams",
            "streams down",
            (1, 4, 16, 64, 256, 512),
            _streams,
            ("straight", "full", "dante", "microsocks"),
            (Panel("gbit_s", "Gbit/s in all"), Panel("fairness", "slowest / fastest stream")),
            parts=1.0,
            extra_s=3.0,
        ),
    )
}


def estimate_s(growths: Sequence[Growth], servers: Sequence[str], lab: Lab) -> float:
    """How long all of them will take."""
    return sum(
        len(growth.points_for(lab)) * len([name for name in servers if name in growth.servers]) * growth.point_s(lab)
        for growth in growths
    )


def run_growths(lab: Lab, growths: Sequence[Growth], servers: Sequence[str], progress: Progress) -> Grown:
    """Run all of them; the servers take turns at each point."""
    grown: Grown = {}
    for growth in growths:
        found = grown.setdefault(growth.key, {})
        for point in growth.points_for(lab):
            for name in (name for name in servers if name in growth.servers):
                progress.step(f"{growth.title}: {point:,}: {SERVERS[name].label}", growth.point_s(lab))
                try:
                    found.setdefault(name, {})[point] = growth.run(lab, name, point)
                except (LoadError, ServerError) as error:
                    progress.note(f"    no figure: {error}")
    return grown
