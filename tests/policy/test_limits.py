"""Limits: how they are written, whose of several counts, and what users share."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth import Identity
from tests.policy import strategies
from tests.policy.asking import identity
from trioproxy.policy import Limit, LimitBook, Party, Scope, ScopeKind
from trioproxy.policy.limits import COUNT_MAX, KEYS, TOGETHER_KEYS, check_limit
from trioproxy.policy.units import Period, Quota, Rates

ALICE = identity("alice", ["staff", "students"])

WHOLE = (
    "rate=10Mbit/2Mbit burst=2MB quota=20GB/month over_quota_rate=1Mbit sessions=200 associations=20 binds=5"
    " new_sessions=60/min targets=100/min"
)


def book(limits: Mapping[str, str]) -> LimitBook:
    """A book of `SCOPE` or `SCOPE together` to what is limited."""
    return LimitBook(
        {
            Party(Scope.parse(whom.removesuffix(" together")), together=whom.endswith(" together")): Limit.parse(text)
            for whom, text in limits.items()
        }
    )


def test_every_key_is_read() -> None:
    """All that can be limited, with its units."""
    limit = Limit.parse(WHOLE)
    assert limit == Limit(
        rate=Rates(1_250_000, 250_000),
        burst=2_000_000,
        quota=Quota(20 * 10**9, Period.MONTH),
        over_quota_rate=Rates(125_000, 125_000),
        sessions=200,
        associations=20,
        binds=5,
        new_sessions=60,
        targets=100,
    )
    assert str(limit) == WHOLE
    assert tuple(limit.texts()) == KEYS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected at least one limit such as rate=20Mbit"),
        ("rate=none", "expected at least one limit"),
        ("fast", "fast: expected one of rate=, burst=, quota="),
        ("rate", "rate: expected one of rate="),
        ("speed=5Mbit", "speed=5Mbit: expected one of rate="),
        ("rate=", "rate: expected a rate such as 20Mbit"),
        ("rate=20", "rate: expected a rate such as 20Mbit"),
        ("rate=20Mbit/", "rate: expected a rate"),
        ("burst=2Mbit", "burst: expected a size such as 500MB"),
        ("rate=80Mbit burst=64KiB", "burst: expected 100kB or more at this rate, a hundredth of a second of it"),
        ("quota=5GB", "quota: expected a quota such as 5GB/day: the period is day, week or month"),
        ("quota=5GB/year", "quota: expected a quota such as 5GB/day: the period is day, week or month"),
        ("over_quota_rate=slow", "over_quota_rate: expected a rate"),
        ("sessions=many", "sessions: expected a whole number from 1 to 1,000,000"),
        ("sessions=0", "sessions: expected a whole number from 1"),
        ("binds=1000001", "binds: expected a whole number from 1 to 1,000,000"),
        ("associations=1.5", "associations: expected a whole number"),
        ("new_sessions=60", "new_sessions: expected a number within a minute such as 60/min"),
        ("new_sessions=60/h", "new_sessions: expected a number within a minute"),
        ("targets=0/min", "targets: expected a number within a minute"),
        ("targets=\N{ARABIC-INDIC DIGIT TWO}/min", "targets: expected a number within a minute"),
        ("rate=1Mbit rate=2Mbit", "rate: expected only once"),
        ("rate=1Mbit\tburst=1MB", "rate: expected a rate"),
    ],
)
def test_what_is_no_limit(text: str, message: str) -> None:
    """The error names the key and what was expected."""
    with pytest.raises(ValueError, match="expected") as caught:
        Limit.parse(text)
    assert str(caught.value).startswith(message)


def rates() -> st.SearchStrategy[Rates]:
    """Few, so that some are equal."""
    some = st.sampled_from([1_000, 125_000, 1_250_001])
    return st.builds(Rates, some, some)


@st.composite
def some_limits(draw: st.DrawFn, keys: tuple[str, ...] = KEYS) -> Limit:
    """A limit of at least one of these keys."""
    count = st.sampled_from([1, 60, COUNT_MAX])
    kinds: dict[str, st.SearchStrategy[object]] = {
        **dict.fromkeys(KEYS, count),
        **dict.fromkeys(("rate", "over_quota_rate"), rates()),
        "burst": st.sampled_from([20_000, 2_000_000, 2**31]),
        "quota": st.builds(Quota, st.sampled_from([1, 10**9, 5 * 10**9]), st.sampled_from(Period)),
    }
    chosen = draw(st.sets(st.sampled_from(keys), min_size=1))
    return Limit(**{key: draw(kinds[key]) for key in sorted(chosen)})  # type: ignore[arg-type]  # of the right kinds


@given(some_limits())
def test_p2_the_text_of_a_limit_reads_back(limit: Limit) -> None:
    """P2: what is shown can be typed again, and the store holds it as text."""
    assert Limit.parse(str(limit)) == limit


def test_changing_one_key_leaves_the_others() -> None:
    """`limit set` says what changes; `none` lifts a limit."""
    limit = Limit.parse("rate=10Mbit sessions=200")
    assert str(limit.changed(["sessions=100", "binds=5"])) == "rate=10Mbit sessions=100 binds=5"
    assert str(limit.changed(["rate=none"])) == "sessions=200"
    assert limit.changed(["rate=none", "sessions=none"]) == Limit()
    with pytest.raises(ValueError, match="rate: expected only once"):
        limit.changed(["rate=none", "rate=5Mbit"])


@pytest.mark.parametrize(
    ("scope", "text", "message"),
    [
        ("user:alice", "rate=1Mbit", "user:alice is one user, who shares with nobody"),
        ("tenant:main", "rate=1Mbit binds=5", "binds: expected for each user; what users share is rate, burst"),
        ("group:staff", "targets=5/min", "targets: expected for each user"),
        ("global", "burst=5MB", "burst: expected beside a rate"),
    ],
)
def test_what_users_cannot_share(scope: str, text: str, message: str) -> None:
    """Nothing is taken over in part."""
    with pytest.raises(ValueError, match="expected") as caught:
        book({f"{scope} together": text})
    assert str(caught.value).startswith(message)
    check_limit(Party(Scope.parse(scope)), Limit.parse(text))


def test_whom_a_limit_is_for() -> None:
    """Two limits of one scope are two."""
    staff = Scope.parse("group:staff")
    assert str(Party(staff)) == "group:staff"
    assert str(Party(staff, together=True)) == "group:staff together"


def test_the_narrowest_scope_decides_key_by_key() -> None:
    """The user's own, else the smallest of the groups, else the tenant's, else the global one."""
    found = book(
        {
            "global": "rate=1Mbit sessions=10 associations=10 binds=10",
            "tenant:main": "rate=2Mbit sessions=20 associations=20",
            "group:staff": "rate=3Mbit sessions=40",
            "group:students": "rate=4Mbit sessions=30",
            "group:guests": "sessions=1 binds=1",
            "user:alice": "rate=5Mbit",
            "user:bob": "rate=6Mbit",
            "user:physics/alice": "binds=1",
        }
    ).each(ALICE)
    assert str(found.limit) == "rate=5Mbit sessions=30 associations=20 binds=10"
    assert {key: list(map(str, scopes)) for key, scopes in found.origins.items()} == {
        "rate": ["user:alice"],
        "sessions": ["group:students"],
        "associations": ["tenant:main"],
        "binds": ["global"],
    }


@pytest.mark.parametrize(
    ("staff", "students", "smallest", "origins"),
    [
        ("rate=10Mbit", "rate=20Mbit", "rate=10Mbit", ["staff"]),
        ("rate=10Mbit/5Mbit", "rate=20Mbit/1Mbit", "rate=10Mbit/1Mbit", ["staff", "students"]),
        ("rate=10Mbit/5Mbit", "rate=10Mbit/1Mbit", "rate=10Mbit/1Mbit", ["students"]),
        ("rate=10Mbit", "rate=10Mbit", "rate=10Mbit", ["staff"]),
        ("quota=5GB/day", "quota=20GB/month", "quota=20GB/month", ["students"]),
        ("quota=1GB/day", "quota=7GB/week", "quota=1GB/day", ["staff"]),
        ("quota=8GB/week", "quota=1GB/day", "quota=1GB/day", ["students"]),
        ("burst=1MB", "burst=1MiB", "burst=1MB", ["staff"]),
        ("new_sessions=60/min", "new_sessions=59/min", "new_sessions=59/min", ["students"]),
        ("over_quota_rate=1Mbit", "sessions=5", "over_quota_rate=1Mbit sessions=5", ["staff"]),
    ],
)
def test_the_smallest_of_several_groups(staff: str, students: str, smallest: str, origins: list[str]) -> None:
    """Each direction of a rate by itself; of quotas the one that leaves less for a day."""
    found = book({"group:staff": staff, "group:students": students}).each(ALICE)
    assert str(found.limit) == smallest
    first = next(iter(found.origins.values()))
    assert [scope.name for scope in first] == origins


def test_clients_without_login_and_people_outside_the_proxy_group() -> None:
    """Whoever is let in is limited: by what is for everybody, for the tenant, and for the groups that are known."""
    limits = book(
        {"global": "rate=9Mbit", "tenant:main": "sessions=5", "group:staff": "binds=2", "user:alice": "binds=1"}
    )
    assert str(limits.each(identity(None)).limit) == "rate=9Mbit sessions=5"
    outside = Identity("main", "carol", frozenset({"staff"}), "campus", member=False)
    assert str(limits.each(outside).limit) == "rate=9Mbit sessions=5 binds=2"


def test_what_users_share_holds_in_addition() -> None:
    """From the wide to the narrow, all of it, whatever is each user's own."""
    limits = book(
        {
            "global together": "rate=4Gbit",
            "tenant:main together": "rate=1Gbit quota=5TB/month",
            "tenant:physics together": "rate=2Gbit",
            "group:students together": "sessions=1000",
            "tenant:main": "rate=5Mbit",
        }
    )
    assert [(str(scope), str(limit)) for scope, limit in limits.together(ALICE)] == [
        ("global", "rate=4Gbit"),
        ("tenant:main", "rate=1Gbit quota=5TB/month"),
        ("group:students", "sessions=1000"),
    ]
    assert str(limits.each(ALICE).limit) == "rate=5Mbit"
    assert [str(scope) for scope, _ in limits.together(identity(None, tenant="open"))] == ["global"]


def test_a_book_does_not_change_and_looks_up_once() -> None:
    """Asked for each new flow, it answers with the very same object."""
    written = {Party(Scope.parse("global")): Limit.parse("rate=1Mbit")}
    limits = LimitBook(written)
    found, shared = limits.each(ALICE), limits.together(ALICE)
    written.clear()
    assert limits.each(identity("alice", ["students", "staff"])) is found
    assert limits.together(ALICE) is shared
    assert str(found.limit) == "rate=1Mbit"
    assert LimitBook().each(ALICE).limit == Limit()
    assert LimitBook().together(ALICE) == ()
    with pytest.raises(TypeError):
        found.origins["rate"] = ()  # type: ignore[index]


SCOPES = [Scope(ScopeKind.GLOBAL), *strategies.INNER_SCOPES]


@given(st.dictionaries(st.builds(Party, st.sampled_from(SCOPES)), some_limits()), strategies.identities())
def test_109_limits_of_another_tenant_change_nothing(limits: dict[Party, Limit], who: Identity) -> None:
    """Case 109: what is written for one tenant neither limits nor frees the users of another."""
    own = {party: limit for party, limit in limits.items() if party.scope.tenant in ("", who.tenant)}
    assert LimitBook(limits).each(who) == LimitBook(own).each(who)
    found = LimitBook(limits).each(who)
    assert found.origins.keys() == found.limit.texts().keys()
    around = set(Scope.around(who))
    assert all(scope in around for scopes in found.origins.values() for scope in scopes)


@given(st.dictionaries(st.sampled_from(SCOPES[:4]), some_limits(TOGETHER_KEYS)), strategies.identities())
def test_all_shared_limits_around_a_user_hold(limits: dict[Scope, Limit], who: Identity) -> None:
    """None outweighs another."""
    shared = {Party(scope, together=True): limit for scope, limit in limits.items() if limit.burst is None}
    expected = {scope for scope in Scope.around(who) if Party(scope, together=True) in shared}
    assert {scope for scope, _ in LimitBook(shared).together(who)} == expected
