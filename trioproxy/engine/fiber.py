"""Fibers of the epoll engine: coroutines that wait for sockets without being tasks.

A task costs Trio 15 to 20 microseconds to begin and end, and 4 to 5 each time it waits: as much as everything that we
do for a session. Most sessions only ever wait for their two sockets, so they are coroutines which the engine resumes;
for everything else (a look-up, a hash, a second candidate, a datagram) they ask for a task, see `Fiber.in_task`.
"""

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from trioproxy.engine.channel import Channel
from trioproxy.engine.portable import Fiber

if TYPE_CHECKING:
    from trioproxy.engine.epoll import EpollEngine

__all__ = ["Cut", "EpollFiber"]

T = TypeVar("T")


class Cut(BaseException):
    """The fiber was cancelled. Like `trio.Cancelled` it is for `EpollFiber.until_cancelled` to catch."""


@types.coroutine
def _parked() -> Generator[None, Any, Any]:
    return (yield)


class EpollFiber(Fiber):
    """One coroutine under the engine; see `Fiber`. What it waits for calls it back."""

    __slots__ = ("_coroutine", "_waiting", "_work_scope")

    _engine: "EpollEngine"

    def __init__(self, engine: "EpollEngine") -> None:
        super().__init__(engine)
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._waiting = False  # for a channel, or parked
        self._work_scope: trio.CancelScope | None = None

    # ---- from outside

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run until it waits for the first time. It must not raise."""
        self._coroutine = coroutine
        self._engine.fibers.add(self)
        self.resume()

    def cancel(self) -> None:
        """Let `Cut` be raised where the fiber waits, or where it waits next."""
        self._cut = True
        if self._work_scope is not None:
            self._work_scope.cancel()
        elif self._waiting:
            self.interrupt(Cut())

    def interrupt(self, error: BaseException) -> None:
        """Raise this where the fiber waits for a channel, in the engine's next round. Only while it does."""
        if self._thrown is None or isinstance(error, Cut):
            self._thrown = error
            self._engine.call_soon(self._raise_thrown, first=isinstance(error, Cut))

    def resume(self, value: object = None) -> None:
        """Go on: with this value, or what was thrown meanwhile."""
        coroutine, thrown = self._coroutine, self._thrown
        if coroutine is None:
            return
        self._waiting = False
        try:
            if thrown is None:
                trap = coroutine.send(value)
            else:
                self._thrown = None
                trap = coroutine.throw(thrown)
            if trap is not None:
                coroutine.throw(AssertionError("a fiber waits for channels; what Trio has to wait for goes in a task"))
        except StopIteration:
            self._coroutine = None
            self._engine.fibers.discard(self)

    def cut_now(self) -> None:
        """Cancel, and let it have its last step at once. Only while it does not run, at the end of the engine."""
        self.cancel()
        self._raise_thrown()

    def _raise_thrown(self) -> None:
        if self._thrown is not None and self._waiting:
            self.resume()

    # ---- for itself

    @types.coroutine
    def readable(self, channel: Channel) -> Generator[None, None, None]:
        """As `Fiber.readable`.

        Raises:
            Cut: the fiber was cancelled.
        """
        self._raise_cut()
        channel.handler = self._on_events
        self._waiting = True
        try:
            yield
        finally:
            channel.handler = None

    writable = readable  # one registration tells of both

    @types.coroutine
    def readable_any(self, *channels: Channel) -> Generator[None, None, None]:
        """As `Fiber.readable_any`.

        Raises:
            Cut: the fiber was cancelled.
        """
        self._raise_cut()
        for channel in channels:
            channel.handler = self._on_events
        self._waiting = True
        try:
            yield
        finally:
            for channel in channels:
                channel.handler = None

    @types.coroutine
    def parked(self) -> Generator[None, Any, Any]:
        """Wait until somebody calls `resume`; returns its value.

        Raises:
            Cut: the fiber was cancelled.
        """
        self._raise_cut()
        self._waiting = True
        return (yield)

    async def in_task(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something in a task of Trio's, where everything of Trio's may be used, and wait for it.

        Raises:
            Cut: the fiber was cancelled, and the work with it.
        """
        self._raise_cut()
        self._work_scope = trio.CancelScope()
        self._engine.nursery.start_soon(self._work, work, self._work_scope)
        try:
            result: T = await _parked()
        finally:
            self._work_scope = None
        return result

    async def until_cancelled(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do something; None if the fiber is cancelled before that is done. It can be cancelled again afterwards."""
        try:
            return await work()
        except Cut:
            return None
        finally:
            self._cut = False

    async def _work(self, work: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
        result: object = None
        try:
            with scope:
                result = await work()
        except Exception as error:  # noqa: BLE001 - it belongs to the fiber, and goes there
            self._thrown = error
        except BaseException:  # the engine ends
            self._thrown = Cut()
            self.resume()
            raise
        if scope.cancel_called:  # also in the moment in which the work was done
            self._thrown = Cut()
        self.resume(result)

    def _raise_cut(self) -> None:
        if self._cut or self._engine.closing:
            self._cut = False
            raise Cut

    def _on_events(self, _events: int) -> None:
        self.resume()
