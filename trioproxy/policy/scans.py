"""Who scans: many targets, many failures, many ports of one host, or many hosts with one port, in a short time.

What is kept of each user or source is a sketch of fixed size, not a list:

- one cell for each of several hundred hash values of (address, port), saying how much longer it counts: how many cells
  are alive tells how many distinct targets there were (linear counting, Whang et al. 1990);
- counters, two for each address and each port, of which the smaller one is taken (count-min with conservative update,
  Estan and Varghese 2002). A target counts there once, when its cell comes alive; the busier the cells are, the more
  it counts, to make up for those whose cell was alive already.

**How exact.** A target counts for the last 7/8 of a window at least, and a window at most; failures, and the ports and
hosts of sweeps, for the last half at least. So what passes a limit within half a window is always caught, and what
stays below it in every window never, but for the error; in between it depends on the moment. A scan slower than that is
not caught. The error is 5 % (standard deviation), in both directions; where somebody has hundreds of targets at once,
sweeps may be overestimated by some more. A target that is tried again counts once, as the first attempt ended.

The hashes have a secret key. Who does not know it can neither choose targets that fall into the same cells, in order to
hide, nor such as fill the counters of others.
"""

import enum
import math
from array import array
from collections import OrderedDict
from collections.abc import Hashable
from hashlib import blake2b, shake_128
from typing import Final

import attrs
from attrs.validators import and_, ge, gt, le

from trioproxy.policy.request import IPAddress

__all__ = ["Alarm", "Figures", "Outcome", "ScanDetector", "ScanKind", "ScanSettings"]

_STEPS: Final = 8  # of a window; a cell counts for so many
_HALF: Final = _STEPS // 2
_CELLS_LEAST: Final = 512
_CELLS_PER_TARGET: Final = 2.5  # of the largest limit: so a third of the cells is alive at the limit
_ROW: Final = 64  # counters
_UNIT: Final = 16  # a target in a counter
_COUNTER_MAX: Final = 65_535
_LIMIT_MAX: Final = 2_000  # twice what a counter has room for, and a user's cells are 8 KiB then
_SECRET_LEAST: Final = 16  # bytes: 128 bits
_PORTS: Final = 65_536

# What is left of the life of a cell after so many steps.
_AGED: Final = [bytes(max(0, life - steps) for life in range(256)) for steps in range(_STEPS)]


class Outcome(enum.Enum):
    """How the attempt to reach a target ended."""

    CONNECTED = "connected"
    REFUSED = "refused"
    NO_ANSWER = "no answer"
    DENIED = "denied by rules"


class ScanKind(enum.Enum):
    """What looked like a scan."""

    PORTS_OF_ONE_HOST = "many ports of one host"
    HOSTS_OF_ONE_PORT = "one port of many hosts"
    FAILURES = "many failures"
    TARGETS = "many targets"


_LIMIT = and_(ge(1), le(_LIMIT_MAX))


@attrs.frozen
class ScanSettings:
    """When it is a scan: more than this in the window.

    Attributes:
        window_s: a sweep of a thousand ports, the default of common scanners, takes some seconds.
        targets_max: distinct (address, port). A browser with many tabs opens some dozens; a calling program may open
            300 to 200 peers, and is exempted by a rule of its own.
        refused_max: distinct targets that refused, did not answer or were denied. Of what people use, hardly any does.
        ports_of_one_host_max: a browser uses one or two, a file transfer one for each file.
        hosts_of_one_port_max: of port 443 a browser reaches some dozens of hosts.
        keys_max: users or sources that are watched at once, 2 KiB each; beyond it the one seen longest ago goes, and
            loses what it did in this window.
    """

    window_s: float = attrs.field(default=10.0, validator=gt(0))
    targets_max: int = attrs.field(default=200, validator=_LIMIT)
    refused_max: int = attrs.field(default=50, validator=_LIMIT)
    ports_of_one_host_max: int = attrs.field(default=50, validator=_LIMIT)
    hosts_of_one_port_max: int = attrs.field(default=150, validator=_LIMIT)
    keys_max: int = attrs.field(default=10_000, validator=ge(1))

    @property
    def highest(self) -> int:
        """The largest of the limits."""
        return max(self.targets_max, self.refused_max, self.ports_of_one_host_max, self.hosts_of_one_port_max)


@attrs.frozen
class Figures:
    """What was estimated for the window, at the last target.

    Attributes:
        targets: distinct targets.
        failures: of these, the ones that failed.
        ports_of_host: distinct ports of `address`.
        hosts_of_port: distinct hosts of which `port` was used.
        address: the last target's.
        port: the last target's.
    """

    targets: int
    failures: int
    ports_of_host: int
    hosts_of_port: int
    address: IPAddress
    port: int


@attrs.frozen
class Alarm:
    """Somebody scans.

    Attributes:
        kind: the first limit that was passed.
        key: who.
        figures: how much.
        begun_s: when what was counted began; monotonic.
    """

    kind: ScanKind
    key: Hashable
    figures: Figures
    begun_s: float


class ScanDetector:
    """Watches users, or sources. For one thread. Have one for each sort of keys, so that neither pushes out the other.

    Args:
        settings: the limits.
        secret: the key of the hashes, 16 to 64 bytes, random and new for each process.
    """

    def __init__(self, settings: ScanSettings, secret: bytes) -> None:
        """Make the tables: 0.5 MiB.

        Raises:
            ValueError: the secret is too short or too long.
        """
        if len(secret) < _SECRET_LEAST:
            raise ValueError(f"a secret of at least {_SECRET_LEAST} bytes")
        self._settings = settings
        self._hash = blake2b(key=secret, digest_size=8)
        self._port_hashes = array("Q", shake_128(secret).digest(8 * _PORTS))
        self._step_s = settings.window_s / _STEPS
        cells = max(_CELLS_LEAST, int(settings.highest * _CELLS_PER_TARGET))
        self._cells = 1 << (cells - 1).bit_length()
        # The estimate is -cells * ln(1 - alive / cells).
        self._alive_max = self._cells * (1 - math.exp(-settings.targets_max / self._cells))
        self._watches: OrderedDict[Hashable, _Watch] = OrderedDict()

    def __len__(self) -> int:
        """How many are watched."""
        return len(self._watches)

    def saw(self, key: Hashable, address: IPAddress, port: int, outcome: Outcome, now_s: float) -> Alarm | None:
        """Somebody tried to reach this target, at this monotonic time.

        Returns:
            An alarm, once: the next one comes after a window in which no limit was passed.
        """
        step = int(now_s / self._step_s)
        watch = self._watches.get(key)
        if watch is None:
            watch = self._new_watch(key, step)
        else:
            self._watches.move_to_end(key)
            if step > watch.step:
                watch.advance(step)
        digest = self._hash.copy()
        digest.update(address.packed)
        host_hash = int.from_bytes(digest.digest(), "little")
        port_hash = self._port_hashes[port]
        cell = (host_hash ^ port_hash) >> 32 & self._cells - 1
        if watch.cells[cell]:
            watch.cells[cell] = _STEPS
            return None
        if not watch.alive:
            watch.begun_s = now_s
        free = self._cells - watch.alive
        weight = (_UNIT * self._cells + free // 2) // free
        watch.cells[cell] = _STEPS
        watch.alive += 1
        if outcome is not Outcome.CONNECTED:
            watch.failures += weight
        ports_of_host = watch.count(0, host_hash, weight)
        hosts_of_port = watch.count(2 * _ROW, port_hash, weight)
        kind = self._judge(watch, ports_of_host, hosts_of_port)
        if kind is None or not watch.begins_episode(now_s, self._settings.window_s):
            return None
        figures = Figures(
            targets=self._targets(watch.alive),
            failures=(watch.failures + watch.failures_before) // _UNIT,
            ports_of_host=ports_of_host // _UNIT,
            hosts_of_port=hosts_of_port // _UNIT,
            address=address,
            port=port,
        )
        return Alarm(kind, key, figures, max(watch.begun_s, now_s - self._settings.window_s))

    def _judge(self, watch: "_Watch", ports_of_host: int, hosts_of_port: int) -> ScanKind | None:
        settings = self._settings
        if ports_of_host > settings.ports_of_one_host_max * _UNIT:
            return ScanKind.PORTS_OF_ONE_HOST
        if hosts_of_port > settings.hosts_of_one_port_max * _UNIT:
            return ScanKind.HOSTS_OF_ONE_PORT
        if watch.failures + watch.failures_before > settings.refused_max * _UNIT:
            return ScanKind.FAILURES
        if watch.alive > self._alive_max:
            return ScanKind.TARGETS
        return None

    def _targets(self, alive: int) -> int:
        return round(-self._cells * math.log1p(-min(alive, self._cells - 1) / self._cells))

    def _new_watch(self, key: Hashable, step: int) -> "_Watch":
        # Those that were quiet for a window go first, two for each that comes: so the table shrinks by itself.
        for _ in range(2):
            oldest = next(iter(self._watches), None)
            if oldest is None or step - self._watches[oldest].step <= _STEPS:
                break
            del self._watches[oldest]
        if len(self._watches) >= self._settings.keys_max:
            self._watches.popitem(last=False)
        watch = self._watches[key] = _Watch(self._cells, step)
        return watch


def _no_counters() -> "array[int]":
    return array("H", bytes(2 * 4 * _ROW))


_NONE: Final = _no_counters()  # of all who have none; never written to


class _Watch:
    """The sketch of one user or source.

    Attributes:
        step: the present one.
        cells: how many more steps each of them counts.
        alive: how many of them do.
        failures: in the present half of a window.
        failures_before: in the half before.
        begun_s: when the first of the cells came alive.
    """

    __slots__ = (
        "_counters",
        "_counters_before",
        "_over_s",
        "alive",
        "begun_s",
        "cells",
        "failures",
        "failures_before",
        "step",
    )

    def __init__(self, cells: int, step: int) -> None:
        self.step = step
        self.cells = bytearray(cells)
        self.alive = 0
        self.failures = self.failures_before = 0
        self.begun_s = 0.0
        self._counters = _no_counters()  # two rows for addresses, two for ports; in the present half of a window
        self._counters_before = _NONE  # in the half before
        self._over_s = -math.inf

    def advance(self, step: int) -> None:
        """Time has passed."""
        steps, halves = step - self.step, step // _HALF - self.step // _HALF
        self.step = step
        if steps < _STEPS:
            self.cells = self.cells.translate(_AGED[steps])
            self.alive = len(self.cells) - self.cells.count(0)
        else:
            self.cells = bytearray(len(self.cells))
            self.alive = 0
        if halves:
            before = halves == 1
            self.failures_before, self.failures = self.failures if before else 0, 0
            self._counters_before, self._counters = self._counters if before else _NONE, _no_counters()

    def count(self, row: int, hashed: int, weight: int) -> int:
        """Count one more of these; returns how many there were in the window."""
        counters, before = self._counters, self._counters_before
        one, other = row + hashed % _ROW, row + _ROW + (hashed >> 8) % _ROW
        counted = min(min(counters[one], counters[other]) + weight, _COUNTER_MAX)
        counters[one] = max(counters[one], counted)
        counters[other] = max(counters[other], counted)
        return min(counters[one] + before[one], counters[other] + before[other])

    def begins_episode(self, now_s: float, window_s: float) -> bool:
        """A limit was passed: whether that is news."""
        quiet_s, self._over_s = now_s - self._over_s, now_s
        return quiet_s > window_s
