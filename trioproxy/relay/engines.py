"""Which engine and which relay this system can have."""

import select
from collections.abc import Callable
from typing import Protocol

import trio

from trioproxy.accounting import Flow, Termination
from trioproxy.engine import Channel, Engine, Fiber
from trioproxy.policy.shapes import Shape
from trioproxy.relay.resets import ResetWatch
from trioproxy.relay.settings import RelaySettings
from trioproxy.relay.shaping import RelayGates, Shaper
from trioproxy.relay.streams import relay_streams

__all__ = ["Relays", "StreamRelays", "make_engine"]

PIPES_MAX = 256  # each holds up to 1 MiB for a slow reader, and takes two descriptors


# To use a turn a task wakes up, sends the rest of its chunk, reads the next one, sends as much of that as it may, and
# asks for more: each a checkpoint, and some to spare.
PATIENCE = 8

HAS_EPOLL = hasattr(select, "epoll")


class Relays(Protocol):
    """Relays TCP for all sessions.

    Attributes:
        shaper: lets those go on that wait for a gate.
    """

    shaper: Shaper

    async def relay(
        self, fiber: Fiber, flow: Flow, client: Channel, target: Channel, settings: RelaySettings
    ) -> Termination:
        """Carry bytes both ways until both directions have ended; see `Pump.relay`."""
        ...

    def reshape(self, flow: Flow, shape: Shape | None) -> None:
        """The limits of a running relay have changed."""
        ...

    def read_meter(self, flow: Flow) -> None:
        """Let the flow of a running relay know what was carried by now."""
        ...

    async def run(self) -> None:
        """What all relays need, for ever."""
        ...


class StreamRelays:
    """Relays by `relay_streams`: two tasks each."""

    def __init__(self) -> None:
        self._resets = ResetWatch()
        self.shaper = Shaper(PATIENCE)
        self._gates: dict[Flow, RelayGates] = {}

    async def relay(
        self,
        fiber: Fiber,  # noqa: ARG002 - it waits by itself
        flow: Flow,
        client: Channel,
        target: Channel,
        settings: RelaySettings,
    ) -> Termination:
        """See `Relays`."""
        settings.settle(target.sock)
        self._gates[flow] = gates = RelayGates(self.shaper, settings.shape)
        try:
            return await relay_streams(
                flow, _stream(client), _stream(target), settings, resets=self._resets, gates=gates
            )
        finally:
            del self._gates[flow]
            gates.leave()

    def reshape(self, flow: Flow, shape: Shape | None) -> None:
        """See `Relays`."""
        if (gates := self._gates.get(flow)) is not None:
            gates.change(shape)

    def read_meter(self, flow: Flow) -> None:
        """It knows already."""

    async def run(self) -> None:
        """Watch over senders that are not read, and let shaped flows go on."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.shaper.run)
            nursery.start_soon(self._resets.run)


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
