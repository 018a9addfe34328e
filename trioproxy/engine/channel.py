"""A non-blocking socket, and who wants to know what happens to it."""

import socket
from collections.abc import Callable  # noqa: TC003 - documentation tools read the annotation

__all__ = ["Channel"]


class Channel:
    """A socket that is registered once, for its whole life.

    Readiness is told at its edges: whoever wants to read reads first, and waits only when there is nothing.

    Attributes:
        sock: non-blocking; whoever made the channel closes it.
        fd: its descriptor.
        handler: called with the events (of `select.epoll`) when something happens; None: nobody cares at the moment.
        ended: that the other side has ended, or worse, was told. This edge may come together with that of the last
            bytes, and no other one follows: read on until the end.
        hung: an error, or the end of both directions, was told.
        urgent: urgent data (MSG_OOB) came at some time. Reads stop before its place, so a short one says nothing then.
    """

    __slots__ = ("ended", "fd", "handler", "hung", "sock", "urgent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.handler: Callable[[int], None] | None = None
        self.ended = False
        self.hung = False
        self.urgent = False

    def fileno(self) -> int:
        """The descriptor."""
        return self.fd
