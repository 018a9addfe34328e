"""The client's side of a session: its stream and its protocol, joined. Nothing here knows what is allowed."""

import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TypeVar

import trio

from trioproxy.accounting import Termination
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
from trioproxy.relay import ResetWatch

__all__ = ["Client", "Ended", "address_of", "reset_and_close"]

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


def address_of(host: str) -> IPAddress:
    """What the kernel wrote (`10.0.0.1`, `::ffff:10.0.0.1`, `fe80::1%eth0`) as a canonical address."""
    return canonical_address(ip_address(host.partition("%")[0]))


def reset_and_close(stream: trio.SocketStream) -> None:
    """Close at once, so that the other end learns that something is missing."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    stream.socket.close()


class Client:
    """Who connected, what it says, and what we say to it.

    Attributes:
        stream: as it was accepted.
        host: its address as the kernel writes it.
        address: the same, canonical.
        port: its TCP port.
    """

    def __init__(
        self,
        stream: trio.SocketStream,
        came_from: tuple[str, int],
        counters: Counter[str],
        resets: ResetWatch,
        *,
        tolerate_reserved: bool,
    ) -> None:
        self.stream = stream
        self.host, self.port = came_from
        self.address = address_of(self.host)
        self._counters = counters
        self._resets = resets
        self._connection = ServerConnection(tolerate_reserved=tolerate_reserved)

    @property
    def local_address(self) -> IPAddress:
        """The address of ours that it connected to: one it can reach."""
        return address_of(self.stream.socket.getsockname()[0])

    @property
    def has_ended(self) -> bool:
        """Whether it has said that it will send no more."""
        return self._connection.client_eof

    @property
    def awaits_reply(self) -> bool:
        """Whether its request, or its BIND, has no (last) reply yet."""
        return self._connection.state in (State.REPLY, State.SECOND_REPLY)

    async def next_message(self, kind: type[T]) -> T:
        """The client's next message; the state of the connection makes it one of `kind`.

        Raises:
            Ended: the client broke the protocol.
            trio.BrokenResourceError: it reset the connection.
        """
        try:
            while (message := self._connection.next_event()) is NEED_DATA:
                data = await self.stream.receive_some(min(RECEIVE_BYTES, self._connection.room))
                self._connection.receive_data(bytes(data))
        except RemoteProtocolError as exc:
            self._counters[f"violation_{exc.violation.value}"] += 1
            raise Ended(Termination.PROTOCOL_ERROR, answer=exc.answer) from exc
        if not isinstance(message, kind):
            raise AssertionError(f"expected {kind}, got {message}")  # noqa: TRY004 - our mistake, not the type's
        return message

    async def send(self, message: ServerMessage) -> None:
        """Say something."""
        await self.stream.send_all(self._connection.send(message))

    async def succeed(self, host: IPAddress, port: int) -> None:
        """A success reply with this bound address."""
        await self.send(ReplyMessage(Reply.SUCCEEDED, Address(host, port)))

    def last_words(self, message: ServerMessage) -> bytes:
        """The octets of a refusal; nothing can be said after it."""
        return self._connection.send(message)

    def take_early_data(self) -> bytes:
        """What it sent behind its request. Only after success."""
        return self._connection.take_trailing_data()

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
            raise outcome
        return outcome

    async def _receive_early_data(self, work: trio.CancelScope, until_end_of_input: bool) -> None:
        connection = self._connection
        try:
            while connection.room and not connection.client_eof:
                connection.receive_data(bytes(await self.stream.receive_some(min(RECEIVE_BYTES, connection.room))))
            if not connection.room:  # the rest waits in the kernel
                with self._resets.while_not_read(self.stream, work.cancel):
                    await trio.sleep_forever()
        except trio.BrokenResourceError:
            work.cancel()
        if connection.client_eof and until_end_of_input:
            work.cancel()

    async def until_its_end(self) -> Termination:
        """Wait until the client closes or resets the connection; what it still sends is counted and thrown away."""
        try:
            while not self.has_ended and await self.stream.receive_some(RECEIVE_BYTES):
                self._counters["control_data_ignored"] += 1
        except trio.BrokenResourceError:
            return Termination.CLIENT_RESET
        return Termination.CLIENT_CLOSED

    async def part(self, answer: bytes, *, wait_s: float) -> None:
        """Send a last answer and wait a moment for the client to read it: closing with unread input destroys it."""
        with trio.move_on_after(wait_s):
            try:
                await self.stream.send_all(answer)
                await self.stream.send_eof()
                while await self.stream.receive_some(RECEIVE_BYTES):
                    continue
            except trio.BrokenResourceError:
                return  # it is gone; nothing is left to be said
