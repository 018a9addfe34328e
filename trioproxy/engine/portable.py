"""The engine for systems without epoll: what Trio offers everywhere. Each fiber is a task.

It is also what defines the others: whatever runs on it must run on `EpollEngine` alike.
"""

import select
import socket
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

import trio

from trioproxy.engine.channel import Channel
from trioproxy.engine.timers import Timers

__all__ = ["Engine", "Fiber"]

T = TypeVar("T")

_WATCH_S: Final = 0.5  # how late a reset is noticed by whoever does not read


class Fiber:
    """One coroutine under an engine. Its methods that are coroutines are for itself, the others for everybody."""

    __slots__ = ("_cut", "_engine", "_scope", "_thrown", "_wait_scope")

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._cut = False  # cancelled, and does not know it yet
        self._thrown: BaseException | None = None  # what its wait ends with
        self._scope: trio.CancelScope | None = None
        self._wait_scope: trio.CancelScope | None = None

    # ---- from outside

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it. It must not raise."""
        self._engine.nursery.start_soon(_await, coroutine)

    def cancel(self) -> None:
        """End what `until_cancelled` does, or will do next."""
        self._cut = True
        if self._scope is not None:
            self._scope.cancel()

    def interrupt(self, error: BaseException) -> None:
        """Raise this where the fiber waits for a channel, as soon as may be. Only while it does."""
        if self._thrown is None:
            self._thrown = error
            if self._wait_scope is not None:
                self._wait_scope.cancel()

    # ---- for itself

    async def readable(self, channel: Channel) -> None:
        """Wait until there may be something to read, or to be told of an error. May return without reason."""
        await self._wait(partial(trio.lowlevel.wait_readable, channel.sock))

    async def writable(self, channel: Channel) -> None:
        """Wait until something may be written, or a connection stands or has failed. May return without reason."""
        await self._wait(partial(trio.lowlevel.wait_writable, channel.sock))

    async def readable_any(self, *channels: Channel) -> None:
        """Wait until there may be something to read from one of them, if there is one. May return without reason."""

        async def first(channel: Channel, over: trio.CancelScope) -> None:
            await trio.lowlevel.wait_readable(channel.sock)
            over.cancel()

        async def wait() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                for channel in channels:
                    nursery.start_soon(first, channel, nursery.cancel_scope)

        await self._wait(wait)

    async def in_task(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something in a task of Trio's, where everything of Trio's may be used, and wait for it."""
        result = await work()
        await trio.lowlevel.checkpoint_if_cancelled()  # it may have been cancelled in the moment in which it was done
        return result

    async def until_cancelled(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do something; None if the fiber is cancelled before that is done. It can be cancelled again afterwards."""
        with trio.CancelScope() as self._scope:
            if self._cut:
                self._scope.cancel()
            return await work()
        self._cut, self._scope = False, None
        return None

    async def _wait(self, wait: Callable[[], Awaitable[None]]) -> None:
        with trio.CancelScope() as self._wait_scope:
            await wait()
        thrown, self._thrown, self._wait_scope = self._thrown, None, None
        if thrown is not None:
            raise thrown


class Engine:
    """Runs the fibers of one Trio loop.

    Attributes:
        timers: limits of time for what waits here.
        nursery: in which fibers have work done, see `Fiber.in_task`.
    """

    nursery: trio.Nursery

    def __init__(self) -> None:
        self.timers = Timers()
        self._channels: dict[int, Channel] = {}

    def fiber(self) -> Fiber:
        """A new one, to be started."""
        return Fiber(self)

    def open(self, sock: socket.socket, *, writable: bool = True) -> Channel:  # noqa: ARG002 - for those that register
        """Take a non-blocking socket on.

        Args:
            sock: whoever made it closes it.
            writable: tell of that, too. Nobody waits for it where datagrams are sent, and each would be told of.
        """
        channel = Channel(sock)
        self._channels[channel.fd] = channel
        return channel

    def forget(self, channel: Channel) -> None:
        """The socket is about to be closed."""
        channel.handler = None
        if self._channels.get(channel.fd) is channel:
            del self._channels[channel.fd]

    def channels(self) -> list[Channel]:
        """Those that are open now."""
        return list(self._channels.values())

    async def until_problem(self, channel: Channel, work: Callable[[], T | bool]) -> T:
        """Do `work` whenever there is something to read; from a task.

        Args:
            channel: whose socket is asked.
            work: reads some; False: nothing is left; True: there is more to do; everything else ends this, an exception
                too.

        Returns:
            What ended it.
        """
        while True:
            await trio.lowlevel.wait_readable(channel.sock)
            while (result := work()) is True:
                await trio.lowlevel.checkpoint()
            if result is not False:
                return result

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve, for ever; at the end every fiber is cut off."""
        async with trio.open_nursery() as self.nursery:
            self.nursery.start_soon(self.timers.run)
            self.nursery.start_soon(self._watch)
            task_status.started()

    async def _watch(self) -> None:
        """Tell the handlers of channels that are gone, for ever; nobody reads from those at the moment."""
        while True:
            await trio.sleep(_WATCH_S)
            poll = select.poll()
            for channel in self._channels.values():
                if channel.handler is not None:
                    poll.register(channel.fd, 0)  # errors and the end of both directions are told always
            for fd, events in poll.poll(0):
                channel = self._channels[fd]
                channel.ended = channel.hung = True
                if channel.handler is not None:
                    channel.handler(events)


async def _await(coroutine: Coroutine[Any, Any, None]) -> None:
    await coroutine
