"""One direction of a TCP relay: from an edge of one socket to the other socket, through a buffer or a pipe.

    an edge -> recv into one buffer for all -> send            small messages
            -> splice into a pipe -> splice out of it          bulk: once a read fills the buffer, until reads get small

A way may be shaped: then its gate says how much may be read. And its first bytes may be looked at before they go on.
"""

import os
import socket
import time
from typing import TYPE_CHECKING, Final

from trioproxy.accounting import Termination
from trioproxy.engine import Channel
from trioproxy.relay.pacing import stop_pacing
from trioproxy.relay.pipes import PIPE_BYTES, Pipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioproxy.policy.buckets import Gate
    from trioproxy.relay.pump import PumpedRelay

__all__ = ["Way"]

_BUFFER_BYTES: Final = 65_536  # as the reference: larger reads gain nothing on loopback
_TURN_READS: Final = 4  # small reads of one direction in one turn
# What bulk moves at once while others exchange messages, who would wait for the rest of a full pipe: 0.3 ms each way.
_SHARED_BYTES: Final = 65_536
_CROWD_MESSAGES: Final = 4  # so many between two bites: others are talking; bulk has small pieces now and then, too
_ALONE_BITES: Final = 8  # so many in a row without a message between: then nobody waits for the rest
_MESSAGE_BYTES: Final = 2_048  # what is longer is more likely a piece of somebody's bulk than a message
_SMALL_BYTES: Final = 16_384  # below that a copy is cheaper than the two calls of splice
_SMALL_READS: Final = 4  # so many in a row end the bulk

# Used between a receive and a send only, so that all relays share it.
_buffer: Final = bytearray(_BUFFER_BYTES)
_view: Final = memoryview(_buffer)

_IN_OR_END: Final = 0x01 | 0x08 | 0x10  # EPOLLIN, EPOLLERR, EPOLLHUP
_OUT: Final = 0x04
_ERROR: Final = 0x08


class Way:
    """One direction of a relay.

    Attributes:
        back: the other direction, until the end.
        held: something is kept because the sink takes no more; nothing is read meanwhile.
    """

    back: "Way | None"

    __slots__ = (
        "_alone",
        "_at_end",
        "_channel",
        "_check",
        "_early",
        "_gate",
        "_kept",
        "_messages_seen",
        "_pending",
        "_pipe",
        "_piped",
        "_plain",
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
        self, relay: "PumpedRelay", source: Channel, sink: Channel, names: tuple[Termination, Termination, Termination]
    ) -> None:
        self._relay = relay
        self._channel = source
        self._source = source.sock
        self._sink = sink.sock
        self.source_closed, self.source_reset, self.sink_reset = names
        self._at_end = False  # nothing comes behind what is held
        self._plain = True  # neither a gate nor a check: what follows is of nobody's concern
        self._gate: Gate | None = None  # which says how much may be read now
        self._check: Callable[[bytes], bool | None] | None = None  # which looks at what is read
        self._early = b""  # read before the relay began, and has to pass the gate yet
        self._kept = b""  # read, and the check has not said yes yet
        self._pending = b""  # read, and not taken by the sink yet
        self._pipe: Pipe | None = None
        self._piped = 0  # the same, in the pipe
        self._small_reads = 0
        self._messages_seen = relay.pump.messages  # of all relays, when this one last moved bulk
        self._alone = _ALONE_BITES  # how often in a row there were few between
        self.bulk = False
        self.carried = 0  # bytes that the kernel has taken for the sink
        self.readable = True  # there may be something; what came before the relay began told its edge to somebody else
        self.ended = False
        self.held = False
        self.queued = False  # it had more to do than fits into a turn

    def begin(self, data: bytes, *, ended: bool) -> None:
        """What was read before the relay began goes first, and with it perhaps the end."""
        self._at_end = ended
        if self._gate is None:
            self._pending, self.held = data, bool(data)
        else:
            self._early = data
        self.turn()

    def shape(self, gate: "Gate | None") -> None:
        """From now on bytes wait for this gate, or for none."""
        self._leave_gate()
        self._gate = gate
        self._plain = gate is None and self._check is None and not self._early
        self.readable = True

    def look_at(self, check: "Callable[[bytes], bool | None] | None") -> None:
        """Let nothing pass before this has said yes."""
        self._check = check
        self._plain = check is None and self._gate is None and not self._early

    def on_events(self, events: int) -> None:
        """Something happened at the source, which is the sink of the other way."""
        try:
            self._on_events(events)
        except Exception as error:  # noqa: BLE001 - a fault of ours ends one session, and it tells of it
            self._relay.fail(error)

    def _on_events(self, events: int) -> None:
        if events & _IN_OR_END and not self.ended:
            self.readable = True
            waits = self._waits
            if not (self.held or self.bulk or self.queued or waits):
                self._copy()  # a message that fits: nearly all of them are done with this
                if self.readable:
                    self.turn()
            elif events & _ERROR and (self.held or waits) and self._source_failed():
                # Nobody reads it, so nobody would learn of its end; and what is held will never be complete.
                self._relay.finish(self.source_reset)
                return
            elif not (self.queued or waits):
                self.turn()
        elif events & _ERROR and self.ended and self._source_failed():
            self._relay.finish(self.source_reset)
            return
        back = self.back
        if back is not None and back.held and events & _OUT and not back.queued:
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
            if self._at_end and not self._early:
                self._end()
                return
            if not self.readable:
                return
            if self.bulk:
                self._splice()
                break  # a pipe full is a turn
            self._copy()
        self._ask_after_source()
        more = self.readable or (self._at_end and not self._early)
        if more and not (relay.over or self.ended or self.held):
            self.queued = True
            relay.pump.engine.call_soon(self.queued_turn)

    def _ask_after_source(self) -> None:
        """Nobody reads, because something is held or waits; the edge of a reset may have been told before that."""
        if (self.held or self._waits) and self._channel.hung and not self._relay.over and self._source_failed():
            self._relay.finish(self.source_reset)

    def _source_failed(self) -> bool:
        """Whether the source was reset, or is gone for another reason."""
        return self._source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def drop(self) -> None:
        """The relay is over: what is still held is for nobody."""
        self._leave_gate()
        self._pending = self._early = self._kept = b""
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

    @property
    def _waits(self) -> bool:
        return self._gate is not None and bool(self._gate.waits_at)

    def _leave_gate(self) -> None:
        if self._gate is not None:
            self._gate.leave()

    def _grant(self, wanted: int) -> int:
        """How many bytes may be read now; 0: none, and it will go on when it is its turn."""
        if self._gate is None:
            return wanted
        granted = self._gate.grant(time.monotonic(), wanted)
        if not granted:
            self._relay.pump.shaper.wait(self._gate, self._go_on)
            self._ask_after_source()
        return granted

    def _go_on(self) -> None:
        """It is its turn at the gate."""
        self.readable = True
        if not (self.queued or self._relay.over):
            self.queued_turn()

    def _receive(self) -> tuple[int, int]:
        """As `recv_into`, through the gate and past the check: how much was asked for, and how much has come.

        Nothing may be asked for if it waits for the gate.
        """
        while True:
            size = self._grant(_BUFFER_BYTES - len(self._kept))
            if not size:
                return 0, 0
            if self._early:
                return self._receive_early(size)
            try:
                count = self._source.recv_into(_buffer, size)
            except OSError:
                self._give_back(size)
                raise
            self._give_back(size - count)
            if self._check is None or (not count and not self._kept):
                return size, count
            self._kept += _view[:count]
            verdict = self._check(bytes(_view[:count])) if count else False  # the end of something unfinished
            if verdict:
                self.look_at(None)
                kept, self._kept = self._kept, b""
                _view[: len(kept)] = kept
                return len(kept) + (count < size), len(kept)
            if verdict is not None:
                self._relay.finish(Termination.WRONG_ANSWER)
                raise BlockingIOError

    def _receive_early(self, size: int) -> tuple[int, int]:
        """Take what was read, and looked at, before the relay began; the source itself may have more at once."""
        data, self._early = self._early[:size], self._early[size:]
        count = len(data)
        self._give_back(size - count)
        _view[:count] = data
        return count, count

    def _give_back(self, unused: int) -> None:
        if self._gate is not None and unused:
            self._gate.give_back(unused)

    def _copy(self) -> None:
        if not self._plain:
            self._copy_carefully()
            return
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
        # As `_forward`, whose call would be a fiftieth of what a message costs.
        try:
            sent = self._sink.send(_view[:count])
        except BlockingIOError:
            sent = 0
        except OSError:
            self._relay.finish(self.sink_reset)
            return
        self.carried += sent
        self._relay.moved = True
        self._relay.pump.messages += count < _MESSAGE_BYTES
        if sent < count:
            self._pending, self.held = bytes(_view[sent:count]), True
        if count == _BUFFER_BYTES:
            self._begin_bulk(count)
        elif not (self._channel.ended or self._channel.urgent):
            self.readable = False  # there is nothing more now, and the next edge will come

    def _copy_carefully(self) -> None:
        """As `_copy`, through the gate and past the check."""
        try:
            size, count = self._receive()
        except BlockingIOError:
            self.readable = False
            return
        except OSError:
            self._relay.finish(self.source_reset)
            return
        if not size:
            self.readable = False  # it waits for the gate
        elif not count:
            self._end()
        elif self._forward(count):
            if count == size:
                self._begin_bulk(size)
            elif not (self._channel.ended or self._channel.urgent):
                self.readable = False

    def _forward(self, count: int) -> bool:
        """Send what is in the buffer, and keep what the sink does not take; False: the sink has failed."""
        try:
            sent = self._sink.send(_view[:count])
        except BlockingIOError:
            sent = 0
        except OSError:
            self._relay.finish(self.sink_reset)
            return False
        self.carried += sent
        self._relay.moved = True
        self._relay.pump.messages += count < _MESSAGE_BYTES
        if sent < count:
            self._pending, self.held = bytes(_view[sent:count]), True
        return True

    def _begin_bulk(self, size: int) -> None:
        """A read took all that it might."""
        if size >= (_SMALL_BYTES if self._gate is None else _BUFFER_BYTES):  # or its next turn fits into the buffer
            self.bulk = True
            stop_pacing(self._sink)

    def _splice(self) -> None:
        pump = self._relay.pump
        self._alone = 0 if pump.messages - self._messages_seen >= _CROWD_MESSAGES else self._alone + 1
        self._messages_seen = pump.messages
        size = PIPE_BYTES if self._alone >= _ALONE_BITES else _SHARED_BYTES
        pipe = None if self._early else pump.pipes.take()
        if pipe is None:
            self._copy()
            return
        size = self._grant(size)
        if not size:
            pump.pipes.give_back(pipe, empty=True)
            self.readable = False
            return
        self._pipe = pipe
        try:
            count = os.splice(self._source.fileno(), pipe.write_end, size, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            count = 0
        except OSError:
            self._give_back(size)
            self._relay.finish(self.source_reset)
            return
        self._give_back(size - count)
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
