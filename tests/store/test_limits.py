"""How fast, how much and how many, for whom, as the store keeps it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.samples import ALICE, BOB, GLOBAL, alice
from trioproxy.policy import Limit, Party, Scope
from trioproxy.store import EntryError, Store, StoreError, party_order

STUDENTS = Party(Scope.parse("group:students"))
PHYSICS = Party(Scope.parse("tenant:physics"), together=True)


def put(store: Store, party: Party, *words: str) -> Limit:
    """Change a limit, as the command line does."""
    return store.limits.change(party, lambda limit: limit.changed(words))


def test_what_is_set_is_there(path: Path, store: Store) -> None:
    """Canonical, after a restart as before; each change is a revision, and what changes nothing is none."""
    assert str(put(store, STUDENTS, "sessions=200", "rate=10Mbit/2Mbit")) == "rate=10Mbit/2Mbit sessions=200"
    put(store, PHYSICS, "rate=1Gbit")
    put(store, STUDENTS, "rate=20Mbit")
    put(store, STUDENTS, "rate=20Mbit")
    assert store.revision() == 3
    with Store.open(path, create=False) as again:
        assert again.limits.all() == again.snapshot().limits
        assert again.limits.all() == {
            STUDENTS: Limit.parse("rate=20Mbit sessions=200"),
            PHYSICS: Limit.parse("rate=1Gbit"),
        }


def test_lifting_the_last_one(store: Store) -> None:
    """A party without any limit is one that is not there."""
    put(store, STUDENTS, "sessions=200")
    assert put(store, STUDENTS, "sessions=none") == Limit()
    assert store.limits.all() == {}
    assert put(store, STUDENTS, "sessions=none") == Limit()
    assert store.revision() == 2


@pytest.mark.parametrize("words", [["binds=5"], ["burst=1MB"], ["rate=x"], ["rate=1Mbit", "rate=2Mbit"]])
def test_bad_values_store_nothing(store: Store, words: list[str]) -> None:
    """Issue: refused with what was expected; what was there stays."""
    put(store, PHYSICS, "sessions=5")
    with pytest.raises(ValueError, match="expected"):
        put(store, PHYSICS, *words)
    assert store.limits.all() == {PHYSICS: Limit.parse("sessions=5")}
    assert store.revision() == 1


def test_remove(store: Store) -> None:
    """One of the two limits that a scope may have."""
    shared = Party(STUDENTS.scope, together=True)
    put(store, STUDENTS, "sessions=5")
    put(store, shared, "sessions=500")
    assert store.limits.remove(shared) == "sessions=500"
    assert list(store.limits.all()) == [STUDENTS]
    with pytest.raises(EntryError, match="there is no limit for group:students together"):
        store.limits.remove(shared)


def test_listing(store: Store) -> None:
    """As layers are listed, each user's before the shared ones; one tenant's do not show those of another."""
    parties = [Party(GLOBAL), Party(GLOBAL, together=True), STUDENTS, Party(ALICE), PHYSICS, Party(BOB)]
    for party in reversed(parties):
        put(store, party, "sessions=5")
    assert list(store.limits.all()) == sorted(parties, key=party_order) == parties
    assert list(store.limits.all("physics")) == [PHYSICS, Party(BOB)]
    assert list(store.limits.all("main")) == [STUDENTS, Party(ALICE)]


def test_replace(store: Store) -> None:
    """An import leaves exactly what it holds; the same again wakes nobody."""
    put(store, STUDENTS, "sessions=5")
    put(store, Party(ALICE), "sessions=5")
    wanted = {STUDENTS: Limit.parse("rate=1Mbit"), PHYSICS: Limit.parse("rate=1Gbit")}
    store.limits.replace(wanted)
    store.limits.replace(wanted)
    assert store.limits.all() == wanted
    assert store.revision() == 3


def test_replace_one_tenant(store: Store) -> None:
    """Issue: the import of one tenant touches no other and nothing global, and cannot reach outside."""
    for party in (Party(GLOBAL), STUDENTS, PHYSICS):
        put(store, party, "sessions=5")
    store.limits.replace({Party(BOB): Limit.parse("binds=1")}, "physics")
    assert list(store.limits.all()) == [Party(GLOBAL), STUDENTS, Party(BOB)]
    with pytest.raises(ValueError, match="group:students does not belong to tenant physics"):
        store.limits.replace({STUDENTS: Limit.parse("binds=1")}, "physics")


def test_a_user_takes_the_limits_along(store: Store) -> None:
    """A later user of that name starts with none."""
    store.users.add([alice()])
    put(store, Party(ALICE), "sessions=5")
    put(store, STUDENTS, "sessions=5")
    store.users.remove("main", "alice")
    assert list(store.limits.all()) == [STUDENTS]


@pytest.mark.parametrize("text", ["", "sessions=0", "speed=5", "binds=5"])
def test_a_limit_that_cannot_be_read(path: Path, store: Store, text: str) -> None:
    """Nobody knows what it limited, so nothing new is put in force; it can be removed."""
    put(store, PHYSICS, "sessions=5")
    with closing(sqlite3.connect(path)) as hand, hand:
        hand.execute("UPDATE limits SET content = ?", (text,))
    with pytest.raises(StoreError, match="the limit for tenant:physics together cannot be read: "):
        store.snapshot()
    assert store.limits.remove(PHYSICS) == text
    assert store.snapshot().limits == {}
