"""Looking what a TCP flow is before its first bytes reach the target, where a rule asks for it.

The client's bytes wait here. The target's go on to the client meanwhile: where the server speaks first, a client says
nothing before it has heard it. As soon as it is known what the flow is the rules are asked, and the relay takes over.
"""

from collections.abc import Callable
from typing import Final

import attrs

from trioproxy.accounting import Flow, Termination
from trioproxy.client import Client, Ended
from trioproxy.engine import Channel, Engine, Fiber
from trioproxy.sniff import Finding, Sniffer

__all__ = ["FirstBytes", "look"]

SERVER_FIRST_S: Final = 1.0  # a client that knows what it wants answers the server's greeting within a round trip


class _TimeUpError(Exception):
    """Nobody has said more in time."""


@attrs.frozen
class FirstBytes:
    """What was seen.

    Attributes:
        finding: what the flow is.
        from_client: what the client said; goes to the target if the rules permit it.
        from_target: what the target said and the client has not taken yet.
        check: looks whether the target answers in kind; None: it need not.
    """

    finding: Finding
    from_client: bytes
    from_target: bytes
    check: Callable[[bytes], bool | None] | None


async def look(  # noqa: PLR0913, PLR0917 - who waits, between whom, whose meter, and two limits
    engine: Engine, fiber: Fiber, client: Client, target: Channel, flow: Flow, limits_s: tuple[float, float]
) -> FirstBytes:
    """Find out what the flow is.

    Args:
        engine: tells the time.
        fiber: that calls, and waits.
        client: which has its success reply.
        target: connected.
        flow: its meter is moved by what goes on to the client.
        limits_s: how long both may be silent, and how long the client may take from its first byte on.

    Raises:
        Ended: a side has reset its connection.
    """
    return await _Looking(engine, fiber, client, target, flow, limits_s).run()


@attrs.define(eq=False)
class _Looking:
    engine: Engine
    fiber: Fiber
    client: Client
    target: Channel
    flow: Flow
    limits_s: tuple[float, float]
    sniffer: Sniffer = attrs.field(factory=Sniffer)
    from_client: bytearray = attrs.field(factory=bytearray)
    from_target: bytes = b""
    limit_s: float | None = None
    target_room: int = Sniffer.LIMIT

    async def run(self) -> FirstBytes:
        self._said(self.client.take_early_data())
        if self.client.has_ended:
            self.sniffer.time_out()
        try:
            while True:
                while self._read_target() | self._read_client():
                    continue
                finding = self.sniffer.finding
                if finding is not None:
                    break
                self._begin_limit()
                try:
                    await self.fiber.readable_any(self.client.channel, self.target)
                except _TimeUpError:
                    self.sniffer.time_out()
        finally:
            self._end_limit()
        check = None if self.sniffer.confirmed else self._check
        return FirstBytes(finding, bytes(self.from_client), self.from_target, check)

    def _check(self, data: bytes) -> bool | None:
        self.sniffer.receive_server(data)
        return self.sniffer.confirmed

    def _said(self, data: bytes) -> None:
        self.from_client += data
        self.sniffer.receive_client(data)

    def _read_client(self) -> bool:
        """Take what the client says; whether there was something."""
        room = Sniffer.LIMIT - len(self.from_client)
        if self.sniffer.finding is not None or room <= 0:
            return False
        try:
            data = self.client.channel.sock.recv(room)
        except BlockingIOError:
            return False
        except OSError as exc:
            raise Ended(Termination.CLIENT_RESET) from exc
        if not data:
            self.sniffer.time_out()  # it says no more; the relay will see its end again
            return False
        self._said(data)
        return True

    def _read_target(self) -> bool:
        """Pass on what the target says; whether there was something."""
        if self.sniffer.finding is not None or self.from_target:
            return False
        try:
            data = self.target.sock.recv(Sniffer.LIMIT)
        except BlockingIOError:
            return False
        except OSError as exc:
            raise Ended(Termination.TARGET_RESET) from exc
        if not data:
            self.sniffer.time_out()
            return False
        self.sniffer.receive_server(data)
        self._pass_on(data)
        self.target_room -= len(data)
        if self.target_room <= 0:  # it will not stop, and nobody looks at more
            self.sniffer.time_out()
        self._begin_limit(SERVER_FIRST_S)
        return True

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
