"""One epoll for the process, edge-triggered, served by one task.

A socket is registered once, for its whole life; a message costs no task switch and no `epoll_ctl`. Who waits is called
back (`Channel.handler`). Measured against waiting with `trio.lowlevel.wait_readable`: DESIGN, "the data plane".
"""

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

import trio

from trioproxy.engine.channel import Channel
from trioproxy.engine.fiber import EpollFiber
from trioproxy.engine.portable import Engine

__all__ = ["EpollEngine"]

T = TypeVar("T")

_REGISTERED: Final = select.EPOLLIN | select.EPOLLPRI | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_READ_ONLY: Final = select.EPOLLIN | select.EPOLLET
_ENDED: Final = select.EPOLLRDHUP | select.EPOLLERR | select.EPOLLHUP
_HUNG: Final = select.EPOLLERR | select.EPOLLHUP
_EVENTS_MAX: Final = 256  # in one round; more wait for the next, nothing is lost
_TURN_S: Final = 0.002  # after so long the tasks of Trio get their turn: logins, look-ups, datagrams


class EpollEngine(Engine):
    """Owns the registrations and the fibers of one Trio loop.

    Attributes:
        fibers: those that have not ended.
        closing: nothing may wait here any more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fibers: set[EpollFiber] = set()
        self.closing = False
        self._epoll = select.epoll()
        self._soon: deque[Callable[[], None]] = deque()
        self._asleep = False
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._alarm, select.EPOLLIN)

    def fiber(self) -> EpollFiber:
        """A new one, to be started."""
        return EpollFiber(self)

    def open(self, sock: socket.socket, *, writable: bool = True) -> Channel:
        """Register a non-blocking socket."""
        events = _REGISTERED if writable else _READ_ONLY
        self._epoll.register(sock.fileno(), events)  # the kernel drops it when the socket is closed
        return super().open(sock, writable=writable)

    async def until_problem(self, channel: Channel, work: Callable[[], T | bool]) -> T:
        """See `Engine.until_problem`. The work is done by the engine; the task sleeps."""
        watch = _Watch(self, channel, work)
        channel.handler = watch.serve
        self.call_soon(watch.serve)  # what came before told its edge to nobody
        try:
            await watch.over.wait()
        finally:
            channel.handler = None
        if watch.fault is not None:
            raise watch.fault
        return watch.results[0]

    def call_soon(self, callback: Callable[[], None], *, first: bool = False) -> None:
        """Call back in the next round, before its events are looked at: from whatever task.

        Args:
            callback: does a bounded piece of work.
            first: before everything that waits; whoever is ended must not go on because others were called back first.
        """
        (self._soon.appendleft if first else self._soon.append)(callback)
        if self._asleep:
            self._asleep = False
            os.eventfd_write(self._alarm, 1)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve, for ever; at the end every fiber is cut off."""
        try:
            async with trio.open_nursery() as self.nursery:
                self.nursery.start_soon(self.timers.run)
                task_status.started()
                try:
                    await self._serve()
                finally:
                    self.closing, self._asleep = True, False
                    for fiber in list(self.fibers):
                        fiber.cut_now()
        finally:
            self._epoll.close()
            os.close(self._alarm)

    async def _serve(self) -> None:
        while True:
            self._asleep = not self._soon
            if self._asleep:
                await trio.lowlevel.wait_readable(self._epoll)
                self._asleep = False
            else:
                await trio.lowlevel.checkpoint()
            turn_ends_s = time.monotonic() + _TURN_S
            while self._serve_round() and time.monotonic() < turn_ends_s:
                continue

    def _serve_round(self) -> bool:
        """Tell of everything that is ready now; returns whether there was anything, or will be."""
        channels, soon = self._channels, self._soon
        for _ in range(len(soon)):  # what is added meanwhile has its turn in the next round
            soon.popleft()()
        events = self._epoll.poll(0, _EVENTS_MAX)
        for fd, what in events:
            channel = channels.get(fd)
            if channel is None:  # closed a moment ago, in this very round; or the alarm
                if fd == self._alarm:
                    with suppress(BlockingIOError):
                        os.eventfd_read(fd)
                continue
            if what & select.EPOLLPRI:
                channel.urgent = True
            if what & _ENDED:
                channel.ended = True
                channel.hung |= bool(what & _HUNG)
            if channel.handler is not None:
                channel.handler(what)
        return bool(events or soon)


class _Watch(Generic[T]):
    """Work that is done whenever there is something to read.

    Attributes:
        over: the work is done, or failed.
        results: what ended it.
        fault: the exception that did.
    """

    def __init__(self, engine: EpollEngine, channel: Channel, work: Callable[[], T | bool]) -> None:
        self.over = trio.Event()
        self.results: list[T] = []
        self.fault: Exception | None = None
        self._engine = engine
        self._channel = channel
        self._work = work

    def serve(self, _events: int = 0) -> None:
        """There may be something."""
        if self.over.is_set() or self._channel.handler is None:
            return
        try:
            result = self._work()
        except Exception as fault:  # noqa: BLE001 - it belongs to the task, and goes there
            self.fault = fault
            self.over.set()
            return
        if result is True:
            self._engine.call_soon(self.serve)  # no edge will tell of what is left
        elif not isinstance(result, bool):
            self.results.append(result)
            self.over.set()
