"""Every step of a login with its time, for `trioproxy auth test`; in a server nobody listens."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from auth.backend import Step
from auth.ldap.failure import DirectoryError

__all__ = ["Note", "Watch"]


@attrs.define
class Note:
    """What a step has to say for itself when it is done.

    Attributes:
        detail: what came of it.
        advice: what to change, if it came out badly without an exception.
        failed: whether it did.
    """

    detail: str = ""
    advice: str = ""
    failed: bool = False


@attrs.frozen
class Watch:
    """Times steps and tells the observer.

    Attributes:
        observe: told of each step when it is over.
    """

    observe: Callable[[Step], None]

    @contextmanager
    def step(self, name: str) -> Iterator[Note]:
        """Watch one step; a `DirectoryError` goes through, after it has been told."""
        begun_s = time.perf_counter()
        note = Note()
        try:
            yield note
        except DirectoryError as error:
            self.observe(Step(name, time.perf_counter() - begun_s, error.problem, error.advice, failed=True))
            raise
        self.observe(Step(name, time.perf_counter() - begun_s, note.detail, note.advice, note.failed))
