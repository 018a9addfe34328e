"""The client's side of a session: its stream and its protocol, joined. Nothing here knows what is allowed."""

import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import TypeVar

import trio

from auth.throttle import source_key
from trioproxy.accounting import Termination
from trioproxy.engine import Channel, Engine, Fiber
from trioproxy.policy import IPAddress, canonical_address
from trioproxy.protocol import (
    NEED_DATA,
    Address,
    RemoteProtocolError,
    Reply,
    ReplyMessage,
    ServerConnection,
    ServerMessage,
    State,
)

__all__ = ["Client", "Ended", "address_of", "origin_of", "reset_on_close"]

T = TypeVar("T")

RECEIVE_BYTES = 4_096  # several times the longest message; early data fits in few reads
RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: closing sends RST


class Ended(Exception):  # noqa: N818 - no error: a named way out of a session
    """The session is over: why, and what the client is told (a reply, or octets that are ready, or nothing)."""

    def __init__(self, termination: Termination, reply: Reply | None = None, *, answer: bytes = b"") -> None:
        super().__init__(termination, reply)
        self.termination = termination
        self.reply = reply
        self.answer = answer


@lru_cache(maxsize=4_096)  # the same clients and targets come again and again, and parsing costs 2 us
def address_of(host: str) -> IPAddress:
    """What the kernel wrote (`10.0.0.1`, `::ffff:10.0.0.1`, `fe80::1%eth0`) as a canonical address."""
    return canonical_address(ip_address(host.partition("%")[0]))


@lru_cache(maxsize=4_096)
def origin_of(host: str) -> tuple[IPAddress, str]:
    """The canonical address, and what counts as one source (`source_key`), of a client."""
    address = address_of(host)
    return address, source_key(address)


def reset_on_close(sock: socket.socket) -> None:
    """Let the other end learn that something is missing when the socket is closed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


class Client:
    """Who connected, what it says, and what we say to it.

    The coroutines of the first part are for the fiber of its session, those of the second for a task.

    Attributes:
        channel: its socket, as it was accepted.
        fiber: on which its session runs.
        host: its address as the kernel writes it.
        address: the same, canonical.
        port: its TCP port.
        source: what it counts as where limits are for each source.
    """

    __slots__ = ("_connection", "_counters", "address", "channel", "fiber", "host", "port", "source")

    def __init__(
        self,
        engine: Engine,
        sock: socket.socket,
        came_from: tuple[str, int],
        counters: Counter[str],
        *,
        tolerate_reserved: bool,
    ) -> None:
        self.channel: Channel = engine.open(sock)
        self.fiber: Fiber = engine.fiber()
        self.host, self.port = came_from
        self.address, self.source = origin_of(self.host)
        self._counters = counters
        self._connection = ServerConnection(tolerate_reserved=tolerate_reserved)

    @property
    def local_address(self) -> IPAddress:
        """The address of ours that it connected to: one it can reach."""
        return address_of(self.channel.sock.getsockname()[0])

    @property
    def has_ended(self) -> bool:
        """Whether it has said that it will send no more."""
        return self._connection.client_eof

    @property
    def awaits_reply(self) -> bool:
        """Whether its request, or its BIND, has no (last) reply yet."""
        return self._connection.state in (State.REPLY, State.SECOND_REPLY)

    # ---- for the fiber

    async def next_message(self, kind: type[T]) -> T:
        """The client's next message; the state of the connection makes it one of `kind`.

        Raises:
            Ended: the client broke the protocol, or reset the connection.
        """
        connection = self._connection
        try:
            while (message := connection.next_event()) is NEED_DATA:
                connection.receive_data(await self._receive(min(RECEIVE_BYTES, connection.room)))
        except RemoteProtocolError as exc:
            self._counters[f"violation_{exc.violation.value}"] += 1
            raise Ended(Termination.PROTOCOL_ERROR, answer=exc.answer) from exc
        if not isinstance(message, kind):
            raise AssertionError(f"expected {kind}, got {message}")  # noqa: TRY004 - our mistake, not the type's
        return message

    async def _receive(self, size: int) -> bytes:
        sock = self.channel.sock
        while True:
            try:
                return sock.recv(size)
            except BlockingIOError:
                await self.fiber.readable(self.channel)
            except OSError as exc:
                raise Ended(Termination.CLIENT_RESET) from exc

    async def send(self, message: ServerMessage) -> None:
        """Say something.

        Raises:
            Ended: the client reset the connection.
        """
        rest = self._connection.send(message)
        while True:
            try:
                rest = rest[self.channel.sock.send(rest) :]
            except BlockingIOError:
                pass  # it does not read even that; the time limit of the handshake holds
            except OSError as exc:
                raise Ended(Termination.CLIENT_RESET) from exc
            if not rest:
                return
            await self.fiber.writable(self.channel)

    def watch(self) -> None:
        """While the fiber waits for something else: end it if the client resets its connection; see `unwatch`.

        What the client sends stays in the kernel.

        Raises:
            Ended: it has done so already.
        """
        channel = self.channel
        if channel.hung and self._was_reset():
            raise Ended(Termination.CLIENT_RESET)
        channel.handler = self._end_if_reset

    def unwatch(self) -> None:
        """The fiber goes on."""
        self.channel.handler = None

    def _end_if_reset(self, _events: int) -> None:
        if self.channel.hung and self._was_reset():
            self.channel.handler = None
            self.fiber.interrupt(Ended(Termination.CLIENT_RESET))

    def _was_reset(self) -> bool:
        return self.channel.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    async def succeed(self, host: IPAddress, port: int) -> None:
        """A success reply with this bound address."""
        await self.send(ReplyMessage(Reply.SUCCEEDED, Address(host, port)))

    def last_words(self, message: ServerMessage) -> bytes:
        """The octets of a refusal; nothing can be said after it."""
        return self._connection.send(message)

    def take_early_data(self) -> bytes:
        """What it sent behind its request. Only after success."""
        return self._connection.take_trailing_data()

    async def in_task(self, work: Callable[[], Awaitable[T]], *, until_end_of_input: bool = False) -> T:
        """Do `work` in a task, as `while_it_stays` does."""
        return await self.fiber.in_task(partial(self.while_it_stays, work, until_end_of_input=until_end_of_input))

    # ---- for a task

    async def while_it_stays(self, work: Callable[[], Awaitable[T]], *, until_end_of_input: bool = False) -> T:
        """Do `work`, cancelled at once if the client resets its connection; what it sends meanwhile is early data.

        Args:
            work: what takes its time.
            until_end_of_input: the end of its input ends the work as well. For CONNECT it does not: a client may send
                its whole question with the request and finish.

        Raises:
            Ended: `work` ended the session, or the client did.
        """
        outcome: T | Ended = Ended(Termination.CLIENT_RESET)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive_early_data, nursery.cancel_scope, until_end_of_input)
            try:
                outcome = await work()
            except Ended as ended:
                outcome = ended
            nursery.cancel_scope.cancel()
        if isinstance(outcome, Ended):
            try:
                raise outcome
            finally:
                del outcome  # it would hold this frame, which holds it
        return outcome

    async def _receive_early_data(self, work: trio.CancelScope, until_end_of_input: bool) -> None:
        connection = self._connection
        try:
            while connection.room and not connection.client_eof:
                connection.receive_data(await self._receive_in_task(min(RECEIVE_BYTES, connection.room)))
        except trio.BrokenResourceError:
            work.cancel()
            return
        if not connection.room:  # the rest waits in the kernel
            if self.channel.hung and self._was_reset():  # its edge was told before anybody cared
                work.cancel()
                return
            self.channel.handler = lambda _events: work.cancel() if self.channel.hung and self._was_reset() else None
            try:
                await trio.sleep_forever()
            finally:
                self.channel.handler = None
        if connection.client_eof and until_end_of_input:
            work.cancel()

    async def succeed_in_task(self, host: IPAddress, port: int) -> None:
        """As `succeed`.

        Raises:
            Ended: the client reset the connection.
        """
        try:
            await self._send_in_task(self._connection.send(ReplyMessage(Reply.SUCCEEDED, Address(host, port))))
        except OSError as exc:
            raise Ended(Termination.CLIENT_RESET) from exc

    async def until_its_end(self) -> Termination:
        """Wait until the client closes or resets the connection; what it still sends is counted and thrown away."""
        try:
            while not self.has_ended and await self._receive_in_task(RECEIVE_BYTES):
                self._counters["control_data_ignored"] += 1
        except trio.BrokenResourceError:
            return Termination.CLIENT_RESET
        return Termination.CLIENT_CLOSED

    async def part(self, answer: bytes, *, wait_s: float) -> None:
        """Send a last answer and wait a moment for the client to read it: closing with unread input destroys it."""
        with trio.move_on_after(wait_s):
            try:
                await self._send_in_task(answer)
                self.channel.sock.shutdown(socket.SHUT_WR)
                while await self._receive_in_task(RECEIVE_BYTES):
                    continue
            except (trio.BrokenResourceError, OSError):
                return  # it is gone; nothing is left to be said

    async def _receive_in_task(self, size: int) -> bytes:
        while True:
            try:
                data = self.channel.sock.recv(size)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.channel.sock)
            except OSError as exc:
                raise trio.BrokenResourceError from exc
            else:
                await trio.lowlevel.checkpoint()  # whoever sends without end keeps nobody waiting
                return data

    async def _send_in_task(self, data: bytes) -> None:
        while data:
            try:
                data = data[self.channel.sock.send(data) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.channel.sock)
