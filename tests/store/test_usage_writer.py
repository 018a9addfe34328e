"""The thread that writes usage: soon, without holding anybody up, and through every trouble of the disk."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.harness import Records
from tests.store.usage_samples import NOON, contents, flow, quarter, quota, record
from trioproxy.accounting.usage import MERGED_TARGET, UsageSums
from trioproxy.log import configure_log
from trioproxy.store import StoreError, UsageStore, usage_writer
from trioproxy.store.usage_writer import UsageWriter

STAFF = frozenset({"staff"})
NOW = datetime.now(UTC)


@pytest.fixture
def log() -> Records:
    """What is said about trouble."""
    sink = Records()
    configure_log("info", sink=sink)
    return sink


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where usage will be."""
    return tmp_path / "data" / "trioproxy-usage.db"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a second in service."""
    monkeypatch.setattr(usage_writer, "FLUSH_S", 0.01)
    monkeypatch.setattr(usage_writer, "BUSY_TIMEOUT_S", 0.01)


@pytest.fixture
def writer(path: Path, log: Records) -> Iterator[UsageWriter]:
    """A writer that keeps usage for 90 days."""
    opened = UsageWriter(path, 90)
    yield opened
    opened.close()


def settle(condition: Callable[[], bool]) -> None:
    """Wait for what the thread brings about; how long that takes is not what is tested."""
    give_up_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.005)


def flows(path: Path) -> int:
    """How many are written."""
    if not path.exists():
        return 0
    with UsageStore.open(path, create=False) as store:
        [(number,)] = store.database.rows("SELECT coalesce(sum(flows), 0) FROM usage")
    return int(number)


def test_flows_are_written_soon(path: Path, writer: UsageWriter) -> None:
    """Nobody has to ask for it; names of targets are the same in any case."""
    writer.add(record(), STAFF, "tls")
    settle(lambda: flows(path) == 1)
    writer.add(record(), STAFF, "tls")
    writer.add(record(None, asked=None), frozenset())
    writer.close()
    with UsageStore.open(path, create=False) as store:
        assert contents(store) == [
            (quarter(), "main", "", "", "-", "", 1, 10, 1),
            (quarter(), "main", "alice", "staff", "www.example.org:443", "tls", 2, 20, 2),
        ]


def test_the_end_writes_what_is_waiting(path: Path, log: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain loses nothing, however much is waiting."""
    monkeypatch.setattr(usage_writer, "FLUSH_S", 3600)
    monkeypatch.setattr(usage_writer, "BATCH_MAX", 7)
    writer = UsageWriter(path, 90)
    for number in range(100):
        writer.add(record(asked=f"host{number}:1"), STAFF)
    writer.add_quota_deltas([(quota(), 5)])
    writer.close()
    assert flows(path) == 100
    assert writer.quotas_used(NOON) == {quota(): 5}
    assert +writer.counters == {}
    assert log.lines == []


def test_no_file_without_anything_to_write(path: Path, writer: UsageWriter) -> None:
    """With a retention of 0 days no flow is written."""
    writer.retention_days = 0
    writer.add(record(), STAFF)
    assert writer.quotas_used(NOON) == {}
    writer.close()
    assert not path.exists()


def test_quotas_are_written_whatever_the_retention(path: Path, log: Records) -> None:
    """They are no usage, they are a limit; what others have written is read, too."""
    writer = UsageWriter(path, 0)
    writer.add_quota_deltas([(quota(), 5), (quota("bob"), 1)])
    settle(lambda: len(writer.quotas_used(NOON)) == 2)
    with UsageStore.open(path, create=False) as other:
        other.add_quota_deltas([(quota(), 100)])
    writer.add_quota_deltas([(quota(), 7)])
    writer.close()
    assert writer.quotas_used(NOON) == {quota(): 112, quota("bob"): 1}


def test_too_many_quotas_are_counted(path: Path, log: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded while the store is away; known ones go on."""
    monkeypatch.setattr(usage_writer, "FLUSH_S", 3600)
    writer = UsageWriter(path, 0, quotas_max=2)
    for number in range(4):
        writer.add_quota_deltas([(quota(f"user{number}"), 10)])
    writer.add_quota_deltas([(quota("user0"), 1)])
    writer.close()
    assert writer.counters["quota_bytes_lost"] == 20
    assert sum(writer.quotas_used(NOON).values()) == 21


# ---- removing


def test_what_is_too_old_is_removed(path: Path, log: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start and every hour, in portions; quotas of long gone periods, too."""
    monkeypatch.setattr(usage_writer, "REMOVED_MAX", 2)
    with UsageStore.open(path, create=True) as store:
        store.add([flow(f"user{number}", at=NOW - timedelta(days=91)) for number in range(9)])
        store.add([flow(at=NOW - timedelta(days=89))])
        store.add_quota_deltas([(quota(begin=NOW - timedelta(days=100)), 1), (quota(begin=NOW), 2)])
    writer = UsageWriter(path, 90)
    settle(lambda: flows(path) == 1)
    assert writer.quotas_used(NOW - timedelta(days=365)) == {quota(begin=NOW.replace(microsecond=0)): 2}
    writer.close()


def test_usage_of_a_site_that_wants_none_any_more_is_removed(path: Path, log: Records) -> None:
    """`retention_days = 0` keeps nothing, also of what was."""
    with UsageStore.open(path, create=True) as store:
        store.add([flow(at=NOW - timedelta(minutes=15))])
    writer = UsageWriter(path, 0)
    settle(lambda: flows(path) == 0)
    writer.close()


# ---- trouble


def test_case_113_locked(path: Path, writer: UsageWriter, log: Records) -> None:
    """Case 113: another program holds the lock: flows wait, it is said once, and then all of them are written."""
    writer.add(record(), STAFF)
    settle(lambda: flows(path) == 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        for _ in range(50):
            writer.add(record(), STAFF)
            writer.add_quota_deltas([(quota(), 2)])
        settle(lambda: writer.counters["usage_write_failed"] >= 3)
        writer.add(record(), STAFF)  # behind those that could not be written
        holder.execute("ROLLBACK")
    settle(lambda: len(log.lines) == 2)
    assert (flows(path), writer.quotas_used(NOON)) == (52, {quota(): 100})
    assert b"usage cannot be written and waits in memory" in log.lines[0]
    assert b"locked by another program" in log.lines[0]
    assert b"usage is written again" in log.lines[1]


def test_case_113_locked_for_quotas_alone(path: Path, writer: UsageWriter) -> None:
    """Case 113: deltas that could not be written are added to those that came since."""
    writer.add_quota_deltas([(quota(), 1)])
    settle(lambda: writer.quotas_used(NOON) == {quota(): 1})
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        writer.add_quota_deltas([(quota(), 10)])
        settle(lambda: writer.counters["usage_write_failed"] >= 2)
        writer.add_quota_deltas([(quota(), 100)])
        holder.execute("ROLLBACK")
    settle(lambda: writer.quotas_used(NOON) == {quota(): 111})


def test_case_113_away_for_long(path: Path, log: Records) -> None:
    """Case 113: queued to a bound, then the oldest aggregated; never lost."""
    UsageStore.open(path, create=True).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        writer = UsageWriter(path, 90, sums=UsageSums(keys_max=10))
        writer.add(record(asked="first:1"), STAFF)
        settle(lambda: bool(writer._waiting))
        for number in range(100):
            writer.add(record(asked=f"host{number}:1"), STAFF)
        holder.execute("ROLLBACK")
    writer.close()
    assert writer.merged == 90
    with UsageStore.open(path, create=False) as store:
        rows = {row[4]: row[6] for row in contents(store)}
    assert rows == {"first:1": 1, MERGED_TARGET: 90} | {f"host{number}:1": 1 for number in range(90, 100)}


def test_case_113_removed(path: Path, writer: UsageWriter) -> None:
    """Case 113: the file is removed under us: the next flows go into a new one."""
    writer.add(record(), STAFF)
    settle(lambda: flows(path) == 1)
    path.unlink()
    writer.add(record(), STAFF)
    writer.add(record(), STAFF)
    settle(lambda: flows(path) == 2)


def test_case_113_replaced(path: Path, writer: UsageWriter) -> None:
    """Case 113: a backup was put back: what is there now counts."""
    writer.add(record(), STAFF)
    settle(lambda: flows(path) == 1)
    with UsageStore.open(path.with_name("backup.db"), create=True) as backup:
        backup.add([flow(), flow()])
    for old in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        old.unlink()
    path.with_name("backup.db").rename(path)
    writer.add(record(), STAFF)
    settle(lambda: flows(path) == 3)


@pytest.mark.parametrize("content", [b"this is a letter\n" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_case_113_no_usage_store(path: Path, writer: UsageWriter, log: Records, content: bytes) -> None:
    """Case 113: somebody else's or a damaged file stays as it is; once it is out of the way nothing was lost."""
    path.parent.mkdir()
    path.write_bytes(content)
    writer.add(record(), STAFF)
    settle(lambda: writer.counters["usage_write_failed"] >= 2)
    assert path.read_bytes() == content
    with pytest.raises(StoreError):
        writer.quotas_used(NOON)
    path.unlink()
    settle(lambda: flows(path) == 1)
    settle(lambda: len(log.lines) == 2)


def test_a_fault_of_ours_does_not_end_the_writing(
    path: Path, writer: UsageWriter, log: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, counted and tried again; nothing is lost."""
    with monkeypatch.context() as patched:
        patched.setattr(UsageStore, "add", lambda *_: 1 // 0)
        writer.add(record(), STAFF)
        settle(lambda: writer.counters["usage_write_failed"] >= 2)
    settle(lambda: flows(path) == 1)
    settle(lambda: "usage is written again" in log.text())
    assert "internal error" in log.text()
    assert "ZeroDivisionError" in log.text()


def test_case_113_what_cannot_be_written_at_the_end_is_counted(path: Path, log: Records) -> None:
    """Case 113: never silently."""
    path.parent.mkdir()
    path.mkdir()
    writer = UsageWriter(path, 90)
    for _ in range(3):
        writer.add(record(), STAFF)
    writer.add_quota_deltas([(quota(), 9)])
    settle(lambda: writer.counters["usage_write_failed"] >= 1)
    writer.close()
    assert (writer.counters["usage_lost"], writer.counters["quota_bytes_lost"]) == (3, 9)
    assert b"usage that could not be written is lost" in log.lines[-1]


def test_case_113_a_disk_that_hangs_holds_nobody_up(path: Path, log: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 113: a write that does not return: flows are taken as before, and the end does not wait for it."""
    hangs, released = threading.Event(), threading.Event()

    def hang(_store: UsageStore, _sums: object) -> None:
        hangs.set()
        released.wait()

    monkeypatch.setattr(UsageStore, "add", hang)
    monkeypatch.setattr(UsageWriter, "CLOSE_WAIT_S", 0.01)
    writer = UsageWriter(path, 90)
    writer.add(record(), STAFF)
    assert hangs.wait(20)
    for _ in range(1_000):
        writer.add(record(), STAFF)
    writer.close()
    assert writer.counters["usage_lost"] == 1_001
    released.set()
    writer._thread.join(20)
