"""Reports: each key, the totals, tenants, days in a time zone, and one pass over the rows of the period."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.usage_samples import NOON, flow
from trioproxy.accounting.usage import MERGED_TARGET, MERGED_USER
from trioproxy.store import By, UsageLine, UsageReport, UsageStore, UsageWish, report_usage

VIENNA = ZoneInfo("Europe/Vienna")
KATHMANDU = ZoneInfo("Asia/Kathmandu")


@pytest.fixture
def usage(tmp_path: Path) -> Iterator[UsageStore]:
    """Some flows of two tenants, twice Alice's."""
    with UsageStore.open(tmp_path / "usage.db", create=True) as opened:
        for _ in range(2):
            opened.add([flow("alice", 100, 10, groups=("staff", "calls"), app="tls")])
        opened.add(
            [
                flow("bob", 50, 5, groups=("staff",), target="mail.example.org:25", at=NOON - timedelta(days=1)),
                flow("bob", 1_000, 0, tenant="physics", groups=()),
                flow("", 7, 7, groups=()),
            ]
        )
        yield opened


def ask(
    store: UsageStore,
    by: By,
    *,
    since: datetime = NOON - timedelta(days=30),
    until: datetime | None = None,
    tenant: str | None = None,
    limit: int | None = None,
    zone: tzinfo | None = UTC,
) -> UsageReport:
    """A report."""
    return report_usage(store, UsageWish(by, since, until, tenant, limit, zone))


def keys(report: UsageReport) -> list[str]:
    """Its keys in their order."""
    return [line.key for line in report.lines]


def test_by_user(usage: UsageStore) -> None:
    """The largest first; a user of another tenant with that tenant; who had no login is one of them."""
    report = ask(usage, By.USER)
    assert report.lines == (
        UsageLine("physics/bob", 1, 1_000, 0),
        UsageLine("alice", 2, 200, 20),
        UsageLine("bob", 1, 50, 5),
        UsageLine("(no login)", 1, 7, 7),
    )
    assert (report.totals, report.left_out) == (UsageLine("", 5, 1_257, 32), 0)
    assert report.totals.bytes_total == 1_289


def test_by_group(usage: UsageStore) -> None:
    """Who is in two groups counts in both, and in the totals once."""
    report = ask(usage, By.GROUP)
    assert report.lines == (
        UsageLine("physics/(no group)", 1, 1_000, 0),
        UsageLine("staff", 3, 250, 25),
        UsageLine("calls", 2, 200, 20),
        UsageLine("(no group)", 1, 7, 7),
    )
    assert report.totals == UsageLine("", 5, 1_257, 32)


def test_by_target_and_app(usage: UsageStore) -> None:
    """All tenants together, unless one is named."""
    assert ask(usage, By.TARGET).lines == (
        UsageLine("www.example.org:443", 4, 1_207, 27),
        UsageLine("mail.example.org:25", 1, 50, 5),
    )
    assert ask(usage, By.APP, tenant="main").lines == (
        UsageLine("tls", 2, 200, 20),
        UsageLine("(not looked at)", 2, 57, 12),
    )


@pytest.mark.parametrize("by", list(By))
def test_one_tenant_alone(usage: UsageStore, by: By) -> None:
    """One tenant's usage never touches another's; with one tenant, names need no tenant."""
    report = ask(usage, by, tenant="physics")
    expected = {By.USER: "bob", By.GROUP: "(no group)", By.TARGET: "www.example.org:443", By.APP: "(not looked at)"}
    assert report.lines == (UsageLine(expected.get(by, "2026-11-20"), 1, 1_000, 0),)
    assert report.totals == UsageLine("", 1, 1_000, 0)


def test_what_was_merged_is_named_so(usage: UsageStore) -> None:
    """Sums that lost their user or target are in every report."""
    usage.add([flow(MERGED_USER, 9_000, 0, groups=(), target=MERGED_TARGET)])
    for by in (By.USER, By.GROUP, By.TARGET):
        assert keys(ask(usage, by))[0] == "(several)"


@pytest.mark.parametrize(("by", "expected"), [(By.USER, 3), (By.GROUP, 3), (By.TARGET, 1), (By.APP, 1)])
def test_a_limit(usage: UsageStore, by: By, expected: int) -> None:
    """The largest are shown, how many were left out is told, the totals are those of all."""
    report, whole = ask(usage, by, limit=1), ask(usage, by)
    assert (report.lines, report.left_out, report.totals) == (whole.lines[:1], expected, whole.totals)


def test_a_limit_of_days(usage: UsageStore) -> None:
    """Of days the last ones are shown."""
    assert keys(ask(usage, By.DAY)) == ["2026-11-19", "2026-11-20"]
    report = ask(usage, By.DAY, limit=1)
    assert (keys(report), report.left_out) == (["2026-11-20"], 1)


def test_the_period(usage: UsageStore) -> None:
    """It begins with its first moment and ends before its last."""
    assert keys(ask(usage, By.USER, since=NOON - timedelta(days=1), until=NOON)) == ["bob"]
    assert ask(usage, By.USER, since=NOON).totals.flows == 4
    for by in By:
        nothing = ask(usage, by, since=NOON + timedelta(minutes=15))
        assert nothing == UsageReport((), UsageLine("", 0, 0, 0), 0)


@pytest.mark.parametrize(
    ("zone", "last", "first"),
    [
        (UTC, datetime(2026, 11, 19, 23, 45, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC)),
        (VIENNA, datetime(2026, 11, 19, 22, 45, tzinfo=UTC), datetime(2026, 11, 19, 23, tzinfo=UTC)),
        (KATHMANDU, datetime(2026, 11, 19, 18, tzinfo=UTC), datetime(2026, 11, 19, 18, 15, tzinfo=UTC)),
    ],
)
def test_days_begin_at_midnight_there(tmp_path: Path, zone: tzinfo, last: datetime, first: datetime) -> None:
    """Also where clocks are three quarters of an hour off."""
    with UsageStore.open(tmp_path / "usage.db", create=True) as store:
        store.add([flow(at=last, to_client=1), flow(at=first, to_client=2)])
        assert ask(store, By.DAY, zone=zone).lines == (
            UsageLine("2026-11-19", 1, 1, 1),
            UsageLine("2026-11-20", 1, 2, 1),
        )


@pytest.mark.parametrize(
    ("day", "hours"), [(datetime(2026, 3, 29, tzinfo=VIENNA), 23), (datetime(2026, 10, 25, tzinfo=VIENNA), 25)]
)
def test_days_on_which_the_clock_changes(tmp_path: Path, day: datetime, hours: int) -> None:
    """They have 23 and 25 hours."""
    with UsageStore.open(tmp_path / "usage.db", create=True) as store:
        begin = day.astimezone(UTC) - timedelta(hours=3)
        store.add([flow(at=begin + timedelta(hours=number)) for number in range(40)])
        assert [line.flows for line in ask(store, By.DAY, since=begin, zone=VIENNA).lines] == [3, hours, 40 - 3 - hours]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["alice", "bob", ""]), st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 99)
        ),
        min_size=1,
    )
)
def test_p7_all_reports_have_the_same_totals(
    tmp_path_factory: pytest.TempPathFactory, flows: list[tuple[str, int, int, int]]
) -> None:
    """Property P7: whatever the key, lines add up to the totals, and these to what was added."""
    with UsageStore.open(tmp_path_factory.mktemp("usage") / "usage.db", create=True) as store:
        for user, down, up, back in flows:
            store.add([flow(user, down, up, at=NOON - timedelta(hours=back), groups=(), target=f"{user}:{back % 7}")])
        expected = (len(flows), sum(row[1] for row in flows), sum(row[2] for row in flows))
        for by in By:
            report = ask(store, by)
            added = [
                sum(column)
                for column in zip(*((n.flows, n.bytes_to_client, n.bytes_to_target) for n in report.lines), strict=True)
            ]
            totals = report.totals
            assert tuple(added) == expected == (totals.flows, totals.bytes_to_client, totals.bytes_to_target)


@pytest.mark.parametrize("by", list(By))
@pytest.mark.parametrize("tenant", [None, "main"])
def test_a_report_reads_the_rows_of_its_period_once(usage: UsageStore, by: By, tenant: str | None) -> None:
    """What makes a million rows quick: a range of the one key, and names by their number afterwards."""
    statements: list[str] = []
    usage.database._connection.set_trace_callback(statements.append)
    ask(usage, by, until=NOON + timedelta(days=1), tenant=tenant)
    usage.database._connection.set_trace_callback(None)
    queries = [text for text in statements if "FROM usage" in text]
    assert len(queries) == 2
    for query in queries:
        plan = [row[3] for row in usage.database.rows(f"EXPLAIN QUERY PLAN {query}")]
        [range_of_rows] = [line for line in plan if "usage" in line.split()]
        assert range_of_rows == "SEARCH usage USING PRIMARY KEY (quarter>? AND quarter<?)"
        assert not [line for line in plan if line in ("SCAN target", "SCAN account", "SCAN group_set")]
