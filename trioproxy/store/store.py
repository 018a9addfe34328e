"""The store as the rest of trioproxy sees it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from trioproxy.store.blocks import StoredBlocks
from trioproxy.store.database import BUSY_TIMEOUT_S, Database, path_from_url
from trioproxy.store.errors import StoreError
from trioproxy.store.limits import Limits
from trioproxy.store.rules import Rules
from trioproxy.store.snapshot import Snapshot
from trioproxy.store.users import Users

__all__ = ["Store"]


class Store:
    """Users, rules, limits and blocks in one SQLite file. Synchronous, and used from one thread at a time.

    Any number of processes may have the same file open; each change raises the revision in the same transaction.

    Attributes:
        path: the file.
        users: local users of all tenants.
        rules: rules of all layers.
        limits: how fast, how much and how many, for whom.
        blocks: what is cut off.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.path = database.path
        self.users = Users(database)
        self.rules = Rules(database)
        self.limits = Limits(database)
        self.blocks = StoredBlocks(database)

    @classmethod
    def open(cls, location: str | Path, *, create: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Self:
        """Open the store; what is in it is checked first, and a file that is not ours is left as it is.

        Args:
            location: a path, or a URL as in the configuration.
            create: make the store if it is not there.
            busy_timeout_s: how long to wait for a lock that another program holds.

        Raises:
            StoreError: it is missing, damaged, newer, not ours, or cannot be read.
        """
        return cls(Database.open(path_from_url(location), create=create, busy_timeout_s=busy_timeout_s))

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def together(self) -> AbstractContextManager[None]:
        """Several changes as one: all of those made inside, or none if anything inside is raised.

        Raises:
            StoreError: the store cannot be written.
        """
        return self._database.writing()

    def revision(self) -> int:
        """Another number than before means that something has changed; 0 is a store in which nothing ever was.

        Raises:
            StoreError: it cannot be read, or the file was removed or replaced: close this store and open it again.
        """
        with _written_by_us(self.path):
            return self._database.revision()

    def snapshot(self) -> Snapshot:
        """Everything in one consistent reading.

        Raises:
            StoreError: it cannot be read.
        """
        with _written_by_us(self.path), self._database.reading():
            return Snapshot(
                revision=self.revision(),
                users={(user.tenant, user.name): user for user in self.users.all()},
                rules=self.rules.all(),
                limits=self.limits.all(),
                blocks=self.blocks.all(),
            )


@contextmanager
def _written_by_us(path: Path) -> Iterator[None]:
    """SQLite keeps any type in any column: what a hand or a damaged backup put there is a store that cannot be read."""
    try:
        yield
    except (TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path}: holds something that trioproxy did not write ({type(error).__name__})") from error
