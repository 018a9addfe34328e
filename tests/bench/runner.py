"""The run itself: round by round each measure with each server in turn, so that what else the machine does hits all."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby

import attrs

from tests.bench.load import LoadError
from tests.bench.measures import Lab, Measure
from tests.bench.servers import SERVERS, Server, ServerError

__all__ = ["Progress", "Step", "plan", "run_rounds"]

Found = dict[str, dict[str, dict[str, float]]]

_START_S = 0.7  # to start a server; for the estimate


class Progress:
    """Says on stderr what runs, and how long the rest will take."""

    def __init__(self, total_s: float) -> None:
        self._begun_s = time.monotonic()
        self._total_s = total_s
        self._done_s = 0.0

    def step(self, what: str, estimate_s: float) -> None:
        """Something begins that will take about so long."""
        spent_s = time.monotonic() - self._begun_s
        pace = spent_s / self._done_s if self._done_s else 1.0
        left_s = (self._total_s - self._done_s) * pace
        sys.stderr.write(f"[{spent_s:4.0f} s, some {left_s:4.0f} s to go] {what}\n")
        sys.stderr.flush()
        self._done_s += estimate_s

    def note(self, text: str) -> None:
        """Something that must not be overlooked."""
        sys.stderr.write(f"{text}\n")


@attrs.frozen
class Step:
    """One measure with one server in one round."""

    round: int
    measure: Measure
    server: str

    def estimate_s(self, lab: Lab) -> float:
        """How long it will take."""
        return self.measure.parts * lab.seconds + self.measure.extra_s + (_START_S if self.measure.fresh else 0)


def plan(measures: Sequence[Measure], servers: Sequence[str], rounds: int) -> Iterator[Step]:
    """All steps in their order. The order of the servers rotates: none is always first behind another measure."""
    for number in range(rounds):
        for measure in measures:
            if number >= measure.rounds_max:
                continue
            names = [name for name in servers if name in measure.servers]
            turn = number % len(names) if names else 0
            for name in names[turn:] + names[:turn]:
                yield Step(number, measure, name)


class _Fleet:
    """The servers of a round; each is started when it is first wanted, and ends with the round."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[str, Server] = {}

    def run(self, lab: Lab, step: Step) -> dict[str, float]:
        """One step."""
        if step.measure.fresh:
            with SERVERS[step.server]() as server:
                return dict(step.measure.run(lab, server))
        if step.server not in self._running:
            self._running[step.server] = self._stack.enter_context(SERVERS[step.server]())
        return dict(step.measure.run(lab, self._running[step.server]))


def run_rounds(lab: Lab, steps: Sequence[Step], progress: Progress) -> list[Found]:
    """Run all steps; what each round found. A server that cannot do one leaves a gap, and a line that says so."""
    rounds: list[Found] = []
    for number, group in groupby(steps, key=lambda step: step.round):
        found: Found = {}
        rounds.append(found)
        with ExitStack() as stack:
            fleet = _Fleet(stack)
            for step in group:
                what = f"round {number + 1}: {step.measure.title}: {SERVERS[step.server].label}"
                progress.step(what, step.estimate_s(lab))
                try:
                    figures = fleet.run(lab, step)
                except (LoadError, ServerError) as error:
                    progress.note(f"    no figure: {error}")
                    continue
                if figures.get("lost"):
                    progress.note(f"    {figures['lost']:.0f} were lost")
                found.setdefault(step.measure.key, {})[step.server] = figures
    return rounds
