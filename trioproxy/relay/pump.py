"""TCP at full speed: all relays of the process, served at the edges of readiness by the engine. No task, no waiting.

At most one buffer (64 KiB) or one pipe for each direction is held for a reader that is slow, and while it is, nothing
is read for it. What one relay does in one turn is bounded; with more to do it queues up behind the others.
"""

import socket
import time
from collections.abc import Callable
from typing import Final

import trio

from trioproxy.accounting import Flow, Termination
from trioproxy.engine import Channel, Fiber
from trioproxy.engine.epoll import EpollEngine
from trioproxy.engine.fiber import EpollFiber
from trioproxy.policy.shapes import Shape
from trioproxy.relay.pipes import PipePool
from trioproxy.relay.settings import RelaySettings
from trioproxy.relay.shaping import Shaper
from trioproxy.relay.way import Way

__all__ = ["Pump", "PumpedRelay"]

_SWEEP_S: Final = 1.0  # how often relays are looked through for those that are idle; exact to that
_PATIENCE: Final = 2  # a way has used its turn at once, or at the next round of the engine
_SWEPT_AT_ONCE: Final = 2_000  # before others get their turn: 0.5 ms


class PumpedRelay:
    """One flow: two sockets, two ways."""

    __slots__ = (
        "_client",
        "_fiber",
        "_first_end",
        "_flow",
        "_limits_s",
        "_settle",
        "_target",
        "_waited_for",
        "ending",
        "moved",
        "over",
        "pump",
        "quiet_since_s",
        "to_client",
        "to_target",
    )

    def __init__(
        self,
        pump: "Pump",
        fiber: EpollFiber,
        flow: Flow,
        channels: tuple[Channel, Channel],
        settings: RelaySettings,
    ) -> None:
        client, target = channels
        self.pump = pump
        self._fiber = fiber
        self._flow = flow
        self._client = client
        self._target = target
        self._limits_s = (settings.idle_s, settings.half_closed_s)
        self._first_end: Termination | None = None
        self._settle: Callable[[socket.socket], None] | None = settings.settle
        self._waited_for = False
        self.ending: Termination | None = None
        self.over = False
        self.moved = False
        self.quiet_since_s = time.monotonic()
        self.to_target = Way(
            self,
            client,
            target,
            (Termination.CLIENT_CLOSED, Termination.CLIENT_RESET, Termination.TARGET_RESET),
        )
        self.to_client = Way(
            self,
            target,
            client,
            (Termination.TARGET_CLOSED, Termination.TARGET_RESET, Termination.CLIENT_RESET),
        )
        self.to_target.back, self.to_client.back = self.to_client, self.to_target
        self.to_target.carried, self.to_client.carried = flow.bytes_to_target, flow.bytes_to_client

    def begin(self, settings: RelaySettings) -> None:
        """Carry what is there already, and everything from now on."""
        self._client.handler = self.to_target.on_events
        self._target.handler = self.to_client.on_events
        if settings.shape is not None:
            self.shape(settings.shape)
        if settings.check is not None:
            self.to_client.look_at(settings.check)
        self.to_target.begin(settings.early_data, ended=settings.client_ended)
        if not self.over:
            self.to_client.begin(settings.early_answer, ended=False)

    def shape(self, shape: Shape | None) -> None:
        """From now on bytes wait for these gates, or for none."""
        self.to_target.shape(shape.to_target if shape is not None else None)
        self.to_client.shape(shape.to_client if shape is not None else None)

    def go_on(self) -> None:
        """The gates have changed: whoever waited at the old ones asks again."""
        for way in (self.to_target, self.to_client):
            if not (self.over or way.queued):
                way.queued_turn()

    def way_ended(self, way: Way, sink: socket.socket) -> None:
        """A way has carried the last byte of its source."""
        if self._first_end is None:
            self._first_end = way.source_closed
            self.quiet_since_s, self.moved = time.monotonic(), False
            try:
                sink.shutdown(socket.SHUT_WR)
            except OSError:
                self.finish(way.sink_reset)
        else:  # closing both sockets says the same, and is done at once
            self.finish(self._first_end)

    async def until_over(self) -> Termination:
        """Wait for the end."""
        if not self.over:
            self._waited_for = True
            await self._fiber.parked()
        assert self.ending is not None  # noqa: S101 - for the type checker: nothing else resumes the fiber
        return self.ending

    def stop(self) -> None:
        """Carry nothing any more; the meter holds what was."""
        if self.over:
            return
        self.over = True
        self._client.handler = self._target.handler = None
        self.read_meter()
        self.to_target.drop()
        self.to_client.drop()

    def let_go(self) -> None:
        """It has stopped, and nobody asks it for anything: its parts hold each other no longer, and go at once."""
        self.to_target.back = self.to_client.back = None
        del self.to_target, self.to_client

    def fail(self, error: Exception) -> None:
        """Something is wrong with us: the session ends by this error, and no other one."""
        self.stop()
        if not self._waited_for:
            raise error
        self._fiber.interrupt(error)

    def read_meter(self) -> None:
        """Let the flow know what was carried."""
        self._flow.bytes_to_target = self.to_target.carried
        self._flow.bytes_to_client = self.to_client.carried

    def looked_at(self, now_s: float) -> None:
        """Once in a while: has it been idle for too long?"""
        try:
            self._look(now_s)
        except Exception as error:  # noqa: BLE001 - as in `Way.on_events`
            self.fail(error)

    def _look(self, now_s: float) -> None:
        if self._settle is not None:
            self._settle(self._target.sock)
            self._settle = None
        if self.moved:
            self.moved = False
            self.quiet_since_s = now_s
            self.read_meter()
        elif now_s - self.quiet_since_s >= self._limits_s[self._first_end is not None]:
            self.finish(Termination.IDLE)

    def finish(self, termination: Termination) -> None:
        """It is over, for this reason."""
        if self.over:
            return
        self.stop()
        self.ending = termination
        if self._waited_for:
            self._fiber.resume()


class Pump:
    """All relays of one engine.

    Args:
        engine: tells of the edges.
        pipes_max: pipes open at the same time.
        descriptors_max: the highest descriptor that they may use.

    Attributes:
        pipes: for bulk.
        shaper: for flows that have to wait.
        messages: what was read and sent on without a pipe, since the beginning.
    """

    def __init__(self, engine: EpollEngine, *, pipes_max: int, descriptors_max: Callable[[], int]) -> None:
        self.engine = engine
        self.messages = 0
        self.pipes = PipePool(pipes_max, descriptors_max)
        self.shaper = Shaper(_PATIENCE)
        self._relays: dict[Flow, PumpedRelay] = {}
        self._sweep_s = _SWEEP_S

    async def relay(
        self, fiber: Fiber, flow: Flow, client: Channel, target: Channel, settings: RelaySettings
    ) -> Termination:
        """Carry bytes both ways until both directions have ended; everything else as `relay_streams`.

        Args:
            fiber: that calls, and waits.
            flow: its meter is moved: at least once a second, and exact at the end.
            client: the client's socket.
            target: the target's socket.
            settings: see there.

        **Cancellation**: stops at once; what was carried is counted, what is still held is lost, and no descriptor is
        kept. Both sockets must be reset.
        """
        assert isinstance(fiber, EpollFiber)  # noqa: S101 - of the engine that this was made with
        flow.verdict = settings.permit
        self._sweep_s = min(self._sweep_s, settings.idle_s / 10, settings.half_closed_s / 10)
        relay = PumpedRelay(self, fiber, flow, (client, target), settings)
        self._relays[flow] = relay
        try:
            relay.begin(settings)
            del settings  # its first bytes have gone, and this frame lives as long as the relay
            return await relay.until_over()
        finally:
            del self._relays[flow]
            relay.stop()
            relay.let_go()

    def reshape(self, flow: Flow, shape: Shape | None) -> None:
        """The limits of a running relay have changed."""
        relay = self._relays.get(flow)
        if relay is not None and not relay.over:
            relay.shape(shape)
            relay.go_on()

    def read_meter(self, flow: Flow) -> None:
        """Let the flow of a running relay know what was carried by now."""
        relay = self._relays.get(flow)
        if relay is not None:
            relay.read_meter()

    async def run(self) -> None:
        """Look for idle relays, and let shaped ones go on, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.shaper.run)
            await self._sweep()

    async def _sweep(self) -> None:
        try:
            while True:
                await trio.sleep(self._sweep_s)
                now_s = time.monotonic()
                for count, relay in enumerate(list(self._relays.values()), start=1):
                    if not relay.over:
                        relay.looked_at(now_s)
                    if count % _SWEPT_AT_ONCE == 0:
                        await trio.lowlevel.checkpoint()
        finally:
            self.pipes.close()
