"""Local users: kept apart by tenant, changed whole or not at all, and with an epoch that ends their sessions."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auth.local import LocalUser
from tests.store.samples import ALICE, BOB, GLOBAL, HASH, alice, rule
from trioproxy.store import EntryError, Store, StoreError

MORNING = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


def stored(store: Store, tenant: str = "main", name: str = "alice") -> LocalUser:
    """A user who must be there."""
    return store.users.get(tenant, name)


def test_a_user_comes_back_as_added(store: Store) -> None:
    """Everything about a user is kept; the epoch alone is chosen by the store."""
    user = attrs.evolve(
        alice(groups=("b", "a", "system-proxy")),
        disabled=True,
        valid_from=MORNING,
        valid_until=MORNING + timedelta(days=1),
        sources=("10.0.0.0/8", "2001:db8::/32"),
    )
    assert store.users.add([user]) == 0
    found = stored(store)
    assert attrs.evolve(found, epoch="") == user
    assert found.epoch != ""


@pytest.mark.parametrize("sources", [None, (), ("10.0.0.0/8",)])
def test_everywhere_and_nowhere_are_different(store: Store, sources: tuple[str, ...] | None) -> None:
    """Case 32: zero allowed sources is nowhere, not everywhere."""
    store.users.add([attrs.evolve(alice(), sources=sources)])
    assert stored(store).sources == sources


def test_times_are_kept_in_utc(store: Store) -> None:
    """The same moment, whatever zone it was said in."""
    zone = timezone(timedelta(hours=5, minutes=30))
    store.users.add([attrs.evolve(alice(), valid_until=MORNING.astimezone(zone))])
    assert stored(store).valid_until == MORNING
    assert stored(store).valid_until.tzinfo is UTC  # type: ignore[union-attr]  # it is there, as the line above says


def test_one_name_in_two_tenants(store: Store) -> None:
    """Issue item 5: two passwords, two rule sets, and nothing of one shows in or changes the other."""
    store.users.add([alice(), attrs.evolve(alice("physics"), password_hash="other", groups=frozenset({"x"}))])
    store.rules.add(ALICE, rule("tcp:*(*)->*(1)"))
    store.rules.add(attrs.evolve(ALICE, tenant="physics"), rule("tcp:*(*)->*(2)"))
    before = stored(store, "physics")
    store.users.change("main", "alice", lambda user: attrs.evolve(user, password_hash="new", disabled=True))
    assert stored(store, "physics") == before
    assert [user.tenant for user in store.users.all("main")] == ["main"]
    assert [user.tenant for user in store.users.all()] == ["main", "physics"]
    assert store.users.remove("main", "alice") == 1
    assert stored(store, "physics") == before
    assert [found.text for found in store.rules.of(attrs.evolve(ALICE, tenant="physics"))] == ["tcp:*(*)->*(2)"]


def test_add_all_or_none(store: Store) -> None:
    """An import that stumbles over a user who is there adds nobody."""
    store.users.add([alice(), alice("physics", "bob")])
    before = store.snapshot()
    with pytest.raises(EntryError, match="there already: user alice, physics/bob"):
        store.users.add([alice(name="carol"), alice(), alice("physics", "bob")])
    assert store.snapshot() == before


def test_update_changes_the_password_alone(store: Store) -> None:
    """An import with --update gives a new password, and takes no group, no date and no ban away."""
    store.users.add([attrs.evolve(alice(groups=("staff",)), disabled=True)])
    before = stored(store)
    assert store.users.add([attrs.evolve(alice(), password_hash="new"), alice(name="dora")], update=True) == 1
    after = stored(store)
    assert after == attrs.evolve(before, password_hash="new", epoch=after.epoch)
    assert after.epoch != before.epoch
    assert store.revision() == 2


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        (lambda user: attrs.evolve(user, password_hash="new"), True),
        (lambda user: attrs.evolve(user, disabled=True), True),
        (lambda user: attrs.evolve(user, sources=("10.0.0.0/8",)), True),
        (lambda user: attrs.evolve(user, groups=frozenset({"other"})), False),
        (lambda user: attrs.evolve(user, valid_until=MORNING), False),
        (lambda user: attrs.evolve(user, valid_from=MORNING), False),
    ],
)
def test_what_ends_the_sessions(store: Store, change: Callable[[LocalUser], LocalUser], ends: bool) -> None:
    """Case 43: what only a login looks at gives a new epoch; groups and dates are looked at while a session lives."""
    store.users.add([alice()])
    before = stored(store)
    after = store.users.change("main", "alice", change)
    assert after == stored(store)
    assert (after.epoch != before.epoch) is ends
    assert attrs.evolve(after, epoch="") == attrs.evolve(change(before), epoch="")


def test_enabling_again_keeps_the_epoch(store: Store) -> None:
    """Sessions from before the ban stay over: their epoch was another one."""
    store.users.add([alice()])
    first = stored(store).epoch
    store.users.change("main", "alice", lambda user: attrs.evolve(user, disabled=True))
    second = stored(store).epoch
    store.users.change("main", "alice", lambda user: attrs.evolve(user, disabled=False))
    assert stored(store).epoch == second != first


def test_the_epoch_cannot_be_chosen(store: Store) -> None:
    """A change that sets an epoch would bring ended sessions back."""
    store.users.add([attrs.evolve(alice(), epoch="mine")])
    assert stored(store).epoch != "mine"
    before = stored(store)
    store.users.change("main", "alice", lambda user: attrs.evolve(user, epoch="mine"))
    assert stored(store) == before


def test_a_change_of_nothing_is_no_revision(store: Store) -> None:
    """Nobody reads everything again for nothing."""
    store.users.add([alice()])
    store.users.change("main", "alice", lambda user: user)
    assert store.revision() == 1


def test_removed_and_added_again_is_somebody_else(store: Store) -> None:
    """Case 43: the sessions and the rules of the former user are not those of the new one."""
    store.users.add([alice()])
    store.rules.add(ALICE, rule("tcp:*(*)->*(*)"))
    store.rules.add(GLOBAL, rule("udp:*(*)->*(*)"))
    store.rules.add(BOB, rule("udp:*(*)->*(*)"))
    before = stored(store)
    assert store.users.remove("main", "alice") == 1
    assert set(store.rules.all()) == {GLOBAL, BOB}
    store.users.add([alice()])
    assert stored(store).epoch != before.epoch
    assert store.rules.of(ALICE) == ()


def test_a_new_hash_of_the_same_password(store: Store) -> None:
    """A login that found an outdated hash replaces it without ending the user's sessions."""
    store.users.add([alice()])
    before = stored(store)
    store.users.rehash(before, "better")
    assert stored(store) == attrs.evolve(before, password_hash="better")
    assert store.revision() == 2


def test_a_late_rehash_undoes_no_new_password(store: Store) -> None:
    """The password was changed while its old form was being verified: the new one stays."""
    store.users.add([alice()])
    before = stored(store)
    store.users.change("main", "alice", lambda user: attrs.evolve(user, password_hash="new"))
    after = stored(store)
    store.users.rehash(before, "old password in a better form")
    assert stored(store) == after
    store.users.remove("main", "alice")
    store.users.rehash(before, "x")
    assert store.users.find("main", "alice") is None
    assert store.revision() == 3


@pytest.mark.parametrize(
    "wish",
    [
        lambda users: users.get("main", "bob"),
        lambda users: users.change("main", "bob", lambda user: user),
        lambda users: users.remove("main", "bob"),
    ],
)
def test_nobody_of_that_name(store: Store, wish: Callable[[object], object]) -> None:
    """What is not there is said, and nothing is changed."""
    store.users.add([alice("physics", "bob")])
    with pytest.raises(EntryError, match="there is no local user bob"):
        wish(store.users)
    assert store.users.find("main", "bob") is None
    assert store.revision() == 1


def test_a_time_that_nobody_of_us_wrote(path: Path, store: Store) -> None:
    """A hand in the database gives a clear error and no login; a time without a zone counts as UTC."""
    store.users.add([alice()])
    with closing(sqlite3.connect(path)) as hand, hand:
        hand.execute("UPDATE local_user SET valid_until = '2026-01-31T08:00:00'")
    assert stored(store).valid_until == MORNING
    with closing(sqlite3.connect(path)) as hand, hand:
        hand.execute("UPDATE local_user SET valid_until = 'tomorrow'")
    with pytest.raises(StoreError, match="'tomorrow' where a time belongs"):
        store.snapshot()
    assert not store._database._connection.in_transaction


_names = st.sampled_from(["a", "b", "c"])
_tenants = st.sampled_from(["main", "physics"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "disable", "group"]), _tenants, _names, st.sampled_from(["x", "y"])
        ),
        max_size=20,
    )
)
def test_as_a_dictionary_would(path: Path, steps: list[tuple[str, str, str, str]]) -> None:
    """Any order of changes leaves what the same changes leave in a dictionary; each change is one revision."""
    path.unlink(missing_ok=True)
    model: dict[tuple[str, str], tuple[bool, frozenset[str]]] = {}
    with Store.open(path, create=True) as store:
        for action, tenant, name, group in steps:
            key, before = (tenant, name), store.revision()
            known = key in model
            old = dict(model)
            try:
                _apply(store, model, action, key, group)
            except EntryError:
                assert known == (action == "add")
                model = old
            changed = model != old
            assert store.revision() == before + changed
        users = store.snapshot().users
    assert {key: (user.disabled, user.groups) for key, user in users.items()} == model


def _apply(
    store: Store,
    model: dict[tuple[str, str], tuple[bool, frozenset[str]]],
    action: str,
    key: tuple[str, str],
    group: str,
) -> None:
    match action:
        case "add":
            store.users.add([LocalUser(*key, HASH, frozenset({group}))])
            model[key] = (False, frozenset({group}))
        case "remove":
            store.users.remove(*key)
            del model[key]
        case "disable":
            store.users.change(*key, lambda user: attrs.evolve(user, disabled=True))
            model[key] = (True, model[key][1])
        case _:
            store.users.change(*key, lambda user: attrs.evolve(user, groups=user.groups | {group}))
            model[key] = (model[key][0], model[key][1] | {group})
