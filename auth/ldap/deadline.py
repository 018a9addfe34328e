"""A moment by which something must be done; every wait is cut to what is left of it."""

import time
from typing import Self

import attrs

from auth.backend import Cause
from auth.ldap.failure import DirectoryError

__all__ = ["Deadline"]


@attrs.frozen
class Deadline:
    """The end of one login.

    Attributes:
        at_s: on the monotonic clock.
    """

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """The moment so many seconds from now."""
        return cls(time.monotonic() + seconds)

    def within(self, seconds: float) -> "Deadline":
        """The earlier of this and the moment so many seconds from now."""
        return Deadline(min(self.at_s, time.monotonic() + seconds))

    def left_s(self) -> float:
        """What is left, in seconds; more than nothing.

        Raises:
            DirectoryError: nothing is.
        """
        left_s = self.at_s - time.monotonic()
        if left_s <= 0:
            raise DirectoryError("no answer in time", Cause.TIMEOUT, "the directory is slow, or answer_s is too short")
        return left_s
