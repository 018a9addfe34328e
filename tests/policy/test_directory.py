"""Tests of `trioproxy.policy.directory`: rules that come with the identity, behind those of the store."""

import gc
import itertools
from datetime import datetime
from ipaddress import ip_address
from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from auth import EntryRules, Identity
from tests.policy import oracle, strategies
from tests.policy.asking import ANYTHING, identity, outcome, policy, request
from trioproxy.policy import (
    AccessRequest,
    Floor,
    LayerVote,
    Permit,
    Policy,
    Refusal,
    Rule,
    RuleProtocol,
    RuleSet,
    Scope,
    Vote,
    directory,
    directory_layers,
    index,
    parse_rule,
    rule_problems,
)
from trioproxy.policy.directory import PROBLEMS_MAX, TEXTS_MAX

ALLOW, DENY = "tcp:*(*)->*(443)", "deny tcp:*(*)->*(443)"
STAFF, ALICE = "cn=staff,ou=groups,dc=example,dc=org", "uid=alice,ou=people,dc=example,dc=org"
NO_PORTS = "column 13: expected *, a port, or a range such as 8000-8010"
NOT_GLOBAL = "column 1: user= and group= are for the global layer, not for group:staff"
EMPTY = policy({})
NOTHING = ("no rule allows it", "", "")


def member_of(*groups: str, **rules: tuple[str, ...]) -> Identity:
    """Alice with rules of her groups and, as `own`, of her own."""
    entries = [
        EntryRules(None, ALICE, texts) if group == "own" else EntryRules(group, f"cn={group}", texts)
        for group, texts in rules.items()
    ]
    return attrs.evolve(identity("alice", groups), backend="campus", rules=tuple(entries))


def verdict(rules: Policy, who: Identity, **question: Any) -> tuple[str, str, str]:
    """What somebody is told who asks for port 443 of a web server."""
    return outcome(rules.judge(request("192.0.2.1", who=who, **question)))


def test_rules_of_a_directory_are_part_of_the_layers_of_user_and_group() -> None:
    """They allow and deny as stored rules do; permit and refusal name layer and rule."""
    assert verdict(EMPTY, member_of(own=(ALLOW,))) == ("permit", "user:alice", ALLOW)
    assert verdict(EMPTY, member_of("staff", staff=(ALLOW,))) == ("permit", "group:staff", ALLOW)
    assert verdict(EMPTY, member_of("staff", own=(ALLOW,), staff=(DENY,))) == ("rule", "group:staff", DENY)
    assert verdict(policy({"global": [ANYTHING]}), member_of(own=(DENY,))) == ("rule", "user:alice", DENY)
    assert verdict(policy({"global": [DENY]}), member_of(own=(ALLOW,))) == ("rule", "global", DENY)
    physicist = attrs.evolve(member_of("staff", staff=("allow tcp:*(*)->*(443)",)), tenant="physics")
    assert verdict(EMPTY, physicist) == ("permit", "group:physics/staff", ALLOW)


def test_of_equal_votes_the_outermost_is_named_wherever_it_is_written() -> None:
    """As for stored rules: what the record says does not depend on where a rule came from."""
    who = member_of("staff", "admins", own=(DENY,), staff=(DENY,), admins=(DENY,))
    assert verdict(EMPTY, who) == ("rule", "group:admins", DENY)
    assert verdict(policy({"user:alice": [DENY]}), member_of("staff", staff=(DENY,))) == ("rule", "group:staff", DENY)
    assert verdict(policy({"tenant:main": [DENY]}), who) == ("rule", "tenant:main", DENY)


@pytest.mark.parametrize(("scope", "group"), [("user:alice", None), ("group:staff", "staff")])
def test_inside_a_layer_the_store_is_asked_first(scope: str, group: str | None) -> None:
    """The first match decides: what the store says about a request is not undone by the directory."""
    for stored, written in ((ALLOW, DENY), (DENY, ALLOW)):
        who = attrs.evolve(identity("alice", ["staff"]), rules=(EntryRules(group, STAFF, (written,)),))
        assert verdict(policy({scope: [stored]}), who)[1:] == (scope, stored)
        assert verdict(policy({scope: ["udp:*(*)->*(*)"]}), who)[1:] == (scope, written)


def test_texts_are_asked_in_their_order() -> None:
    """The backend has sorted them."""
    assert verdict(EMPTY, member_of(own=(DENY, ALLOW)))[2] == DENY
    assert verdict(EMPTY, member_of(own=(ALLOW, DENY)))[2] == ALLOW


@pytest.mark.parametrize("backwards", [False, True])
def test_of_two_entries_for_one_layer_one_deny_denies(backwards: bool) -> None:
    """Two groups of one name: who may write the one does not undo what the other forbids, wherever it lies."""
    entries = [EntryRules("staff", "cn=1", ("udp:*(*)->*(*)", ANYTHING)), EntryRules("staff", "cn=2", (DENY,))]
    who = attrs.evolve(identity("alice", ["staff"]), rules=tuple(entries[::-1] if backwards else entries))
    assert verdict(EMPTY, who) == ("rule", "group:staff", DENY)
    assert verdict(EMPTY, who, port=80) == ("permit", "group:staff", ANYTHING)
    assert verdict(policy({"group:staff": [ALLOW]}), who) == ("permit", "group:staff", ALLOW)
    (vote,) = EMPTY.explain(request("192.0.2.1", who=who)).votes[2:3]
    assert (vote.rule, vote.origin) == (DENY, "cn=2")


def test_a_rule_may_say_what_is_recorded() -> None:
    """`log=` and `note=` work as in the store."""
    allowed = EMPTY.judge(request("192.0.2.1", who=member_of(own=(f"{ALLOW} log=no note=x",))))
    refused = EMPTY.judge(request("192.0.2.1", who=member_of(own=(f"{DENY} log=yes",))))
    assert isinstance(allowed, Permit)
    assert isinstance(refused, Refusal)
    assert (allowed.log, refused.log) == (False, True)
    assert allowed.rule == f"{ALLOW} log=no note=x"


def test_an_explanation_names_the_entry() -> None:
    """`rule explain`: which rule cast the vote, and in which entry of the directory it stands."""
    who = attrs.evolve(member_of("staff", own=(DENY,)), rules=(EntryRules("staff", STAFF, (ALLOW,)),))
    found = policy({"user:alice": [DENY]}).explain(request("192.0.2.1", who=who))
    assert found.votes[2:] == (
        LayerVote(Scope.parse("group:staff"), Vote.ALLOW, ALLOW, STAFF),
        LayerVote(Scope.parse("user:alice"), Vote.DENY, DENY),
    )


@pytest.mark.parametrize(
    ("change", "still"),
    [
        ({}, True),
        ({"member": False}, False),
        ({"groups": frozenset()}, False),
        ({"groups": frozenset({"students"})}, False),
        ({"user": None}, True),
        ({"tenant": "physics"}, True),
    ],
)
def test_rules_of_a_group_are_for_its_members(change: dict[str, Any], still: bool) -> None:
    """Nobody outside the proxy group has any, and a group in which the user is not says nothing."""
    who = attrs.evolve(member_of("staff", staff=(ALLOW,)), **change)
    assert (verdict(EMPTY, who)[0] == "permit") is still
    assert EMPTY.may_ever(who, ip_address("10.1.2.3"), RuleProtocol.TCP) is still


def test_own_rules_need_a_user() -> None:
    """A client without login has no layer of its own."""
    assert verdict(EMPTY, attrs.evolve(member_of(own=(ALLOW,)), user=None)) == NOTHING


def test_what_may_ever_be_allowed_counts_the_directory() -> None:
    """A name is resolved for a user whom only the directory allows something; a deny, another source, do not count."""
    inside, outside = ip_address("10.1.2.3"), ip_address("192.0.2.1")
    who = member_of("staff", own=("deny udp:*(*)->*(*)",), staff=("tcp:10.0.0.0/8(*)->example.org(443)",))
    assert EMPTY.may_ever(who, inside, RuleProtocol.TCP)
    assert not EMPTY.may_ever(who, outside, RuleProtocol.TCP)
    assert not EMPTY.may_ever(who, inside, RuleProtocol.UDP)
    everything = member_of(own=(ANYTHING,))
    assert all(EMPTY.may_ever(everything, outside, protocol) for protocol in RuleProtocol)


# ---- texts that are no rules


def test_a_wrong_text_is_left_out() -> None:
    """It denies nothing and allows nothing; those around it hold."""
    assert verdict(EMPTY, member_of(own=("deny everything", ALLOW, "x")))[2] == ALLOW
    assert verdict(EMPTY, member_of(own=("deny everything", "x"))) == NOTHING


def test_a_text_for_another_layer_is_left_out() -> None:
    """user= and group= are for the global layer: in an entry of the directory they would only seem to narrow."""
    who = member_of("staff", staff=(f"{ALLOW} user=alice", f"{DENY} group=staff"))
    assert verdict(EMPTY, who) == NOTHING


def test_problems_name_entry_column_and_what_was_expected() -> None:
    """One line for each wrong text, for the log."""
    who = member_of("staff", own=(ALLOW, "tcp:*(*)->*(foo)"), staff=(f"{ALLOW} user=alice",), students=("x",))
    assert rule_problems(who) == (
        f'{ALICE}: the rule "tcp:*(*)->*(foo)" is left out; {NO_PORTS}',
        f'cn=staff: the rule "tcp:*(*)->*(443) user=alice" is left out; {NOT_GLOBAL}',
    )
    assert rule_problems(attrs.evolve(who, member=False)) == ()
    assert rule_problems(identity()) == ()


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202etcp", "\udcff", "x" * 100_000, "tcp:*(*)->*(*) \x00=1"])
def test_problems_are_fit_for_a_log(text: str) -> None:
    """K, law 10: one short line, whatever the directory holds, in the text and in the name of the entry."""
    (problem,) = rule_problems(attrs.evolve(identity(), rules=(EntryRules(None, text, (text,)),)))
    assert problem.isprintable()
    assert len(problem) < 12_000


def test_the_explanation_of_an_odd_entry_is_printable() -> None:
    """The DN goes to a terminal."""
    who = attrs.evolve(identity(), rules=(EntryRules(None, "uid=\x1b[2J", (ALLOW,)),))
    assert EMPTY.explain(request("192.0.2.1", who=who)).votes[-1].origin == "uid=\\x1b[2J"


# ---- limits


def test_of_one_entry_a_limited_number_is_read() -> None:
    """Habit 6. What is not read may be a deny, so nothing is allowed where the rules that are read say nothing."""
    few = ("udp:*(*)->*(*)",) * (TEXTS_MAX - 1)
    assert rule_problems(member_of(own=(*few, ALLOW))) == ()
    assert verdict(EMPTY, member_of(own=(*few, ALLOW)))[2] == ALLOW
    many = member_of(own=(*few, DENY, ALLOW))
    assert rule_problems(many) == (f"{ALICE}: 1001 rules, of which only the first 1000 allow anything",)
    everything = policy({"global": [ANYTHING]})
    assert verdict(everything, many)[2] == DENY
    assert verdict(everything, many, protocol=RuleProtocol.UDP)[0] == "permit"
    assert verdict(everything, many, port=80) == (
        "rule",
        "user:alice",
        'deny any:*(*)->*(*) note="only 1000 rules of one entry are read"',
    )


@pytest.fixture(name="parsed")
def fixture_parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each text that is read."""
    parsed: list[str] = []

    def parse(text: str) -> Rule:
        parsed.append(text)
        return parse_rule(text)

    monkeypatch.setattr(directory, "parse_rule", parse)
    return parsed


def test_a_text_is_read_once_for_all_members_of_a_group(parsed: list[str]) -> None:
    """And not again for every request, every reload and every login."""
    online = []
    for user in ("alice", "bob", "alice"):
        who = attrs.evolve(member_of("staff", staff=(ALLOW, DENY)), user=user)
        assert verdict(policy({}), who)[1:] == ("group:staff", ALLOW)
        rule_problems(who)
        online.append(who)
    assert parsed == [ALLOW, DENY]


def test_what_was_read_lives_with_the_identity(parsed: list[str]) -> None:
    """However many entries there are none is read for a second request, and nothing is left when all have gone."""
    kept = len(directory._SHARED)
    entries = tuple(EntryRules(f"g{number}", f"cn=g{number}", (ALLOW,)) for number in range(10_000))
    who = attrs.evolve(identity("alice", [f"g{number}" for number in range(10_000)]), rules=entries)
    for verified_s in (1.0, 2.0):
        assert verdict(EMPTY, attrs.evolve(who, verified_s=verified_s))[0] == "permit"
    assert len(parsed) == 10_000
    assert len(directory._SHARED) == kept + 10_000
    del who, entries
    gc.collect()
    assert len(directory._SHARED) == kept


def test_own_texts_are_not_taken_for_those_of_another_user(parsed: list[str]) -> None:
    """The same entry says `user:alice` for alice and `user:bob` for bob; the same texts may belong to a group."""
    alice = member_of(own=(ALLOW,))
    assert verdict(EMPTY, alice)[1] == "user:alice"
    assert verdict(EMPTY, attrs.evolve(alice, user="bob"))[1] == "user:bob"
    assert verdict(EMPTY, attrs.evolve(alice, tenant="physics"))[1] == "user:physics/alice"
    group = attrs.evolve(alice, groups=frozenset({"alice"}), rules=(EntryRules("alice", ALICE, (ALLOW,)),))
    assert verdict(EMPTY, group)[1] == "group:alice"
    assert parsed == [ALLOW] * 4


def test_of_many_problems_the_first_are_told() -> None:
    """Habit 6: three of an entry and how many more, not a page for each login."""
    many = member_of("staff", own=("x",) * 9, staff=("y",) * PROBLEMS_MAX)
    problems = rule_problems(many)
    assert len(problems) == PROBLEMS_MAX + 1 + PROBLEMS_MAX
    assert problems[PROBLEMS_MAX] == f"{ALICE}: 6 more are left out"
    assert [layer.wrong for layer in directory_layers(many)] == [9, 3]


def test_who_has_no_rules_pays_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a directory is looked at for local users."""
    monkeypatch.delattr("trioproxy.policy.policy.directory_layers")
    assert verdict(policy({"user:alice": [ALLOW]}), identity())[0] == "permit"


# ---- P3 with a directory


ENTRIES = st.lists(strategies.directory_entries(), min_size=1, max_size=4)


def wrong_in(who: Identity) -> int:
    """How many texts are no rules."""
    return sum(layer.wrong for layer in directory_layers(who))


def with_rules(asked: AccessRequest, *entries: EntryRules) -> AccessRequest:
    """The same request with these rules."""
    return attrs.evolve(asked, identity=attrs.evolve(asked.identity, rules=entries))


@pytest.mark.parametrize("row_length", [4, 0])  # 0: even a single rule hangs below all tables
@given(rule_sets=strategies.policies(), asked=strategies.requests(), now=strategies.moments(), entries=ENTRIES)
def test_p3_a_directory_adds_to_the_ends_of_the_layers(
    row_length: int, rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime, entries: list[EntryRules]
) -> None:
    """P3: the verdict is that of the naive scan over the store's rules with those of one entry behind them."""
    asked = with_rules(asked, *{entry.group: entry for entry in entries}.values())
    who = asked.identity
    joined = {
        scope: RuleSet([*rule_sets.get(scope, ()), *itertools.chain(*oracle.directory_rules(who, scope))])
        for scope in {*rule_sets, *oracle.layers_of(who)}
    }
    together = Policy(joined, Floor(), strategies.ZONES).judge(with_rules(asked), now)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "ROW_LENGTH", row_length)
        found = Policy(rule_sets, Floor(), strategies.ZONES).judge(asked, now)
    assert outcome(found) == outcome(together)
    assert found.log == together.log


@given(
    strategies.policies(),
    strategies.requests(),
    strategies.moments(),
    ENTRIES,
    st.tuples(st.integers(0, 6), st.sampled_from(strategies.NO_RULES) | st.text(max_size=20)),
)
def test_p3_texts_that_are_no_rules_change_nothing(
    rule_sets: dict[Scope, RuleSet],
    asked: AccessRequest,
    now: datetime,
    entries: list[EntryRules],
    placed: tuple[int, str],
) -> None:
    """P3: wherever they stand, whatever they are; and each of them is told of."""
    place, wrong = placed
    assume(wrong in strategies.NO_RULES or oracle.parse(wrong) is None)
    first = entries[0]
    longer = attrs.evolve(first, texts=(*first.texts[:place], wrong, *first.texts[place:]))
    clean, spoilt = with_rules(asked, *entries), with_rules(asked, longer, *entries[1:])
    rules = Policy(rule_sets, Floor(), strategies.ZONES)
    assert outcome(rules.judge(clean, now)) == outcome(rules.judge(spoilt, now))
    who = asked.identity
    counts = who.member and (who.user is not None if first.group is None else first.group in who.groups)
    assert wrong_in(spoilt.identity) == wrong_in(clean.identity) + counts


@given(strategies.policies(), strategies.requests(), strategies.moments(), ENTRIES, strategies.identities())
def test_p3_rules_of_others_never_matter(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime, entries: list[EntryRules], somebody: Identity
) -> None:
    """P3: neither those of a group in which the user is not, nor those of somebody who was judged a moment ago."""
    other, asked = entries[0], with_rules(asked, *entries[1:])
    rules = Policy(rule_sets, Floor(), strategies.ZONES)
    before = outcome(rules.judge(asked, now))
    rules.judge(attrs.evolve(asked, identity=somebody), now)
    rules.judge(attrs.evolve(asked, identity=attrs.evolve(somebody, rules=asked.identity.rules)), now)
    assert outcome(rules.judge(asked, now)) == before
    foreign = attrs.evolve(other, group="a group of others")
    assert outcome(rules.judge(with_rules(asked, foreign, *asked.identity.rules), now)) == before


@given(strategies.policies(), strategies.requests(), strategies.moments(), ENTRIES)
def test_p3_the_upper_bound_holds_with_a_directory(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime, entries: list[EntryRules]
) -> None:
    """P3: `may_ever` refuses nothing that `judge` permits."""
    asked = with_rules(asked, *entries)
    rules = Policy(rule_sets, Floor(), strategies.ZONES)
    if isinstance(rules.judge(asked, now), Permit):
        assert rules.may_ever(asked.identity, asked.client_address, asked.protocol)
