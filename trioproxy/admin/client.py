"""Asking the running server through its control socket; what the command line does."""

import errno
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import orjson

__all__ = ["ControlError", "ask_server", "socket_path"]

PATIENCE_S: Final = 30.0


class ControlError(Exception):
    """The server did not answer; the text is one line for the reader."""


def socket_path(store_path: Path) -> Path:
    """Where the socket is: beside the store, so that whoever names the same store asks the same server."""
    return store_path.with_suffix(".sock")


def ask_server(path: Path, what: Literal["sessions", "kill"], wanted: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """The flows that are meant, one after the other; those of "kill" have ended.

    Args:
        path: of the control socket.
        what: to list, or to end.
        wanted: see `trioproxy.accounting.live.Wanted.parse`.

    Raises:
        ControlError: no server runs, it may not be asked, or it did not understand.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(str(path))
            sock.sendall(orjson.dumps({"ask": what, "wanted": dict(wanted)}) + b"\n")
            with sock.makefile("rb") as answers:
                for line in answers:
                    row = orjson.loads(line)
                    if "problem" in row:
                        raise ControlError(row["problem"])
                    if "done" in row:
                        return
                    yield row
        except OSError as exc:
            raise ControlError(_explained(exc, path)) from exc
    raise ControlError(f"the server closed {path} in the middle of its answer: only its own user and root may ask")


def _explained(exc: OSError, path: Path) -> str:
    if exc.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return f"no server runs with this store (nobody listens at {path})"
    if exc.errno == errno.EACCES:
        return f"{path}: no permission; run this as the user of the server, or as root"
    return f"{path}: {exc.strerror or exc}"
