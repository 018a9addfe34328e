"""Who has moved how much: sums of finished flows on their way to the store, bounded however long it cannot be written.

A sum is that of all flows which began in the same quarter of an hour and have the same user, groups, target and app.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple, Protocol

import attrs

from trioproxy.accounting.record import FlowRecord

__all__ = ["MERGED_TARGET", "MERGED_USER", "QUARTER_S", "NullUsage", "QuotaKey", "Usage", "UsageKey", "UsageSums"]

QUARTER_S: Final = 900  # every time zone of today is a multiple of it away from UTC, so that days can be told apart
KEYS_MAX: Final = 50_000  # some 20 MB; at 1,000 new targets a second a store that is locked for 30 s merges nothing

MERGED_USER: Final = "/"  # no name has it
MERGED_TARGET: Final = ""


class UsageKey(NamedTuple):
    """What the flows of one sum have in common.

    Attributes:
        quarter: in which they began, in quarters of an hour since 1970.
        user: empty: without login.
        target: as the client asked for it, `host:port`.
        app: what the first bytes were; empty: nobody looked.
    """

    quarter: int
    tenant: str
    user: str
    groups: frozenset[str]
    target: str
    app: str


@attrs.frozen
class QuotaKey:
    """What a quota counts for.

    Attributes:
        tenant: of the owner.
        owner: whose bytes they are.
        scope: the layer of the rule or template that sets the quota.
        rule: that rule or template.
        period_start: when the day, week or month began; aware.
    """

    tenant: str
    owner: str
    scope: str
    rule: str
    period_start: datetime


class Usage(Protocol):
    """What sessions tell of their flows, and quotas of what was used of them."""

    def add(self, record: FlowRecord, groups: frozenset[str], app: str = "") -> None:
        """Take one finished flow. Never blocks, never raises."""
        ...

    def add_quota_deltas(self, deltas: Iterable[tuple[QuotaKey, int]]) -> None:
        """Take bytes that were used since the last time. Never blocks, never raises."""
        ...


class NullUsage:
    """Keeps nothing."""

    def add(self, record: FlowRecord, groups: frozenset[str], app: str = "") -> None:
        """Forget the flow."""

    def add_quota_deltas(self, deltas: Iterable[tuple[QuotaKey, int]]) -> None:
        """Forget the bytes."""


_Sums = list[int]  # flows, bytes to the client, bytes to the target


class UsageSums:
    """Sums by key, added from the event loop and taken by the thread that writes them.

    With more than `keys_max` keys the oldest sum loses its target and app, with as many of that kind the oldest of them
    its user: the sums of a tenant are always whole.

    Attributes:
        merged: how often a sum lost something.
    """

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self.merged = 0
        self._keys_max = keys_max
        self._lock = threading.Lock()
        self._levels = _empty_levels()

    def add(self, key: UsageKey, bytes_to_client: int, bytes_to_target: int) -> None:
        """Add one flow."""
        with self._lock:
            self._add(0, key, [1, bytes_to_client, bytes_to_target])

    def take(self) -> list[tuple[UsageKey, _Sums]]:
        """All sums; they begin anew."""
        with self._lock:
            levels, self._levels = self._levels, _empty_levels()
        return [item for level in levels for item in level.items()]

    def __len__(self) -> int:
        return sum(map(len, self._levels))

    def _add(self, level: int, key: UsageKey, more: _Sums) -> None:
        kept = self._levels[level]
        sums = kept.get(key)
        if sums is not None:
            for place, number in enumerate(more):
                sums[place] += number
            return
        kept[key] = more
        # The last level needs no limit: it has a key for each tenant and quarter of an hour, some 30 kB a month.
        if len(kept) > self._keys_max and level < len(self._levels) - 1:
            oldest, sums = kept.popitem(last=False)
            self.merged += 1
            self._add(level + 1, _coarser(oldest, level), sums)


def _empty_levels() -> tuple[OrderedDict[UsageKey, _Sums], ...]:
    return OrderedDict(), OrderedDict(), OrderedDict()


def _coarser(key: UsageKey, level: int) -> UsageKey:
    if level == 0:
        return key._replace(target=MERGED_TARGET, app="")
    return UsageKey(key.quarter, key.tenant, MERGED_USER, frozenset(), MERGED_TARGET, "")
