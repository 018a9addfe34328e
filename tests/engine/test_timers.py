"""The ends of many waits."""

import trio

from trioproxy.engine import Timers


async def test_calls_back_when_the_time_is_over(nursery: trio.Nursery) -> None:
    """Each wait has its own length and its own end, in the order of their ends."""
    timers, over = Timers(), list[str]()
    done = trio.Event()
    nursery.start_soon(timers.run)

    def last() -> None:
        over.append("slow")
        done.set()

    timers.begin(0.2, "slow", last)
    timers.begin(0.01, "quick", lambda: over.append("quick"))
    await done.wait()
    assert over == ["quick", "slow"]


async def test_ended_in_time(nursery: trio.Nursery) -> None:
    """What has ended is not called back; ending it again, or something unknown, is harmless."""
    timers, over = Timers(), list[str]()
    done = trio.Event()
    nursery.start_soon(timers.run)
    timers.begin(0.01, "first", lambda: over.append("first"))
    timers.begin(0.01, "second", done.set)
    timers.end(0.01, "first")
    timers.end(0.01, "first")
    timers.end(99.0, "unknown")
    await done.wait()
    assert over == []


async def test_begun_while_another_ends(nursery: trio.Nursery) -> None:
    """Whoever is called back may begin the next wait of the same length."""
    timers = Timers()
    done = trio.Event()
    nursery.start_soon(timers.run)
    timers.begin(0.01, "one", lambda: timers.begin(0.01, "two", done.set))
    await done.wait()
    assert done.is_set()
