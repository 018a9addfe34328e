"""Opening the file with suspicion: what is broken, foreign, newer or locked is said clearly and left alone."""

import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.store.samples import ALICE, GLOBAL, alice, rule, rules
from trioproxy.policy import BlockKind, BlockSubject, Party
from trioproxy.store import EntryError, Store, StoreError, database, path_from_url


def problem_of(path: Path, *, create: bool = False) -> str:
    """Why the store cannot be opened, without its path."""
    with pytest.raises(StoreError) as caught:
        Store.open(path, create=create, busy_timeout_s=0.01).close()
    return str(caught.value).removeprefix(f"{path}: ")


def test_a_new_store_is_private(path: Path, store: Store) -> None:
    """It holds password hashes: nobody else may read the file or enter a folder made for it."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.users.add([alice()])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"trioproxy.db": 0o600, "trioproxy.db-wal": 0o600, "trioproxy.db-shm": 0o600}


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """Whoever made the folder decided who may enter it."""
    tmp_path.chmod(0o755)
    Store.open(tmp_path / "a.db", create=True).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_new_store_is_at_revision_zero(store: Store) -> None:
    """The first start is told from others by a store in which nothing ever was changed."""
    assert store.revision() == 0


def test_opening_again_keeps_everything(path: Path, store: Store) -> None:
    """Issue item 2: a second start finds the same store."""
    store.users.add([alice()])
    store.rules.add(ALICE, rule("tcp:*(*)->*(*)"))
    with Store.open(path, create=True) as again:
        assert again.snapshot() == store.snapshot()
        assert again.revision() == 2


def test_a_missing_store(path: Path) -> None:
    """A listing makes no store, and says what would."""
    expected = "there is no store; `trioproxy serve` or `trioproxy user add` makes one"
    assert problem_of(path) == expected
    assert not path.parent.exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """One clear line when a part of the path is a file."""
    (tmp_path / "file").touch()
    assert problem_of(tmp_path / "file" / "a.db", create=True) == f"cannot be made: File exists ({tmp_path / 'file'})"


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    """One clear line when the store is a folder."""
    assert problem_of(tmp_path, create=True) == "cannot be made: Is a directory"
    assert problem_of(tmp_path) == "cannot be opened; look at the permissions of the file and its folder"


@pytest.mark.parametrize("content", [b"this is a letter\n" * 100, b"\0" * 4096, b"SQLite format 3\0" + b"\xff" * 5000])
@pytest.mark.parametrize("create", [True, False])
def test_no_database(tmp_path: Path, content: bytes, create: bool) -> None:
    """Issue item 2: a broken store is one clear line, and nothing is damaged."""
    path = tmp_path / "a.db"
    path.write_bytes(content)
    problem = problem_of(path, create=create)
    assert problem in {database._PROBLEMS[sqlite3.SQLITE_NOTADB], database._PROBLEMS[sqlite3.SQLITE_CORRUPT]}
    assert path.read_bytes() == content


@pytest.mark.parametrize("pragma", ["application_id = 5", "user_version = 3", "encoding = 'UTF-8'"])
def test_a_database_of_another_program(tmp_path: Path, pragma: str) -> None:
    """Nobody else's data gets our tables."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA {pragma}")
        other.execute("CREATE TABLE precious (x)")
    content = path.read_bytes()
    assert problem_of(path, create=True) == "not a trioproxy store, but the database of another program"
    assert path.read_bytes() == content


def test_a_newer_store(path: Path) -> None:
    """A store that a newer version wrote is refused and left as it is."""
    Store.open(path, create=True).close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 99")
    content = path.read_bytes()
    assert problem_of(path, create=True) == (
        "written by a newer trioproxy (schema 99, this one knows 2);"
        " install that version, or restore the backup from before its first start"
    )
    assert path.read_bytes() == content


def test_a_damaged_store(path: Path) -> None:
    """Case 113: corrupted pages are found when the store is opened, not in the middle of a login."""
    with Store.open(path, create=True) as store:
        store.rules.replace({GLOBAL: rules(*(f"tcp:*(*)->host{number}.example(*)" for number in range(2000)))})
    content = bytearray(path.read_bytes())
    content[8192:-8192] = b"\xa5" * (len(content) - 16_384)
    path.write_bytes(content)
    assert problem_of(path) == "damaged; restore it from a backup, or save what `sqlite3 FILE .recover` can read"
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    """Somebody's `touch`, or a first start that was cut off, is no broken store."""
    path = tmp_path / "a.db"
    path.touch()
    with Store.open(path, create=False) as store:
        assert store.revision() == 0


def test_locked_for_longer_than_we_wait(path: Path, store: Store) -> None:
    """Case 113: somebody else holds the lock; reading goes on, writing says so and changes nothing."""
    store.users.add([alice()])
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as holder,
        Store.open(path, create=False, busy_timeout_s=0.01) as second,
    ):
        holder.execute("BEGIN IMMEDIATE")
        before = second.snapshot()
        with pytest.raises(StoreError, match="locked by another program"):
            second.users.remove("main", "alice")
        assert second.snapshot() == before
        holder.execute("ROLLBACK")
        assert second.users.remove("main", "alice") == 0


@pytest.mark.parametrize("kind", ["EXCLUSIVE", "IMMEDIATE"])
def test_locked_altogether(path: Path, kind: str) -> None:
    """Case 113: a store that another program has locked before it could be opened is one clear line."""
    Store.open(path, create=True).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA journal_mode = DELETE")
        holder.execute(f"BEGIN {kind}")
        assert problem_of(path) == "locked by another program; try again, or find out who holds it with `fuser`"


def test_the_lock_of_a_moment_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two first starts at once: the second waits, also where SQLite by itself would not (switching to WAL)."""
    answers = [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY]
    rows = database.Database.rows

    def busy_at_first(
        self: database.Database, sql: str, parameters: tuple[object, ...] = ()
    ) -> list[tuple[object, ...]]:
        if "journal_mode" in sql and answers:
            cause = sqlite3.OperationalError("database is locked")
            cause.sqlite_errorcode = answers.pop()
            raise StoreError("locked") from cause
        return rows(self, sql, parameters)

    monkeypatch.setattr(database.Database, "rows", busy_at_first)
    with Store.open(path, create=True) as store:
        assert store.revision() == 0
    assert answers == []


def test_many_first_starts_at_once(path: Path) -> None:
    """Every one of several processes that make the store at the same time finds it whole."""
    outcomes: list[object] = []
    barrier = threading.Barrier(6)

    def start() -> None:
        barrier.wait()
        try:
            with Store.open(path, create=True) as store:
                outcomes.append(store.revision())
        except StoreError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [0] * 6


def test_read_only_file(unprivileged_path: Path) -> None:
    """Case 113: a read-only store can be read; a change is refused with a clear line, and nothing changes."""
    unprivileged_path.chmod(0o400)
    content = unprivileged_path.read_bytes()
    with Store.open(unprivileged_path, create=True) as store:
        assert store.snapshot().users == {}
        with pytest.raises(StoreError, match="read-only; look at the permissions"):
            store.users.add([alice()])
    assert unprivileged_path.read_bytes() == content


def test_unreadable_file(unprivileged_path: Path) -> None:
    """Issue item 2: an unreadable file is one clear line."""
    unprivileged_path.chmod(0)
    assert problem_of(unprivileged_path) == "cannot be opened; look at the permissions of the file and its folder"
    assert problem_of(unprivileged_path, create=True) == (
        "cannot be opened; look at the permissions of the file and its folder"
    )


def test_a_folder_that_cannot_be_written(unprivileged_path: Path) -> None:
    """Issue item 2: no store can be made there, and the line says why."""
    unprivileged_path.parent.chmod(0o500)
    assert problem_of(unprivileged_path.with_name("other.db"), create=True) == "cannot be made: Permission denied"


def test_the_disk_is_full(store: Store) -> None:
    """Case 113: a change that does not fit is refused whole; what was there stays."""
    store.users.add([alice()])
    before = store.snapshot()
    [(pages,)] = store._database.rows("PRAGMA page_count")
    store._database.run(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="the disk is full"):
        store.rules.replace({GLOBAL: rules(*(f"tcp:*(*)->host{number}.example(*)" for number in range(2000)))})
    assert store.snapshot() == before


def test_a_removed_store_is_noticed(path: Path, store: Store) -> None:
    """Case 113: an open file that nobody else can see any more would hide every change."""
    path.unlink()
    with pytest.raises(StoreError, match="the store has gone: No such file"):
        store.revision()


def test_a_store_that_is_removed_while_it_is_opened_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 113: it is there when the file is opened and gone a moment later."""
    connect = sqlite3.connect

    def connect_and_lose(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        path.unlink()
        return connection

    Store.open(path, create=True).close()
    monkeypatch.setattr(sqlite3, "connect", connect_and_lose)
    with pytest.raises(StoreError, match="the store has gone: No such file"):
        Store.open(path, create=False)


def test_a_replaced_store_is_noticed(path: Path, store: Store) -> None:
    """Case 113: a restored backup is another file; the one that is open would hide it."""
    path.rename(path.with_name("old.db"))
    Store.open(path, create=True).close()
    with pytest.raises(StoreError, match="the file was replaced while it was open"):
        store.revision()


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration is all or nothing, the schema version included."""
    with Store.open(path, create=True) as store:
        store.users.add([alice()])
    scripts = [*database._migrations(database.RULES), "CREATE TABLE extra (x TEXT);\nCREATE TABLE extra (x TEXT);\n"]
    monkeypatch.setattr(database, "_migrations", lambda _schema: scripts)
    assert problem_of(path) == "table extra already exists"
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (len(scripts) - 1,)
        assert raw.execute("SELECT name FROM sqlite_master WHERE name = 'extra'").fetchall() == []


def test_a_migration_keeps_what_is_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer version brings an older store up to date when it opens it."""
    with Store.open(path, create=True) as store:
        store.users.add([alice()])
    scripts = [*database._migrations(database.RULES), "-- more; much more\nCREATE TABLE extra (\n    x TEXT\n);\n"]
    monkeypatch.setattr(database, "_migrations", lambda _schema: scripts)
    with Store.open(path, create=False) as store:
        assert store.users.find("main", "alice") is not None
        assert store._database.rows("SELECT * FROM extra") == []
        assert store._database.rows("PRAGMA user_version") == [(len(scripts),)]


def test_a_store_of_the_first_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made before there were blocks and limits has none, and takes them."""
    scripts = database._migrations(database.RULES)
    with monkeypatch.context() as earlier:
        earlier.setattr(database, "_migrations", lambda _schema: scripts[:1])
        database.Database.open(path, create=True).close()
    with Store.open(path, create=False) as store:
        before = store.snapshot()
        assert (before.blocks, before.limits) == ((), {})
        store.limits.change(Party(ALICE), lambda limit: limit.changed(["sessions=5"]))
        assert store.blocks.add(BlockSubject(BlockKind.EVERYTHING), reason="attack", set_by="root").id == 1


def test_everything_together_or_nothing(store: Store) -> None:
    """Several changes are one revision, or none at all."""
    with store.together():
        store.users.add([alice()])
        store.rules.add(ALICE, rule("tcp:*(*)->*(*)"))
    assert store.revision() == 1

    before = store.snapshot()
    with pytest.raises(EntryError), store.together():  # noqa: PT012 - the second change undoes the first
        store.users.remove("main", "alice")
        store.users.remove("main", "nobody")
    assert store.snapshot() == before


def test_a_change_of_nothing_is_no_revision(store: Store) -> None:
    """The server reads everything again for each revision; an unchanged store must not make it."""
    store.users.add([])
    store.rules.replace({})
    assert store.revision() == 0


def test_nothing_is_left_open(path: Path) -> None:
    """A store that cannot be opened holds no descriptor."""
    path.parent.mkdir()
    path.write_bytes(b"x" * 100)
    before = set(Path("/proc/self/fd").iterdir())
    problem_of(path)
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_secrets_in_memory_do_not_print(store: Store) -> None:
    """Case 106: a snapshot in a traceback shows no hash."""
    store.users.add([alice()])
    assert "argon2" not in repr(store.snapshot())


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("sqlite:////var/lib/x.db", Path("/var/lib/x.db")),
        ("sqlite:///x.db", Path("x.db")),
        ("/var/lib/x.db", Path("/var/lib/x.db")),
        ("x.db", Path("x.db")),
        (Path("/a:b"), Path("/a:b")),
    ],
)
def test_paths(location: str | Path, path: Path) -> None:
    """DESIGN section 6: three slashes and a path."""
    assert path == path_from_url(location)


@pytest.mark.parametrize("location", ["postgresql://me:PW-CANARY@db/x", "sqlite://PW-CANARY", "sqlite:///"])
def test_other_urls(location: str) -> None:
    """Case 106: what is not supported is said without repeating the URL, which may hold a password."""
    with pytest.raises(StoreError, match="this store URL is not supported") as caught:
        Store.open(location, create=True)
    assert "PW-CANARY" not in str(caught.value)


def test_a_path_with_odd_characters(tmp_path: Path) -> None:
    """The path goes into a URI for SQLite; its own characters must not become options."""
    path = tmp_path / "a?mode=memory&x=#%41 ü.db"
    Store.open(path, create=True).close()
    assert path.stat().st_size > 0
