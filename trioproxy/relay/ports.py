"""Ports for relay sockets: from the configured range or any free one, never soon again for somebody else."""

import errno
import random
import socket
from collections.abc import Hashable

from trioproxy.policy import IPAddress

__all__ = ["RelayPorts"]

QUARANTINE_S = 60.0  # CASES 75: a late datagram for one user must not reach the association of another
QUARANTINE_MAX = 65_536  # there are no more ports
OWN_MAX = 8  # of an owner's ports are tried before any other
ATTEMPTS_MAX = 64  # in a range; a range in which 64 random ports are taken is too small, and that is said


class RelayPorts:
    """Binds sockets and remembers who had which port a short time ago."""

    def __init__(self) -> None:
        self._left: dict[int, tuple[Hashable, float]] = {}
        self._left_by: dict[Hashable, dict[int, None]] = {}  # the same, by owner

    def bind(
        self, kind: socket.SocketKind, host: IPAddress, ports: range | None, owner: Hashable, now_s: float
    ) -> socket.socket:
        """A non-blocking socket of `kind` bound to `host` and a port of `ports`.

        Raises:
            OSError: no port is free, or the address is not ours.
        """
        self._forget(now_s)
        family = socket.AF_INET if host.version == 4 else socket.AF_INET6  # noqa: PLR2004 - the IP version
        failure = OSError(errno.EADDRINUSE, "no free relay port")
        for port in self._candidates(ports, owner):
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            try:
                sock.bind((str(host), port))
            except OSError as exc:
                sock.close()
                if exc.errno != errno.EADDRINUSE:
                    raise
                failure = exc
                continue
            if self._free_for(sock.getsockname()[1], owner):
                return sock
            sock.close()
        raise failure

    def leave(self, port: int, owner: Hashable, now_s: float) -> None:
        """Say that `owner` no longer uses `port`."""
        self._forget(now_s)
        if len(self._left) < QUARANTINE_MAX:
            self._release(port)
            self._left[port] = (owner, now_s + QUARANTINE_S)
            self._left_by.setdefault(owner, {})[port] = None

    def _candidates(self, ports: range | None, owner: Hashable) -> list[int]:
        # Its own first: whoever opens and closes all day holds few ports back from the others.
        own = [port for port in self._left_by.get(owner, {}) if ports is None or port in ports][:OWN_MAX]
        return own + self._others(ports)

    def _others(self, ports: range | None) -> list[int]:
        if ports is None:
            return [0] * ATTEMPTS_MAX  # the kernel chooses; again where it chose one that somebody else has just left
        # A port is no secret; this only keeps users from getting the same one again and again.
        return random.sample(ports, min(ATTEMPTS_MAX, len(ports)))

    def _free_for(self, port: int, owner: Hashable) -> bool:
        last = self._left.get(port)
        return last is None or last[0] == owner

    def _forget(self, now_s: float) -> None:
        # In the order of leaving, so the first that is not over ends the search.
        while self._left:
            port, (_, until_s) = next(iter(self._left.items()))
            if until_s > now_s:
                return
            self._release(port)

    def _release(self, port: int) -> None:
        entry = self._left.pop(port, None)
        if entry is not None:
            ports = self._left_by[entry[0]]
            del ports[port]
            if not ports:
                del self._left_by[entry[0]]
