"""What `trioproxy usage` shows: sums of a period by user, group, target, app or day.

A million rows take less than a second: one pass over the rows of the period, which lie together, and a sort of sums.
"""

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, tzinfo
from typing import Any, Final, assert_never

import attrs

from trioproxy.accounting.usage import MERGED_TARGET, MERGED_USER, QUARTER_S
from trioproxy.policy.scope import DEFAULT_TENANT
from trioproxy.store.usage import UsageStore

__all__ = ["By", "UsageLine", "UsageReport", "UsageWish", "report_usage"]

# In parentheses: what is no name.
_NO_LOGIN: Final = "(no login)"
_NO_GROUP: Final = "(no group)"
_UNKNOWN_APP: Final = "(not looked at)"
_SEVERAL: Final = "(several)"


class By(enum.Enum):
    """What the lines of a report are for."""

    USER = "user"
    GROUP = "group"
    TARGET = "target"
    APP = "app"
    DAY = "day"


@attrs.frozen
class UsageLine:
    """The sums of one key. Bytes are payload."""

    key: str
    flows: int
    bytes_to_client: int
    bytes_to_target: int

    @property
    def bytes_total(self) -> int:
        """Both ways."""
        return self.bytes_to_client + self.bytes_to_target


@attrs.frozen
class UsageReport:
    """What was asked for.

    Attributes:
        lines: the largest first; days in their order.
        totals: of all flows of the period, also of those whose line was left out. Somebody who is in two groups is part
            of two lines, and of the totals once.
        left_out: lines beyond the limit.
    """

    lines: tuple[UsageLine, ...]
    totals: UsageLine
    left_out: int


@attrs.frozen
class UsageWish:
    """What is asked for.

    Attributes:
        since: flows that began then or later; aware, at a quarter of an hour.
        until: and before; None: no end.
        tenant: of this one alone; None: of all.
        limit: how many lines at most; of days the last ones. None: all.
        zone: where days begin; None: as the system says.
    """

    by: By
    since: datetime
    until: datetime | None = None
    tenant: str | None = None
    limit: int | None = None
    zone: tzinfo | None = None


def report_usage(store: UsageStore, wish: UsageWish) -> UsageReport:
    """Add up what the store holds.

    Raises:
        StoreError: it cannot be read.
    """
    with store.database.reading():
        return _Reporter(store, wish).report()


class _Reporter:
    def __init__(self, store: UsageStore, wish: UsageWish) -> None:
        self._rows = store.database.rows
        self._wish = wish
        self._where = "quarter >= ?"
        self._values: list[object] = [_quarter(wish.since)]
        if wish.until is not None:
            self._where += " AND quarter < ?"
            self._values.append(_quarter(wish.until))
        if wish.tenant is not None:
            self._where += " AND account IN (SELECT id FROM account WHERE tenant = ?)"
            self._values.append(wish.tenant)

    def report(self) -> UsageReport:
        lines, left_out = self._lines()
        [sums] = self._query("SELECT {sums} FROM usage WHERE {where}")
        return UsageReport(tuple(lines), UsageLine("", *(number or 0 for number in sums)), left_out)

    def _query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        sums = "sum(flows), sum(to_client), sum(to_target)"
        return self._rows(sql.format(where=self._where, sums=sums), [*self._values, *values])

    def _lines(self) -> tuple[Sequence[UsageLine], int]:
        match self._wish.by:
            case By.USER:
                return self._first(_added(self._by_account(self._users)))
            case By.GROUP:
                return self._first(_added(self._by_account(self._groups)))
            case By.TARGET:
                return self._targets()
            case By.APP:
                rows = self._query("SELECT app, {sums} FROM usage WHERE {where} GROUP BY app")
                return self._first([UsageLine(app or _UNKNOWN_APP, *sums) for app, *sums in rows])
            case By.DAY:
                days = _added(self._days())
                kept = days[-self._wish.limit :] if self._wish.limit is not None else days
                return kept, len(days) - len(kept)
            case _:
                assert_never(self._wish.by)

    def _first(self, lines: Iterable[UsageLine]) -> tuple[Sequence[UsageLine], int]:
        ordered = sorted(lines, key=lambda line: (-line.bytes_total, -line.flows, line.key))
        return ordered[: self._wish.limit], max(0, len(ordered) - (self._wish.limit or len(ordered)))

    def _by_account(self, keys: Callable[[str, str, str], Iterable[str]]) -> Iterator[UsageLine]:
        for tenant, user, groups, *sums in self._query(
            """
            WITH part (account, flows, to_client, to_target) AS
                (SELECT account, {sums} FROM usage WHERE {where} GROUP BY account)
            SELECT tenant, user_name, names, flows, to_client, to_target FROM part
            JOIN account ON account.id = part.account
            JOIN group_set ON group_set.id = account.group_set
            """
        ):
            for key in keys(tenant, user, groups):
                yield UsageLine(key, *sums)

    def _users(self, tenant: str, user: str, _groups: str) -> Iterable[str]:
        return [self._owner(tenant, {"": _NO_LOGIN, MERGED_USER: _SEVERAL}.get(user, user))]

    def _groups(self, tenant: str, user: str, groups: str) -> Iterable[str]:
        nobody = _SEVERAL if user == MERGED_USER else _NO_GROUP
        return [self._owner(tenant, name) for name in (groups or nobody).split(",")]

    def _owner(self, tenant: str, name: str) -> str:
        return name if tenant in (DEFAULT_TENANT, self._wish.tenant) else f"{tenant}/{name}"

    def _targets(self) -> tuple[Sequence[UsageLine], int]:
        # Names are looked up for the lines that are shown; there may be hundreds of thousands of others.
        rows = self._query(
            """
            WITH part (target, flows, to_client, to_target, keys) AS
                (SELECT target, {sums}, count(*) OVER () FROM usage WHERE {where} GROUP BY target
                 ORDER BY sum(to_client) + sum(to_target) DESC, sum(flows) DESC LIMIT ?)
            SELECT name, flows, to_client, to_target, keys FROM part
            JOIN target ON target.id = part.target
            """,
            -1 if self._wish.limit is None else self._wish.limit,
        )
        lines, _ = self._first(UsageLine(_SEVERAL if name == MERGED_TARGET else name, *sums) for name, *sums, _ in rows)
        return lines, rows[0][-1] - len(lines) if rows else 0

    def _days(self) -> Iterator[UsageLine]:
        rows = self._query("SELECT quarter, {sums} FROM usage WHERE {where} GROUP BY quarter ORDER BY quarter")
        for quarter, *sums in rows:
            yield UsageLine(self._day(quarter).isoformat(), *sums)

    def _day(self, quarter: int) -> date:
        return datetime.fromtimestamp(quarter * QUARTER_S, UTC).astimezone(self._wish.zone).date()


def _quarter(moment: datetime) -> int:
    return int(moment.timestamp()) // QUARTER_S


def _added(lines: Iterable[UsageLine]) -> list[UsageLine]:
    """One line for each key, in the order of their first appearance."""
    sums: dict[str, list[int]] = {}
    for line in lines:
        found = sums.setdefault(line.key, [0, 0, 0])
        found[0] += line.flows
        found[1] += line.bytes_to_client
        found[2] += line.bytes_to_target
    return [UsageLine(key, *numbers) for key, numbers in sums.items()]
