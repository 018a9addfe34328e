"""Fibers: the same on either engine, whatever they wait for and however that ends."""

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel

from trioproxy.engine import Channel, Engine, Fiber
from trioproxy.engine.epoll import EpollEngine

engines = pytest.mark.parametrize("kind", [EpollEngine, Engine])


@asynccontextmanager
async def running(kind: type[Engine]) -> AsyncIterator[Engine]:
    """An engine until the block ends."""
    async with trio.open_nursery() as nursery:
        engine = kind()
        await nursery.start(engine.run)
        yield engine
        nursery.cancel_scope.cancel()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection: our end, and the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


class Run:
    """A fiber, what it did, and how it ended."""

    def __init__(self, engine: Engine, work: Callable[[Fiber], Awaitable[object]]) -> None:
        self.fiber = engine.fiber()
        self.outcome: object = None
        self.over = trio.Event()
        self._work = work
        self.fiber.start(self._run())

    async def _run(self) -> None:
        try:
            self.outcome = await self.fiber.until_cancelled(self._story)
        except Exception as error:  # noqa: BLE001 - it is what the test wants to see
            self.outcome = error
        self.over.set()

    async def _story(self) -> object:
        return await self._work(self.fiber)


async def receive(fiber: Fiber, channel: Channel) -> bytes:
    """Try first, wait when there is nothing."""
    while True:
        try:
            return channel.sock.recv(100)
        except BlockingIOError:
            await fiber.readable(channel)


@engines
async def test_waits_for_a_socket(kind: type[Engine], pair: tuple[socket.socket, socket.socket]) -> None:
    """It goes on when something came, and not before."""
    ours, theirs = pair
    async with running(kind) as engine:
        channel = engine.open(ours)
        run = Run(engine, lambda fiber: receive(fiber, channel))
        await trio.testing.wait_all_tasks_blocked()
        assert not run.over.is_set()
        theirs.send(b"something")
        await run.over.wait()
        engine.forget(channel)
    assert run.outcome == b"something"


@engines
@pytest.mark.parametrize("which", [0, 1])
async def test_waits_for_one_of_two_sockets(
    kind: type[Engine], pair: tuple[socket.socket, socket.socket], which: int
) -> None:
    """Whichever has something; afterwards neither is waited for, and it can wait for one again."""
    async with running(kind) as engine:
        for sock in pair:
            sock.setblocking(False)
        channels = [engine.open(sock) for sock in pair]

        async def work(fiber: Fiber) -> bytes:
            received = b""
            while len(received) < 6:
                await fiber.readable_any(*channels)
                for sock in pair:
                    with contextlib.suppress(BlockingIOError):
                        received += sock.recv(100)
            assert [channel.handler for channel in channels] == [None, None]
            return received + await receive(fiber, channels[0])

        run = Run(engine, work)
        await trio.testing.wait_all_tasks_blocked()
        pair[which].send(b"one")
        await trio.testing.wait_all_tasks_blocked()
        assert not run.over.is_set()
        pair[1 - which].send(b"two")
        await trio.testing.wait_all_tasks_blocked()
        pair[1].send(b"end")
        await run.over.wait()
        for channel in channels:
            engine.forget(channel)
    assert run.outcome == b"onetwoend"


@engines
@pytest.mark.parametrize("how", ["cancel", "interrupt"])
async def test_ended_while_it_waits_for_two_sockets(
    kind: type[Engine], pair: tuple[socket.socket, socket.socket], how: str
) -> None:
    """As with one: cancelled, or told of an error."""
    async with running(kind) as engine:
        channels = [engine.open(sock) for sock in pair]

        async def work(fiber: Fiber) -> None:
            while True:  # it may return without reason
                await fiber.readable_any(*channels)

        run = Run(engine, work)
        await trio.testing.wait_all_tasks_blocked()
        error = TimeoutError()
        if how == "cancel":
            run.fiber.cancel()
        else:
            run.fiber.interrupt(error)
        await run.over.wait()
        assert [channel.handler for channel in channels] == [None, None]
        for channel in channels:
            engine.forget(channel)
    assert run.outcome is (None if how == "cancel" else error)


@engines
async def test_cancelled_while_it_waits(kind: type[Engine], pair: tuple[socket.socket, socket.socket]) -> None:
    """`until_cancelled` answers None; the socket is nobody's business any more."""
    async with running(kind) as engine:
        channel = engine.open(pair[0])
        run = Run(engine, lambda fiber: receive(fiber, channel))
        await trio.testing.wait_all_tasks_blocked()
        run.fiber.cancel()
        await run.over.wait()
        assert channel.handler is None
        engine.forget(channel)
    assert run.outcome is None


@engines
async def test_cancelled_before_it_waits(kind: type[Engine], pair: tuple[socket.socket, socket.socket]) -> None:
    """Whoever is cancelled while it runs finds out where it waits next."""
    async with running(kind) as engine:
        channel = engine.open(pair[0])

        async def work(fiber: Fiber) -> bytes:
            fiber.cancel()
            return await receive(fiber, channel)

        run = Run(engine, work)
        await run.over.wait()
    assert run.outcome is None


@engines
async def test_interrupted(kind: type[Engine], pair: tuple[socket.socket, socket.socket]) -> None:
    """An error from outside ends the wait; it can be caught, and the fiber waits again."""
    ours, theirs = pair
    async with running(kind) as engine:
        channel = engine.open(ours)

        async def work(fiber: Fiber) -> bytes:
            with pytest.raises(TimeoutError):
                await receive(fiber, channel)
            return await receive(fiber, channel)

        run = Run(engine, work)
        await trio.testing.wait_all_tasks_blocked()
        run.fiber.interrupt(TimeoutError())
        await trio.testing.wait_all_tasks_blocked()
        theirs.send(b"later")
        await run.over.wait()
    assert run.outcome == b"later"


@engines
async def test_work_in_a_task(kind: type[Engine]) -> None:
    """There everything of Trio's can be used; its value comes back, and so does its exception."""
    async with running(kind) as engine:

        async def slow() -> int:
            await trio.sleep(0.01)
            return 7

        async def wrong() -> int:
            await trio.lowlevel.checkpoint()
            raise ZeroDivisionError

        right, bad = Run(engine, lambda fiber: fiber.in_task(slow)), Run(engine, lambda fiber: fiber.in_task(wrong))
        await right.over.wait()
        await bad.over.wait()
    assert right.outcome == 7
    assert isinstance(bad.outcome, ZeroDivisionError)


@engines
async def test_work_in_a_task_is_cancelled_with_the_fiber(kind: type[Engine]) -> None:
    """And tidies up before the fiber goes on."""
    tidied = list[str]()
    async with running(kind) as engine:

        async def work() -> None:
            try:
                await trio.sleep_forever()
            finally:
                tidied.append("tidied")

        run = Run(engine, lambda fiber: fiber.in_task(work))
        await trio.testing.wait_all_tasks_blocked()
        run.fiber.cancel()
        await run.over.wait()
    assert run.outcome is None
    assert tidied == ["tidied"]


@engines
async def test_cancelled_twice(kind: type[Engine]) -> None:
    """After one `until_cancelled` the next can be cancelled as well."""
    async with running(kind) as engine:
        ends = list[object]()
        fiber = engine.fiber()
        over = trio.Event()

        async def story() -> None:
            for _ in range(2):
                ends.append(await fiber.until_cancelled(lambda: fiber.in_task(trio.sleep_forever)))
            over.set()

        fiber.start(story())
        for expected in (1, 2):
            await trio.testing.wait_all_tasks_blocked()
            fiber.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert len(ends) == expected
        await over.wait()
    assert ends == [None, None]


@engines
async def test_end_of_the_engine_ends_every_fiber(
    kind: type[Engine], pair: tuple[socket.socket, socket.socket]
) -> None:
    """One that waits for a socket and one that waits for a task: both have their last step."""
    async with running(kind) as engine:
        channel = engine.open(pair[0])
        waiting = Run(engine, lambda fiber: receive(fiber, channel))
        working = Run(engine, lambda fiber: fiber.in_task(trio.sleep_forever))
        await trio.testing.wait_all_tasks_blocked()
    if kind is EpollEngine:  # the other's are tasks, and a cancelled task ends as every task does
        assert waiting.over.is_set()
        assert working.over.is_set()
    assert (waiting.outcome, working.outcome) == (None, None)


async def test_fiber_that_waits_for_trio_is_told_so() -> None:
    """It would never be resumed: better an error, which names what to do."""
    async with running(EpollEngine) as engine:

        async def work(_fiber: Fiber) -> None:
            await trio.sleep(1)

        run = Run(engine, work)
        assert isinstance(run.outcome, AssertionError)
        assert "task" in str(run.outcome)


async def test_handler_of_a_socket_that_was_forgotten() -> None:
    """Two are ready in the same round, and whoever comes first forgets both: the other is not called any more."""
    pairs = [socket.socketpair() for _ in range(2)]
    called = list[int]()
    async with running(EpollEngine) as engine:
        for ours, _ in pairs:
            ours.setblocking(False)
        channels = [engine.open(ours) for ours, _ in pairs]
        await trio.testing.wait_all_tasks_blocked()

        def forget_both(_events: int) -> None:
            called.append(1)
            for channel in channels:
                engine.forget(channel)

        for channel, (_, theirs) in zip(channels, pairs, strict=True):
            channel.handler = forget_both
            theirs.send(b"x")
        await trio.testing.wait_all_tasks_blocked()
    for pair in pairs:
        for sock in pair:
            sock.close()
    assert called == [1]


@engines
async def test_reset_of_a_socket_that_nobody_reads(
    kind: type[Engine], pair: tuple[socket.socket, socket.socket]
) -> None:
    """A handler learns of it at once, or within half a second where there is no epoll."""
    ours, theirs = pair
    told = trio.Event()
    async with running(kind) as engine:
        channel = engine.open(ours)
        channel.handler = lambda _events: told.set() if channel.hung else None
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        with trio.fail_after(15):
            await told.wait()
        assert channel.ended
        engine.forget(channel)


@engines
async def test_work_on_what_can_be_read(kind: type[Engine], pair: tuple[socket.socket, socket.socket]) -> None:
    """Piece by piece as it comes, again at once where more may be left, until the work says what is wrong."""
    ours, theirs = pair
    pieces = list[bytes]()

    def work() -> str | bool:
        try:
            data = ours.recv(2)
        except BlockingIOError:
            return False
        pieces.append(data)
        return True if data else "it has ended"

    async with running(kind) as engine:
        channel = engine.open(ours)
        theirs.send(b"abc")  # before anybody looks
        async with trio.open_nursery() as nursery:
            problems = list[str]()

            async def look() -> None:
                problems.append(await engine.until_problem(channel, work))

            nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()
            assert problems == []
            theirs.send(b"d")
            await trio.testing.wait_all_tasks_blocked()
            theirs.close()
        engine.forget(channel)
    assert b"".join(pieces) == b"abcd"
    assert problems == ["it has ended"]
    assert channel.handler is None


@engines
async def test_cancelled_in_the_moment_in_which_its_work_is_done(kind: type[Engine]) -> None:
    """The work has ended, the fiber does not know it yet: it does not go on as if nothing had been."""
    went_on = list[str]()
    async with running(kind) as engine:

        async def work(fiber: Fiber) -> None:
            async def last_step() -> None:
                await trio.lowlevel.checkpoint()
                fiber.cancel()  # nothing is waited for behind this

            await fiber.in_task(last_step)
            went_on.append("went on")

        run = Run(engine, work)
        await run.over.wait()
    assert went_on == []
    assert run.outcome is None


async def test_cancelled_before_what_came_is_looked_at(pair: tuple[socket.socket, socket.socket]) -> None:
    """Law 2: what arrives together with the end of the rights is for nobody."""
    ours, theirs = pair
    async with running(EpollEngine) as engine:
        channel = engine.open(ours)
        run = Run(engine, lambda fiber: receive(fiber, channel))
        await trio.testing.wait_all_tasks_blocked()
        theirs.send(b"too late")
        run.fiber.cancel()
        await run.over.wait()
        engine.forget(channel)
    assert run.outcome is None
    assert ours.recv(100) == b"too late"


async def test_no_room_for_a_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC of epoll (max_user_watches): nothing is kept of a socket that could not be registered."""
    engine = EpollEngine()
    with socket.socket() as sock:
        engine._epoll.close()
        with pytest.raises(ValueError, match="closed"):
            engine.open(sock)
    assert engine.channels() == []
    os.close(engine._alarm)
