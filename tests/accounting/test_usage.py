"""Sums of finished flows: nothing is lost, however many keys there are."""

import threading
from collections import Counter
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from trioproxy.accounting import NullUsage, QuotaKey, Usage
from trioproxy.accounting.usage import MERGED_TARGET, MERGED_USER, UsageKey, UsageSums

STAFF = frozenset({"staff"})


def key(quarter: int = 1, tenant: str = "main", user: str = "alice", target: str = "a:1", app: str = "") -> UsageKey:
    """What a flow counts for."""
    return UsageKey(quarter, tenant, user, STAFF, target, app)


def test_flows_of_one_key_are_one_sum() -> None:
    """Flows and bytes of both directions are added up."""
    sums = UsageSums()
    sums.add(key(), 10, 1)
    sums.add(key(), 20, 2)
    sums.add(key(app="tls"), 5, 5)
    assert len(sums) == 2
    assert sums.take() == [(key(), [2, 30, 3]), (key(app="tls"), [1, 5, 5])]
    assert sums.take() == []


def test_case_113_the_oldest_lose_their_target_first() -> None:
    """Case 113: accounting is kept up to a bound, then the oldest is aggregated, and counted."""
    sums = UsageSums(keys_max=2)
    for number in range(4):
        sums.add(key(target=f"host{number}:443", app="tls"), 10, 1)
    assert sums.merged == 2
    assert sums.take() == [
        (key(target="host2:443", app="tls"), [1, 10, 1]),
        (key(target="host3:443", app="tls"), [1, 10, 1]),
        (key(target=MERGED_TARGET), [2, 20, 2]),
    ]


def test_case_113_then_they_lose_their_user() -> None:
    """Case 113: with too many users as well, what remains is the tenant and the time."""
    sums = UsageSums(keys_max=1)
    for number in range(4):
        sums.add(key(user=f"user{number}"), 10, 1)
    merged = UsageKey(1, "main", MERGED_USER, frozenset(), MERGED_TARGET, "")
    assert sums.take() == [
        (key(user="user3"), [1, 10, 1]),
        (key(user="user2", target=MERGED_TARGET), [1, 10, 1]),
        (merged, [2, 20, 2]),
    ]
    assert sums.merged == 3 + 2


flows = st.lists(
    st.tuples(
        st.builds(
            key,
            st.integers(0, 2),
            st.sampled_from(["main", "physics"]),
            st.sampled_from(["alice", "bob", ""]),
            st.sampled_from(["a:1", "b:2", "c:3"]),
        ),
        st.integers(0, 2**63),
        st.integers(0, 2**63),
    )
)


@given(flows, st.integers(1, 5), st.integers(1, 9))
def test_p7_each_tenant_and_quarter_is_whole(
    flows: list[tuple[UsageKey, int, int]], keys_max: int, taken_every: int
) -> None:
    """Property P7: the sums of what is taken are those of what was added, and memory is bounded."""
    sums, expected, found = UsageSums(keys_max), Counter[tuple[object, ...]](), Counter[tuple[object, ...]]()
    taken = []
    for number, (one, to_client, to_target) in enumerate(flows, start=1):
        sums.add(one, to_client, to_target)
        expected.update({(*one[:2], "flows"): 1, (*one[:2], "down"): to_client, (*one[:2], "up"): to_target})
        assert len(sums) <= 2 * keys_max + 2 * 3
        if number % taken_every == 0:
            taken += sums.take()
    for one, numbers in [*taken, *sums.take()]:
        found.update(dict(zip([(*one[:2], word) for word in ("flows", "down", "up")], numbers, strict=True)))
    assert found == expected


def test_taking_beside_adding_loses_nothing() -> None:
    """The thread takes while the event loop adds."""
    sums, done, taken = UsageSums(keys_max=50), threading.Event(), []

    def take() -> None:
        while not done.is_set():
            taken.extend(sums.take())

    thread = threading.Thread(target=take)
    thread.start()
    for number in range(20_000):
        sums.add(key(target=str(number % 77)), 3, 2)
    done.set()
    thread.join()
    numbers = [numbers for _, numbers in [*taken, *sums.take()]]
    assert [sum(column) for column in zip(*numbers, strict=True)] == [20_000, 60_000, 40_000]


def test_null_usage_keeps_nothing() -> None:
    """A server without a usage store: what it is told of is not even looked at."""
    usage: Usage = NullUsage()
    told = [(QuotaKey("main", "alice", "user:alice", "rule", datetime.now(UTC)), 1)]
    left = iter(told)
    usage.add_quota_deltas(left)
    assert list(left) == told
