"""The usage store: sums added up exactly, by several processes, removed in portions; and what was used of quotas."""

import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.usage_samples import NOON, contents, flow, quarter, quota
from trioproxy.accounting.usage import UsageKey
from trioproxy.store import Store, StoreError, UsageStore, usage_path

NOW = quarter()


@pytest.fixture
def usage(tmp_path: Path) -> Iterator[UsageStore]:
    """A new usage store."""
    with UsageStore.open(tmp_path / "usage.db", create=True) as opened:
        yield opened


def test_it_lies_beside_the_store() -> None:
    """Two stores in one folder have two of them."""
    assert usage_path(Path("/data/trioproxy.db")) == Path("/data/trioproxy-usage.db")
    assert usage_path(Path("/data/other")) == Path("/data/other-usage")


def test_the_file_is_private(usage: UsageStore) -> None:
    """Who talked to whom is for the owner of the file alone."""
    assert stat.S_IMODE(usage.path.stat().st_mode) == 0o600


def test_sums_of_one_key_are_added(usage: UsageStore) -> None:
    """What is there already grows, whoever wrote it."""
    usage.add([flow(to_client=10), flow("bob", app="tls")])
    with UsageStore.open(usage.path, create=False) as other:
        other.add([flow(to_client=5, to_target=7)])
    usage.add([flow(to_client=1), flow(target="mail.example.org:25")])
    assert contents(usage) == [
        (NOW, "main", "alice", "staff", "mail.example.org:25", "", 1, 10, 1),
        (NOW, "main", "alice", "staff", "www.example.org:443", "", 3, 16, 9),
        (NOW, "main", "bob", "staff", "www.example.org:443", "tls", 1, 10, 1),
    ]


def test_groups_are_kept_once_for_all_who_have_the_same(usage: UsageStore) -> None:
    """A campus has fewer sets of groups than people; another set of a person is another account."""
    usage.add([flow("alice", groups=("b", "a")), flow("bob", groups=("a", "b")), flow("bob", groups=())])
    assert usage.database.rows("SELECT names FROM group_set ORDER BY id") == [("a,b",), ("",)]
    assert [row[2:4] for row in contents(usage)] == [("alice", "a,b"), ("bob", ""), ("bob", "a,b")]


def test_nothing_of_a_batch_that_fails_is_kept(usage: UsageStore) -> None:
    """A batch is one transaction: tried again, it is not counted twice."""
    with closing(sqlite3.connect(usage.path, isolation_level=None)) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON usage BEGIN SELECT raise(ABORT, 'no room'); END")
        with pytest.raises(StoreError, match="no room"):
            usage.add([flow()])
        other.execute("DROP TRIGGER full")
    assert usage.database.rows("SELECT count(*) FROM target") == [(0,)]
    usage.add([flow()])
    assert [row[6:] for row in contents(usage)] == [(1, 10, 1)]


def test_a_removed_file_is_noticed(usage: UsageStore) -> None:
    """Case 113: writing into a file that has no name any more would raise nothing and keep nothing."""
    usage.path.unlink()
    with pytest.raises(StoreError, match="the usage store has gone"):
        usage.add([flow()])
    with pytest.raises(StoreError, match="the usage store has gone"):
        usage.add_quota_deltas([(quota(), 1)])


def test_it_is_no_store_of_rules(tmp_path: Path, usage: UsageStore) -> None:
    """Neither of the two files is taken for the other."""
    with pytest.raises(StoreError, match="not a trioproxy store, but the database of another program"):
        Store.open(usage.path, create=True)
    Store.open(tmp_path / "trioproxy.db", create=True).close()
    with pytest.raises(StoreError, match="not a trioproxy usage store"):
        UsageStore.open(tmp_path / "trioproxy.db", create=True)


def test_a_missing_one_says_what_makes_it(tmp_path: Path) -> None:
    """A report makes no file."""
    with pytest.raises(StoreError, match="there is no usage store; `trioproxy serve` makes one"):
        UsageStore.open(tmp_path / "usage.db", create=False)


# ---- removing


def test_what_is_too_old_goes_in_portions(usage: UsageStore) -> None:
    """Nobody waits for the lock while months are removed; what is left is whole, and names that nobody needs go too."""
    long_ago = NOON - timedelta(days=100)
    usage.add([flow(f"user{number}", at=long_ago, groups=(f"g{number}",)) for number in range(5)])
    usage.add([flow("user1", at=long_ago, target="kept:1"), flow("user1", target="kept:1", groups=("g1",))])
    before = [6 - 2, 6 - 4, 6 - 6]
    for left in before:
        assert usage.remove_before(NOW, 2)
        assert len(contents(usage)) == left + 1
    while usage.remove_before(NOW, 2):
        pass
    assert [row[:5] for row in contents(usage)] == [(NOW, "main", "user1", "g1", "kept:1")]
    assert usage.database.rows("SELECT name FROM target") == [("kept:1",)]
    assert usage.database.rows("SELECT user_name FROM account") == [("user1",)]
    assert usage.database.rows("SELECT names FROM group_set") == [("g1",)]


def test_removing_takes_no_more_than_it_should(usage: UsageStore) -> None:
    """The quarter of an hour at the bound stays."""
    usage.add([flow(at=NOON - timedelta(minutes=15)), flow()])
    assert not usage.remove_before(NOW, 10)
    assert [row[0] for row in contents(usage)] == [NOW]
    assert usage.oldest_quarter() == NOW


def test_an_empty_one_has_no_oldest(usage: UsageStore) -> None:
    """There is nothing yet, and nothing to remove."""
    assert usage.oldest_quarter() is None
    assert not usage.remove_before(NOW, 10)


batches = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["alice", "bob"]),
            st.integers(0, 5),
            st.sampled_from(["a:1", "b:2"]),
            st.sampled_from([(), ("x",), ("x", "y")]),
        )
    ),
    max_size=6,
)


@given(batches, st.integers(0, 6), st.integers(1, 3))
def test_p7_rows_are_the_sums_of_what_was_added(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[str, int, str, tuple[str, ...]]]],
    removed_before: int,
    portion: int,
) -> None:
    """Property P7: however flows come in batches, each sum is exact; removing keeps all that is young enough."""
    expected: Counter[UsageKey] = Counter()
    with UsageStore.open(tmp_path_factory.mktemp("usage") / "usage.db", create=True) as usage:
        for batch in batches:
            sums = [
                (UsageKey(number, "main", user, frozenset(groups), target, ""), [1, number, 0])
                for user, number, target, groups in batch
            ]
            usage.add(sums)
            expected.update(key for key, _ in sums)
        while usage.remove_before(removed_before, portion):
            pass
        assert contents(usage) == sorted(
            (key.quarter, "main", key.user, ",".join(sorted(key.groups)), key.target, "", n, n * key.quarter, 0)
            for key, n in expected.items()
            if key.quarter >= removed_before
        )


# ---- quotas


def test_quota_deltas_of_all_processes_are_added(usage: UsageStore) -> None:
    """DESIGN section 4: deltas instead of totals, so that several processes may count for one quota."""
    usage.add_quota_deltas([(quota(), 100), (quota("bob"), 7)])
    with UsageStore.open(usage.path, create=False) as other:
        other.add_quota_deltas([(quota(), 23), (quota(), 1)])
    assert usage.quotas_used(NOON) == {quota(): 124, quota("bob"): 7}
    assert (usage.quota_used(quota()), usage.quota_used(quota("carol"))) == (124, 0)


def test_quotas_of_the_current_periods(usage: UsageStore) -> None:
    """At the start what is current is read, in whatever time zone the period was said."""
    yesterday = quota(begin=NOON - timedelta(days=1))
    usage.add_quota_deltas([(yesterday, 5), (quota(begin=NOON.astimezone(timezone(timedelta(hours=5)))), 3)])
    assert usage.quotas_used(NOON) == {quota(): 3}
    assert usage.quotas_used(NOON - timedelta(days=1)) == {yesterday: 5, quota(): 3}
    usage.remove_quotas_before(NOON)
    assert usage.quotas_used(datetime(1970, 1, 1, tzinfo=UTC)) == {quota(): 3}
