"""Which engine and which relay this system can have."""

import select
import socket
from collections.abc import Callable
from typing import Protocol

import trio

from trioproxy.accounting import Flow, Termination
from trioproxy.engine import Channel, Engine, Fiber
from trioproxy.policy import Permit
from trioproxy.relay.resets import ResetWatch
from trioproxy.relay.streams import relay_streams

__all__ = ["Relays", "StreamRelays", "make_engine"]

PIPES_MAX = 256  # each holds up to 1 MiB for a slow reader, and takes two descriptors


HAS_EPOLL = hasattr(select, "epoll")


class Relays(Protocol):
    """Relays TCP for all sessions."""

    async def relay(  # noqa: PLR0913 - who waits, for what, between whom, and five facts
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
        """Carry bytes both ways until both directions have ended; see `Pump.relay`."""
        ...

    async def run(self) -> None:
        """What all relays need, for ever."""
        ...


class StreamRelays:
    """Relays by `relay_streams`: two tasks each."""

    def __init__(self) -> None:
        self._resets = ResetWatch()

    async def relay(  # noqa: PLR0913 - as in `Relays`
        self,
        fiber: Fiber,  # noqa: ARG002 - it waits by itself
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
        """See `Relays`."""
        settle(target.sock)
        return await relay_streams(
            flow,
            permit,
            _stream(client),
            _stream(target),
            early_data=early_data,
            client_ended=client_ended,
            idle_s=idle_s,
            half_closed_s=half_closed_s,
            resets=self._resets,
        )

    async def run(self) -> None:
        """Watch over senders that are not read."""
        await self._resets.run()


def _stream(channel: Channel) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(channel.sock))


def make_engine(descriptors_max: Callable[[], int]) -> tuple[Engine, Relays]:
    """What runs sessions here, and what relays for them.

    Args:
        descriptors_max: the highest descriptor that may be used now.
    """
    if not HAS_EPOLL:
        return Engine(), StreamRelays()
    # Not imported above: these modules do not exist elsewhere.
    from trioproxy.engine.epoll import EpollEngine  # noqa: PLC0415
    from trioproxy.relay.pump import Pump  # noqa: PLC0415

    engine = EpollEngine()
    return engine, Pump(engine, pipes_max=PIPES_MAX, descriptors_max=descriptors_max)
