"""Writes usage and quotas from one thread, about once a second, so that no session ever waits for the disk.

While the store cannot be written, whatever the reason, sums stay in memory and are tried again every second; with too
many of them the oldest lose their target, then their user (`UsageSums`), so that nothing is lost and memory stays
bounded.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from trioproxy.accounting.record import FlowRecord
from trioproxy.accounting.usage import QUARTER_S, QuotaKey, UsageKey, UsageSums
from trioproxy.log import get_log
from trioproxy.store.errors import StoreError
from trioproxy.store.usage import UsageStore, UsageSum

__all__ = ["UsageWriter"]

FLUSH_S: Final = 1.0  # what a crash may cost; a transaction costs the disk some milliseconds
REMOVE_S: Final = 3600.0  # how often what is too old is looked for
BATCH_MAX: Final = 2_000  # sums in one transaction: 25 ms, 4 of them with the interpreter's lock
REMOVED_MAX: Final = 10_000  # rows removed in one transaction: 50 ms; 10,000 a second keep ahead of what is added
BUSY_TIMEOUT_S: Final = 2.0  # then it is tried again; shorter than CLOSE_WAIT_S, so that the end is not held up
QUOTAS_MAX: Final = 100_000  # some 40 MB, if the store is away for long; 50,000 people with two quotas each
QUOTA_KEPT: Final = timedelta(days=62)  # the longest period is a month; the one before can still be looked at

_DAY_S: Final = 86_400


class UsageWriter:
    """Takes flows and quota deltas from the event loop and writes them.

    Attributes:
        path: the file; made when there is something to write.
        retention_days: how long usage is kept; 0: none is. May be changed at any time.
        counters: `usage_write_failed`: rounds of writing that failed and were tried again. `usage_lost`: flows that
            could not be written before the end. `quota_bytes_lost`: bytes of quotas, for that reason or because of
            `quotas_max`.
    """

    CLOSE_WAIT_S = 5.0

    def __init__(
        self, path: Path, retention_days: int, *, sums: UsageSums | None = None, quotas_max: int = QUOTAS_MAX
    ) -> None:
        self.path = path
        self.retention_days = retention_days
        self.counters: Counter[str] = Counter()
        self._sums = UsageSums() if sums is None else sums
        self._quotas: dict[QuotaKey, int] = {}
        self._quotas_max = quotas_max
        self._quotas_lock = threading.Lock()
        self._waiting: list[UsageSum] = []  # taken out of the sums, not written yet
        self._store: UsageStore | None = None
        self._failing = False
        self._remove_at_s = 0.0  # monotonic; at once
        self._wanted = threading.Event()
        self._wanted.set()  # the first look for what is too old
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage-writer", daemon=True)
        self._thread.start()

    @property
    def merged(self) -> int:
        """How often a sum lost its target or its user, because the store could not be written for long."""
        return self._sums.merged

    # ---- from the event loop

    def add(self, record: FlowRecord, groups: frozenset[str], app: str = "") -> None:
        """Take one finished flow. Never blocks, never raises."""
        if self.retention_days == 0:
            return
        key = UsageKey(
            int(record.started_at) // QUARTER_S,
            record.tenant,
            record.user or "",
            groups,
            (record.asked or "-").lower(),  # a name is the same in any case
            app,
        )
        self._sums.add(key, record.bytes_to_client, record.bytes_to_target)
        if not self._wanted.is_set():
            self._wanted.set()

    def add_quota_deltas(self, deltas: Iterable[tuple[QuotaKey, int]]) -> None:
        """Take bytes that were used since the last time. Never blocks, never raises."""
        with self._quotas_lock:
            for key, number in deltas:
                if key in self._quotas or len(self._quotas) < self._quotas_max:
                    self._quotas[key] = self._quotas.get(key, 0) + number
                else:
                    self.counters["quota_bytes_lost"] += number
        if not self._wanted.is_set():
            self._wanted.set()

    # ---- beside it

    def quotas_used(self, since: datetime) -> dict[QuotaKey, int]:
        """What was used of all quotas whose period began then or later, as far as it is written. Blocks.

        Raises:
            StoreError: it cannot be read.
        """
        if not self.path.exists():
            return {}
        with UsageStore.open(self.path, create=False) as store:
            return store.quotas_used(since)

    def close(self) -> None:
        """Write what is waiting and end the thread; what cannot be written within some seconds is lost and counted."""
        self._closing.set()
        self._wanted.set()
        self._thread.join(self.CLOSE_WAIT_S)
        flows = sum(numbers[0] for _, numbers in [*self._waiting, *self._sums.take()])
        self.counters["usage_lost"] += flows
        self.counters["quota_bytes_lost"] += sum(self._quotas.values())
        if flows or self._quotas:
            get_log().error("usage that could not be written is lost", flows=flows, file=str(self.path))

    # ---- the thread

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wanted.wait(REMOVE_S)
            closing = self._closing.wait(FLUSH_S)
            self._wanted.clear()  # before anything is taken: what is added from here on sets it again
            try:
                self._write()
                if not closing:
                    self._remove_old()
            except StoreError as error:
                self._failed(error)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with us: what comes later must be written
                get_log().exception("internal error", thread=self._thread.name)
                self._failed(error)
            else:
                self._recovered()
        self._let_go()

    def _write(self) -> None:
        self._write_waiting()  # what an earlier round could not write; only then is there room for more
        self._waiting = list(self._sums.take())
        self._write_waiting()
        with self._quotas_lock:
            quotas, self._quotas = self._quotas, {}
        try:
            if quotas:
                self._opened().add_quota_deltas(quotas.items())
        except Exception:
            self.add_quota_deltas(quotas.items())
            raise

    def _write_waiting(self) -> None:
        while self._waiting:
            self._opened().add(self._waiting[:BATCH_MAX])
            del self._waiting[:BATCH_MAX]

    def _remove_old(self) -> None:
        """One portion; more of it in a second."""
        now_s = time.monotonic()
        if now_s < self._remove_at_s:
            return
        more = False
        if self.path.exists():
            store = self._opened()
            more = store.remove_before(int(time.time() - self.retention_days * _DAY_S) // QUARTER_S, REMOVED_MAX)
            store.remove_quotas_before(datetime.now(UTC) - QUOTA_KEPT)
        if more:
            self._wanted.set()
        else:
            self._remove_at_s = now_s + REMOVE_S

    def _opened(self) -> UsageStore:
        if self._store is None:
            self._store = UsageStore.open(self.path, create=True, busy_timeout_s=BUSY_TIMEOUT_S)
        return self._store

    def _failed(self, error: Exception) -> None:
        self.counters["usage_write_failed"] += 1
        if not self._failing:
            get_log().error("usage cannot be written and waits in memory", problem=str(error))
        self._failing = True
        self._let_go()  # the file may have been removed or replaced: what is there next time counts
        self._wanted.set()

    def _recovered(self) -> None:
        if self._failing:
            get_log().info("usage is written again")
        self._failing = False

    def _let_go(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            with contextlib.suppress(StoreError):
                store.close()
