"""What can go wrong between us and a directory: one exception, with its cause and what to do about it."""

from typing import Final

from auth.backend import Cause

__all__ = ["DirectoryError"]

# Another server of the same directory may do better. What is left is the same everywhere: our own account, a filter.
_OF_ONE_SERVER: Final = frozenset({Cause.CONNECT, Cause.TLS, Cause.TIMEOUT, Cause.PROTOCOL, Cause.BUSY})


class DirectoryError(Exception):
    """The directory could not tell. Never carries a password.

    Attributes:
        problem: what happened, one line.
        cause: for the counter.
        advice: the likely reason and the setting to change.
        final: the user's password is on its way already, so no other server may be asked with it.
        kept: it happened on a connection that was kept open; a new one to the same server may do better.
    """

    def __init__(self, problem: str, cause: Cause, advice: str = "", *, final: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.cause = cause
        self.advice = advice
        self.final = final
        self.kept = False

    @property
    def of_one_server(self) -> bool:
        """Whether the next server of the list is worth asking."""
        return self.cause in _OF_ONE_SERVER and not self.final
