"""The one interface that every source of users has, and the three answers it may give.

"Rejected" and "could not tell" are different types on purpose: a wrong password counts against the user and may be
remembered, a dead directory is our problem, is never remembered and never lets anybody in.
"""

import enum
import math
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import attrs

__all__ = [
    "Answer",
    "Backend",
    "Cause",
    "Credentials",
    "EntryRules",
    "Identity",
    "Rejected",
    "Rejection",
    "Step",
    "Unavailable",
]

_NEVER_S: Final = -math.inf


@attrs.frozen
class EntryRules:
    """Rules that a directory keeps with a user or with a group, as text: this package knows no grammar.

    Attributes:
        group: the canonical name of the group they belong to; None: the user's own.
        entry: where they are written (a DN), for messages.
        texts: in the order in which they are asked.
        readings: what those who know the grammar have made of them; lives as long as this does.
    """

    group: str | None
    entry: str
    texts: tuple[str, ...]
    readings: dict[tuple[str, str], Any] = attrs.field(init=False, factory=dict, eq=False, repr=False)


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
        member: whether the user is in the proxy group; one who is not, and was let in, has the global layer alone.
        rules: what the backend itself says about the user and the groups; part of those layers.
        verified_s: monotonic; when the backend was asked for this answer.
    """

    tenant: str
    user: str | None
    groups: frozenset[str] = frozenset()
    backend: str = ""
    epoch: str = ""
    valid_until: datetime | None = None
    member: bool = True
    rules: tuple[EntryRules, ...] = ()
    verified_s: float = attrs.field(default=_NEVER_S, eq=False)


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
    OTHER_NAME = "the user goes by another spelling of the name"
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


class Cause(enum.Enum):
    """What kept a backend from telling; each has a counter."""

    CONNECT = "it cannot be reached"
    TLS = "its certificate or its TLS is not accepted"
    TIMEOUT = "it does not answer in time"
    PROTOCOL = "it does not speak the protocol"
    REFUSED = "it refuses what we ask"
    SERVICE_LOGIN = "it does not accept our own account"
    AMBIGUOUS = "its answer has no clear meaning"
    BUSY = "too many logins at once"
    OTHER = "it failed"


@attrs.frozen
class Unavailable:
    """The backend could not tell. Refused, never cached, never counted as a wrong password."""

    problem: str
    cause: Cause = Cause.OTHER


Answer: TypeAlias = Identity | Rejected | Unavailable


@attrs.frozen
class Step:
    """One thing a backend did on the way to an answer; shown by `trioproxy auth test`.

    Attributes:
        name: what was done, in a few words.
        duration_s: how long it took.
        detail: what came of it. Never a password.
        advice: if it failed, the likely cause and what to change; empty if it did not.
        failed: whether it did.
    """

    name: str
    duration_s: float
    detail: str = ""
    advice: str = ""
    failed: bool = False


@runtime_checkable
class Backend(Protocol):
    """A source of users. Constructed from frozen settings without side effects, then `open`, use, `close`.

    All methods are synchronous, may block, and are called from worker threads, several at once.
    """

    @property
    def in_flight_max(self) -> int | None:
        """How many may be asked at once; None: it computes rather than waits, and shares the threads of hashing."""
        ...

    @property
    def revalidate_s(self) -> float | None:
        """How often users with live sessions are looked up again; None: never, changes are known by other means."""
        ...

    def open(self) -> None:
        """Get ready. Raises `OSError` or `ValueError` if the backend cannot work as configured."""
        ...

    def authenticate(self, credentials: Credentials) -> Answer:
        """Answer whose credentials these are. `Rejected(UNKNOWN_USER)` alone lets a chain ask the next backend."""
        ...

    def find(self, tenant: str, username: str) -> Answer:
        """Answer who this user is by now, without a password: for live sessions, and for explanations of rules."""
        ...

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        ...
