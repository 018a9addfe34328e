"""Tests of `trioproxy.policy.policy`: floor, votes, verdict and explanation."""

import itertools
from datetime import datetime
from ipaddress import IPv6Address
from random import Random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policy import oracle, strategies
from tests.policy.asking import ANYTHING, decided, identity, outcome, policy, request, rule_set
from trioproxy.policy import (
    AccessRequest,
    Floor,
    LayerVote,
    Permit,
    Policy,
    Reason,
    Refusal,
    Rule,
    RuleProtocol,
    RuleSet,
    Scope,
    ScopeKind,
    Vote,
    canonical_address,
    parse_rule,
)
from trioproxy.policy.networks import embedded_addresses

GLOBAL = Scope(ScopeKind.GLOBAL)
ALLOW, DENY = "tcp:*(*)->*(443)", "deny tcp:*(*)->*(443)"
STAFF_ALICE = identity("alice", ["staff"])


def test_a_permit_and_a_refusal_carry_what_was_judged() -> None:
    """Law 1: the dialler gets exactly the judged request, and the record names layer and rule."""
    rules = policy({"user:alice": [ALLOW], "global": ["deny tcp:*(*)->*(25)"]})
    asked, mail = request("192.0.2.1"), request("192.0.2.1", 25)
    assert Permit(asked, "user:alice", ALLOW) == rules.judge(asked)
    assert Refusal(mail, Reason.RULE, "global", "deny tcp:*(*)->*(25)") == rules.judge(mail)


def test_63_nothing_allowed_is_denied() -> None:
    """Case 63: an empty rule set, and no rule set at all, deny."""
    asked = request("192.0.2.1")
    refused = Refusal(asked, Reason.NO_RULE)
    assert refused == policy({}).judge(asked) == policy({"global": [], "user:alice": []}).judge(asked)


VOTES = list(itertools.product((Vote.ALLOW, Vote.DENY, Vote.NONE), repeat=4))


@pytest.mark.parametrize("votes", VOTES, ids=lambda votes: "-".join(vote.value for vote in votes))
def test_63_the_table_of_votes(votes: tuple[Vote, ...]) -> None:
    """Case 63: one deny denies, otherwise one allow allows, otherwise denied; of equal votes the outermost is named."""
    scopes = ["global", "tenant:main", "group:staff", "user:alice"]
    texts = {Vote.ALLOW: [ALLOW], Vote.DENY: [DENY], Vote.NONE: ["tcp:*(*)->*(22)"]}
    rules = policy({scope: texts[vote] for scope, vote in zip(scopes, votes, strict=True)})
    if Vote.DENY in votes:
        expected = ("rule", scopes[votes.index(Vote.DENY)], DENY)
    elif Vote.ALLOW in votes:
        expected = ("permit", scopes[votes.index(Vote.ALLOW)], ALLOW)
    else:
        expected = ("no rule allows it", "", "")
    assert expected == outcome(rules.judge(request("192.0.2.1", who=STAFF_ALICE)))


def test_63_a_global_deny_beats_what_a_user_allows() -> None:
    """Case 63 and DESIGN section 3: a global deny holds for everybody, whatever a user's own rules say."""
    rules = policy({"global": ["deny any:*(*)->192.0.2.0/24(*)"], "user:alice": [ANYTHING]})
    assert outcome(rules.judge(request("192.0.2.1")))[:2] == ("rule", "global")
    assert outcome(rules.judge(request("198.51.100.1")))[:2] == ("permit", "user:alice")


@pytest.mark.parametrize(
    "scope", ["tenant:physics", "group:physics/staff", "user:physics/alice", "group:students", "user:bob"]
)
@pytest.mark.parametrize("text", [ALLOW, DENY])
def test_layers_of_others_have_no_vote(scope: str, text: str) -> None:
    """DESIGN section 1: the same name in another tenant is somebody else."""
    asked = request("192.0.2.1", who=STAFF_ALICE)
    assert outcome(policy({scope: [text]}).judge(asked))[0] == "no rule allows it"
    assert outcome(policy({scope: [text], "global": [ALLOW]}).judge(asked))[0] == "permit"


@pytest.mark.parametrize("option", ["user=alice", "group=staff", "user=alice group=staff"])
def test_global_rules_for_somebody_vote_in_the_global_layer(option: str) -> None:
    """DESIGN section 3: user= and group= narrow a global rule; its place among the global rules counts."""
    asked = request("192.0.2.1", who=STAFF_ALICE)
    narrow = f"{DENY} {option}"
    assert outcome(policy({"global": [ALLOW, narrow]}).judge(asked)) == ("permit", "global", ALLOW)
    assert outcome(policy({"global": [narrow, ALLOW]}).judge(asked)) == ("rule", "global", narrow)
    other = request("192.0.2.1", who=identity("bob"))
    assert outcome(policy({"global": [narrow, ALLOW]}).judge(other)) == ("permit", "global", ALLOW)


def test_nonmembers_have_the_global_layer_alone() -> None:
    """`nonmembers = "global-rules"`: no other layer votes, neither for nor against; user= and group= still fit."""
    outside = attrs.evolve(STAFF_ALICE, member=False)
    asked = request("192.0.2.1", who=outside)
    inner = ["tenant:main", "group:staff", "user:alice"]
    assert outcome(policy({scope: [ALLOW] for scope in inner}).judge(asked))[0] == "no rule allows it"
    denied = {scope: [DENY] for scope in inner}
    for option in ("", " user=alice", " group=staff", " user=alice group=staff"):
        rule = f"{ALLOW}{option}"
        assert outcome(policy({"global": [rule], **denied}).judge(asked)) == ("permit", "global", rule)
        assert policy({"global": [rule]}).explain(asked).votes == (LayerVote(GLOBAL, Vote.ALLOW, rule),)
    for option in ("user=bob", "group=students", "user=physics/alice", "group=physics/staff"):
        assert outcome(policy({"global": [f"{ALLOW} {option}"]}).judge(asked))[0] == "no rule allows it"


def test_the_floor_comes_before_every_rule() -> None:
    """DESIGN section 3: the floor comes before any rule, and a refusal names its part."""
    rules = policy({scope: [ANYTHING] for scope in ("global", "tenant:main", "user:alice")})
    asked = request("169.254.169.254", 80)
    assert Refusal(asked, Reason.FLOOR, "", "169.254.0.0/16 link-local and cloud metadata") == rules.judge(asked)


def test_an_opened_part_of_the_floor_still_needs_a_rule() -> None:
    """DESIGN section 6, `open_floor`: opening allows nothing by itself; and `::1` carries no IPv4 address."""
    opened = ["127.0.0.0/8", "::1/128"]
    for address in ("127.0.0.1", "::1"):
        assert outcome(policy({}, opened=opened).judge(request(address)))[0] == "no rule allows it"
        assert outcome(policy({"global": [ANYTHING]}, opened=opened).judge(request(address)))[0] == "permit"


def hidden(address: str) -> list[str]:
    """The IPv6 addresses that carry this IPv4 address."""
    number = int.from_bytes(bytes(map(int, address.split("."))))
    high, low = f"{number >> 16:x}", f"{number & 0xFFFF:x}"
    turned = number ^ 0xFFFFFFFF
    return [
        f"::ffff:{address}",
        f"::{address}",
        f"64:ff9b::{address}",
        f"64:ff9b:1::{address}",
        f"2002:{high}:{low}::1",
        f"2001:0:808:808::{turned >> 16:x}:{turned & 0xFFFF:x}",
        f"2a00::5efe:{address}",
        f"2a00::200:5efe:{address}",
    ]


@pytest.mark.parametrize(
    "address", [text for at in ("127.0.0.1", "169.254.169.254", "10.0.0.5") for text in hidden(at)]
)
def test_66_ipv4_inside_ipv6_of_a_denied_address_is_denied(address: str) -> None:
    """Case 66: by the floor or by a rule, the mapped one as an object that nobody unwrapped too."""
    rules = policy({"global": ["deny any:*(*)->10.0.0.0/8(*)", ANYTHING]})
    assert isinstance(rules.judge(request(address)), Refusal)
    assert isinstance(rules.judge(request(canonical_address(IPv6Address(address)))), Refusal)


@pytest.mark.parametrize("address", hidden("9.9.9.9")[1:])
def test_66_both_addresses_need_a_rule(address: str) -> None:
    """Case 66: what carries an allowed IPv4 address passes if it is allowed itself, and not otherwise."""
    four, six = "any:*(*)->9.9.9.9(*)", "any:*(*)->::/0(*)"
    teredo_server = "any:*(*)->8.8.8.8(*)"
    asked = request(address)
    assert isinstance(policy({"global": [four, six, teredo_server]}).judge(asked), Permit)
    assert isinstance(policy({"global": [four, teredo_server]}).judge(asked), Refusal)
    assert isinstance(policy({"global": [six]}).judge(asked), Refusal)


def test_66_internet_over_nat64_means_the_address_inside() -> None:
    """Case 66: an IPv6-only site allows `internet`; its private addresses stay out of reach through NAT64."""
    rules = policy({"global": ["tcp:*(*)->internet(*)"]})
    inside = {
        address: isinstance(rules.judge(request(address)), Permit)
        for address in ("64:ff9b::8.8.8.8", "64:ff9b::10.0.0.5")
    }
    assert inside == {"64:ff9b::8.8.8.8": True, "64:ff9b::10.0.0.5": False}


def test_an_explanation_lists_each_layer_and_the_rule_that_voted() -> None:
    """DESIGN section 5, `rule explain`: each layer's vote and the rule that cast it, layers without rules included."""
    rules = policy({"global": [DENY], "user:alice": ["udp:*(*)->*(*)", ALLOW]})
    asked = request("192.0.2.1", who=STAFF_ALICE)
    found = rules.explain(asked)
    assert found.verdict == rules.judge(asked)
    assert (found.address, found.floor) == (asked.address, "")
    assert found.votes == (
        LayerVote(GLOBAL, Vote.DENY, DENY),
        LayerVote(Scope.parse("tenant:main"), Vote.NONE),
        LayerVote(Scope.parse("group:staff"), Vote.NONE),
        LayerVote(Scope.parse("user:alice"), Vote.ALLOW, ALLOW),
    )


def test_an_explanation_names_the_floor_and_the_address_inside() -> None:
    """Case 66: the help desk sees which address was refused and why."""
    rules = policy({"global": [ALLOW]})
    found = rules.explain(request("64:ff9b::127.0.0.1"))
    assert (str(found.address), found.floor) == ("127.0.0.1", "127.0.0.0/8 loopback")
    assert found.votes[0] == LayerVote(GLOBAL, Vote.ALLOW, ALLOW)
    assert outcome(found.verdict)[0] == "floor"
    permitted = rules.explain(request("64:ff9b::8.8.8.8"))
    assert str(permitted.address) == "64:ff9b::808:808"


def test_a_rule_in_the_wrong_layer_builds_no_policy() -> None:
    """DESIGN section 3: a user's own layer cannot speak for others; nothing is loaded in part."""
    with pytest.raises(ValueError, match="not for user:alice"):
        Policy({Scope.parse("user:alice"): rule_set("tcp:*(*)->*(*) user=bob")}, Floor())


def test_a_policy_does_not_change() -> None:
    """Changed rules are a new Policy: what it was built from may change without effect."""
    layers = {GLOBAL: rule_set(ALLOW)}
    rules = Policy(layers, Floor())
    layers[GLOBAL] = rule_set(DENY)
    assert outcome(rules.judge(request("192.0.2.1")))[0] == "permit"
    assert rules.rule_sets == {GLOBAL: rule_set(ALLOW)}
    with pytest.raises(TypeError):
        rules.rule_sets[GLOBAL] = rule_set()  # type: ignore[index]


def expected_outcome(rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime) -> tuple[str, str, str]:
    """Floor, naive votes, and the same for addresses inside."""
    inside = embedded_addresses(asked.address) if isinstance(asked.address, IPv6Address) else ()
    outcomes = []
    local = strategies.local(now, asked.identity)
    for address in (asked.address, *inside):
        part = Floor().part_of(address, asked.port, asked.protocol)
        outcomes.append(("floor", "", part) if part else oracle.judge_rules(rule_sets, asked, address, local))
    return next((found for found in outcomes if found[0] != "permit"), outcomes[0])


@given(strategies.policies(), strategies.requests(), strategies.moments())
def test_p3_the_verdict_is_that_of_the_naive_scan(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime
) -> None:
    """P3: over all layers, with the deciding layer and rule; and the explanation says the same."""
    rules = Policy(rule_sets, Floor(), strategies.ZONES)
    verdict = rules.judge(asked, now)
    assert expected_outcome(rule_sets, asked, now) == decided(verdict)
    assert verdict == rules.explain(asked, now).verdict
    assert verdict.request is asked


@given(strategies.policies(), strategies.requests(), strategies.moments())
def test_p3_nonmembers_are_judged_as_if_there_were_no_other_layer(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime
) -> None:
    """P3: without the inner layers and without the rules of a directory the verdict is the same."""
    outside = attrs.evolve(asked, identity=attrs.evolve(asked.identity, member=False))
    bare = attrs.evolve(asked, identity=attrs.evolve(asked.identity, rules=()))
    verdict = Policy(rule_sets, Floor(), strategies.ZONES).judge(outside, now)
    assert outcome(verdict) == outcome(Policy({GLOBAL: rule_sets[GLOBAL]}, Floor(), strategies.ZONES).judge(bare, now))


@given(strategies.policies(), strategies.requests(), strategies.moments(), strategies.rules(), st.data())
def test_p3_a_deny_more_never_allows_more(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime, rule: Rule, data: st.DataObject
) -> None:
    """P3, monotonicity: adding a deny anywhere never turns a refusal into a permit."""
    scope = data.draw(st.sampled_from(list(rule_sets)))
    place = data.draw(st.integers(0, len(rule_sets[scope])))
    layer = rule_sets[scope]
    stricter = {**rule_sets, scope: RuleSet([*layer[:place], attrs.evolve(rule, allow=False), *layer[place:]])}
    if isinstance(Policy(rule_sets, Floor(), strategies.ZONES).judge(asked, now), Refusal):
        assert isinstance(Policy(stricter, Floor(), strategies.ZONES).judge(asked, now), Refusal)


@given(strategies.policies(), strategies.requests(), strategies.moments(), strategies.rules())
def test_p3_an_allow_below_a_deny_of_the_layer_changes_nothing(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime, rule: Rule
) -> None:
    """P3, monotonicity: inside a layer the first match decides, so an allow behind `deny any` is dead."""
    everything = parse_rule("deny any:*(*)->*(*)")
    denied = {**rule_sets, GLOBAL: RuleSet([*rule_sets[GLOBAL], everything])}
    added = {**rule_sets, GLOBAL: RuleSet([*rule_sets[GLOBAL], everything, attrs.evolve(rule, allow=True)])}
    assert Policy(denied, Floor(), strategies.ZONES).judge(asked, now) == Policy(
        added, Floor(), strategies.ZONES
    ).judge(asked, now)


@given(strategies.policies(), strategies.requests(), strategies.moments())
def test_p3_without_rules_everything_is_denied(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime
) -> None:
    """P3: removing all rules denies, by the floor or because nothing allows it."""
    empty = Policy(dict.fromkeys(rule_sets, RuleSet()), Floor(), strategies.ZONES)
    asked = attrs.evolve(asked, identity=attrs.evolve(asked.identity, rules=()))
    assert outcome(empty.judge(asked, now))[0] in ("floor", "no rule allows it")


@given(strategies.policies(), strategies.requests(), strategies.moments(), st.randoms(use_true_random=False))
def test_p3_the_order_of_layers_and_groups_is_irrelevant(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime, random: Random
) -> None:
    """P3: only the order inside a layer counts."""
    items = list(rule_sets.items())
    random.shuffle(items)
    groups = list(asked.identity.groups)
    random.shuffle(groups)
    shuffled = attrs.evolve(asked, identity=attrs.evolve(asked.identity, groups=frozenset(groups)))
    assert outcome(Policy(rule_sets, Floor(), strategies.ZONES).judge(asked, now)) == outcome(
        Policy(dict(items), Floor(), strategies.ZONES).judge(shuffled, now)
    )


@given(strategies.policies(), strategies.requests(), strategies.moments())
def test_p3_spelling_an_address_differently_changes_nothing(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime
) -> None:
    """P3, canonical equivalence: a mapped address, once canonical, is judged as the IPv4 address it is."""
    if asked.address.version == 4:
        mapped = canonical_address(IPv6Address(f"::ffff:{asked.address}"))
        again = attrs.evolve(asked, address=mapped)
        rules = Policy(rule_sets, Floor(), strategies.ZONES)
        assert rules.judge(asked, now) == rules.judge(again, now)


@pytest.mark.parametrize("protocol", RuleProtocol)
def test_every_command_asks_the_same_function(protocol: RuleProtocol) -> None:
    """Law 2: CONNECT, BIND and UDP ASSOCIATE are judged by one function, each by its own word."""
    rules = policy({"global": [f"{protocol.value}:*(*)->*(*)"]})
    permitted = {
        other for other in RuleProtocol if isinstance(rules.judge(request("192.0.2.1", protocol=other)), Permit)
    }
    assert permitted == {protocol}
