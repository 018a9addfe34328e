"""What a proxy connects to: a target that listens, a port where nobody does, one that never answers, and names."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Self

import trio

from tests.wires import PATIENCE_S, SocketAddress, Wire, family_of, readable
from trioproxy.policy import IPAddress

__all__ = ["Origin", "black_hole", "free_port", "looking_up"]


class Origin:
    """A target that listens; every connection it accepted is closed at the end."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        self._wires: list[Wire] = []
        self.host: str = sock.getsockname()[0]
        self.port: int = sock.getsockname()[1]

    @classmethod
    @asynccontextmanager
    async def open(cls, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Self]:
        """Listen until the block ends."""
        sock = trio.socket.socket(family_of(host), socket.SOCK_STREAM)
        origin = None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port may have been somebody's a moment ago
        try:
            await sock.bind((host, port))
            sock.listen(128)
            origin = cls(sock)
            yield origin
        finally:
            sock.close()
            for wire in origin._wires if origin else ():
                wire.close()

    @property
    def address(self) -> SocketAddress:
        """Where it listens."""
        return self.host, self.port

    async def accept(self) -> Wire:
        """The next connection."""
        with trio.fail_after(PATIENCE_S):
            sock, _ = await self._sock.accept()
        self._wires.append(Wire(sock))
        return self._wires[-1]

    def nobody_waits(self) -> bool:
        """Whether no connection is there. On loopback one is there before its `connect` has returned."""
        return not readable(self._sock)


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which nobody listens."""
    with socket.socket(family_of(host), socket.SOCK_STREAM) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


@asynccontextmanager
async def black_hole(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """A port where connecting gets no answer: its queue is full, so the kernel drops every SYN."""
    held: list[socket.socket] = []
    with socket.socket(family_of(host), socket.SOCK_STREAM) as sock:
        sock.bind((host, port))
        sock.listen(0)
        try:
            for _ in range(4):
                held.append(socket.socket(family_of(host), socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                held[-1].connect_ex(sock.getsockname())
            yield int(sock.getsockname()[1])
        finally:
            for one in held:
                one.close()


def looking_up(*addresses: str) -> Callable[[str], list[IPAddress]]:
    """A resolver that knows one answer."""
    return lambda name: [ip_address(address) for address in addresses]
