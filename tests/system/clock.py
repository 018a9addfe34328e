"""Processes that take another time for now: hours, days and months come round when a test wants them.

Debian's faketime stands between the process and the clock on the wall. Seconds pass as ever, and what measures
durations notices nothing.
"""

from pathlib import Path
from typing import Final

from tests.system.proxy import environment

__all__ = ["at"]

ZONE: Final = "Europe/Vienna"


def at(moment: str) -> dict[str, str]:
    """The environment of a process that begins at this moment, `2026-11-20 17:59:57` by the clock of Vienna."""
    [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return environment(
        LD_PRELOAD=str(library), FAKETIME=f"@{moment}", FAKETIME_DONT_FAKE_MONOTONIC="1", TZ=ZONE, LC_ALL="C.UTF-8"
    )
