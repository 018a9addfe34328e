"""What is cut off, as the store keeps it."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.store.samples import alice
from trioproxy.policy import Block, BlockKind, BlockSubject
from trioproxy.store import EntryError, Store

HOUR = timedelta(hours=1)
EVERYTHING = BlockSubject(BlockKind.EVERYTHING)
USER = BlockSubject.parse(BlockKind.USER, "physics/bob")
TARGET = BlockSubject.parse(BlockKind.TARGET, "[2001:db8::/32]:25,587")


def add(
    store: Store, subject: BlockSubject = EVERYTHING, tenant: str | None = None, ends_in: timedelta = HOUR
) -> Block:
    """Cut something off, for an hour."""
    ends_at = datetime.now(UTC) + ends_in
    return store.blocks.add(subject, tenant=tenant, reason="attack", set_by="root", ends_at=ends_at)


def test_what_is_added_is_there(path: Path, store: Store) -> None:
    """Every kind, with its end or without, after a restart as before; each change is a revision."""
    added = [
        add(store),
        add(store, USER),
        add(store, TARGET, "physics"),
        store.blocks.add(EVERYTHING, reason="until I say so", set_by="alice"),
    ]
    assert [block.id for block in added] == [1, 2, 3, 4]
    assert [block.tenant for block in added] == [None, "physics", "physics", None]
    assert added[3].ends_at is None
    assert datetime.now(UTC) - HOUR < added[0].set_at <= datetime.now(UTC)
    assert store.revision() == 4
    with Store.open(path, create=False) as again:
        assert again.blocks.all() == again.snapshot().blocks == tuple(added)


def test_the_tenant_of_a_user_is_the_user_s(store: Store) -> None:
    """It may be repeated, but not be another."""
    assert add(store, USER, "physics").tenant == "physics"
    with pytest.raises(ValueError, match="user physics/bob is of tenant physics, not of main"):
        add(store, USER, "main")
    assert len(store.blocks.all()) == 1


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "\u202eturned", "x" * 501])
def test_a_reason_is_one_line(store: Store, reason: str) -> None:
    """It stands in lists and records, and somebody has to make sense of it at night."""
    with pytest.raises(ValueError, match="a reason is one line of 1 to 500 characters"):
        store.blocks.add(EVERYTHING, reason=reason, set_by="root")
    assert store.blocks.all() == ()


def test_remove_all_or_none(store: Store) -> None:
    """A typing mistake among the ids removes nothing; ids are never used again."""
    for _ in range(3):
        add(store)
    with pytest.raises(EntryError, match="there is no block 7, 9; it may have ended"):
        store.blocks.remove([9, 1, 7])
    assert len(store.blocks.all()) == 3
    assert [block.id for block in store.blocks.remove([3, 1, 3])] == [1, 3]
    assert [block.id for block in store.blocks.all()] == [2]
    assert add(store).id == 4


@pytest.mark.parametrize("how", ["add", "remove"])
def test_what_has_ended_is_tidied_up(store: Store, how: str) -> None:
    """With the next change of any; until then it is there and does nothing."""
    add(store)
    add(store, ends_in=-HOUR)
    assert len(store.blocks.all()) == 2
    if how == "add":
        add(store, USER)
        assert [block.id for block in store.blocks.all()] == [1, 3]
    else:
        store.blocks.remove([1])
        assert store.blocks.all() == ()


def test_a_block_outlives_its_user(store: Store) -> None:
    """Removing and adding a user is no way around a block; the limits of the user go with the user."""
    store.users.add([alice("physics", "bob")])
    add(store, USER)
    store.users.remove("physics", "bob")
    store.users.add([alice("physics", "bob")])
    assert [block.subject for block in store.blocks.all()] == [USER]


def test_a_block_that_cannot_be_read_is_one_of_everything(path: Path, store: Store) -> None:
    """CASES law 11: nobody knows whom it kept out; it shows in the list, and can be removed."""
    add(store, TARGET, "physics")
    with closing(sqlite3.connect(path)) as hand, hand:
        hand.execute("UPDATE block SET subject = 'not a target'")
    [block] = store.blocks.all()
    assert (block.subject, block.tenant) == (EVERYTHING, "physics")
    assert block.reason.startswith("it cannot be read, so everything is blocked: a target has no spaces")
    assert [found.id for found in store.blocks.remove([1])] == [1]


def test_a_kind_of_block_that_there_is_not(path: Path, store: Store) -> None:
    """The database itself refuses what no version of ours could read."""
    add(store)
    with closing(sqlite3.connect(path)) as hand, pytest.raises(sqlite3.IntegrityError):
        hand.execute("UPDATE block SET kind = 'planet'")
