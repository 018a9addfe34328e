"""Noticing that a stream was reset while nobody reads it.

A relay that waits for a slow receiver does not read its sender, so it would learn of the sender's RST only when the
receiver takes something again, or never. Waiting for readability does not help: there is unread data. So whoever waits
is written down, which costs nothing to speak of, and one task for the process looks at those sockets twice a second.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

__all__ = ["ResetWatch"]

INTERVAL_S = 0.5
TCP_CLOSE = 7  # tcpi_state, the first octet of struct tcp_info (linux/tcp.h, net/tcp_states.h)


class ResetWatch:
    """The senders that nobody reads at the moment."""

    def __init__(self) -> None:
        self._unread: dict[Callable[[], None], trio.socket.SocketType] = {}

    @contextmanager
    def while_not_read(self, source: object, when_reset: Callable[[], None]) -> Iterator[None]:
        """Call `when_reset` if `source` is reset before the block ends; only socket streams are watched."""
        if not isinstance(source, trio.SocketStream):
            yield
            return
        self._unread[when_reset] = source.socket
        try:
            yield
        finally:
            del self._unread[when_reset]

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await trio.sleep(INTERVAL_S)
            for when_reset, sock in list(self._unread.items()):
                if _was_reset(sock):
                    when_reset()


def _was_reset(sock: trio.socket.SocketType) -> bool:
    if sock.fileno() < 0 or sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_CLOSE:
        return False
    # Both ends may also have finished in order, with octets still to be read; only a reset leaves an error behind.
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
