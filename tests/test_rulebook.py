"""Users and rules in force: replaced as a whole, stale after a time, identities as they are by now."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import pytest

from auth import EntryRules, Identity
from auth.local import LocalUser
from auth.membership import Membership
from trioproxy.policy import (
    AccessRequest,
    Block,
    BlockKind,
    BlockSubject,
    Floor,
    Limit,
    Party,
    Permit,
    Policy,
    RuleProtocol,
    Scope,
    TimeZones,
    parse_rule,
)
from trioproxy.rulebook import Rulebook
from trioproxy.store import Snapshot, Store, StoredRule

ALICE = LocalUser("main", "alice", "*", frozenset({"system-proxy", "staff"}), epoch="1")
CLIENT = ip_address("10.0.0.1")
LOCAL = frozenset({"local", "staff"})
MEMBERS = Membership("system-proxy")
TENANTS = {"main": MEMBERS, "physics": MEMBERS, "open": Membership("system-proxy", admits_nonmembers=True)}


class Clock:
    """Monotonic seconds in the test's hands."""

    now_s = 1_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


def a_snapshot(
    users: list[LocalUser] | None = None, rules: dict[str, list[str]] | None = None, revision: int = 1
) -> Snapshot:
    """What a store might hold."""
    return Snapshot(
        revision,
        {(user.tenant, user.name): user for user in ([ALICE] if users is None else users)},
        {
            Scope.parse(scope): tuple(StoredRule(number, text) for number, text in enumerate(texts))
            for scope, texts in (rules or {}).items()
        },
    )


def a_rulebook(snapshot: Snapshot | None = None, clock: Clock | None = None) -> Rulebook:
    """A rulebook that has read it."""
    rulebook = Rulebook(
        Floor(),
        TENANTS.get,
        LOCAL,
        3_600,
        clock or Clock(),
    )
    rulebook.prepare(snapshot or a_snapshot())()
    return rulebook


def permits(rulebook: Rulebook, identity: Identity | None = None) -> bool:
    """Whether the identity may reach a web server."""
    identity = identity or Identity("main", "alice", ALICE.groups, "local", "1")
    request = AccessRequest(identity, CLIENT, 1, RuleProtocol.TCP, None, ip_address("192.0.2.1"), 80)
    policy = rulebook.policy
    assert policy is not None
    return isinstance(policy.judge(request), Permit)


def test_nothing_is_permitted_before_the_first_reading() -> None:
    """Until the store was read there are no rules in force."""
    assert Rulebook(Floor(), lambda _: MEMBERS, LOCAL, 3_600).policy is None


def test_state_is_replaced_as_a_whole() -> None:
    """Preparing changes nothing yet; putting in force tells which users have changed."""
    rulebook = a_rulebook()
    bob = LocalUser("main", "bob", "*")
    prepared = rulebook.prepare(a_snapshot([bob], {"global": ["tcp:*(*)->*(*)"]}, revision=2))
    assert rulebook.revision == 1
    assert not permits(rulebook)
    assert prepared() == {("main", "alice"), ("main", "bob")}
    assert rulebook.revision == 2
    assert permits(rulebook)
    assert rulebook.find_user("main", "alice") is None
    assert rulebook.find_user("main", "bob") == bob


def test_unchanged_layers_are_not_built_again() -> None:
    """A change to one user's rules costs the parsing of that layer only."""
    rules = {"user:alice": ["tcp:*(*)->*(*)"], "user:bob": ["tcp:*(*)->*(80)"]}
    rulebook = a_rulebook(a_snapshot(rules=rules))
    before = rulebook._state.rule_sets
    rulebook.prepare(a_snapshot(rules=rules | {"user:bob": ["tcp:*(*)->*(81)"]}))()
    after = rulebook._state.rule_sets
    assert after[Scope.parse("user:alice")] is before[Scope.parse("user:alice")]
    assert after[Scope.parse("user:bob")] is not before[Scope.parse("user:bob")]


def test_unreadable_rule_denies_its_whole_layer() -> None:
    """A rule of another version: nobody knows what it forbade, so its layer forbids everything."""
    rulebook = a_rulebook(a_snapshot(rules={"global": ["tcp:*(*)->*(*)"], "user:alice": ["tcp:*(*)->*(*) new=thing"]}))
    assert not permits(rulebook)
    assert permits(rulebook, Identity("main", "bob", backend="other"))


def test_stale_state_permits_nothing_new() -> None:
    """Law 11: last-known-good rules up to a stated age, then refuse."""
    clock = Clock()
    rulebook = a_rulebook(clock=clock)
    clock.now_s += 3_600
    fresh = rulebook.policy
    assert fresh is not None
    clock.now_s += 1
    stale = rulebook.policy
    assert stale is None
    with pytest.raises(OSError, match="store cannot be read"):
        rulebook.find_user("main", "alice")
    rulebook.confirm()
    assert rulebook.policy is not None
    assert rulebook.find_user("main", "alice") == ALICE


PAST, FUTURE = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)


@pytest.mark.parametrize(
    ("change", "still"),
    [
        ({}, True),
        ({"disabled": True}, False),
        ({"epoch": "2"}, False),
        ({"groups": frozenset({"staff"})}, False),
        ({"valid_from": FUTURE}, False),
        ({"valid_until": PAST}, False),
        ({"valid_from": PAST, "valid_until": FUTURE}, True),
    ],
)
def test_case_43_identity_of_a_changed_user(change: dict[str, Any], still: bool) -> None:
    """Case 43: disabled, another password, out of the proxy group, not yet or no longer valid: the identity is over."""
    rulebook = a_rulebook(a_snapshot([attrs.evolve(ALICE, **change)]))
    identity = Identity("main", "alice", ALICE.groups, "local", "1")
    assert (rulebook.current_identity(identity) is not None) is still


def test_identity_gets_the_groups_of_now() -> None:
    """A user who was put into another group is judged by its rules at once."""
    rulebook = a_rulebook(a_snapshot([attrs.evolve(ALICE, groups=frozenset({"system-proxy", "guests"}))]))
    current = rulebook.current_identity(Identity("main", "alice", ALICE.groups, "local", "1"))
    assert current is not None
    assert current.groups == {"system-proxy", "guests"}


MEMBER = frozenset({"system-proxy"})
RULES = (EntryRules(None, "uid=bob", ("tcp:*(*)->*(*)",)),)


@pytest.mark.parametrize(
    ("identity", "still"),
    [
        (Identity("main", None), True),
        (Identity("open", None), True),
        (Identity("gone", None), False),
        (Identity("main", "bob", backend="local"), False),
        (Identity("main", "bob", backend="staff"), False),
        (Identity("main", "bob", MEMBER, backend="campus"), True),
        (Identity("main", "bob", backend="campus"), False),
        (Identity("open", "bob", MEMBER, backend="campus"), True),
        (Identity("open", "bob", backend="campus", member=False), True),
        (Identity("physics", "alice", ALICE.groups, "local", "1"), False),
    ],
)
def test_identities_without_a_local_user(identity: Identity, still: bool) -> None:
    """Nobody's name, another backend, another tenant, a tenant that is gone."""
    assert (a_rulebook().current_identity(identity) == identity) is still


def test_local_user_outside_the_group_is_no_member_where_others_are_let_in() -> None:
    """`nonmembers = "global-rules"`: leaving the group ends no session; from then on the global layer alone judges."""
    users = [LocalUser("open", "alice", "*", MEMBER, epoch="1"), LocalUser("open", "bob", "*", epoch="1")]
    rulebook = a_rulebook(a_snapshot(users))
    alice = Identity("open", "alice", MEMBER, "local", "1")
    assert rulebook.current_identity(alice) is alice
    rulebook.prepare(a_snapshot([attrs.evolve(users[0], groups=frozenset())]))()
    assert rulebook.current_identity(alice) == attrs.evolve(alice, groups=frozenset(), member=False)


@pytest.mark.parametrize("backend", ["local", "campus"])
def test_reload_changes_who_is_a_member(backend: str) -> None:
    """Another proxy group, or another word about who is outside it, holds for live sessions of every backend."""
    rulebook = a_rulebook(a_snapshot([LocalUser("main", "bob", "*", frozenset({"staff"}), epoch="1")]))
    bob = Identity("main", "bob", frozenset({"staff"}), backend, "1", rules=RULES if backend == "campus" else ())

    def after_reload(membership: Membership) -> Identity | None:
        rulebook.apply(Floor(), Policy({}, Floor()), lambda _: membership, LOCAL, 10)
        return rulebook.current_identity(bob)

    assert after_reload(Membership("system-proxy")) is None
    assert after_reload(Membership("staff")) is bob
    outside = after_reload(Membership("system-proxy", admits_nonmembers=True))
    assert outside == attrs.evolve(bob, member=False)
    assert rulebook.current_identity(attrs.evolve(bob, member=False)) == outside
    rulebook.apply(Floor(), Policy({}, Floor()), lambda _: Membership("staff"), LOCAL, 10)
    assert rulebook.current_identity(attrs.evolve(bob, member=False)) == bob


def test_rules_of_a_directory_stay_with_the_identity() -> None:
    """No directory is asked when the store changes: what it said at the login is judged on."""
    rulebook = a_rulebook(a_snapshot(rules={"user:bob": ["deny tcp:*(*)->*(81)"]}))
    bob = Identity("main", "bob", MEMBER, backend="campus", rules=RULES)
    assert rulebook.current_identity(bob) is bob
    assert permits(rulebook, bob)
    rulebook.prepare(a_snapshot(rules={"user:bob": ["deny tcp:*(*)->*(80)"]}))()
    assert not permits(rulebook, bob)


def test_floor_may_change() -> None:
    """A reload opens the floor; the rules stay."""
    rulebook = a_rulebook(a_snapshot(rules={"global": ["tcp:*(*)->*(*)"]}))
    floor = Floor(own=None)
    policy = rulebook.with_floor(floor)
    rulebook.apply(floor, policy, lambda _: None, LOCAL, 10)
    assert rulebook.policy is policy
    assert rulebook.current_identity(Identity("main", None)) is None


def test_hours_are_read_by_the_clocks_of_the_configuration() -> None:
    """Also by rules that the store brings later; a reload may change the clocks."""
    office = a_snapshot(rules={"global": ["tcp:*(*)->*(*) when=mon-fri@08:00-18:00"]})
    rulebook = Rulebook(Floor(), TENANTS.get, LOCAL, 3_600, Clock(), zones=TimeZones(ZoneInfo("Europe/Berlin")))
    now = datetime(2026, 11, 23, 7, 30, tzinfo=UTC)

    def border() -> int:
        rulebook.prepare(office)()
        assert rulebook.policy is not None
        found = rulebook.policy.next_border(now)
        assert found is not None
        return found.hour

    assert border() == 17
    kept = rulebook.with_floor(Floor())
    assert kept.zones.of("main") == ZoneInfo("Europe/Berlin")
    rulebook.apply(Floor(), rulebook.with_floor(Floor(), TimeZones()), TENANTS.get, LOCAL, 3_600)
    assert border() == 8


def test_reads_a_real_store(tmp_path: Path) -> None:
    """What the command line writes is what the rulebook holds."""
    with Store.open(tmp_path / "trioproxy.db", create=True) as store:
        store.users.add([ALICE])
        store.rules.add(Scope.parse("user:alice"), parse_rule("tcp:*(*)->*(*)"))
        rulebook = a_rulebook(store.snapshot())
        found = rulebook.find_user("main", "alice")
        assert found is not None
        assert permits(rulebook, Identity("main", "alice", ALICE.groups, "local", found.epoch))


NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ANYTHING = a_snapshot(rules={"global": ["tcp:*(*)->*(*)"]})


def a_block(number: int, ends_at: datetime | None) -> Block:
    """Everything is blocked."""
    return Block(number, BlockSubject(BlockKind.EVERYTHING), None, "attack", "root", NOON, ends_at)


def test_blocks_hold_until_they_end() -> None:
    """The rulebook puts the policy without a block in force when that has ended, with nothing read from the store."""
    times = [NOON]
    rulebook = Rulebook(Floor(), TENANTS.get, LOCAL, 3_600, Clock(), now=lambda: times[-1])
    ended, first = a_block(1, NOON), a_block(2, NOON + timedelta(hours=1))
    rulebook.prepare(attrs.evolve(ANYTHING, blocks=(ended, first)))()
    blocked = rulebook.policy
    assert blocked is not None
    assert list(blocked.blocks) == [first]
    assert not permits(rulebook)
    rulebook.end_blocks()
    unchanged = rulebook.policy
    assert unchanged is blocked
    times.append(NOON + timedelta(hours=1))
    rulebook.end_blocks()
    assert permits(rulebook)


def test_blocks_come_and_go_with_the_store() -> None:
    """The rules are not built again for a block, and a reload of the configuration keeps it."""
    rulebook = a_rulebook(ANYTHING)
    before = rulebook.policy
    assert before is not None
    rulebook.prepare(attrs.evolve(ANYTHING, revision=2, blocks=(a_block(1, None),)))()
    assert not permits(rulebook)
    assert rulebook.policy is not None
    assert rulebook.policy._index is before._index
    floor = Floor()
    rulebook.apply(floor, rulebook.with_floor(floor), TENANTS.get, LOCAL, 3_600)
    assert not permits(rulebook)
    rulebook.prepare(ANYTHING)()
    assert permits(rulebook)


def test_hours_that_begin_and_end_are_noticed_once() -> None:
    """Within the minute of a border, and not at other minutes; a clock that is put back counts as one."""
    times = [NOON]
    rulebook = Rulebook(Floor(), TENANTS.get, LOCAL, 3_600, Clock(), now=lambda: times[-1])
    asked = 0

    def identities() -> list[Identity]:
        nonlocal asked
        asked += 1
        return []

    def at(**later: float) -> bool:
        times.append(NOON + timedelta(**later))
        return rulebook.hours_have_changed(identities)

    assert not at(minutes=1)  # nothing has been read
    rulebook.prepare(a_snapshot(rules={"user:alice": ["tcp:*(*)->*(*) when=12:02-12:04"]}))()
    assert not at(minutes=1, seconds=59)
    assert asked == 1
    assert at(minutes=2)
    assert not at(minutes=2, seconds=30)
    assert not at(minutes=3)
    assert at(minutes=7)
    assert at(minutes=6)
    assert not at(minutes=6, seconds=1)
    assert asked == 4


def test_hours_of_a_directory_begin_and_end_as_well() -> None:
    """While somebody with such rules is there."""
    times = [NOON]
    rulebook = Rulebook(Floor(), TENANTS.get, LOCAL, 3_600, Clock(), now=lambda: times[-1])
    rulebook.prepare(ANYTHING)()
    entry = EntryRules(None, "uid=alice", ("tcp:*(*)->*(*) when=12:00-12:01",))
    alice = Identity("main", "alice", rules=(entry,))
    times.append(NOON + timedelta(minutes=1))
    assert rulebook.hours_have_changed(lambda: [alice])
    times.append(NOON + timedelta(days=1, minutes=1))
    assert not rulebook.hours_have_changed(list)


def test_limits_in_force() -> None:
    """They are replaced with the rest, and what was looked up is kept while they are the same."""
    rulebook = a_rulebook()
    alice = Identity("main", "alice")
    assert rulebook.limits.each(alice).limit == Limit()
    limits = {Party(Scope.parse("tenant:main")): Limit.parse("sessions=5")}
    rulebook.prepare(attrs.evolve(ANYTHING, limits=limits))()
    book = rulebook.limits
    assert str(book.each(alice).limit) == "sessions=5"
    rulebook.prepare(attrs.evolve(ANYTHING, revision=3, limits=dict(limits)))()
    assert rulebook.limits is book
