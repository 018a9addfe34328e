"""Flows that wait for their bytes: who is told when a bucket has some again."""

import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

import trio

from trioproxy.policy.buckets import Bucket, Gate
from trioproxy.policy.shapes import Shape

__all__ = ["RelayGates", "Shaper"]

TICK_S: Final = (
    0.02  # how often waiting flows are looked at: a tenth of the default burst, and 50 rounds/s cost nothing
)
_LATEST_S: Final = 0.5  # a rate may be raised, and who was in the way may leave: nobody tells of it
TICK_LEAST_S: Final = 0.002  # for bursts that are small for their rate; the least allowed is a hundredth of a second


class Shaper:
    """Calls the owners of gates when their turn has come. Sleeps while nobody waits.

    Args:
        patience: so many checkpoints after the call an owner has used its turn; what is left of it is lost.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._due: list[tuple[float, int, Bucket]] = []  # a heap: when somebody at this bucket may go on
        self._known: set[Bucket] = set()  # those in it
        self._hasty: set[Bucket] = set()  # of these, the ones that have to be looked at more often than others
        self._number = 0  # tells entries of the same moment apart
        self._wanted = trio.Event()

    def wait(self, gate: Gate, go_on: Callable[[], None]) -> None:
        """This gate was refused; `go_on` is called when it should ask again."""
        gate.owner = go_on
        for bucket in gate.waits_at:
            if bucket not in self._known:
                self._ask_later(bucket)
                self._wanted.set()

    async def run(self) -> None:
        """Call, for ever."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            while self._due:
                await trio.sleep(min(map(_tick_s, self._hasty), default=TICK_S))
                await self._serve(self._due_now())

    def _ask_later(self, bucket: Bucket) -> None:
        now_s = time.monotonic()
        due_s = bucket.next_s(now_s)
        if due_s is None:
            self._known.discard(bucket)
            self._hasty.discard(bucket)
            return
        self._known.add(bucket)
        (self._hasty.add if _tick_s(bucket) < TICK_S else self._hasty.discard)(bucket)
        self._number += 1
        heappush(self._due, (min(due_s, now_s + _LATEST_S), self._number, bucket))

    def _due_now(self) -> list[Bucket]:
        now_s, due = time.monotonic(), []
        while self._due and self._due[0][0] <= now_s:
            due.append(heappop(self._due)[2])
        return due

    async def _serve(self, due: list[Bucket]) -> None:
        """Let all go on whose turn it is, at each bucket until nobody is left."""
        served = due
        while served:
            now_s, gates, asked = time.monotonic(), [], served
            served = []
            for bucket in asked:
                next_s = bucket.next_s(now_s)  # which costs less than to ask in vain
                if (next_s is None or next_s <= now_s) and (ready := bucket.ready(now_s)):
                    served.append(bucket)
                    gates += ready
            for gate in gates:
                if callable(gate.owner):
                    gate.owner()
            for _ in range(self._patience if gates else 0):
                await trio.lowlevel.checkpoint()
        for bucket in due:
            self._ask_later(bucket)


def _tick_s(bucket: Bucket) -> float:
    """How soon this bucket has to be looked at, so that it does not run over: a quarter of what it holds."""
    return min(TICK_S, max(TICK_LEAST_S, bucket.burst / bucket.rate / 4))


class RelayGates:
    """The gates of a relay that waits in tasks; they may be changed while it does.

    Args:
        shaper: calls when it is a gate's turn.
        shape: the first gates.
    """

    def __init__(self, shaper: Shaper, shape: Shape | None) -> None:
        self._shaper = shaper
        self._shape = shape
        self._changed = trio.Event()

    @property
    def to_client(self) -> Gate | None:
        """For what the target sends."""
        return self._shape.to_client if self._shape is not None else None

    @property
    def to_target(self) -> Gate | None:
        """For what the client sends."""
        return self._shape.to_target if self._shape is not None else None

    def change(self, shape: Shape | None) -> None:
        """From now on these; whoever waits asks again."""
        self.leave()
        self._shape = shape
        self._changed.set()
        self._changed = trio.Event()

    def leave(self) -> None:
        """Nobody waits any more."""
        if self._shape is not None:
            self._shape.leave()

    async def grant(self, gate_of: Callable[["RelayGates"], Gate | None], wanted: int) -> int:
        """Wait until some bytes may flow; returns how many.

        Args:
            gate_of: which gate; asked anew each time.
            wanted: at most so many.
        """
        while True:
            gate = gate_of(self)
            if gate is None:
                return wanted
            granted = gate.grant(time.monotonic(), wanted)
            if granted:
                return granted
            changed = self._changed
            self._shaper.wait(gate, changed.set)
            await changed.wait()
            if changed is self._changed:
                self._changed = trio.Event()
