"""Threads for logins and look-ups; how they look from outside is in `test_authenticate_directories.py`."""

import threading
from collections import Counter

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from auth import Answer, Cause, Rejected, Rejection, Unavailable
from trioproxy.login_queue import LoginQueue

NO = Rejected(Rejection.UNKNOWN_USER)


async def test_a_look_up_that_gives_up_waiting_leaves_its_place() -> None:
    """It has one among the look-ups and none among the threads yet: cancelled there, it gives back what it has."""
    queue = LoginQueue(1, waiting_max=1, each_max=1, finds_max=1, counters=Counter())
    entered, gate = threading.Event(), threading.Event()

    def wait() -> Answer:
        entered.set()
        gate.wait()
        return NO

    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.ask, wait, "10.1.2.3")
        await trio.to_thread.run_sync(entered.wait)
        async with trio.open_nursery() as look_ups:
            look_ups.start_soon(queue.find, lambda: NO)
            await wait_all_tasks_blocked()
            look_ups.cancel_scope.cancel()
        assert queue._finds.first.borrowed_tokens == 0
        gate.set()
    assert await queue.find(lambda: NO) == NO
    assert (queue.logins, queue.logins_from) == (0, {})


async def test_a_system_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends neither a session nor, for want of one who waits, the server: nobody could tell."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    queue = LoginQueue(1, waiting_max=1, each_max=1, finds_max=1, counters=Counter())
    with monkeypatch.context() as patched:
        patched.setattr("trio._threads.start_thread_soon", fail)
        answers = [await queue.ask(lambda: NO, "10.1.2.3"), await queue.find(lambda: NO)]
    assert [Unavailable("no thread can be had", Cause.BUSY)] * 2 == answers
    assert [await queue.ask(lambda: NO, "10.1.2.3"), await queue.find(lambda: NO)] == [NO, NO]
