"""Usage: sums of finished flows and what was used of quotas, in a SQLite file of their own beside the store.

Of their own, because they are written all the time: no change of the rules waits for them, what becomes of them is no
danger to users and rules, and a backup of the store stays small.

One row is the sum of the flows that began in the same quarter of an hour and have the same user, groups, target and
app. So there are never more rows than flows, usually far fewer, and the sums of every day and month are exact.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

import orjson

from trioproxy.accounting.usage import QuotaKey, UsageKey
from trioproxy.store.database import BUSY_TIMEOUT_S, Database, Schema

__all__ = ["UsageStore", "UsageSum", "usage_path"]

UsageSum: TypeAlias = tuple[UsageKey, Sequence[int]]  # flows, bytes to the client, bytes to the target

_SCHEMA: Final = Schema(
    application_id=0x54524955,  # "TRIU"
    folder="usage_migrations",
    title="usage store",
    maker="`trioproxy serve` makes one",
    small=False,  # months of a large site are gigabytes
    revised=False,
)

# The rows of a batch come as one JSON text, and everything else happens inside SQLite, where other threads can run: a
# call for each row would have to get the interpreter's lock back as often, from an event loop that is busy.
_FRESH: Final = """
CREATE TEMP TABLE fresh (
    quarter INTEGER, tenant TEXT, user_name TEXT, groups TEXT, target TEXT, app TEXT,
    flows INTEGER, to_client INTEGER, to_target INTEGER
)
"""
_ADD: Final = (
    """
    INSERT INTO fresh SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
        json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[8]')
    FROM json_each(?)
    """,
    "INSERT INTO group_set (names) SELECT DISTINCT groups FROM fresh WHERE true ON CONFLICT DO NOTHING",
    """
    INSERT INTO account (tenant, user_name, group_set, last_quarter)
    SELECT fresh.tenant, fresh.user_name, group_set.id, max(fresh.quarter)
    FROM fresh JOIN group_set ON group_set.names = fresh.groups
    GROUP BY fresh.tenant, fresh.user_name, group_set.id
    ON CONFLICT (tenant, user_name, group_set) DO UPDATE SET last_quarter = excluded.last_quarter
    WHERE account.last_quarter < excluded.last_quarter
    """,
    """
    INSERT INTO target (name, last_quarter) SELECT target, max(quarter) FROM fresh WHERE true GROUP BY target
    ON CONFLICT (name) DO UPDATE SET last_quarter = excluded.last_quarter
    WHERE target.last_quarter < excluded.last_quarter
    """,
    """
    INSERT INTO usage (quarter, account, target, app, flows, to_client, to_target)
    SELECT fresh.quarter, account.id, target.id, fresh.app, fresh.flows, fresh.to_client, fresh.to_target
    FROM fresh
    JOIN group_set ON group_set.names = fresh.groups
    JOIN account ON account.tenant = fresh.tenant AND account.user_name = fresh.user_name
        AND account.group_set = group_set.id
    JOIN target ON target.name = fresh.target
    WHERE true
    ON CONFLICT (quarter, account, target, app) DO UPDATE SET
        flows = usage.flows + excluded.flows,
        to_client = usage.to_client + excluded.to_client,
        to_target = usage.to_target + excluded.to_target
    """,
    "DELETE FROM fresh",
)

_REMOVE_NAMES: Final = (
    "DELETE FROM target WHERE id IN (SELECT id FROM target WHERE last_quarter < ? LIMIT ?)",
    "DELETE FROM account WHERE id IN (SELECT id FROM account WHERE last_quarter < ? LIMIT ?)",
)


def usage_path(store_path: Path) -> Path:
    """Where the usage of a store is: `trioproxy-usage.db` beside `trioproxy.db`."""
    return store_path.with_name(f"{store_path.stem}-usage{store_path.suffix}")


class UsageStore:
    """The file. Synchronous, and used from one thread at a time; several processes may add at once.

    Attributes:
        path: the file.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.path = database.path

    @classmethod
    def open(cls, path: Path, *, create: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Self:
        """Open the file; one that is not ours is left as it is.

        Raises:
            StoreError: it is missing, newer, not ours, or cannot be read.
        """
        database = Database.open(path, create=create, busy_timeout_s=busy_timeout_s, schema=_SCHEMA)
        database.run("PRAGMA temp_store = MEMORY")  # a report sorts sums: in memory, not on a disk that may be full
        return cls(database)

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, sums: Sequence[UsageSum]) -> None:
        """Add sums to what is there: all or none.

        Raises:
            StoreError: they cannot be written, or the file was removed or replaced.
        """
        self.database.check_in_place()
        rows = [
            (key.quarter, key.tenant, key.user, ",".join(sorted(key.groups)), key.target, key.app, *numbers)
            for key, numbers in sums
        ]
        self.database.run(_FRESH.replace("TABLE", "TABLE IF NOT EXISTS"))
        with self.database.writing():
            for number, statement in enumerate(_ADD):
                self.database.run(statement, (orjson.dumps(rows).decode(),) if number == 0 else ())

    def remove_before(self, quarter: int, rows_max: int) -> bool:
        """Remove what is older, at most so many rows of each table: nobody waits long for the lock.

        Returns:
            Whether there may be more to remove.

        Raises:
            StoreError: it cannot be written.
        """
        with self.database.writing():
            bound = self.database.rows(
                "SELECT quarter, account, target, app FROM usage"
                " ORDER BY quarter, account, target, app LIMIT 1 OFFSET ?",
                (rows_max,),
            )
            last = min((quarter, 0, 0, ""), *bound) if bound else (quarter, 0, 0, "")
            removed = [
                self.database.run("DELETE FROM usage WHERE (quarter, account, target, app) < (?, ?, ?, ?)", last)
            ]
            if removed[0] < rows_max:  # no row names them any more
                removed += [self.database.run(statement, (quarter, rows_max)) for statement in _REMOVE_NAMES]
                self.database.run("DELETE FROM group_set WHERE id NOT IN (SELECT group_set FROM account)")
        return max(removed) >= rows_max

    def oldest_quarter(self) -> int | None:
        """Where usage begins; None if there is none.

        Raises:
            StoreError: it cannot be read.
        """
        [(quarter,)] = self.database.rows("SELECT min(quarter) FROM usage")
        return None if quarter is None else int(quarter)

    # ---- quotas

    def add_quota_deltas(self, deltas: Iterable[tuple[QuotaKey, int]]) -> None:
        """Add bytes to what is there: all or none. Several processes may add to the same one.

        Raises:
            StoreError: they cannot be written, or the file was removed or replaced.
        """
        self.database.check_in_place()
        with self.database.writing():
            self.database.run_many(
                """
                INSERT INTO quota_used (tenant, owner, scope, rule, period_start, bytes) VALUES (?, ?, ?, ?, ?, ?)
                ON CONFLICT (tenant, owner, scope, rule, period_start)
                DO UPDATE SET bytes = quota_used.bytes + excluded.bytes
                """,
                [
                    (key.tenant, key.owner, key.scope, key.rule, _moment_text(key.period_start), number)
                    for key, number in deltas
                ],
            )

    def quotas_used(self, since: datetime) -> dict[QuotaKey, int]:
        """What was used of all quotas whose period began then or later.

        Raises:
            StoreError: it cannot be read.
        """
        rows = self.database.rows(
            "SELECT tenant, owner, scope, rule, period_start, bytes FROM quota_used WHERE period_start >= ?",
            (_moment_text(since),),
        )
        return {
            QuotaKey(tenant, owner, scope, rule, datetime.fromisoformat(begin)): number
            for tenant, owner, scope, rule, begin, number in rows
        }

    def quota_used(self, key: QuotaKey) -> int:
        """What all processes together have written for one quota.

        Raises:
            StoreError: it cannot be read.
        """
        rows = self.database.rows(
            "SELECT bytes FROM quota_used WHERE tenant = ? AND owner = ? AND scope = ? AND rule = ?"
            " AND period_start = ?",
            (key.tenant, key.owner, key.scope, key.rule, _moment_text(key.period_start)),
        )
        return int(rows[0][0]) if rows else 0

    def remove_quotas_before(self, moment: datetime) -> None:
        """Forget the periods that began earlier.

        Raises:
            StoreError: it cannot be written.
        """
        self.database.run("DELETE FROM quota_used WHERE period_start < ?", (_moment_text(moment),))


def _moment_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
