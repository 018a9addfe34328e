"""The one interface that every source of users has, and the three answers it may give.

"Rejected" and "could not tell" are different types on purpose: a wrong password counts against the user and may be
remembered, a dead directory is our problem, is never remembered and never lets anybody in.
"""

import enum
from datetime import datetime
from typing import Protocol, TypeAlias, runtime_checkable

import attrs

__all__ = ["Answer", "Backend", "Credentials", "Identity", "Rejected", "Rejection", "Unavailable"]


@attrs.frozen
class Identity:
    """Who a session belongs to, as every later part sees it.

    Attributes:
        tenant: the organisation whose backend answered.
        user: the canonical user name, or None for a client without login.
        groups: canonical names of the user's groups inside the tenant.
        backend: the name of the backend that answered; empty for a client without login.
        epoch: opaque; a live session whose user now has another epoch is over (its password changed, say).
        valid_until: aware; from then on the account is expired, also for an answer that was cached before.
    """

    tenant: str
    user: str | None
    groups: frozenset[str] = frozenset()
    backend: str = ""
    epoch: str = ""
    valid_until: datetime | None = None


@attrs.frozen
class Credentials:
    """What a client said about itself, decoded and canonicalised, for one tenant.

    Attributes:
        tenant: the tenant that listener or realm selected.
        username: canonical (see `auth.names`), never empty.
        password: the password as text, never empty, without NUL; hidden in `repr`.
        source: the client's address in canonical text form, for users that may come from some networks only.
    """

    tenant: str
    username: str
    password: str = attrs.field(repr=False)
    source: str = ""


class Rejection(enum.Enum):
    """Why a login was refused. The client sees the same two bytes for each of them."""

    EMPTY_PASSWORD = "empty password"  # noqa: S105 - the name of a reason
    MALFORMED = "malformed user name or password"
    UNKNOWN_USER = "unknown user"
    WRONG_PASSWORD = "wrong password"  # noqa: S105 - the name of a reason
    DISABLED = "user is disabled"
    EXPIRED = "user is expired or not yet valid"
    WRONG_SOURCE = "user may not log in from this address"
    NOT_A_MEMBER = "user is not a member of the proxy group"
    PENALTY = "too many failures"


@attrs.frozen
class Rejected:
    """The backend knows for sure: these credentials give no access."""

    reason: Rejection


@attrs.frozen
class Unavailable:
    """The backend could not tell. Refused, never cached, never counted as a wrong password."""

    problem: str


Answer: TypeAlias = Identity | Rejected | Unavailable


@runtime_checkable
class Backend(Protocol):
    """A source of users. Constructed from frozen settings without side effects, then `open`, use, `close`.

    All methods are synchronous, may block, and are called from worker threads, several at once.
    """

    def open(self) -> None:
        """Get ready. Raises `OSError` or `ValueError` if the backend cannot work as configured."""
        ...

    def authenticate(self, credentials: Credentials) -> Answer:
        """Answer whose credentials these are. `Rejected(UNKNOWN_USER)` alone lets a chain ask the next backend."""
        ...

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        ...
