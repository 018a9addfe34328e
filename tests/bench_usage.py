"""What usage costs: `python -m tests.bench_usage` writes a million sums and times each report over them.

No test: times belong to a machine. What must hold everywhere, one pass over the rows of the period, is tested in
`tests/store/test_usage_report.py`.
"""

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from trioproxy.accounting.usage import QUARTER_S, UsageKey
from trioproxy.store import By, UsageStore, UsageWish, report_usage
from trioproxy.store.usage import UsageSum
from trioproxy.store.usage_writer import BATCH_MAX

SUMS = 1_000_000
USERS = 5_000
TARGETS = 200_000
DAYS = 30
NOW = datetime.now(UTC)


def sums() -> Iterator[UsageSum]:
    """A month of a campus: few users and targets have most flows, and the tail is long. Each has another key."""
    chance = random.Random(1)
    group_sets = [frozenset(chance.sample([f"group{n}" for n in range(40)], 4)) for _ in range(100)]
    first = int((NOW - timedelta(days=DAYS)).timestamp()) // QUARTER_S
    seen: set[UsageKey] = set()
    while len(seen) < SUMS:
        user = min(int(chance.paretovariate(0.8)), USERS)
        key = UsageKey(
            first + len(seen) * DAYS * 96 // SUMS,
            "physics" if user % 5 == 0 else "main",
            f"user{user}",
            group_sets[user % 100],
            f"host{min(int(chance.paretovariate(0.3)), TARGETS)}.example.org:443",
            chance.choice(("tls", "http", "quic", "")),
        )
        if key not in seen:
            seen.add(key)
            yield key, [1, chance.randrange(10**7), chance.randrange(10**6)]


def show(what: str, seconds: float) -> None:
    """One line."""
    sys.stdout.write(f"{what:32}{seconds:8.2f} s\n")


def main() -> None:
    """Write, then ask."""
    everything = list(sums())
    with tempfile.TemporaryDirectory() as folder, UsageStore.open(Path(folder, "usage.db"), create=True) as store:
        began_s = time.perf_counter()
        for start in range(0, SUMS, BATCH_MAX):
            store.add(everything[start : start + BATCH_MAX])
        show(f"{SUMS:,} sums written", time.perf_counter() - began_s)
        sys.stdout.write(f"{'':32}{store.path.stat().st_size / 1e6:8.1f} MB\n")
        for by in By:
            for tenant in (None, "physics"):
                began_s = time.perf_counter()
                report_usage(store, UsageWish(by, NOW - timedelta(days=DAYS + 1), tenant=tenant, limit=50, zone=UTC))
                show(f"by {by.value}, {tenant or 'all tenants'}", time.perf_counter() - began_s)
        began_s = time.perf_counter()
        while store.remove_before(int(NOW.timestamp()) // QUARTER_S + 1, 10_000):
            continue
        show("all of it removed", time.perf_counter() - began_s)


if __name__ == "__main__":
    main()
