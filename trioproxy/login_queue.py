"""Threads for what blocks, and who waits for which: a slow directory holds up those who need it and nobody else."""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import TypeVar

import attrs
import trio

from auth import Answer, Cause, Unavailable

__all__ = ["LoginQueue"]

T = TypeVar("T")


class LoginQueue:
    """The threads for one kind of question, and the logins that have one or wait for one.

    Args:
        threads: questions asked at once.
        waiting_max: logins that may wait besides; the next is turned away.
        each_max: logins of one origin, waiting or asking.
        finds_max: of the threads, those that may look up users whom nobody waits for.
        counters: `login_queue_full` and `login_source_queue_full` are raised.
    """

    def __init__(
        self, threads: int, *, waiting_max: int, each_max: int, finds_max: int, counters: Counter[str]
    ) -> None:
        self.logins = 0
        self.logins_from: Counter[Hashable] = Counter()
        self._logins_max = threads + waiting_max
        self._each_max = each_max
        self._counters = counters
        self._threads = trio.CapacityLimiter(threads)
        self._finds = _BothLimiters(trio.CapacityLimiter(finds_max), self._threads)

    async def ask(self, question: Callable[[], T], origin: Hashable) -> T | Unavailable:
        """Ask for a login that came from `origin`; `Unavailable` at once if there is no room for it.

        **Cancellation** leaves the thread to finish by itself, and it counts as taken until then.
        """
        if self.logins >= self._logins_max:
            self._counters["login_queue_full"] += 1
            return Unavailable("too many logins at once", Cause.BUSY)
        if self.logins_from[origin] >= self._each_max:
            self._counters["login_source_queue_full"] += 1
            return Unavailable("too many logins at once from this address", Cause.BUSY)
        self.logins += 1
        self.logins_from[origin] += 1
        try:
            return await _in_thread(question, self._threads)
        finally:
            self.logins -= 1
            self.logins_from[origin] -= 1
            if not self.logins_from[origin]:
                del self.logins_from[origin]

    async def find(self, question: Callable[[], Answer]) -> Answer:
        """Ask for nobody in particular. **Cancellation** as in `ask`."""
        return await _in_thread(question, self._finds)


async def _in_thread(question: Callable[[], T], limiter: "trio.CapacityLimiter | _BothLimiters") -> T | Unavailable:
    ours: trio.CapacityLimiter = limiter  # type: ignore[assignment]  # Trio asks for no more than what both have
    try:
        return await trio.to_thread.run_sync(question, abandon_on_cancel=True, limiter=ours)
    except RuntimeError:  # the question raises none, as a chain believes no backend: the system gives us no thread
        return Unavailable("no thread can be had", Cause.BUSY)


@attrs.frozen(eq=False)
class _BothLimiters:
    """What a thread needs a token of each for, as Trio's manual has it ("Putting extra bounds on threads").

    It keeps both until it ends, also when nobody waits for it any more: threads that a dead directory holds are not
    replaced by others.
    """

    first: trio.CapacityLimiter
    second: trio.CapacityLimiter

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await self.first.acquire_on_behalf_of(borrower)
        try:
            await self.second.acquire_on_behalf_of(borrower)
        except BaseException:
            self.first.release_on_behalf_of(borrower)
            raise

    def release_on_behalf_of(self, borrower: object) -> None:
        self.second.release_on_behalf_of(borrower)
        self.first.release_on_behalf_of(borrower)
