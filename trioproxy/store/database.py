"""One connection to the SQLite file: opened with suspicion, migrated in one step, its errors translated at one seam."""

import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import attrs

from trioproxy.store.errors import StoreError

__all__ = ["BUSY_TIMEOUT_S", "RULES", "Database", "Schema", "path_from_url"]

BUSY_TIMEOUT_S: Final = 5.0  # writers hold the lock for milliseconds; whoever holds it longer is a backup or stuck

_RETRY_S: Final = 0.02


@attrs.frozen
class Schema:
    """What a database is for.

    Attributes:
        application_id: in the header of the file: nobody else's database gets our tables.
        folder: the numbered scripts, below this package.
        title: what messages call it.
        maker: what makes one where there is none.
        small: read through whenever it is opened, to find damage before it does harm. A large one would take minutes.
        revised: has a table `counter` whose `revision` every change raises.
    """

    application_id: int
    folder: str
    title: str
    maker: str
    small: bool = True
    revised: bool = True


RULES: Final = Schema(
    application_id=0x5452494F,  # "TRIO"
    folder="migrations",
    title="store",
    maker="`trioproxy serve` or `trioproxy user add` makes one",
)

_PROBLEMS: Final[dict[int, str]] = {
    sqlite3.SQLITE_BUSY: "locked by another program; try again, or find out who holds it with `fuser`",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; look at the permissions of the file and its folder",
    sqlite3.SQLITE_CORRUPT: "damaged; restore it from a backup, or save what `sqlite3 FILE .recover` can read",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written",
    sqlite3.SQLITE_NOTADB: "not a trioproxy store (no SQLite database at all)",
    sqlite3.SQLITE_PERM: "no permission",
    sqlite3.SQLITE_READONLY: "read-only; look at the permissions of the file and its folder",
}


def path_from_url(location: str | Path) -> Path:
    """The file that a store URL or a plain path names.

    Raises:
        StoreError: the URL is of a kind that is not supported. It is not repeated, it may hold a password.
    """
    if isinstance(location, Path) or not re.match(r"[a-z][a-z0-9+.-]*:", location):
        return Path(location)
    if not location.startswith("sqlite:///") or location == "sqlite:///":
        raise StoreError(
            'this store URL is not supported; write for example "sqlite:////var/lib/trioproxy/trioproxy.db"'
        )
    return Path(location.removeprefix("sqlite:///"))


class Database:
    """A connection; used from one thread at a time.

    Attributes:
        path: the file.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, busy_timeout_s: float, schema: Schema = RULES
    ) -> None:
        self.path = path
        self._schema = schema
        self._connection = connection
        self._busy_timeout_s = busy_timeout_s
        self._inode = self._inode_now()

    @classmethod
    def open(cls, path: Path, *, create: bool, busy_timeout_s: float = BUSY_TIMEOUT_S, schema: Schema = RULES) -> Self:
        """Open the file, and bring it up to date.

        Args:
            path: the file.
            create: make it (and its folder) if it is not there.
            busy_timeout_s: how long to wait for another program's lock.
            schema: what it is for.

        Raises:
            StoreError: it cannot be used. A file that is not ours, or newer, is left as it is.
        """
        if create:
            _make_private_file(path)
        else:
            _find(path, schema)
        with _translated(path):
            # mode=rw: the file was made above with our permissions, or it must be there.
            connection = sqlite3.connect(
                f"file:{quote(str(path))}?mode=rw",
                uri=True,
                timeout=busy_timeout_s,
                isolation_level=None,  # transactions begin where we say so
                check_same_thread=False,  # the server calls from worker threads, one at a time
            )
        try:
            database = cls(path, connection, busy_timeout_s, schema)
            database._prepare()
        except BaseException:
            connection.close()
            raise
        return database

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        self._connection.close()

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query.

        Raises:
            StoreError: the store cannot be read.
        """
        with _translated(self.path):
            return self._connection.execute(sql, parameters).fetchall()

    def run(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Execute one statement; the number of rows it changed.

        Raises:
            StoreError: the store cannot be written.
        """
        with _translated(self.path):
            return self._connection.execute(sql, parameters).rowcount

    def run_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Execute one statement for each row.

        Raises:
            StoreError: the store cannot be written.
        """
        with _translated(self.path):
            self._connection.executemany(sql, rows)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """All queries inside see one state of the store."""
        if self._connection.in_transaction:  # part of a larger one
            yield
            return
        self.run("BEGIN")
        try:
            yield
        finally:
            self._roll_back()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All changes inside happen together or not at all, and the revision, if there is one, counts them as one.

        Raises:
            StoreError: the store cannot be written; nothing was changed.
        """
        if self._connection.in_transaction:  # part of a larger one, which ends with it
            yield
            return
        self.run("BEGIN IMMEDIATE")
        try:
            changes = self._connection.total_changes
            yield
            if self._schema.revised and self._connection.total_changes != changes:
                self.next_value("revision")
            self.run("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def next_value(self, counter: str) -> int:
        """Count up and return the new value; part of the transaction around it."""
        [(value,)] = self.rows("UPDATE counter SET value = value + 1 WHERE name = ? RETURNING value", (counter,))
        return int(value)

    def revision(self) -> int:
        """The number of changes so far; 0 for a new store.

        Raises:
            StoreError: it cannot be read, or the file that was opened is not there any more.
        """
        self.check_in_place()
        [(value,)] = self.rows("SELECT value FROM counter WHERE name = 'revision'")
        return int(value)

    def check_in_place(self) -> None:
        """See that the file that was opened is still the one at its path: writing to a removed one raises nothing.

        Raises:
            StoreError: it was removed or replaced.
        """
        if self._inode_now() != self._inode:
            raise StoreError(f"{self.path}: the file was replaced while it was open; open it again")

    def _inode_now(self) -> int:
        try:
            return self.path.stat().st_ino
        except OSError as error:
            raise StoreError(f"{self.path}: the {self._schema.title} has gone: {error.strerror}") from error

    def _roll_back(self) -> None:
        # After some errors (disk full, say) SQLite has rolled back by itself.
        if self._connection.in_transaction:
            self.run("ROLLBACK")

    def _prepare(self) -> None:
        # Nothing is written before it is known to be ours.
        newest = len(_migrations(self._schema))
        if self._version() > newest:
            raise StoreError(
                f"{self.path}: written by a newer trioproxy (schema {self._version()}, this one knows {newest});"
                " install that version, or restore the backup from before its first start"
            )
        self._use_write_ahead_log()
        self.run("PRAGMA synchronous = NORMAL")  # with WAL: a power cut loses the last moments, never the file
        self.run("PRAGMA foreign_keys = ON")
        if self._schema.small and self.rows("PRAGMA quick_check(1)") != [("ok",)]:
            raise StoreError(f"{self.path}: {_PROBLEMS[sqlite3.SQLITE_CORRUPT]}")
        if self._version() < newest:
            self._migrate()

    def _use_write_ahead_log(self) -> None:
        """So that readers and the writer do not wait for each other."""
        give_up_s = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                self.rows("PRAGMA journal_mode = WAL")
            except StoreError as error:
                # SQLite does not wait for a lock here, as it does everywhere else.
                if _kind(error.__cause__) != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up_s:
                    raise
                time.sleep(_RETRY_S)
            else:
                return

    def _version(self) -> int:
        """Which migration was the last one; 0 for an empty file."""
        with self.reading():  # another process may be migrating: all of it is seen, or nothing
            [(version,)] = self.rows("PRAGMA user_version")
            [(application,)] = self.rows("PRAGMA application_id")
            [(tables,)] = self.rows("SELECT count(*) FROM sqlite_master")
        if application != self._schema.application_id and (tables or version or application):
            raise StoreError(f"{self.path}: not a trioproxy {self._schema.title}, but the database of another program")
        return int(version)

    def _migrate(self) -> None:
        self.run("BEGIN IMMEDIATE")
        try:
            # Asked again now that nobody else can migrate: two commands may have been started at once.
            for number, script in enumerate(_migrations(self._schema)[self._version() :], start=self._version() + 1):
                for statement in _statements(script):
                    self.run(statement)
                self.run(f"PRAGMA user_version = {number}")
            self.run(f"PRAGMA application_id = {self._schema.application_id}")
            self.run("COMMIT")
        except BaseException:
            self._roll_back()
            raise


def _find(path: Path, schema: Schema) -> None:
    """See that there is a file."""
    try:
        path.stat()
    except FileNotFoundError as error:
        raise StoreError(f"{path}: there is no {schema.title}; {schema.maker}") from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def _make_private_file(path: Path) -> None:
    """An empty file that only we may read (it will hold password hashes), in a folder that only we may enter."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        if not os.access(path, os.R_OK) or path.is_dir():  # one that is there and read-only can still be read
            what = "" if error.filename == str(path) else f" ({error.filename})"
            raise StoreError(f"{path}: cannot be made: {error.strerror}{what}") from error


def _migrations(schema: Schema) -> list[str]:
    """The scripts in their order; the first is number 1."""
    folder = resources.files("trioproxy.store") / schema.folder
    scripts = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return [script.read_text(encoding="utf-8") for script in scripts]


def _statements(script: str) -> Iterator[str]:
    # executescript() would commit first, and a migration must be all or nothing.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {_PROBLEMS.get(_kind(error), error)}") from error


def _kind(error: BaseException | None) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF  # the rest is its cause
