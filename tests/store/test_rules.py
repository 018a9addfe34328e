"""The rules of the layers, in their order."""

import pytest

from tests.store.samples import ALICE, BOB, GLOBAL, rule, rules
from trioproxy.policy import Scope
from trioproxy.store import EntryError, Store, listing_order

ONE, TWO, THREE = "tcp:*(*)->*(1)", "tcp:*(*)->*(2)", "tcp:*(*)->*(3)"


def texts(store: Store, scope: Scope) -> list[str]:
    """The rules of a layer."""
    return [stored.text for stored in store.rules.of(scope)]


def test_rules_keep_their_order(store: Store) -> None:
    """DESIGN section 3: inside a layer the first matching rule decides, so the order is what was said."""
    store.rules.add(ALICE, rule(ONE))
    store.rules.add(ALICE, rule(TWO))
    store.rules.add(ALICE, rule(THREE), 1)
    store.rules.add(ALICE, rule("deny tcp:*(*)->*(4)"), 2)
    assert texts(store, ALICE) == [THREE, "deny tcp:*(*)->*(4)", ONE, TWO]
    assert [stored.id for stored in store.rules.of(ALICE)] == [3, 4, 1, 2]
    assert store.revision() == 4


@pytest.mark.parametrize("position", [0, -1, 3])
def test_a_place_that_is_none(store: Store, position: int) -> None:
    """A wrong place is an error that names the right ones; nothing is added."""
    store.rules.add(ALICE, rule(ONE))
    with pytest.raises(EntryError, match=f"user:alice has places 1 to 2 for a new rule, not {position}"):
        store.rules.add(ALICE, rule(TWO), position)
    assert texts(store, ALICE) == [ONE]
    assert store.revision() == 1


def test_canonical_text_is_stored(store: Store) -> None:
    """Two spellings of one rule are one rule."""
    assert store.rules.add(GLOBAL, rule("allow tcp:*(*) -> EXAMPLE.org(80)")).text == "tcp:*(*)->example.org(80)"


def test_options_of_the_global_layer_stay_there(store: Store) -> None:
    """DESIGN section 3: user= and group= are for the global layer."""
    other = rule("tcp:*(*)->*(*) user=bob")
    with pytest.raises(ValueError, match="user= and group= are for the global layer"):
        store.rules.add(ALICE, other)
    with pytest.raises(ValueError, match="user= and group= are for the global layer"):
        store.rules.replace({ALICE: [other]})
    assert store.rules.all() == {}
    assert store.rules.add(GLOBAL, other).id == 1


def test_ids_are_never_used_again(store: Store) -> None:
    """`rule remove 2` of an hour ago must not remove what was added since."""
    store.rules.add(ALICE, rule(ONE))
    store.rules.add(ALICE, rule(TWO))
    store.rules.remove([2])
    assert store.rules.add(ALICE, rule(THREE)).id == 3


def test_remove_from_several_layers(store: Store) -> None:
    """All of those named, and no others."""
    for scope in (GLOBAL, ALICE, BOB):
        store.rules.add(scope, rule(ONE))
        store.rules.add(scope, rule(TWO))
    removed = store.rules.remove([6, 1])
    assert {scope: [stored.id for stored in found] for scope, found in removed.items()} == {GLOBAL: [1], BOB: [6]}
    assert [stored.id for found in store.rules.all().values() for stored in found] == [2, 3, 4, 5]


def test_remove_all_or_none(store: Store) -> None:
    """A typing mistake among the ids removes nothing."""
    store.rules.add(ALICE, rule(ONE))
    with pytest.raises(EntryError, match="there is no rule 7, 9"):
        store.rules.remove([9, 1, 7])
    assert texts(store, ALICE) == [ONE]
    assert store.revision() == 1


def test_replace_everything(store: Store) -> None:
    """An import leaves exactly what it holds, in one revision; unchanged rules keep their ids."""
    store.rules.replace({GLOBAL: rules(ONE), ALICE: rules(ONE, TWO, TWO), BOB: rules(ONE)})
    store.rules.replace({GLOBAL: rules(ONE), ALICE: rules(TWO, THREE, TWO)})
    assert store.revision() == 2
    ids = {scope: [(stored.id, stored.text) for stored in found] for scope, found in store.rules.all().items()}
    kept = {stored_id for stored_id, _ in ids[ALICE]}
    assert texts(store, GLOBAL) == [ONE]
    assert texts(store, ALICE) == [TWO, THREE, TWO]
    assert len(kept) == 3
    assert max(kept) == 6
    assert BOB not in ids


def test_replace_with_the_same_changes_nothing(store: Store) -> None:
    """Importing what was exported wakes nobody."""
    store.rules.replace({GLOBAL: rules(ONE, TWO), ALICE: rules(ONE)})
    before = store.snapshot()
    store.rules.replace({GLOBAL: rules(ONE, TWO), ALICE: rules(ONE)})
    assert store.snapshot() == before


def test_replace_one_tenant(store: Store) -> None:
    """Issue item 5: the import of one tenant touches neither another one nor the global layer."""
    store.rules.replace({GLOBAL: rules(ONE), ALICE: rules(ONE), BOB: rules(ONE)})
    store.rules.replace({BOB: rules(TWO)}, "physics")
    assert [texts(store, scope) for scope in (GLOBAL, ALICE, BOB)] == [[ONE], [ONE], [TWO]]
    store.rules.replace({}, "physics")
    assert [texts(store, scope) for scope in (GLOBAL, ALICE, BOB)] == [[ONE], [ONE], []]


@pytest.mark.parametrize("scope", [GLOBAL, ALICE])
def test_replace_one_tenant_with_rules_of_another(store: Store, scope: Scope) -> None:
    """Issue item 5: a tenant's import cannot reach outside."""
    store.rules.replace({BOB: rules(ONE)})
    with pytest.raises(ValueError, match=f"{scope} does not belong to tenant physics"):
        store.rules.replace({scope: rules(TWO), BOB: rules(TWO)}, "physics")
    assert store.rules.all("physics") == store.rules.all()
    assert texts(store, BOB) == [ONE]


def test_layers_are_listed_from_the_wide_to_the_narrow() -> None:
    """Global first, then tenant by tenant, the tenant main before the others."""
    order = [
        "global",
        "tenant:main",
        "group:b",
        "user:a",
        "tenant:alpha",
        "group:alpha/a",
        "user:alpha/a",
        "user:beta/a",
    ]
    scopes = [Scope.parse(text) for text in order]
    assert sorted(sorted(scopes, key=str, reverse=True), key=listing_order) == scopes


def test_listing_one_tenant(store: Store) -> None:
    """Issue item 5: the layers of one tenant do not show those of another."""
    store.rules.replace({GLOBAL: rules(ONE), ALICE: rules(ONE), BOB: rules(TWO)})
    assert list(store.rules.all("physics")) == [BOB]
    assert list(store.rules.all("main")) == [ALICE]
    assert list(store.rules.all()) == [GLOBAL, ALICE, BOB]
