"""Usage as tests write it."""

from collections.abc import Iterable
from datetime import UTC, datetime

from tests.store.samples import GLOBAL
from trioproxy.accounting import FlowRecord, QuotaKey, Termination
from trioproxy.accounting.usage import QUARTER_S, UsageKey
from trioproxy.store import UsageStore
from trioproxy.store.usage import UsageSum

__all__ = ["NOON", "contents", "flow", "quarter", "quota", "record"]

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def quarter(moment: datetime = NOON) -> int:
    """The quarter of an hour that begins then."""
    return int(moment.timestamp()) // QUARTER_S


def flow(
    user: str = "alice",
    to_client: int = 10,
    to_target: int = 1,
    *,
    at: datetime = NOON,
    tenant: str = "main",
    groups: Iterable[str] = ("staff",),
    target: str = "www.example.org:443",
    app: str = "",
) -> UsageSum:
    """The sum of one flow."""
    return UsageKey(quarter(at), tenant, user, frozenset(groups), target, app), [1, to_client, to_target]


def contents(store: UsageStore) -> list[tuple[object, ...]]:
    """What is in the table, with names, in its order."""
    return store.database.rows(
        "SELECT quarter, tenant, user_name, names, target.name, app, flows, to_client, to_target FROM usage"
        " JOIN account ON account.id = account JOIN group_set ON group_set.id = group_set"
        " JOIN target ON target.id = target ORDER BY quarter, tenant, user_name, names, target.name, app"
    )


def quota(owner: str = "alice", begin: datetime = NOON) -> QuotaKey:
    """A quota of one person."""
    return QuotaKey("main", owner, str(GLOBAL), "any:*(*)->*(*) quota=5GB/day", begin)


def record(user: str | None = "alice", at: datetime = NOON, asked: str | None = "WWW.Example.org:443") -> FlowRecord:
    """A finished flow: 10 bytes to the client, one to the target."""
    return FlowRecord(
        started_at=at.timestamp() + 899,
        session=1,
        listener="127.0.0.1:1080",
        tenant="main",
        user=user,
        client="10.1.2.3:50000",
        command="CONNECT",
        asked=asked,
        target="192.0.2.1:443",
        bytes_to_target=1,
        bytes_to_client=10,
        duration_s=0.1,
        termination=Termination.CLIENT_CLOSED,
        reply=0,
        scope="global",
        rule="any:*(*)->*(*)",
        counts={},
    )
