"""How many of something may exist at once, in all and for each key."""

import errno
import resource
from collections import Counter, deque
from collections.abc import Hashable
from typing import Final, Protocol, TypeVar

__all__ = ["MINUTE_S", "Minute", "Occupancy", "Pace", "descriptors_max", "keep_reserve", "raise_descriptor_limit"]

S = TypeVar("S", bound="_Socket")

MINUTE_S: Final = 60.0


class Occupancy:
    """Counts how many places each key has taken, refuses more than the limit, and counts the refusals.

    Not a semaphore: nobody waits. Only keys that hold a place use memory.
    """

    def __init__(self, name: str, counters: Counter[str], *, each_max: int) -> None:
        """Name the counter `{name}_limit_each`; the limit may be changed later."""
        self.name = name
        self.each_max = each_max
        self.total = 0
        self._counters = counters
        self._taken: dict[Hashable, int] = {}

    def enter(self, key: Hashable, most: int | None = None) -> bool:
        """Take one place; False (and a counter) if there is none. Who got True must `leave`.

        Args:
            key: whose.
            most: how many this one may have; left out: as many as each.
        """
        taken = self._taken.get(key, 0)
        if taken >= (self.each_max if most is None else most):
            self._counters[f"{self.name}_limit_each"] += 1
            return False
        self._taken[key] = taken + 1
        self.total += 1
        return True

    def __contains__(self, key: Hashable) -> bool:
        """Whether this key holds a place."""
        return key in self._taken

    def leave(self, key: Hashable) -> None:
        """Give the place back."""
        self.total -= 1
        taken = self._taken[key] - 1
        if taken:
            self._taken[key] = taken
        else:
            del self._taken[key]


class Pace:
    """Lets many things happen at once, and later ones at a rate. Nobody waits."""

    def __init__(self, at_once: float, per_s: float) -> None:
        self._at_once = self._left = at_once
        self._per_s = per_s
        self._taken_s = 0.0

    def take(self, now_s: float) -> bool:
        """Whether one more may happen now; if so, it has."""
        passed_s, self._taken_s = now_s - self._taken_s, now_s
        self._left = min(self._at_once, self._left + passed_s * self._per_s)
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Minute:
    """How often something has happened within the last minute, and a second more: it counts by whole seconds."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts: deque[list[int]] = deque()  # second, and how often in it
        self._total = 0

    def take(self, most: int, now_s: float) -> bool:
        """Whether it may happen once more, `most` times within any minute; if so, it has."""
        if self.total(now_s) >= most:
            return False
        second = int(now_s)
        if self._counts and self._counts[-1][0] == second:
            self._counts[-1][1] += 1
        else:
            self._counts.append([second, 1])
        self._total += 1
        return True

    def total(self, now_s: float) -> int:
        """How often it has happened."""
        while self._counts and self._counts[0][0] + 1 <= now_s - MINUTE_S:
            self._total -= self._counts.popleft()[1]
        return self._total


def raise_descriptor_limit() -> int:
    """Let this process have as many descriptors as it may; returns the number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def descriptors_max() -> int:
    """The number of descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class _Socket(Protocol):
    def fileno(self) -> int: ...

    def close(self) -> None: ...


def keep_reserve(sock: S, highest: int) -> S:
    """The socket, unless its descriptor eats into the reserve: then it is closed.

    The kernel gives the lowest free number, so a number above `highest` means that all below are taken.

    Raises:
        OSError: it was closed (EMFILE).
    """
    if sock.fileno() > highest:
        sock.close()
        raise OSError(errno.EMFILE, "only the reserve of descriptors is left")
    return sock
