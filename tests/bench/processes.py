"""What /proc says about a server's processes, and what must be known to start one."""

import errno
import os
import random
import socket
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["cpu_s", "cpu_user_system_s", "family", "free_port", "listens", "memory_kib", "time_wait"]

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PORTS: Final = range(10_000, 32_768)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the name before it may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                children[int(_stat(int(entry.name))[1])].append(int(entry.name))
            except (OSError, IndexError):
                continue  # it has just ended
    found = [pid]
    for one in found:
        found += children[one]
    return found


def cpu_s(pid: int) -> float:
    """Seconds of processor time, user and system, that a family has used; its members that have ended included."""
    ticks = 0
    for member in family(pid):
        try:
            ticks += sum(map(int, _stat(member)[11:15]))  # utime, stime, and both of the children waited for
        except OSError:
            continue  # ended: its parent has its time
    return ticks / _TICKS_PER_S


def cpu_user_system_s(pid: int) -> tuple[float, float]:
    """Seconds in user mode and in the kernel of one process, its threads included."""
    user, system = map(int, _stat(pid)[11:13])
    return user / _TICKS_PER_S, system / _TICKS_PER_S


def memory_kib(pid: int) -> float:
    """Proportional set size of a family: pages that several processes share are counted once."""
    total = 0
    for member in family(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return float(total)


def time_wait() -> int:
    """TCP connections of this machine in TIME_WAIT."""
    words = Path("/proc/net/sockstat").read_text().partition("TCP:")[2].split()
    return int(words[words.index("tw") + 1])


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now.

    It is below those that the kernel deals out: after some 50,000 sessions all of these are in TIME_WAIT, and port 0
    finds none.
    """
    for port in random.sample(_PORTS, k=100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(errno.EADDRINUSE, "no free port of 127.0.0.1 among 100 that were tried")


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0
