"""Where lines go: one thread for each file, so that a full disk or a stalled pipe never stops the event loop."""

import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

__all__ = ["LineSink", "NullSink", "Sink"]

QUEUE_MAX = 10_000  # lines waiting for the disk: some 5 MB; what comes on top is dropped and counted
BATCH_MAX = 500  # lines in one write
BATCH_S = 0.05  # how long the first line of a batch waits for others: waking a thread costs more than a session's line


class Sink(Protocol):
    """What the server writes lines to."""

    @property
    def dropped(self) -> int:
        """Lines lost so far."""
        ...

    def write(self, line: bytes) -> None:
        """Take one line without its end. Never blocks, never raises."""
        ...

    def reopen(self) -> None:
        """Open the file anew (it was rotated away)."""
        ...

    def close(self) -> None:
        """Write what is waiting, give up after some seconds."""
        ...


class NullSink:
    """Keeps nothing."""

    dropped = 0

    def write(self, line: bytes) -> None:
        """Forget the line."""

    def reopen(self) -> None:
        """Nothing to open."""

    def close(self) -> None:
        """Nothing to close."""


class LineSink:
    """Writes lines to what `open_descriptor` returns, in batches, from one thread.

    A write that fails drops its lines and is counted; the next one is tried as if nothing had been. `close` waits at
    most `CLOSE_WAIT_S` seconds for a disk that no longer answers.
    """

    CLOSE_WAIT_S = 3.0

    def __init__(
        self, open_descriptor: Callable[[], int], *, close_descriptor: bool = True, queue_max: int = QUEUE_MAX
    ) -> None:
        """Open at once.

        Raises:
            OSError: the file cannot be opened.
        """
        self.dropped = 0
        self._open_descriptor = open_descriptor
        self._close_descriptor = close_descriptor
        self._descriptor = open_descriptor()
        self._torn = False  # the last write stopped inside a line
        self._lines: deque[bytes] = deque()
        self._queue_max = queue_max
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._reopen = threading.Event()
        self._thread = threading.Thread(target=self._run, name="line-sink", daemon=True)
        self._thread.start()

    @classmethod
    def to_file(cls, path: Path) -> Self:
        """Append to a file that only its owner reads: it says who talked to whom.

        Raises:
            OSError: the file cannot be opened.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return cls(lambda: os.open(path, flags, 0o600))

    def write(self, line: bytes) -> None:
        """Take one line without its end."""
        if len(self._lines) >= self._queue_max:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._wanted.is_set():
            self._wanted.set()

    def reopen(self) -> None:
        """Let the thread open the file anew before its next line."""
        self._reopen.set()

    def close(self) -> None:
        """Write what is waiting and end the thread."""
        self._closing.set()
        self._wanted.set()
        self._thread.join(self.CLOSE_WAIT_S)
        if self._thread.is_alive():  # the disk does not answer; the thread is a daemon and dies with the process
            self.dropped += len(self._lines)

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wanted.wait()
            closing = self._closing.wait(BATCH_S)
            self._wanted.clear()  # before the lines are taken: what is added from here on sets it again
            if self._reopen.is_set():
                self._reopen.clear()
                self._open_again()
            while self._lines:
                self._write_batch([self._lines.popleft() for _ in range(min(BATCH_MAX, len(self._lines)))])
        if self._close_descriptor:
            os.close(self._descriptor)

    def _write_batch(self, lines: list[bytes]) -> None:
        rest = memoryview((b"\n" if self._torn else b"") + b"\n".join(lines) + b"\n")
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:  # disk full, reader gone: the service goes on, the number tells
            self.dropped += bytes(rest).count(b"\n")
            self._torn = True
        else:
            self._torn = False

    def _open_again(self) -> None:
        try:
            descriptor = self._open_descriptor()
        except OSError:  # keep writing to the old file: better there than nowhere
            return
        if self._close_descriptor:
            os.close(self._descriptor)
        self._descriptor = descriptor
