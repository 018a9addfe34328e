"""The cache by hand; `test_cache_machine.py` plays it against a model."""

from datetime import timedelta
from itertools import product

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth import Credentials, Identity
from auth.cache import ResultCache
from tests.auth.doubles import NOW, accepted, credentials

CHAIN = "system-proxy\0local"


def remember(cache: ResultCache, said: Credentials, now_s: float = 0.0) -> Identity:
    """Put what a backend would have answered."""
    identity = accepted(said)
    cache.put(cache.key(said, CHAIN), identity, cache.generation(said.tenant, said.username), now_s)
    return identity


def recall(cache: ResultCache, said: Credentials, now_s: float = 0.0) -> Identity | None:
    """Look up."""
    return cache.get(cache.key(said, CHAIN), now_s)


def test_an_acceptance_holds_for_its_time() -> None:
    """60 s, not one moment longer: the time a revocation nobody announced takes (case 43)."""
    cache = ResultCache()
    identity = remember(cache, credentials(), now_s=100.0)
    assert identity == recall(cache, credentials(), now_s=159.9)
    assert recall(cache, credentials(), now_s=160.0) is None
    assert len(cache) == 0


def test_a_hit_does_not_prolong() -> None:
    """A client that never stops asking is asked again all the same (case 43)."""
    cache = ResultCache(ttl_s=60.0)
    remember(cache, credentials())
    seen = [recall(cache, credentials(), now_s=10.0 * step) is not None for step in range(8)]
    assert seen == [True] * 6 + [False] * 2


@pytest.mark.parametrize(
    "other",
    [
        credentials(password="wrong"),
        credentials(password="righ"),
        credentials(password="right "),
        credentials(password="RIGHT"),
        credentials(password=""),
        credentials("bob"),
        credentials("alicer", "ight"),
        credentials(tenant="physics"),
        credentials("ealice", tenant="physics"),
        credentials(source="10.0.0.1"),
    ],
    ids=repr,
)
def test_only_the_same_login_hits(other: Credentials) -> None:
    """Another password, user, tenant or source is another login (cases 30, 42; 41 for the source)."""
    cache = ResultCache()
    remember(cache, credentials())
    assert recall(cache, other) is None


def test_another_chain_does_not_hit() -> None:
    """What one listener's backends accepted says nothing about another's (case 42, 3proxy)."""
    cache = ResultCache()
    remember(cache, credentials())
    assert cache.get(cache.key(credentials(), "system-proxy\0campus"), 0.0) is None


WORDS = st.text(st.sampled_from("ab\0"), max_size=3)


@given(*[st.builds(Credentials, *[WORDS] * 4)] * 2, st.sampled_from(["", "a"]), st.sampled_from(["", "a"]))
def test_keys_are_as_different_as_logins(one: Credentials, other: Credentials, chain: str, other_chain: str) -> None:
    """No part runs into the next, none is cut: equal keys mean equal logins (case 42, Okta 2024)."""
    cache = ResultCache()
    assert ((one, chain) == (other, other_chain)) is (cache.key(one, chain) == cache.key(other, other_chain))


def test_keys_do_not_cut() -> None:
    """Two passwords that differ in byte 256 alone are different; a cut at 72 let people in (Okta, 2024)."""
    cache = ResultCache()
    keys = {cache.key(credentials("u" * 255, "p" * 254 + last), CHAIN) for last in ("", "x", "y", "xy")}
    assert len(keys) == 4


def test_keys_hide_what_they_are_made_of() -> None:
    """Nothing the cache holds shows a password, and its keys mean nothing in another process (P6, case 36)."""
    cache, other = ResultCache(), ResultCache()
    said = credentials(password="PW-CANARY")
    remember(cache, said)
    held = repr(vars(cache)) + repr(cache)
    assert "CANARY" not in held
    assert "right" not in held
    assert cache.key(said, CHAIN) != other.key(said, CHAIN)
    assert len(cache.key(said, CHAIN)) == 32
    same = [ResultCache(key=b"k" * 32).key(said, CHAIN) for _ in range(2)]
    assert same[0] == same[1]


def test_a_changed_user_is_forgotten() -> None:
    """Every login of that user, from wherever; nobody else's, not even that of the same name elsewhere (case 43)."""
    cache = ResultCache()
    gone = [credentials(source=source) for source in ("10.0.0.1", "10.0.0.2")]
    kept = [credentials("bob"), credentials(tenant="physics")]
    for said in gone + kept:
        remember(cache, said)
    cache.drop_user("main", "alice")
    assert [recall(cache, said) for said in gone] == [None, None]
    assert [accepted(said) for said in kept] == [recall(cache, said) for said in kept]
    cache.drop_user("main", "alice")
    assert len(cache) == 2


def test_everything_is_forgotten() -> None:
    """After a change to who knows whom."""
    cache = ResultCache()
    for name, tenant in product(("alice", "bob"), ("main", "physics")):
        remember(cache, credentials(name, tenant=tenant))
    cache.clear()
    assert len(cache) == 0
    assert recall(cache, credentials()) is None


@pytest.mark.parametrize("change", ["drop_user", "clear"])
def test_a_late_answer_is_not_kept(change: str) -> None:
    """An answer from before a revocation never overwrites it (P6)."""
    cache = ResultCache()
    generation = cache.generation("main", "alice")
    if change == "clear":
        cache.clear()
    else:
        cache.drop_user("main", "alice")
    cache.put(cache.key(credentials(), CHAIN), accepted(credentials()), generation, 0.0)
    assert recall(cache, credentials()) is None
    remember(cache, credentials())
    assert recall(cache, credentials()) is not None


def test_changes_overtake_nobody_else() -> None:
    """Another user's change, or one of the same name in another tenant, says nothing about this answer (case 43)."""
    cache = ResultCache()
    generation = cache.generation("main", "alice")
    cache.drop_user("main", "bob")
    cache.drop_user("physics", "alice")
    cache.put(cache.key(credentials(), CHAIN), accepted(credentials()), generation, 0.0)
    assert recall(cache, credentials()) is not None


@pytest.mark.parametrize("change", ["drop_user", "clear"])
def test_every_login_under_way_is_overtaken(change: str) -> None:
    """Two logins of one user live in one generation, and who asks after the change in another (P6)."""
    cache = ResultCache()
    before = [cache.generation("main", "alice") for _ in range(2)]
    if change == "clear":
        cache.clear()
    else:
        cache.drop_user("main", "alice")
    assert [tuple(g.over for g in before), cache.generation("main", "alice").over] == [(True, True), False]


def test_generations_go_with_those_who_asked() -> None:
    """Whose login nobody awaits leaves nothing behind, however many names are tried."""
    cache = ResultCache()
    held = cache.generation("main", "alice")
    for number in range(100):
        cache.generation("main", f"user{number}")
    assert list(cache._generations.values()) == [held]


def test_a_look_up_makes_what_is_remembered_younger() -> None:
    """Who was looked up since the login need not be again so soon; the password is asked about as soon as before."""
    cache = ResultCache(ttl_s=60.0)
    said = credentials()
    found = attrs.evolve(remember(cache, said, now_s=100.0), verified_s=150.0)
    cache.confirm(found)
    remembered = recall(cache, said, now_s=159.9)
    assert remembered is not None
    assert (found, 150.0) == (remembered, remembered.verified_s)
    assert recall(cache, said, now_s=160.0) is None


def test_a_look_up_that_says_something_else() -> None:
    """What is older goes. Younger answers, those of another backend, of other users and tenants stay (case 43)."""
    cache = ResultCache()
    older, younger, elsewhere, other = (
        credentials(password="older"),
        credentials(password="younger"),
        credentials(password="elsewhere"),
        credentials("bob"),
    )
    for said, backend, verified_s in (
        (older, "campus", 1.0),
        (younger, "campus", 3.0),
        (elsewhere, "library", 1.0),
        (other, "campus", 1.0),
        (credentials(tenant="physics"), "campus", 1.0),
    ):
        identity = attrs.evolve(accepted(said), backend=backend, verified_s=verified_s)
        cache.put(cache.key(said, CHAIN), identity, cache.generation(said.tenant, said.username), 0.0)
    cache.confirm(attrs.evolve(accepted(older), backend="campus", groups=frozenset({"staff"}), verified_s=2.0))
    assert recall(cache, older) is None
    assert [recall(cache, said) is not None for said in (younger, elsewhere, other)] == [True] * 3
    assert recall(cache, credentials(tenant="physics")) is not None
    cache.confirm(accepted(credentials("nobody")))
    assert len(cache) == 4


def test_an_account_that_ends_takes_its_answer_along() -> None:
    """What is cached ends with the account, not up to 60 s later, and an ended one is not cached (case 41)."""
    cache = ResultCache(ttl_s=60.0)
    identity = attrs.evolve(accepted(credentials()), valid_until=NOW + timedelta(seconds=5))
    key = cache.key(credentials(), CHAIN)
    for lifetime_s in (0.0, -1.0):
        cache.put(key, identity, cache.generation("main", "alice"), 100.0, lifetime_s)
        assert len(cache) == 0
    cache.put(key, identity, cache.generation("main", "alice"), 100.0, 5.0)
    assert identity == cache.get(key, 104.9)
    assert cache.get(key, 105.0) is None


def test_a_full_cache_loses_its_oldest() -> None:
    """The size is bounded; a login made again is young again, and pushes nobody out (P6)."""
    cache = ResultCache(entries_max=3)
    logins = [credentials(name) for name in ("a", "b", "c", "d")]
    for said in logins[:3]:
        remember(cache, said)
    remember(cache, logins[0])
    assert len(cache) == 3
    remember(cache, logins[3])
    assert [recall(cache, said) is not None for said in logins] == [True, False, True, True]
    assert len(cache) == 3


def test_the_default_size() -> None:
    """10,000 acceptances, and the next one takes the place of the first (P6)."""
    cache = ResultCache()
    for number in range(10_001):
        remember(cache, credentials(f"user{number}"))
    assert len(cache) == 10_000
    assert recall(cache, credentials("user0")) is None
    assert recall(cache, credentials("user1")) is not None


def test_nothing_is_left_of_the_forgotten() -> None:
    """The index by user shrinks with the entries: names that came once do not stay."""
    cache = ResultCache(ttl_s=1.0, entries_max=2)
    for number in range(10):
        remember(cache, credentials(f"user{number}"), now_s=number / 2)
    assert set(cache._keys_of) == {("main", "user8"), ("main", "user9")}
    recall(cache, credentials("user8"), now_s=100.0)
    recall(cache, credentials("user9"), now_s=100.0)
    assert not cache._keys_of
