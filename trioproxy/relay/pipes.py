"""Pipes for `splice`: the kernel moves bulk from socket to socket through one, and no byte is copied to us.

They belong to the pool, not to a relay: an idle session holds none, and one that waits for a slow reader one for each
direction.
"""

import fcntl
import os
from collections.abc import Callable
from typing import Final

import attrs

__all__ = ["PIPE_BYTES", "Pipe", "PipePool"]

# Measured: below 256 KiB a stream alone gets slower, above 1 MiB nothing is gained, and pipe-max-size is 1 MiB.
PIPE_BYTES: Final = 1_048_576
_SPARE_MAX: Final = 16  # kept open for the next; what is open is what slow readers hold


@attrs.frozen(eq=False)
class Pipe:
    """A pipe.

    Attributes:
        read_end: its descriptors.
        write_end: as above.
        capacity: bytes that it holds.
    """

    read_end: int
    write_end: int
    capacity: int

    def close(self) -> None:
        """Give it back to the kernel, with what is in it."""
        os.close(self.read_end)
        os.close(self.write_end)


class PipePool:
    """Pipes that are not in use. May have none to give: then a relay carries its bytes itself.

    Args:
        pipes_max: in use and spare together; each takes two descriptors.
        descriptors_max: the highest descriptor that may be used; above is the reserve.
    """

    def __init__(self, pipes_max: int, descriptors_max: Callable[[], int]) -> None:
        self.pipes_max = pipes_max
        self._descriptors_max = descriptors_max
        self.in_use = 0
        self._spare: list[Pipe] = []

    def take(self) -> Pipe | None:
        """An empty pipe, or None if there are too many, or no descriptors."""
        if self._spare:
            self.in_use += 1
            return self._spare.pop()
        if self.in_use >= self.pipes_max:
            return None
        try:
            read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        if max(read_end, write_end) > self._descriptors_max():
            os.close(read_end)
            os.close(write_end)
            return None
        self.in_use += 1
        try:
            capacity = fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:  # an ordinary user's pipes share 64 MiB (pipe-user-pages-soft): then it is a small one
            capacity = fcntl.fcntl(write_end, fcntl.F_GETPIPE_SZ)
        return Pipe(read_end, write_end, capacity)

    def give_back(self, pipe: Pipe, *, empty: bool) -> None:
        """Take a pipe back; one with bytes in it is closed, they were for somebody who is gone."""
        self.in_use -= 1
        if empty and len(self._spare) < _SPARE_MAX:
            self._spare.append(pipe)
        else:
            pipe.close()

    def close(self) -> None:
        """Close those that are not in use."""
        while self._spare:
            self._spare.pop().close()
