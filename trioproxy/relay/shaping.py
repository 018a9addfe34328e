"""Flows that wait for their bytes: who is told when a bucket has some again."""

import time
from collections.abc import Callable
from typing import Final

import trio

from trioproxy.policy.buckets import Bucket, Gate
from trioproxy.policy.shapes import Shape

__all__ = ["RelayGates", "Shaper"]

TICK_S: Final = (
    0.02  # how often waiting flows are looked at: a tenth of the default burst, and 50 rounds/s cost nothing
)


class Shaper:
    """Calls the owners of gates when their turn has come. Sleeps while nobody waits."""

    def __init__(self) -> None:
        self._buckets: dict[Bucket, None] = {}  # those at which somebody waits
        self._wanted = trio.Event()

    def wait(self, gate: Gate, go_on: Callable[[], None]) -> None:
        """This gate was refused; `go_on` is called when it should ask again."""
        gate.owner = go_on
        self._buckets.update(dict.fromkeys(gate.waits_at))
        self._wanted.set()

    async def run(self) -> None:
        """Call, for ever."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            while self._buckets:
                await trio.sleep(TICK_S)
                for bucket in list(self._buckets):
                    await self._serve(bucket)

    async def _serve(self, bucket: Bucket) -> None:
        while gates := bucket.ready(time.monotonic()):
            for gate in gates:
                if callable(gate.owner):
                    gate.owner()
            for _ in range(2):  # who waits in a task has asked by then; a turn that is not taken is lost
                await trio.lowlevel.checkpoint()
        if bucket.next_s(time.monotonic()) is None:
            self._buckets.pop(bucket, None)


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
