"""The ends of many waits. Those of equal length end in the order in which they began: a queue for each length."""

import time
from collections.abc import Callable

import trio

__all__ = ["Timers"]

TICK_S = 0.05  # how late a wait may end: a fraction of any limit, and 20 rounds a second cost nothing to speak of


class Timers:
    """Calls back when a wait is over. Beginning and ending one costs a dictionary entry; Trio's costs a heap's.

    The lengths are those of the configuration: few, and equal for all sessions.
    """

    def __init__(self) -> None:
        self._queues: dict[float, dict[object, tuple[float, Callable[[], None]]]] = {}

    def begin(self, length_s: float, key: object, when_over: Callable[[], None]) -> None:
        """Call `when_over` in `length_s` seconds, unless `end` is called before."""
        self._queues.setdefault(length_s, {})[key] = (time.monotonic() + length_s, when_over)

    def end(self, length_s: float, key: object) -> None:
        """The wait is over, or was over."""
        queue = self._queues.get(length_s)
        if queue is not None:
            queue.pop(key, None)

    async def run(self) -> None:
        """Call back, for ever."""
        while True:
            await trio.sleep(TICK_S)
            now_s = time.monotonic()
            for queue in list(self._queues.values()):
                self._call_due(queue, now_s)
            self._queues = {length_s: queue for length_s, queue in self._queues.items() if queue}

    def _call_due(self, queue: dict[object, tuple[float, Callable[[], None]]], now_s: float) -> None:
        while queue:
            key, (over_s, when_over) = next(iter(queue.items()))
            if over_s > now_s:
                return
            del queue[key]
            when_over()
