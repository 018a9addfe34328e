"""TCP: two streams joined by two tasks. The portable reference; a faster engine must pass the same tests.

Half-close is kept, a reset is carried on (whoever calls must reset both sockets when the Termination is no orderly
one), and never more than one chunk for each direction is held here, so a slow reader slows its writer down.
"""

from collections.abc import Callable
from functools import partial

import attrs
import trio
from trio.abc import HalfCloseableStream

from trioproxy.accounting import Flow, Termination
from trioproxy.policy import Permit
from trioproxy.relay.resets import ResetWatch

__all__ = ["ORDERLY", "relay_streams"]

CHUNK_BYTES = 65_536  # measured: larger reads gain nothing on loopback, and one is held for each direction
DEADLINE_GRAIN_S = 1.0  # moving a deadline costs Trio a heap operation, so an idle time is exact to one second only

CLIENT_RESET, TARGET_RESET = Termination.CLIENT_RESET, Termination.TARGET_RESET
ORDERLY = frozenset({Termination.CLIENT_CLOSED, Termination.TARGET_CLOSED})


async def relay_streams(  # noqa: PLR0913 - two streams, their permit, and four facts about them
    flow: Flow,
    permit: Permit,
    client: HalfCloseableStream,
    target: HalfCloseableStream,
    *,
    early_data: bytes,
    client_ended: bool,
    idle_s: float,
    half_closed_s: float,
    resets: ResetWatch,
) -> Termination:
    """Carry bytes both ways until both directions have ended.

    Args:
        flow: its meter is moved.
        permit: what allows it; kept in the record.
        client: the SOCKS client, after the reply was sent.
        target: the connected target.
        early_data: what the client sent behind its request; goes to the target first.
        client_ended: the client's end of input was seen already.
        idle_s: without a byte in either direction for so long the relay ends.
        half_closed_s: the same once one direction has ended.
        resets: notices the reset of a side that is not read because the other one is slow.

    Returns:
        `CLIENT_CLOSED` or `TARGET_CLOSED` (who ended first) after an orderly end; otherwise both streams must be reset.

    **Cancellation**: stops at once. What was handed to a socket is counted; of another kind of stream nobody knows how
    much of the last chunk it has taken. The streams must be reset.
    """
    flow.verdict = permit
    relay = _Relay(flow, idle_s, half_closed_s, resets)
    with trio.CancelScope() as scope:
        relay.watch(scope)
        async with trio.open_nursery() as nursery:
            to_target = _Direction(client, target, Termination.CLIENT_CLOSED, CLIENT_RESET, TARGET_RESET)
            to_client = _Direction(target, client, Termination.TARGET_CLOSED, TARGET_RESET, CLIENT_RESET)
            nursery.start_soon(
                partial(relay.carry, to_target, relay.sent_to_target, first=early_data, ended=client_ended)
            )
            nursery.start_soon(relay.carry, to_client, relay.sent_to_client)
    if relay.reset is not None:
        return relay.reset
    if scope.cancelled_caught or relay.first_end is None:
        return Termination.IDLE
    return relay.first_end


@attrs.frozen
class _Direction:
    source: HalfCloseableStream
    sink: HalfCloseableStream
    source_closed: Termination
    source_reset: Termination
    sink_reset: Termination


@attrs.define(eq=False)
class _Relay:
    """What the two directions share."""

    flow: Flow
    idle_s: float
    half_closed_s: float
    resets: ResetWatch
    first_end: Termination | None = None
    reset: Termination | None = None
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _touched_s: float = 0.0

    def watch(self, scope: trio.CancelScope) -> None:
        """Let `scope` end when nothing moves."""
        self._scope = scope
        self._move_deadline(trio.current_time())

    def sent_to_target(self, count: int) -> None:
        self.flow.bytes_to_target += count
        self._touch()

    def sent_to_client(self, count: int) -> None:
        self.flow.bytes_to_client += count
        self._touch()

    def _touch(self) -> None:
        now_s = trio.current_time()
        if now_s - self._touched_s >= min(DEADLINE_GRAIN_S, self.half_closed_s / 10, self.idle_s / 10):
            self._move_deadline(now_s)

    def _move_deadline(self, now_s: float) -> None:
        self._touched_s = now_s
        self._scope.deadline = now_s + (self.half_closed_s if self.first_end else self.idle_s)

    async def carry(
        self, way: _Direction, sent: Callable[[int], None], *, first: bytes = b"", ended: bool = False
    ) -> None:
        """One direction, from its first byte to its end."""
        try:
            if first:
                await self._send(way, first, sent)
            while not ended:
                try:
                    chunk = await way.source.receive_some(CHUNK_BYTES)
                except trio.BrokenResourceError:
                    self._reset(way.source_reset)
                    return
                ended = not chunk
                if chunk:
                    await self._send(way, chunk, sent)
            await way.sink.send_eof()
        except trio.BrokenResourceError:
            self._reset(way.sink_reset)
            return
        self.first_end = self.first_end or way.source_closed
        self._move_deadline(trio.current_time())

    async def _send(self, way: _Direction, chunk: bytes | bytearray, sent: Callable[[int], None]) -> None:
        with self.resets.while_not_read(way.source, partial(self._reset, way.source_reset)):
            if isinstance(way.sink, trio.SocketStream):
                await _send_counted(way.sink, chunk, sent)
            else:
                await way.sink.send_all(chunk)
                sent(len(chunk))

    def _reset(self, termination: Termination) -> None:
        self.reset = self.reset or termination
        self._scope.cancel()


async def _send_counted(sink: trio.SocketStream, chunk: bytes | bytearray, sent: Callable[[int], None]) -> None:
    """As `send_all`, but what has gone is counted even if the rest never goes."""
    with memoryview(chunk) as view:
        done = 0
        while done < len(view):
            try:
                count = await sink.socket.send(view[done:])
            except OSError as exc:
                raise trio.BrokenResourceError from exc
            done += count
            sent(count)
