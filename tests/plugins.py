"""A directory for tests, installed as a plug-in: it knows who the test says it knows, with groups and rules."""

from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from auth import Answer, Credentials, Identity, Rejected, Rejection, registry
from auth.local import BackendContext, LocalSettings

__all__ = ["PASSWORD", "Directory", "install_directory"]

PASSWORD = "wonderland"  # everybody's


class Directory:
    """What `[auth.NAME]` with `type = "directory"` makes.

    Attributes:
        people: tenant and name to what is answered about them; all that are installed share it.
        asked: every tenant and name that was looked up without a password.
        contexts: what each was built with.
        is_open: how many are open now.
    """

    settings_type: ClassVar[type] = LocalSettings
    in_flight_max: int | None = 8
    revalidate_s: float | None = None
    people: ClassVar[dict[tuple[str, str], Answer]]
    asked: ClassVar[list[tuple[str, str]]]
    contexts: ClassVar[list[BackendContext]]
    is_open: ClassVar[int]

    def __init__(self, _settings: LocalSettings, context: BackendContext) -> None:
        self.contexts.append(context)

    def open(self) -> None:
        """Count it."""
        Directory.is_open += 1

    def close(self) -> None:
        """Count it."""
        Directory.is_open -= 1

    def authenticate(self, credentials: Credentials) -> Answer:
        """Everybody has the same password."""
        answer = self._answer(credentials.tenant, credentials.username)
        return answer if credentials.password == PASSWORD else Rejected(Rejection.WRONG_PASSWORD)

    def find(self, tenant: str, username: str) -> Answer:
        """The same without a password."""
        self.asked.append((tenant, username))
        return self._answer(tenant, username)

    def _answer(self, tenant: str, username: str) -> Answer:
        return self.people.get((tenant, username), Rejected(Rejection.UNKNOWN_USER))


def install_directory(monkeypatch: pytest.MonkeyPatch, *people: Identity) -> type[Directory]:
    """Make the type "directory" known, with these people in it."""

    def entry_points(*, group: str) -> Sequence[EntryPoint]:
        return [EntryPoint("directory", f"{__name__}:Directory", group)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    known = {(person.tenant, person.user): person for person in people}
    for name, value in {"people": known, "asked": [], "contexts": [], "is_open": 0}.items():
        monkeypatch.setattr(Directory, name, value, raising=False)
    return Directory
