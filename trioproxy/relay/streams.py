"""TCP: two streams joined by two tasks. The portable reference; a faster engine must pass the same tests.

Half-close is kept, a reset is carried on (whoever calls must reset both sockets when the Termination is no orderly
one), and never more than one chunk for each direction is held here, so a slow reader slows its writer down.
"""

from collections.abc import Callable
from functools import partial
from operator import attrgetter

import attrs
import trio
from trio.abc import HalfCloseableStream

from trioproxy.accounting import Flow, Termination
from trioproxy.policy.buckets import Gate
from trioproxy.relay.resets import ResetWatch
from trioproxy.relay.settings import RelaySettings
from trioproxy.relay.shaping import RelayGates

__all__ = ["ORDERLY", "relay_streams"]

CHUNK_BYTES = 65_536  # measured: larger reads gain nothing on loopback, and one is held for each direction
DEADLINE_GRAIN_S = 1.0  # moving a deadline costs Trio a heap operation, so an idle time is exact to one second only

CLIENT_RESET, TARGET_RESET = Termination.CLIENT_RESET, Termination.TARGET_RESET
ORDERLY = frozenset({Termination.CLIENT_CLOSED, Termination.TARGET_CLOSED})


async def relay_streams(  # noqa: PLR0913 - two streams, and what is told and lent to them
    flow: Flow,
    client: HalfCloseableStream,
    target: HalfCloseableStream,
    settings: RelaySettings,
    *,
    resets: ResetWatch,
    gates: RelayGates,
) -> Termination:
    """Carry bytes both ways until both directions have ended.

    Args:
        flow: its meter is moved.
        client: the SOCKS client, after the reply was sent.
        target: the connected target.
        settings: see there; the sockets are settled already, and `gates` are what counts of its shape.
        resets: notices the reset of a side that is not read because the other one is slow.
        gates: what bytes have to wait for.

    Returns:
        `CLIENT_CLOSED` or `TARGET_CLOSED` (who ended first) after an orderly end; otherwise both streams must be reset.

    **Cancellation**: stops at once. What was handed to a socket is counted; of another kind of stream nobody knows how
    much of the last chunk it has taken. The streams must be reset.
    """
    flow.verdict = settings.permit
    relay = _Relay(flow, settings, resets, gates)
    with trio.CancelScope() as scope:
        relay.watch(scope)
        async with trio.open_nursery() as nursery:
            to_target = _Direction(
                *(client, target, Termination.CLIENT_CLOSED, CLIENT_RESET, TARGET_RESET),
                relay.sent_to_target,
                attrgetter("to_target"),
                settings.early_data,
            )
            to_client = _Direction(
                *(target, client, Termination.TARGET_CLOSED, TARGET_RESET, CLIENT_RESET),
                relay.sent_to_client,
                attrgetter("to_client"),
                settings.early_answer,
                settings.check,
            )
            nursery.start_soon(partial(relay.carry, to_target, ended=settings.client_ended))
            nursery.start_soon(relay.carry, to_client)
    if relay.broken is not None:
        return relay.broken
    if scope.cancelled_caught or relay.first_end is None:
        return Termination.IDLE
    return relay.first_end


@attrs.define(eq=False)
class _Direction:
    """From one stream to the other.

    Attributes:
        sent: told how much has gone.
        gate_of: which gate it has to pass.
        early: read already, and not through the gate yet.
        check: what looks at its first bytes.
    """

    source: HalfCloseableStream
    sink: HalfCloseableStream
    source_closed: Termination
    source_reset: Termination
    sink_reset: Termination
    sent: Callable[[int], None]
    gate_of: Callable[[RelayGates], Gate | None]
    early: bytes
    check: Callable[[bytes], bool | None] | None = None

    async def receive(self) -> bytes | bytearray:
        """The next chunk; empty at the end."""
        if self.early:
            early, self.early = self.early, b""
            return early
        return await self.source.receive_some(CHUNK_BYTES)

    async def receive_checked(self) -> bytes | bytearray | None:
        """The next chunk once the check has said yes; None: it said no."""
        if self.check is None or self.early:  # that was looked at when it was read
            return await self.receive()
        kept = b""
        while chunk := await self.receive():
            kept += chunk
            verdict = self.check(bytes(chunk))
            if verdict is not None:
                self.check = None
                return kept if verdict else None
        return None if kept else b""  # the end of something unfinished, or of nothing


@attrs.define(eq=False)
class _Relay:
    """What the two directions share."""

    flow: Flow
    settings: RelaySettings
    resets: ResetWatch
    gates: RelayGates
    first_end: Termination | None = None
    broken: Termination | None = None
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
        settings = self.settings
        if now_s - self._touched_s >= min(DEADLINE_GRAIN_S, settings.half_closed_s / 10, settings.idle_s / 10):
            self._move_deadline(now_s)

    def _move_deadline(self, now_s: float) -> None:
        self._touched_s = now_s
        settings = self.settings
        self._scope.deadline = now_s + (settings.half_closed_s if self.first_end else settings.idle_s)

    async def carry(self, way: _Direction, *, ended: bool = False) -> None:
        """One direction, from its first byte to its end."""
        not_read = partial(self.resets.while_not_read, way.source, partial(self._break, way.source_reset))
        try:
            while way.early or not ended:
                try:
                    chunk = await way.receive_checked()
                except trio.BrokenResourceError:
                    self._break(way.source_reset)
                    return
                if chunk is None:
                    self._break(Termination.WRONG_ANSWER)
                    return
                ended = ended or not chunk
                if chunk:
                    with not_read():
                        await self._send_granted(way, chunk)
            await way.sink.send_eof()
        except trio.BrokenResourceError:
            self._break(way.sink_reset)
            return
        self.first_end = self.first_end or way.source_closed
        self._move_deadline(trio.current_time())

    async def _send_granted(self, way: _Direction, chunk: bytes | bytearray) -> None:
        """Send as the gate allows. It was read before: a grant must not be held while a source is silent."""
        done = 0
        while done < len(chunk):
            size = await self.gates.grant(way.gate_of, len(chunk) - done)
            await self._send(way, chunk if size == len(chunk) else chunk[done : done + size])
            done += size

    async def _send(self, way: _Direction, chunk: bytes | bytearray) -> None:
        if isinstance(way.sink, trio.SocketStream):
            await _send_counted(way.sink, chunk, way.sent)
        else:
            await way.sink.send_all(chunk)
            way.sent(len(chunk))

    def _break(self, termination: Termination) -> None:
        self.broken = self.broken or termination
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
