"""UDP: one pair of sockets for each association. A bad datagram is dropped and counted; it never ends anything.

Datagrams only from the client's address (and one port of it), answers only from destinations that the client has sent
to, policy asked for each destination, names resolved once and pinned.
"""

import errno
import math
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Literal, TypeAlias

import attrs
import trio

from trioproxy.accounting import Flow, Termination
from trioproxy.engine import Channel, Engine
from trioproxy.limits import Pace
from trioproxy.policy import CanonicalError, IPAddress, canonical_host
from trioproxy.policy.shapes import DatagramShape
from trioproxy.protocol import (
    Address,
    Datagram,
    DatagramError,
    decode_datagram_untrusted,
    encode_header,
    header_untrusted,
)
from trioproxy.relay.datagrams import DatagramSocket, Run, SocketAddress, datagram_socket, socket_address
from trioproxy.relay.destinations import CLOSED_AT_ONCE, Destination, DestinationRights, Destinations

__all__ = ["Association", "AssociationSettings"]

BATCH_COST = 256  # what is handled in one turn before others get theirs: a datagram costs 1, up to 4 us ...
NEW_COST = 64  # ... and one to a new destination so much more
NEW_AT_ONCE = 2_000.0  # new destinations; each leaves a record. A DHT node that starts asks some hundreds ...
NEW_PER_S = 100.0  # ... and so many in a second from then on; whoever scans for peers wants more
WAITING_NAMES_MAX = 16  # names one association looks up at the same time
WAITING_DATAGRAMS_MAX = 8  # kept for each of them; a client repeats what matters


@attrs.frozen
class AssociationSettings:
    """What the configuration says about associations.

    Attributes:
        port_lock: "strict": the request or the first valid datagram fixes the client's port; "ip": any of its ports.
        idle_s: without a datagram for so long the association ends, and a silent destination may no longer answer.
        destinations_max: the one unused for longest makes room for a new one.
    """

    port_lock: Literal["strict", "ip"]
    idle_s: float
    destinations_max: int


_Posted: TypeAlias = list[tuple[Destination, Run]]
_Way: TypeAlias = tuple[DatagramSocket, Callable[[SocketAddress, list[bytes]], None]]


class Association:
    """Relays the datagrams of one client while its TCP connection lives.

    Args:
        engine: which serves the two sockets.
        client_side: bound where the client sends to; owned from now on.
        target_side: see `trioproxy.relay.open_target_side`; owned from now on.
        client_host: the client's address as the kernel writes it.
        client_port: the port it said it will send from, or 0.
        settings: see there.
        rights: what its destinations need of the session.
        resolve: canonical name, port -> addresses; raises one of `resolve_errors`.
        resolve_errors: what `resolve` raises.
        dropped: called with the reason for each datagram that is not relayed.
        wrap: how datagrams go through a socket.
    """

    def __init__(  # noqa: PLR0913 - two sockets, the client, and the ways in which it needs the rest of the server
        self,
        *,
        engine: Engine,
        client_side: Channel,
        target_side: Channel,
        client_host: str,
        client_port: int,
        settings: AssociationSettings,
        rights: DestinationRights,
        resolve: Callable[[str, int], Awaitable[tuple[IPAddress, ...]]],
        resolve_errors: tuple[type[Exception], ...],
        dropped: Callable[[str], None],
        wrap: Callable[[socket.socket], DatagramSocket] = datagram_socket,
    ) -> None:
        self._engine = engine
        self._channels = (client_side, target_side)
        self._client_side = wrap(client_side.sock)
        self._target_side = wrap(target_side.sock)
        self._client: SocketAddress = (client_host, client_port)
        self._locked = client_port != 0 and settings.port_lock == "strict"
        self._settings = settings
        self._resolve = resolve
        self._resolve_errors = resolve_errors
        self._drop = dropped
        self._destinations = Destinations(rights, settings.destinations_max, self._judge_later)
        self._destinations.client_port = client_port
        self._pinned: OrderedDict[str, tuple[IPAddress, ...]] = OrderedDict()
        self._waiting: dict[Address, list[bytes]] = {}
        self._to_targets: _Posted = []  # both are empty between two turns
        self._to_client: _Posted = []
        self._nursery: trio.Nursery | None = None
        self._now_s = 0.0  # when the last datagrams came
        self._relayed_s = 0.0  # when the last of those came that went on
        self._budget = 0
        self._left: list[tuple[SocketAddress, list[bytes]]] = []  # of the client's, for the next turn
        self._new = Pace(NEW_AT_ONCE, NEW_PER_S)
        self._due_s: set[int] = set()  # when destinations are judged again by themselves

    async def relay(self) -> Termination:
        """Relay until nothing has moved for `idle_s`.

        **Cancellation**: datagrams not handled yet are lost, as datagrams may be.
        """
        idle_s, self._relayed_s = self._settings.idle_s, trio.current_time()
        async with trio.open_nursery() as self._nursery:
            outwards, back = (self._client_side, self._from_client), (self._target_side, self._from_target)
            for channel, ways in zip(self._channels, ((outwards, back), (back, outwards)), strict=True):
                self._nursery.start_soon(self._engine.until_problem, channel, partial(self._turn, ways))
            # To move a deadline with each batch would cost more than to look again when it has come.
            while (left_s := self._relayed_s + idle_s - trio.current_time()) > 0:  # noqa: ASYNC110 - for time itself
                await trio.sleep(left_s)
            self._nursery.cancel_scope.cancel()
        return Termination.IDLE

    def flows(self) -> list[Flow]:
        """Those of the destinations that are known now."""
        return [destination.flow for destination in self._destinations]

    def judge_again(self) -> Iterator[None]:
        """The rules have changed; see `Destinations.judge_again`."""
        return self._destinations.judge_again()

    async def close(self, termination: Termination) -> None:
        """Close both sockets and end every flow, some at a time."""
        for channel in self._channels:
            self._engine.forget(channel)
            channel.sock.close()
        await self._destinations.close(termination)

    def _turn(self, ways: tuple[_Way, ...]) -> bool:
        """Relay what has come, a bounded amount of it; returns whether there is more to do.

        Both ways each time: an answer is often there already, and to look costs less than to be woken for it. Its own
        comes first, so that neither way can use up the turns of the other.
        """
        self._now_s, self._budget = trio.current_time(), BATCH_COST
        left, self._left = self._left, []
        for sender, packets in left:
            self._from_client(sender, packets)
        self._send_all()
        more = False
        for side, handle in ways:
            if side is self._target_side or not self._left:  # what the client sends keeps its order
                more |= self._take(side, handle)
        return more or bool(self._left)

    def _take(self, side: DatagramSocket, handle: Callable[[SocketAddress, list[bytes]], None]) -> bool:
        """Relay what has come to one side; returns whether there may be more."""
        while self._budget > 0:
            try:
                groups = side.receive()
            except OSError:  # an ICMP error for something sent earlier; the socket is fine
                self._budget -= 1
                self._drop("receive_failed")
                continue
            count = 0
            for sender, packets in groups:
                count += len(packets)
                handle(sender, packets)
            self._send_all()
            self._budget -= count
            if count < side.batch_max:
                return False
        return True

    # ---- from the client to its targets

    def _from_client(self, sender: SocketAddress, packets: list[bytes]) -> None:
        """Handle what the client sent; when the budget is used up the rest is left for the next turn."""
        if sender[0] != self._client[0] or (self._locked and sender != self._client):
            self._drop_all("stranger", packets)
            return
        header, run = b"", None
        for index, packet in enumerate(packets):
            if run is not None and packet.startswith(header):  # so it is the same header, which says where it ends
                run.append(packet[len(header) :])
                continue
            if self._budget <= 0:
                self._left.append((sender, packets[index:]))
                return
            header = header_untrusted(packet)
            destination = self._destinations.get(header)
            if destination is None:
                run = None
                self._not_known(packet, sender)
            else:
                self._heard_from(sender)
                run = self._run_to(destination, packet[len(header) :])

    def _run_to(self, destination: Destination, data: bytes) -> list[bytes] | None:
        """Begin a run of datagrams to one destination; None if it is not permitted any more."""
        if not self._still_permitted(destination):
            self._drop("denied")
            return None
        self._destinations.used(destination)
        # By the clock of all other flows: that of Trio is another one.
        if destination.shape is not None and not destination.shape.to_target.take_whole(time.monotonic(), len(data)):
            self._drop("rate_limit")
            return None
        payloads = [data]
        self._to_targets.append((destination, Run(destination.sockaddr, b"", payloads)))
        return payloads if destination.shape is None else None  # each one has to pass by itself

    def _not_known(self, packet: bytes, sender: SocketAddress) -> None:
        try:
            datagram = decode_datagram_untrusted(packet)
        except DatagramError as exc:
            self._drop(exc.reason.value)
            return
        self._heard_from(sender)
        self._send_all()  # room may have to be made for it
        self._first_to(datagram)

    def _heard_from(self, sender: SocketAddress) -> None:
        """A datagram of the client's was in order."""
        if sender != self._client:
            self._send_all()
            self._client = sender
            self._destinations.client_moved(sender[1])
        self._locked = self._settings.port_lock == "strict"

    def _first_to(self, datagram: Datagram) -> None:
        asked = datagram.address
        try:
            host = canonical_host(asked.host)
        except CanonicalError:
            self._drop("malformed_destination")
            return
        if not isinstance(host, str):
            self._open(asked, None, (host,), [datagram.data])
        elif host in self._pinned:
            self._open(asked, host, self._pinned[host], [datagram.data])
        elif asked in self._waiting:
            self._keep(self._waiting[asked], datagram.data)
        elif len(self._waiting) < WAITING_NAMES_MAX and self._nursery is not None:
            self._waiting[asked] = [datagram.data]
            self._nursery.start_soon(self._look_up, asked, host)
        else:
            self._drop("names_limit")

    def _keep(self, waiting: list[bytes], data: bytes) -> None:
        if len(waiting) < WAITING_DATAGRAMS_MAX:
            waiting.append(data)
        else:
            self._drop("waiting_limit")

    async def _look_up(self, asked: Address, name: str) -> None:
        try:
            addresses = await self._resolve(name, asked.port)
        except self._resolve_errors:
            addresses = ()
        waiting = self._waiting.pop(asked)
        if not addresses:
            self._drop_all("name_not_resolved", waiting)
            return
        if len(self._pinned) >= self._settings.destinations_max:
            self._pinned.popitem(last=False)
        # Pinned while the association lives: a name that changes its address in the middle moves nothing.
        addresses = self._pinned.setdefault(name, addresses)
        destination = self._destinations.get(encode_header(asked))
        if destination is None:
            self._open(asked, name, addresses, waiting)
        else:  # the name was pinned meanwhile, by another spelling of it
            for data in waiting:
                self._run_to(destination, data)
        self._send_all()

    def _open(self, asked: Address, name: str | None, addresses: tuple[IPAddress, ...], waiting: list[bytes]) -> None:
        self._budget -= NEW_COST
        if not self._new.take(self._now_s):  # scanning for peers is slowed down, talking to many is not
            self._drop_all("destinations_limit", waiting)
            return
        for address in addresses:
            permit = self._destinations.permit(name, address, asked.port, waiting[0])
            sockaddr = socket_address(self._target_side.sock.family, address, asked.port)
            if permit is not None and sockaddr is not None:
                destination = self._destinations.open(asked, permit, sockaddr)
                if isinstance(destination, Termination):
                    self._drop_all("quota" if destination is Termination.QUOTA else "limit", waiting)
                    return
                for data in waiting:
                    self._run_to(destination, data)
                return
        self._drop_all("denied", waiting)

    def _still_permitted(self, destination: Destination) -> bool:
        if not self._destinations.is_judged(destination):
            self._budget -= NEW_COST
        return self._destinations.still_permitted(destination)

    def _judge_later(self, at_s: float) -> None:
        """Judge again then; once for all whose time is over in the same second."""
        due_s = math.ceil(at_s)
        if self._nursery is not None and due_s not in self._due_s:
            self._due_s.add(due_s)
            self._nursery.start_soon(self._judge_at, due_s)

    async def _judge_at(self, due_s: int) -> None:
        await trio.sleep_until(due_s)
        self._due_s.remove(due_s)
        for count, _ in enumerate(self.judge_again(), start=1):
            if count % CLOSED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    # ---- from a target to the client

    def _from_target(self, sender: SocketAddress, packets: list[bytes]) -> None:
        destination = self._destinations.answering(sender)
        if destination is None or self._now_s - destination.sent_s > self._settings.idle_s:
            self._drop_all("stranger_target", packets)
        elif self._still_permitted(destination):
            if destination.shape is not None:
                packets = self._passed(destination.shape, packets)
            if packets:
                self._to_client.append((destination, Run(self._client, destination.answer_header, packets)))
        else:
            self._drop_all("denied", packets)

    def _passed(self, shape: DatagramShape, packets: list[bytes]) -> list[bytes]:
        """Those for which there is room."""
        now_s = time.monotonic()
        passed = [packet for packet in packets if shape.to_client.take_whole(now_s, len(packet))]
        for _ in range(len(packets) - len(passed)):
            self._drop("rate_limit")
        return passed

    # ---- out

    def _send_all(self) -> None:
        if self._to_targets:
            for destination, size in self._sent(self._target_side, self._to_targets, "target_busy"):
                destination.flow.bytes_to_target += size
                self._destinations.contacted(destination, self._now_s)
        if self._to_client:
            for destination, size in self._sent(self._client_side, self._to_client, "client_busy"):
                destination.flow.bytes_to_client += size
                self._destinations.used(destination)

    def _sent(self, side: DatagramSocket, posted: _Posted, busy: str) -> Iterator[tuple[Destination, int]]:
        """Send; yields the destinations of what went at least in part, and how many octets of payload that were."""
        side.send(run for _, run in posted)
        for destination, run in posted:
            for _, code in run.unsent:
                self._drop(busy if code == errno.EAGAIN else "oversize" if code == errno.EMSGSIZE else "send_failed")
            if len(run.unsent) < len(run.payloads):
                self._relayed_s = self._now_s  # what is dropped keeps no association alive
                yield destination, sum(map(len, run.payloads)) - sum(size for size, _ in run.unsent)
        posted.clear()

    def _drop_all(self, reason: str, packets: list[bytes]) -> None:
        for _ in packets:
            self._drop(reason)
