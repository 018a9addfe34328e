"""Looking what a TCP flow is before its first bytes reach the target, where a rule asks for it.

The client's bytes wait here. The target's go on to the client meanwhile if rules may permit a protocol in which the
server speaks first, as a client says nothing then before it has heard it; and only as fast as its limits let them. As
soon as it is known what the flow is the rules are asked, and the relay takes over.
"""

import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import attrs

from trioproxy.accounting import Flow, Termination
from trioproxy.client import Client, Ended
from trioproxy.engine import Channel, Engine, Fiber
from trioproxy.policy.buckets import Gate
from trioproxy.relay.shaping import Shaper
from trioproxy.sniff import Finding, Sniffer

__all__ = ["FirstBytes", "Listening", "look"]

SERVER_FIRST_S: Final = 1.0  # a client that knows what it wants answers the server's greeting within a round trip


class _TimeUpError(Exception):
    """Nobody has said more in time."""


class _TurnError(Exception):
    """It is the turn of what the target says."""


@attrs.frozen
class FirstBytes:
    """What was seen.

    Attributes:
        finding: what the flow is.
        from_client: what the client said; goes to the target if the rules permit it.
        from_target: what the target said and the client has not taken yet.
        in_kind: whether the target has answered in kind, as far as it has spoken; None: that cannot be told as yet.
        check: looks at what it says next, and answers the same.
        refused: whether by now the target has said that it will say no more.
        left: who has closed the connection before anybody said anything; None: somebody spoke.
    """

    finding: Finding
    from_client: bytes
    from_target: bytes
    in_kind: bool | None
    check: Callable[[bytes], bool | None]
    refused: Callable[[], bool]
    left: Termination | None


@attrs.frozen
class Listening:
    """What of the target's first bytes may go on to the client.

    Attributes:
        server_may_begin: whether they may at all, before anybody knows what the flow is.
        gate: which they wait for; None: none.
        shaper: tells when it is their turn.
    """

    server_may_begin: bool
    gate: Gate | None
    shaper: Shaper


async def look(  # noqa: PLR0913, PLR0917 - who waits, between whom, whose meter, and two limits
    engine: Engine,
    fiber: Fiber,
    client: Client,
    target: Channel,
    flow: Flow,
    listening: Listening,
    limits_s: tuple[float, float],
) -> FirstBytes:
    """Find out what the flow is.

    Args:
        engine: tells the time.
        fiber: that calls, and waits.
        client: which has its success reply.
        target: connected.
        flow: its meter is moved by what goes on to the client.
        listening: what that may be.
        limits_s: how long both may be silent, and how long the client may take from its first byte on.

    Raises:
        Ended: a side has reset its connection, or nobody has said anything for too long.
    """
    return await _Looking(engine, fiber, client, target, flow, listening, limits_s).run()


@attrs.define(eq=False)
class _Looking:
    engine: Engine
    fiber: Fiber
    client: Client
    target: Channel
    flow: Flow
    listening: Listening
    limits_s: tuple[float, float]
    sniffer: Sniffer = attrs.field(factory=Sniffer)
    from_client: bytearray = attrs.field(factory=bytearray)
    from_target: bytes = b""
    limit_s: float | None = None
    target_room: int = Sniffer.LIMIT
    client_ended: bool = False
    target_waits: bool = False  # it has said something that may not go on yet
    left: Termination | None = None

    async def run(self) -> FirstBytes:
        try:
            self._said(self.client.take_early_data())
            if self.client.has_ended:
                self._end_client()
            finding = await self._find()
        finally:
            self._end_limit()
            if self.listening.gate is not None:
                self.listening.gate.leave()
        sniffer = self.sniffer
        spoke_out_of_turn = self.target_waits and not self.listening.server_may_begin
        return FirstBytes(
            finding,
            bytes(self.from_client),
            self.from_target,
            False if spoke_out_of_turn else sniffer.confirmed,
            partial(_check, sniffer),  # of all this, the relay keeps the sniffer alone
            lambda: sniffer.refused,
            self.left,
        )

    async def _find(self) -> Finding:
        while True:
            while self._read_client() | self._read_target():
                continue
            if self.sniffer.finding is not None:
                return self.sniffer.finding
            self._begin_limit()
            try:
                await self.fiber.readable_any(*self._unread())
            except _TimeUpError:
                self._give_up()
            except _TurnError:
                self.target_waits = False

    def _unread(self) -> Iterator[Channel]:
        """Who may say more: the end of an input can be read for ever, and so can what waits for its turn."""
        if not self.client_ended:
            yield self.client.channel
        if not self.target_waits:
            yield self.target

    def _give_up(self) -> None:
        if self._nobody_spoke and self.left is None:
            raise Ended(Termination.IDLE)
        self.sniffer.time_out()

    @property
    def _nobody_spoke(self) -> bool:
        return not self.from_client and self.target_room == Sniffer.LIMIT and not self.target_waits

    def _said(self, data: bytes) -> None:
        self.from_client += data
        self.sniffer.receive_client(data)
        if len(self.from_client) >= Sniffer.LIMIT:
            self.sniffer.time_out()

    def _end_client(self) -> None:
        """The client says no more, and the relay will see that again; the server may say yet what it is."""
        self.client_ended = True
        self._leave(Termination.CLIENT_CLOSED)
        self.sniffer.end_client()
        self._begin_limit(SERVER_FIRST_S)

    def _leave(self, who: Termination) -> None:
        if self._nobody_spoke and self.left is None:
            self.left = who

    def _read_client(self) -> bool:
        """Take what the client says; whether there was something."""
        if self.sniffer.finding is not None or self.client_ended:
            return False
        try:
            data = self.client.channel.sock.recv(Sniffer.LIMIT - len(self.from_client))
        except BlockingIOError:
            return False
        except OSError as exc:
            raise Ended(Termination.CLIENT_RESET) from exc
        if not data:
            self._end_client()
            return False
        self._said(data)
        return True

    def _read_target(self) -> bool:
        """Pass on what the target says; whether there was something."""
        if self.sniffer.finding is not None or self.target_waits:
            return False
        try:
            data = self._receive_target()
        except BlockingIOError:
            return False
        except OSError as exc:
            raise Ended(Termination.TARGET_RESET) from exc
        if not data:
            self._leave(Termination.TARGET_CLOSED)
            self.sniffer.time_out()
            return False
        self.left = None
        self.sniffer.receive_server(data)
        self._pass_on(data)
        self.target_room -= len(data)
        if self.from_target or not self.target_room:  # nobody listens; or it will not stop, and nobody looks at more
            self.sniffer.time_out()
        self._begin_limit(SERVER_FIRST_S)
        return True

    def _receive_target(self) -> bytes:
        """What may go on of what it has said.

        Raises:
            BlockingIOError: nothing.
        """
        gate, room = self.listening.gate, self.target_room
        if not self.listening.server_may_begin:
            seen = self.target.sock.recv(self.target_room, socket.MSG_PEEK)  # it stays there, and tells what it is
            self.sniffer.receive_server(seen)
            self.target_waits = bool(seen)
            self._begin_limit(SERVER_FIRST_S)
        elif gate is not None:
            room = gate.grant(time.monotonic(), self.target_room)
            if not room:
                self.target_waits = True
                self.listening.shaper.wait(gate, self._turn)
        if self.target_waits:
            raise BlockingIOError
        count = 0
        try:
            data = self.target.sock.recv(room)
            count = len(data)
        finally:
            if gate is not None and self.listening.server_may_begin:
                gate.give_back(room - count)
        return data

    def _pass_on(self, data: bytes) -> None:
        try:
            sent = self.client.channel.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            raise Ended(Termination.CLIENT_RESET) from exc
        self.flow.bytes_to_client += sent
        self.from_target = data[sent:]

    def _begin_limit(self, limit_s: float | None = None) -> None:
        """Let the shortest limit hold that has come into question; it is not begun again by every byte."""
        silent_s, handshake_s = self.limits_s
        wanted_s = limit_s or (handshake_s if self.from_client else silent_s)
        if self.limit_s is None or wanted_s < self.limit_s:
            self._end_limit()
            self.limit_s = wanted_s
            self.engine.timers.begin(wanted_s, self, self._time_is_up)

    def _end_limit(self) -> None:
        if self.limit_s is not None:
            self.engine.timers.end(self.limit_s, self)
            self.limit_s = None

    def _time_is_up(self) -> None:
        self.fiber.interrupt(_TimeUpError())

    def _turn(self) -> None:
        self.fiber.interrupt(_TurnError())


def _check(sniffer: Sniffer, data: bytes) -> bool | None:
    sniffer.receive_server(data)
    return sniffer.confirmed
