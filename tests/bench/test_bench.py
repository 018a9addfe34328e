"""The benchmark itself: figures are read, medians and targets computed, tables written; and one tiny run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bench import report
from tests.bench.growth import GROWTHS
from tests.bench.load import Load, LoadError, parse_figures
from tests.bench.load_tests import Check
from tests.bench.measures import MEASURES, Lab
from tests.bench.processes import cpu_s, family, memory_kib
from tests.bench.results import Results
from tests.bench.runner import Progress, plan, run_rounds
from tests.bench.servers import SERVERS, Bare, Microsocks, configurations
from tests.bench.targets import TARGETS, Target, judge, median_of
from tests.system.waiting import until

REPOSITORY: Final = Path(__file__).parents[2]

# Three made-up rounds: bulk of 1 stream, in the second of which the machine was busy.
ROUNDS: Final[list[dict[str, dict[str, dict[str, float]]]]] = [
    {"bulk1": {"straight": {"value": 40}, "full": {"value": 20}, "dante": {"value": 10}, "microsocks": {"value": 3}}},
    {"bulk1": {"straight": {"value": 20}, "full": {"value": 12}, "dante": {"value": 4}, "microsocks": {"value": 5}}},
    {"bulk1": {"straight": {"value": 38}, "full": {"value": 19}, "dante": {"value": 12}, "microsocks": {"value": 3}}},
]


def target(measure: str, wanted: str) -> Target:
    """The target with these words."""
    [found] = [one for one in TARGETS if one.measure == measure and wanted in one.wanted]
    return found


def results(rounds: list[Any], growth: Any = None) -> Results:
    """Results of a made-up run."""
    return Results({"processor": "an abacus"}, {"rounds": str(len(rounds))}, rounds, growth or {})


# ---- figures, medians, ratios, targets


def test_figures_are_read_from_what_the_load_generator_prints() -> None:
    """Numbers are kept, words are not."""
    line = "mode=bulk dir=down streams=16 lost=0 gbit_s=29.31 fairness_min_over_max=0.987 bytes=4294967296\n"
    assert parse_figures(line) == {
        "streams": 16,
        "lost": 0,
        "gbit_s": 29.31,
        "fairness_min_over_max": 0.987,
        "bytes": 4294967296,
    }


def test_the_median_is_that_of_the_rounds() -> None:
    """A busy round does not count; what was not measured has none."""
    assert median_of(ROUNDS, "bulk1", "straight") == 38
    assert median_of(ROUNDS, "bulk1", "pproxy") is None
    assert median_of(ROUNDS, "bulk1", "full", "cpu_s_per_gb") is None


def test_ratios_are_of_one_round_each() -> None:
    """The median of 20/10, 12/5 and 19/12; the best peer is that of each round, named as it was most often."""
    outcome = judge(target("bulk1", "best peer"), ROUNDS)
    assert outcome is not None
    assert (outcome.figure, outcome.ratio, outcome.reference.name, outcome.reference.figure) == (19, 2, "dante", 10)
    assert outcome.met


def test_a_target_that_is_not_met_is_not() -> None:
    """0.5 of straight, where 0.55 are wanted."""
    outcome = judge(target("bulk1", "straight"), ROUNDS)
    assert outcome is not None
    assert (outcome.ratio, outcome.met) == (0.5, False)


@pytest.mark.parametrize(("figure", "met"), [(7.9, True), (8.1, False)])
def test_a_limit_may_not_be_passed(figure: float, met: bool) -> None:
    """8 KiB for each idle session."""
    outcome = judge(target("idle", "KiB"), [{"idle": {"full": {"value": figure, "cpu_percent": 0.5}}}])
    assert outcome is not None
    assert outcome.met is met


@pytest.mark.parametrize(("straight", "wanted"), [(400_000, 120_000), (280_000, 120_000), (140_000, 60_000)])
def test_datagrams_are_asked_for_in_proportion_on_a_slower_machine(straight: float, wanted: float) -> None:
    """120,000/s where straight reaches 280,000/s."""
    found = {"udp200": {"straight": {"value": straight}, "full": {"value": wanted}}}
    outcome = judge(target("udp200", "120,000/s"), [found])
    assert outcome is not None
    assert outcome.reference.figure == pytest.approx(wanted)
    assert outcome.met


def test_the_loud_is_held_against_the_quiet() -> None:
    """At most twice the quiet p99."""
    outcome = judge(target("beside", "quiet"), [{"beside": {"full": {"value": 3.0, "quiet_ms": 2.0}}}])
    assert outcome is not None
    assert (outcome.ratio, outcome.met) == (1.5, True)


def test_what_was_not_measured_is_not_judged() -> None:
    """`--only` and `--servers` leave gaps."""
    assert judge(target("rtt", "best peer"), ROUNDS) is None
    assert judge(target("bulk1", "best peer"), [{"bulk1": {"full": {"value": 1.0}}}]) is None


def test_every_target_is_measured() -> None:
    """Each is of a measure that there is, with the servers that it names."""
    assert {one.measure for one in TARGETS} <= set(MEASURES)
    assert all(one.server in MEASURES[one.measure].servers for one in TARGETS)
    assert {name for measure in MEASURES.values() for name in measure.servers} == set(SERVERS)
    assert {name for growth in GROWTHS.values() for name in growth.servers} <= set(SERVERS)


@pytest.mark.parametrize(("figure", "at_least", "met"), [(1.0, True, True), (0.9, True, False), (1.1, False, False)])
def test_load_tests_judge(figure: float, at_least: bool, met: bool) -> None:
    """What `make load` prints for each check."""
    check = Check("what", figure, 1.0, at_least=at_least)
    assert check.met is met
    assert ("NOT" in str(check)) is not met


# ---- tables


@pytest.mark.parametrize(
    ("figure", "text"), [(0.256, "0.26"), (12.34, "12.3"), (456.7, "457"), (61_345, "61,300"), (None, "-")]
)
def test_numbers_have_three_digits(figure: float | None, text: str) -> None:
    """Nobody can measure more."""
    assert report.number(figure) == text


def test_the_table_of_targets_says_what_was_found() -> None:
    """A line for each target that was measured."""
    assert report.targets_table(results(ROUNDS)).splitlines() == [
        "| measure | trioproxy | held against | ratio | target | met |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| bulk, 1 stream | 19.0 Gbit/s | Dante: 10.0 Gbit/s | 2.00 | ≥ 1.6 times the best peer | yes |",
        "| bulk, 1 stream | 19.0 Gbit/s | straight: 38.0 Gbit/s | 0.50 | ≥ 0.55 times straight | **no** |",
    ]


def test_the_table_of_servers_has_those_that_were_measured() -> None:
    """A column for each server, a line for each figure that somebody has."""
    assert report.servers_table(results(ROUNDS)).splitlines()[::2] == [
        "|  | straight | trioproxy, full | Dante | microsocks |",
        "| Bulk, 1 stream, Gbit/s | 38.0 | 19.0 | 10.0 | 3.00 |",
    ]


def test_results_come_back_from_json(tmp_path: Path) -> None:
    """`--again` draws what an earlier run has found; what was computed stands beside it for other readers."""
    growth = {"grow-streams": {"full": {1: {"gbit_s": 20.0, "fairness": 1.0}, 16: {"gbit_s": 30.0, "fairness": 0.9}}}}
    found = results(ROUNDS, growth)
    found.save(tmp_path / "results.json", **report.computed(found))
    assert Results.load(tmp_path / "results.json") == found
    written = json.loads((tmp_path / "results.json").read_text())
    assert [line["met"] for line in written["targets"]] == [True, False]
    assert written["medians"]["bulk1"]["dante"] == {"value": 10}
    table = report.growth_table(GROWTHS["grow-streams"], found)
    assert table.splitlines()[-1] == "| 16 | 30.0 | 0.90 |"
    assert "benchmarks/grow-streams.svg" in report.page(found, "benchmarks")


def test_the_page_says_how_each_server_was_started() -> None:
    """So that nobody can say that one was handicapped."""
    said = configurations()
    assert "socks pass" in said["danted.conf"]
    assert said["microsocks"] == "microsocks -i 127.0.0.1 -p 1080"
    assert {SERVERS[name].label for name in ("dante", "dante-n", "microsocks", "pproxy")} <= set(said)


# ---- what really runs


def test_servers_take_turns() -> None:
    """Whoever was first in one round is last in the next; what takes long is repeated less often."""
    steps = list(plan([MEASURES["rtt"], MEASURES["idle"]], ["straight", "full", "dante"], 3))
    assert [step.server for step in steps if step.measure.key == "rtt"] == [
        *("straight", "full", "dante"),
        *("full", "dante", "straight"),
        *("dante", "straight", "full"),
    ]
    assert [step.server for step in steps if step.measure.key == "idle"] == ["full", "dante", "dante", "full"]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """The load generator, compiled."""
    return Load.build(tmp_path_factory.mktemp("load"))


@pytest.fixture
def lab(load: Load) -> Iterator[Lab]:
    """All that a measure needs, for a fifth of a second."""
    with load.origin() as origin, load.origin() as other:
        yield Lab(load, origin, other, 0.2, quick=True)


def test_a_tiny_run(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """A round of the modes of the load generator, straight and through the bare server: figures, and nothing lost."""
    keys = ("sessions", "down16", "up16", "rtt", "udp200")
    steps = list(plan([MEASURES[key] for key in keys], ["straight", "bare"], 1))
    [found] = run_rounds(lab, steps, Progress(sum(step.estimate_s(lab) for step in steps)))
    assert set(found) == set(keys)
    assert [name for measure in found.values() for name, figures in measure.items() if figures["lost"]] == []
    assert all(figures["value"] > 0 for measure in found.values() for figures in measure.values())
    assert found["down16"]["bare"]["cpu_s_per_gb"] > 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(steps)
    assert "s to go] round 1: New sessions, 50 at once: straight" in said[0]


def test_idle_sessions_are_held_and_end(lab: Lab) -> None:
    """They are there until standard input ends, and then each still works."""
    with Bare() as server, lab.load.running("idle", "-c 20 -t 0", server.way(lab.origin)) as sessions:
        assert sessions.first_line()["held"] == 20
        assert server.pid is not None
        assert cpu_s(server.pid) > 0
        assert memory_kib(server.pid) > 1000
        assert sessions.rest()["alive"] == 20


def test_a_schedule_is_kept(lab: Lab) -> None:
    """With a rate, so many messages and sessions begin as were due, whatever the answers do."""
    way = ("-o", lab.origin)
    assert lab.load.run("connrate", "-r 100 -t 0.2", way)["started"] == 20
    with lab.load.running("rtt", "-c 4 -r 400 -t 60", way) as trips:
        time.sleep(0.1)
        assert trips.finish()["lost"] == 0  # it ends when it is told to, with its figures


def test_a_server_that_refuses_is_named(lab: Lab) -> None:
    """The command and what it said; the run goes on without that figure."""
    with Bare() as server, pytest.raises(LoadError, match=r"rtt .*: exit code 1: handshake refused"):
        lab.run(server, "rtt", f"-c 1 -u nobody:wrong -x 127.0.0.1:{server.port}")


def test_a_server_that_does_not_start_leaves_a_gap(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run goes on without it, and says so."""
    monkeypatch.setattr(Microsocks, "command", lambda *_: ["false"])
    steps = list(plan([MEASURES["rtt"]], ["straight", "microsocks"], 1))
    [found] = run_rounds(lab, steps, Progress(1.0))
    assert list(found["rtt"]) == ["straight"]
    assert "no figure: ['false']: exit code 1" in capsys.readouterr().err


def test_the_family_of_a_process_has_its_children() -> None:
    """Dante has a process for each some sessions."""
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True) as shell:
        until("the child", lambda: len(family(shell.pid)) == 2)
        os.killpg(shell.pid, signal.SIGKILL)


def test_pictures_are_drawn(tmp_path: Path) -> None:
    """Bars and lines, each as PNG and SVG; where matplotlib is, which only the benchmark's own environment has."""
    pytest.importorskip("matplotlib")
    growth = {"grow-streams": {"full": {1: {"gbit_s": 20.0, "fairness": 1.0}, 16: {"gbit_s": 30.0, "fairness": 0.9}}}}
    found = results(ROUNDS, growth)
    found.save(tmp_path / "found.json")
    options = ["--again", str(tmp_path / "found.json"), "--output", str(tmp_path / "out")]
    subprocess.run([sys.executable, "-m", "tests.bench", *options], check=True, capture_output=True, cwd=REPOSITORY)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "bars.png",
        "bars.svg",
        "grow-streams.png",
        "grow-streams.svg",
        "results.json",
        "table.md",
    }
