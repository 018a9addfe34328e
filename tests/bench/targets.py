"""What trioproxy is measured against: medians, ratios, and whether each target is met. Nothing here is typed in."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

__all__ = ["TARGETS", "Outcome", "Round", "Target", "judge", "median_of"]

# What one round found: figures by measure, then by server, then by name.
Round = Mapping[str, Mapping[str, Mapping[str, float]]]

_UDP_RATE: Final = 120_000
_UDP_STRAIGHT: Final = 280_000


@attrs.frozen
class Reference:
    """What a figure is held against in one round.

    Attributes:
        name: which server, or what.
        figure: its figure.
    """

    name: str
    figure: float


@attrs.frozen
class Target:
    """One line of the table.

    Attributes:
        title: what is measured.
        unit: of the figure.
        measure: where the figure is from.
        wanted: in words.
        factor: the wanted ratio of figure and reference.
        refer: finds the reference in what one round found for this measure; None: it was not measured.
        figure: its name.
        server: whose.
        at_least: the ratio must be `factor` or more; otherwise `factor` or less.
    """

    title: str
    unit: str
    measure: str
    wanted: str
    factor: float
    refer: Callable[[Mapping[str, Mapping[str, float]]], Reference | None]
    figure: str = "value"
    server: str = "full"
    at_least: bool = True


@attrs.frozen
class Outcome:
    """What came of a target.

    Attributes:
        target: which.
        figure: the median of the rounds.
        reference: the same of what it is held against; with the name that it had most often.
        ratio: the median of the ratios, each of one round.
        met: whether that is as it should be.
    """

    target: Target
    figure: float
    reference: Reference
    ratio: float

    @property
    def met(self) -> bool:
        """Whether the ratio is as it should be."""
        return self.ratio >= self.target.factor if self.target.at_least else self.ratio <= self.target.factor


def judge(target: Target, rounds: Sequence[Round]) -> Outcome | None:
    """Hold the figures of all rounds against the target; None: there are none."""
    pairs = []
    for found in rounds:
        servers = found.get(target.measure, {})
        reference = target.refer(servers)
        if target.server in servers and reference is not None and reference.figure > 0:
            pairs.append((servers[target.server][target.figure], reference))
    if not pairs:
        return None
    name = statistics.mode(reference.name for _, reference in pairs)
    return Outcome(
        target,
        statistics.median(figure for figure, _ in pairs),
        Reference(name, statistics.median(reference.figure for _, reference in pairs)),
        statistics.median(figure / reference.figure for figure, reference in pairs),
    )


def median_of(rounds: Sequence[Round], measure: str, server: str, figure: str = "value") -> float | None:
    """The median of a figure; None: it was not measured."""
    found = [r[measure][server][figure] for r in rounds if figure in r.get(measure, {}).get(server, {})]
    return statistics.median(found) if found else None


# ---- what figures are held against


def _best(*names: str) -> Callable[[Mapping[str, Mapping[str, float]]], Reference | None]:
    def refer(servers: Mapping[str, Mapping[str, float]]) -> Reference | None:
        found = [Reference(name, servers[name]["value"]) for name in names if name in servers]
        return max(found, key=lambda reference: reference.figure, default=None)

    return refer


def _limit(figure: float) -> Callable[[object], Reference]:
    return lambda _: Reference("limit", figure)


def _quiet(servers: Mapping[str, Mapping[str, float]]) -> Reference | None:
    return Reference("quiet", servers["full"]["quiet_ms"]) if "full" in servers else None


def _udp_rate(servers: Mapping[str, Mapping[str, float]]) -> Reference | None:
    if "straight" not in servers:
        return None
    reached = servers["straight"]["value"]
    return Reference("straight's share", _UDP_RATE * min(1.0, reached / _UDP_STRAIGHT))


_PEERS: Final = ("dante", "microsocks", "pproxy")
_UDP_WANTED: Final = f"{_UDP_RATE:,}/s, or as much less as straight is below {_UDP_STRAIGHT:,}/s"


def _times_best(title: str, unit: str, measure: str, factor: float) -> Target:
    return Target(title, unit, measure, f"≥ {factor} times the best peer", factor, _best(*_PEERS))


def _of_straight(title: str, unit: str, measure: str, factor: float) -> Target:
    return Target(title, unit, measure, f"≥ {factor} times straight", factor, _best("straight"))


def _udp(size: int) -> tuple[Target, Target]:
    title, unit, measure = f"UDP echo {size} B, 4 associations, rules on", "/s", f"udp{size}"
    return (
        Target(title, unit, measure, "≥ 2.5 times Dante", 2.5, _best("dante")),
        Target(title, unit, measure, f"≥ {_UDP_WANTED}", 1.0, _udp_rate),
    )


TARGETS: Final[Sequence[Target]] = (
    Target(
        "new sessions, 50 at once, anonymous, records on",
        "/s",
        "sessions",
        "≥ 1.0 times the best of Dante and microsocks",
        1.0,
        _best("dante", "microsocks"),
        server="anonymous",
    ),
    Target(
        "new sessions with login (remembered), rules and records on",
        "/s",
        "sessions",
        "≥ 0.8 times the best of Dante and microsocks, without login",
        0.8,
        _best("dante", "microsocks"),
    ),
    _times_best("bulk, 1 stream", "Gbit/s", "bulk1", 1.6),
    _of_straight("bulk, 1 stream", "Gbit/s", "bulk1", 0.55),
    _times_best("bulk, 16 streams down", "Gbit/s", "down16", 1.6),
    _of_straight("bulk, 16 streams down", "Gbit/s", "down16", 0.75),
    _times_best("bulk, 16 streams up", "Gbit/s", "up16", 1.6),
    _times_best("64-byte round trips, 32 connections", "/s", "rtt", 1.0),
    *_udp(200),
    *_udp(1200),
    Target("memory of an idle session", "KiB", "idle", "≤ 8 KiB", 1.0, _limit(8.0), at_least=False),
    Target(
        "processor, all idle sessions together",
        "%",
        "idle",
        "below 2 %",
        1.0,
        _limit(2.0),
        figure="cpu_percent",
        at_least=False,
    ),
    Target(
        "fairness: the slowest of 16 streams against the fastest",
        "",
        "down16",
        "≥ 0.7",
        1.0,
        _limit(0.7),
        figure="fairness",
    ),
    Target(
        "p99 of 32 round trips beside one flow at full speed",
        "ms",
        "beside",
        "≤ 2 times the quiet one",
        2.0,
        _quiet,
        at_least=False,
    ),
    Target(
        "p99 delay of the event loop while 200 logins hash",
        "ms",
        "hashing",
        "below 50 ms",
        1.0,
        _limit(50.0),
        at_least=False,
    ),
)
