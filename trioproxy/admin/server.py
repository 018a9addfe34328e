"""The control socket of a running server: one JSON object in, JSON objects out, a line each.

    {"ask": "sessions", "wanted": {...}}   each flow that is meant, as `row_of` says it, then {"done": how many}
    {"ask": "kill", "wanted": {...}}       each flow that is ended, then {"done": how many sessions}

A socket in the file system: who may open it is who may read the data folder, so there is no password to lose. The
kernel says who connects, and nobody but the server's own user and root is answered.
"""

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import orjson
import trio

from trioproxy.accounting import Termination
from trioproxy.accounting.live import LiveSession, Wanted, row_of
from trioproxy.log import get_log

__all__ = ["ControlServer"]

CLIENTS_MAX: Final = 8  # who asks at the same time; an administrator is one
REQUEST_MAX: Final = 65_536  # octets: thousands of numbers of sessions
PATIENCE_S: Final = 30.0  # for a whole conversation: somebody may look at it in a pager
ROWS_AT_ONCE: Final = 100  # made before others get their turn: 1 ms

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: process, user, group


class ControlServer:
    """Answers what administrators ask.

    Args:
        path: where the socket is.
        sessions: those that run now.
    """

    def __init__(self, path: Path, sessions: Callable[[], Iterable[LiveSession]]) -> None:
        self._path = path
        self._sessions = sessions
        self._clients = trio.CapacityLimiter(CLIENTS_MAX)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer, for ever. A socket that cannot be opened is said in the log: the proxy works without."""
        try:
            listening = self._open()
        except OSError as exc:
            get_log().warning(
                "no control socket: `trioproxy session` cannot reach this server",
                path=str(self._path),
                problem=str(exc),
            )
            task_status.started()
            return
        inode = self._path.stat().st_ino
        task_status.started()
        try:
            await trio.serve_listeners(self._serve, [trio.SocketListener(listening)])
        finally:
            listening.close()
            with suppress(OSError):  # it is not there any more
                if self._path.stat().st_ino == inode:  # and not that of a server that has taken our place
                    self._path.unlink()

    def _open(self) -> trio.socket.SocketType:
        """The listening socket.

        Raises:
            OSError: the path is too long, its folder cannot be written, or another server listens there.
        """
        with ExitStack() as stack:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            self._remove_what_is_left()
            sock.bind(str(self._path))
            self._path.chmod(stat.S_IRUSR | stat.S_IWUSR)
            sock.listen(CLIENTS_MAX)
            stack.pop_all()
        return trio.socket.from_stdlib_socket(sock)

    def _remove_what_is_left(self) -> None:
        """The socket of a server that was killed is in the way; one that somebody listens to is not ours to take.

        Raises:
            OSError: somebody listens, or it is no socket.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            code = asking.connect_ex(str(self._path))
        if code == 0:
            raise OSError(
                errno.EADDRINUSE,
                "another server seems to use this store; the two share no limits, no quotas and no penalties",
            )
        if code == errno.ECONNREFUSED and stat.S_ISSOCK(self._path.lstat().st_mode):
            self._path.unlink()

    async def _serve(self, stream: trio.SocketStream) -> None:
        with trio.move_on_after(PATIENCE_S), suppress(trio.BrokenResourceError):
            async with self._clients, stream:
                if not _may_ask(stream):
                    return
                request = await _receive_line(stream)
                for answer in self._answers(request):
                    await stream.send_all(answer)

    def _answers(self, request: bytes) -> Iterator[bytes]:
        """The lines of the answer; several flows in each piece."""
        try:
            asked = orjson.loads(request)
            wanted = Wanted.parse(asked["wanted"])
            kill = {"sessions": False, "kill": True}[asked["ask"]]
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            yield orjson.dumps({"problem": f"this server does not understand: {exc}"}) + b"\n"
            return
        done = 0
        rows: list[bytes] = []
        for session in list(self._sessions()):
            meant = [flow for flow in session.flows() if wanted.fits(flow)]
            if not meant:
                continue
            done += 1
            rows += [orjson.dumps(row_of(flow)) for flow in meant]
            if kill:
                session.end(Termination.KILLED)
            if len(rows) >= ROWS_AT_ONCE:
                yield b"\n".join(rows) + b"\n"
                rows = []
        rows.append(orjson.dumps({"done": done}))
        yield b"\n".join(rows) + b"\n"


def _may_ask(stream: trio.SocketStream) -> bool:
    credentials = getattr(socket, "SO_PEERCRED", None)
    if credentials is None:
        return True  # the mode of the file has to do
    _, user, _ = _CREDENTIALS.unpack(stream.socket.getsockopt(socket.SOL_SOCKET, credentials, _CREDENTIALS.size))
    return user in (0, os.geteuid())


async def _receive_line(stream: trio.SocketStream) -> bytes:
    """What was asked; less than a line if nobody says more, which nobody understands."""
    received = bytearray()
    while b"\n" not in received and len(received) < REQUEST_MAX:
        data = await stream.receive_some(4096)
        if not data:
            break
        received += data
    return bytes(received)
