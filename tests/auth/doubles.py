"""What the tests of `auth` share: cheap hashes, users in a dictionary, backends that do as they are told."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from auth import Answer, Credentials, Identity, Rejected, Rejection
from auth.local import BackendContext, LocalUser
from auth.passwords import Passwords

__all__ = [
    "CHEAP",
    "NOW",
    "RIGHT",
    "UNKNOWN",
    "CountingPasswords",
    "FakeBackend",
    "FakeDirectory",
    "accepted",
    "context_of",
    "credentials",
    "local_user",
]

CHEAP = Passwords(memory_kib=8, time_cost=1)  # 0.02 ms; the cost is not what most tests are about
RIGHT = "right"
UNKNOWN = Rejected(Rejection.UNKNOWN_USER)
NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


class CountingPasswords(Passwords):
    """Notes the kind and the parameters of every hash it verifies, without salt and digest."""

    def __init__(self) -> None:
        super().__init__(memory_kib=8, time_cost=1)
        self.work: list[str] = []

    def _check(self, password: str, stored_hash: str) -> bool:
        self.work.append(stored_hash.rsplit("$", 2)[0])
        return super()._check(password, stored_hash)


class FakeBackend:
    """Answers as it is told, and remembers what it was asked."""

    in_flight_max: int | None = None
    revalidate_s: float | None = None

    def __init__(self, answer: Callable[[Credentials], Answer] | Answer = UNKNOWN) -> None:
        self._answer = answer
        self.asked: list[Credentials] = []
        self.opened = 0
        self.closed = 0

    def open(self) -> None:
        """Count."""
        self.opened += 1

    def authenticate(self, credentials: Credentials) -> Answer:
        """Say what was agreed."""
        self.asked.append(credentials)
        return self._answer(credentials) if callable(self._answer) else self._answer

    def find(self, tenant: str, username: str) -> Answer:
        """The same without a password."""
        return self.authenticate(Credentials(tenant=tenant, username=username, password=""))

    def close(self) -> None:
        """Count."""
        self.closed += 1


class FakeDirectory(FakeBackend):
    """A directory whose users change, and which may be down.

    Attributes:
        people: tenant-independent: name to what is known of the user; a name that is not there is nobody's.
        answer: for everybody, in the place of what `people` says; None: as they say.
        found: whom it was asked about without a password.
    """

    in_flight_max: int | None = 64
    revalidate_s: float | None = 60.0

    def __init__(self, *names: str, password: str = RIGHT) -> None:
        super().__init__()
        self.people = {name: Identity("", name, frozenset({"system-proxy"})) for name in names}
        self.answer: Answer | None = None
        self.password = password
        self.found: list[str] = []

    def change(self, name: str, **changes: Any) -> None:
        """Something about a user is another from now on."""
        self.people[name] = attrs.evolve(self.people[name], **changes)

    def authenticate(self, credentials: Credentials) -> Answer:
        """Bind as the user."""
        self.asked.append(credentials)
        answer = self._look_up(credentials.tenant, credentials.username)
        if isinstance(answer, Identity) and credentials.password != self.password:
            return Rejected(Rejection.WRONG_PASSWORD)
        return answer

    def find(self, tenant: str, username: str) -> Answer:
        """Look the user up."""
        self.found.append(username)
        return self._look_up(tenant, username)

    def _look_up(self, tenant: str, username: str) -> Answer:
        if self.answer is not None:
            return self.answer
        known = self.people.get(username)
        return UNKNOWN if known is None else attrs.evolve(known, tenant=tenant)


def credentials(username: str = "alice", password: str = RIGHT, tenant: str = "main", source: str = "") -> Credentials:
    """What a client said, canonical already."""
    return Credentials(tenant=tenant, username=username, password=password, source=source)


def accepted(said: Credentials) -> Identity:
    """The identity a backend gives a member of the proxy group."""
    return Identity(said.tenant, said.username, frozenset({"system-proxy"}))


def local_user(name: str = "alice", password: str = RIGHT, tenant: str = "main") -> LocalUser:
    """A member of the proxy group; change the rest with `attrs.evolve`."""
    return LocalUser(tenant, name, CHEAP.hash(password), frozenset({"system-proxy"}))


def context_of(
    users: Mapping[tuple[str, str], LocalUser] | list[LocalUser], passwords: Passwords = CHEAP
) -> BackendContext:
    """A look-up over some users, at a fixed time of day. A mapping may change under the backend's feet."""
    table = users if isinstance(users, Mapping) else {(user.tenant, user.name): user for user in users}
    return BackendContext(
        find_user=lambda tenant, name: table.get((tenant, name)), now=lambda: NOW, passwords=passwords
    )
