"""The machine that the figures belong to."""

import datetime as dt
import os
import platform
from pathlib import Path

from tests.bench.servers import SERVERS

__all__ = ["describe"]

_VERSIONS = ("full", "dante", "microsocks", "pproxy")


def describe() -> dict[str, str]:
    """What a reader must know to compare, by name; to be asked before the load begins."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    versions = {SERVERS[name].label: SERVERS[name].version() for name in _VERSIONS}
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "processor": f"{model}, {os.cpu_count()} cores",
        "memory": f"{memory_kib / 2**20:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "load average before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        **{label.partition(",")[0]: version for label, version in versions.items()},
    }
