"""What the server reads: consistent, unchanging, and closed where it cannot be read."""

import sqlite3
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from tests.store.samples import ALICE, GLOBAL, alice, rule, rules
from trioproxy.policy import RuleSet, parse_rule
from trioproxy.store import Store, StoredRule, login_problems, read_rule_set


def test_a_snapshot_does_not_change(store: Store) -> None:
    """A verdict under way is judged by one state of the rules."""
    store.users.add([alice()])
    store.rules.add(ALICE, rule("tcp:*(*)->*(1)"))
    snapshot = store.snapshot()
    assert snapshot.revision == 2
    assert snapshot.users == {("main", "alice"): store.users.get("main", "alice")}
    assert snapshot.rules == {ALICE: (StoredRule(1, "tcp:*(*)->*(1)"),)}
    store.rules.remove([1])
    store.users.remove("main", "alice")
    assert list(snapshot.rules) == [ALICE]
    assert store.snapshot().rules == {}
    assert store.snapshot().users == {}


def test_a_snapshot_is_of_one_moment(path: Path, store: Store) -> None:
    """A change by another process in the middle of the reading is seen whole or not at all."""
    store.rules.add(GLOBAL, rule("tcp:*(*)->*(1)"))
    with Store.open(path, create=False) as other:
        with store._database.reading():
            assert store.revision() == 1
            other.rules.replace({ALICE: rules("tcp:*(*)->*(2)")})
            snapshot = store.snapshot()
        assert (snapshot.revision, list(snapshot.rules)) == (1, [GLOBAL])
        assert (store.snapshot().revision, list(store.snapshot().rules)) == (2, [ALICE])


def test_a_layer_becomes_a_rule_set() -> None:
    """The server and `rule explain` read a layer in the same way."""
    stored = [StoredRule(3, "tcp:*(*)->*(1)"), StoredRule(1, "deny udp:*(*)->*(*)")]
    assert read_rule_set(GLOBAL, stored) == (RuleSet(rules("tcp:*(*)->*(1)", "deny udp:*(*)->*(*)")), "")


@pytest.mark.parametrize("text", ["tcp:*(*)->*(*) rate=5", "", "tcp:*(*)->*(*) user=bob"])
def test_a_layer_that_cannot_be_read_denies_everything(text: str) -> None:
    """CASES law 11: a rule of another version might have been a ban, so its layer lets nothing through."""
    stored = [StoredRule(1, "tcp:*(*)->*(1)"), StoredRule(2, text)]
    rule_set, problem = read_rule_set(ALICE, stored)
    assert rule_set == RuleSet([parse_rule("deny any:*(*)->*(*)")])
    assert problem.startswith("rule 2 of user:alice cannot be read, so this layer denies everything: ")


def test_users_who_can_never_log_in_are_reported() -> None:
    """Case 38: an empty, locked or unknown hash never verifies, and the start says so."""
    users = [
        alice(),
        attrs.evolve(alice(name="b"), password_hash=""),
        attrs.evolve(alice(name="c"), password_hash="!locked"),
        attrs.evolve(alice("physics", "d"), password_hash="plain"),
    ]
    assert login_problems(users) == (
        "user b: no password is set",
        "user c: the password is locked",
        "user physics/d: the hash is of an unknown kind",
    )


def test_a_kind_of_layer_that_there_is_not(path: Path, store: Store) -> None:
    """The database itself refuses what no version of ours could read."""
    assert store.revision() == 0
    with closing(sqlite3.connect(path)) as hand, pytest.raises(sqlite3.IntegrityError):
        hand.execute("INSERT INTO rule VALUES (1, 'everybody', '', '', 1, 'tcp:*(*)->*(*)')")


def test_two_thousand_users_and_twelve_thousand_rules(store: Store) -> None:
    """Issue item 6: at the size that we promise, one snapshot is one query for each table and no more."""
    store.users.add([alice(name=f"user{number}") for number in range(2_000)])
    store.rules.replace(
        {
            attrs.evolve(ALICE, name=f"user{number}"): rules(*(f"tcp:*(*)->10.0.{port}.0/24(80)" for port in range(6)))
            for number in range(2_000)
        }
    )
    statements: list[str] = []
    store._database._connection.set_trace_callback(statements.append)
    snapshot = store.snapshot()
    assert len(snapshot.users) == 2_000
    assert sum(map(len, snapshot.rules.values())) == 12_000
    assert len([text for text in statements if text.startswith("SELECT")]) == 6
