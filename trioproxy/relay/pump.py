"""TCP at full speed: all relays of the process, served at the edges of readiness by the engine. No task, no waiting.

    an edge -> recv into one buffer for all -> send            small messages
            -> splice into a pipe -> splice out of it          bulk: once a read fills the buffer, until reads get small

At most one buffer (64 KiB) or one pipe for each direction is held for a reader that is slow, and while it is, nothing
is read for it. What one relay does in one turn is bounded; with more to do it queues up behind the others.
"""

import os
import socket
import time
from collections.abc import Callable
from typing import Final

import trio

from trioproxy.accounting import Flow, Termination
from trioproxy.engine import Channel, Fiber
from trioproxy.engine.epoll import EpollEngine
from trioproxy.engine.fiber import EpollFiber
from trioproxy.policy import Permit
from trioproxy.relay.pacing import stop_pacing
from trioproxy.relay.pipes import PIPE_BYTES, Pipe, PipePool

__all__ = ["Pump"]

_BUFFER_BYTES: Final = 65_536  # as the reference: larger reads gain nothing on loopback
_TURN_READS: Final = 4  # small reads of one direction in one turn
# What bulk moves at once while others exchange messages, who would wait for the rest of a full pipe: 0.3 ms each way.
_SHARED_BYTES: Final = 65_536
_SMALL_BYTES: Final = 16_384  # below that a copy is cheaper than the two calls of splice
_SMALL_READS: Final = 4  # so many in a row end the bulk
_SWEEP_S: Final = 1.0  # how often relays are looked through for those that are idle; exact to that
_SWEPT_AT_ONCE: Final = 2_000  # before others get their turn: 0.5 ms

# Used between a receive and a send only, so that all relays share it.
_buffer: Final = bytearray(_BUFFER_BYTES)
_view: Final = memoryview(_buffer)

_IN_OR_END: Final = 0x01 | 0x08 | 0x10  # EPOLLIN, EPOLLERR, EPOLLHUP
_OUT: Final = 0x04
_ERROR: Final = 0x08


class _Way:
    """One direction of a relay.

    Attributes:
        back: the other direction.
        held: something is kept because the sink takes no more; nothing is read meanwhile.
    """

    back: "_Way"

    __slots__ = (
        "_at_end",
        "_channel",
        "_messages_seen",
        "_pending",
        "_pipe",
        "_piped",
        "_relay",
        "_sink",
        "_small_reads",
        "_source",
        "back",
        "bulk",
        "carried",
        "ended",
        "held",
        "queued",
        "readable",
        "sink_reset",
        "source_closed",
        "source_reset",
    )

    def __init__(
        self, relay: "_Relay", source: Channel, sink: Channel, names: tuple[Termination, Termination, Termination]
    ) -> None:
        self._relay = relay
        self._channel = source
        self._source = source.sock
        self._sink = sink.sock
        self.source_closed, self.source_reset, self.sink_reset = names
        self._at_end = False  # nothing comes behind what is held
        self._pending = b""  # read, and not taken by the sink yet
        self._pipe: Pipe | None = None
        self._piped = 0  # the same, in the pipe
        self._small_reads = 0
        self._messages_seen = 0  # of all relays, when this one last moved bulk
        self.bulk = False
        self.carried = 0  # bytes that the kernel has taken for the sink
        self.readable = True  # there may be something; what came before the relay began told its edge to somebody else
        self.ended = False
        self.held = False
        self.queued = False  # it had more to do than fits into a turn

    def begin(self, data: bytes, *, ended: bool) -> None:
        """What was read before the relay began goes first, and with it perhaps the end."""
        self._pending, self._at_end = data, ended
        self.held = bool(data)
        self.turn()

    def on_events(self, events: int) -> None:
        """Something happened at the source, which is the sink of the other way."""
        try:
            self._on_events(events)
        except Exception as error:  # noqa: BLE001 - a fault of ours ends one session, and it tells of it
            self._relay.fail(error)

    def _on_events(self, events: int) -> None:
        if events & _IN_OR_END and not self.ended:
            self.readable = True
            if not (self.held or self.bulk or self.queued):
                self._copy()  # a message that fits: nearly all of them are done with this
                if self.readable:
                    self.turn()
            elif events & _ERROR and self.held and self._source_failed():
                # Nobody reads it, so nobody would learn of its end; and what is held will never be complete.
                self._relay.finish(self.source_reset)
                return
            elif not self.queued:
                self.turn()
        elif events & _ERROR and self.ended and self._source_failed():
            self._relay.finish(self.source_reset)
            return
        back = self.back
        if back.held and events & _OUT and not back.queued:
            back.turn()

    def queued_turn(self) -> None:
        """Go on where the last turn ended."""
        self.queued = False
        try:
            self.turn()
        except Exception as error:  # noqa: BLE001 - as in `on_events`
            self._relay.fail(error)

    def turn(self) -> None:
        """Carry what can be carried now, within the budget."""
        relay = self._relay
        for _ in range(_TURN_READS):
            if relay.over or self.ended:
                return
            if self.held and not self._flush():
                self._ask_after_source()
                return
            if self._at_end:
                self._end()
                return
            if not self.readable:
                return
            if self.bulk:
                self._splice()
                break  # a pipe full is a turn
            self._copy()
        self._ask_after_source()
        if self.readable and not (relay.over or self.ended or self.held):
            self.queued = True
            relay.pump.engine.call_soon(self.queued_turn)

    def _ask_after_source(self) -> None:
        """Something is held, so nobody reads; the edge of a reset may have been told before that."""
        if self.held and self._channel.hung and not self._relay.over and self._source_failed():
            self._relay.finish(self.source_reset)

    def _source_failed(self) -> bool:
        """Whether the source was reset, or is gone for another reason."""
        return self._source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def drop(self) -> None:
        """The relay is over: what is still held is for nobody."""
        self._pending = b""
        if self._pipe is not None:
            self._relay.pump.pipes.give_back(self._pipe, empty=not self._piped)
            self._pipe = None
        self._piped, self.held = 0, False

    def _flush(self) -> bool:
        """Send what is held; whether all of it went."""
        try:
            if self._pending:
                sent = self._sink.send(self._pending)
                self._pending = self._pending[sent:]
            else:
                sent = os.splice(self._pipe_end(), self._sink.fileno(), self._piped, flags=os.SPLICE_F_NONBLOCK)
                self._piped -= sent
        except BlockingIOError:
            return False
        except OSError:
            self._relay.finish(self.sink_reset)
            return False
        self.carried += sent
        self._relay.moved = True
        self.held = bool(self._pending or self._piped)
        if not self.held and self._pipe is not None:
            self._relay.pump.pipes.give_back(self._pipe, empty=True)
            self._pipe = None
        return not self.held

    def _pipe_end(self) -> int:
        assert self._pipe is not None  # noqa: S101 - for the type checker: something is in it
        return self._pipe.read_end

    def _copy(self) -> None:
        try:
            count = self._source.recv_into(_buffer)
        except BlockingIOError:
            self.readable = False
            return
        except OSError:
            self._relay.finish(self.source_reset)
            return
        if not count:
            self._end()
            return
        try:
            sent = self._sink.send(_view[:count])
        except BlockingIOError:
            sent = 0
        except OSError:
            self._relay.finish(self.sink_reset)
            return
        self.carried += sent
        self._relay.moved = True
        self._relay.pump.messages += 1
        if sent < count:
            self._pending, self.held = bytes(_view[sent:count]), True
        if count == _BUFFER_BYTES:
            self.bulk = True
            stop_pacing(self._sink)
        elif not (self._channel.ended or self._channel.urgent):
            self.readable = False  # there is nothing more now, and the next edge will come

    def _splice(self) -> None:
        pump = self._relay.pump
        size = PIPE_BYTES if pump.messages == self._messages_seen else _SHARED_BYTES
        self._messages_seen = pump.messages
        pipe = pump.pipes.take()
        if pipe is None:
            self._copy()
            return
        self._pipe = pipe
        try:
            count = os.splice(self._source.fileno(), pipe.write_end, size, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            count = 0
        except OSError:
            self._relay.finish(self.source_reset)
            return
        if count > 0:
            self._piped, self.held = count, True
            self._judge_size(count)
            self._flush()
            return
        self._relay.pump.pipes.give_back(pipe, empty=True)
        self._pipe = None
        self._copy()  # at an urgent mark splice says "nothing" or "the end"; recv knows

    def _judge_size(self, count: int) -> None:
        self._small_reads = self._small_reads + 1 if count < _SMALL_BYTES else 0
        if self._small_reads >= _SMALL_READS:
            self.bulk, self._small_reads = False, 0

    def _end(self) -> None:
        self.ended = True
        self._relay.way_ended(self, self._sink)


class _Relay:
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

    def __init__(  # noqa: PLR0913 - a flow, its fiber, two sockets and two facts about them
        self,
        pump: "Pump",
        fiber: EpollFiber,
        flow: Flow,
        client: Channel,
        target: Channel,
        *,
        limits_s: tuple[float, float],
        settle: Callable[[socket.socket], None],
    ) -> None:
        self.pump = pump
        self._fiber = fiber
        self._flow = flow
        self._client = client
        self._target = target
        self._limits_s = limits_s
        self._first_end: Termination | None = None
        self._settle: Callable[[socket.socket], None] | None = settle
        self._waited_for = False
        self.ending: Termination | None = None
        self.over = False
        self.moved = False
        self.quiet_since_s = time.monotonic()
        self.to_target = _Way(
            self,
            client,
            target,
            (Termination.CLIENT_CLOSED, Termination.CLIENT_RESET, Termination.TARGET_RESET),
        )
        self.to_client = _Way(
            self,
            target,
            client,
            (Termination.TARGET_CLOSED, Termination.TARGET_RESET, Termination.CLIENT_RESET),
        )
        self.to_target.back, self.to_client.back = self.to_client, self.to_target

    def begin(self, early_data: bytes, *, client_ended: bool) -> None:
        """Carry what is there already, and everything from now on."""
        self._client.handler = self.to_target.on_events
        self._target.handler = self.to_client.on_events
        self.to_target.begin(early_data, ended=client_ended)
        if not self.over:
            self.to_client.turn()

    def way_ended(self, way: _Way, sink: socket.socket) -> None:
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
        except Exception as error:  # noqa: BLE001 - as in `_Way.on_events`
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
        messages: what was read and sent on without a pipe, since the beginning.
    """

    def __init__(self, engine: EpollEngine, *, pipes_max: int, descriptors_max: Callable[[], int]) -> None:
        self.engine = engine
        self.messages = 0
        self.pipes = PipePool(pipes_max, descriptors_max)
        self._relays: dict[_Relay, None] = {}
        self._sweep_s = _SWEEP_S

    async def relay(  # noqa: PLR0913 - as `relay_streams`, and the fiber that waits
        self,
        fiber: Fiber,
        flow: Flow,
        permit: Permit,
        client: Channel,
        target: Channel,
        *,
        early_data: bytes,
        client_ended: bool,
        idle_s: float,
        half_closed_s: float,
        settle: Callable[[socket.socket], None],
    ) -> Termination:
        """Carry bytes both ways until both directions have ended; everything else as `relay_streams`.

        Args:
            fiber: that calls, and waits.
            flow: its meter is moved: at least once a second, and exact at the end.
            permit: what allows it; kept in the record.
            client: the client's socket.
            target: the target's socket.
            early_data: what the client sent behind its request and was read already.
            client_ended: the client's end of input was seen already.
            idle_s: without a byte in either direction for so long the relay ends.
            half_closed_s: the same once one direction has ended.
            settle: called with the target's socket once the relay has lasted a moment: short ones need not pay for it.

        **Cancellation**: stops at once; what was carried is counted, what is still held is lost, and no descriptor is
        kept. Both sockets must be reset.
        """
        assert isinstance(fiber, EpollFiber)  # noqa: S101 - of the engine that this was made with
        flow.verdict = permit
        self._sweep_s = min(self._sweep_s, idle_s / 10, half_closed_s / 10)
        relay = _Relay(self, fiber, flow, client, target, limits_s=(idle_s, half_closed_s), settle=settle)
        self._relays[relay] = None
        try:
            relay.begin(early_data, client_ended=client_ended)
            return await relay.until_over()
        finally:
            del self._relays[relay]
            relay.stop()

    async def run(self) -> None:
        """Look for idle relays, for ever."""
        try:
            while True:
                await trio.sleep(self._sweep_s)
                now_s = time.monotonic()
                for count, relay in enumerate(list(self._relays), start=1):
                    if not relay.over:
                        relay.looked_at(now_s)
                    if count % _SWEPT_AT_ONCE == 0:
                        await trio.lowlevel.checkpoint()
        finally:
            self.pipes.close()
