"""Tests of `trioproxy.policy.explanation`, through `Policy.explain`: what else plays a part beside the votes."""

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given

from auth import EntryRules
from tests.policy import strategies
from tests.policy.asking import identity, policy, request
from trioproxy.policy import AccessRequest, Floor, LayerVote, Permit, Policy, RuleHours, RuleSet, Scope, Vote
from trioproxy.sniff import App, Finding

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)  # a Monday
TLS, OFFICE = "tcp:*(*)->*(443) app=tls", "tcp:*(*)->*(443) when=mon-fri@08:00-18:00"
NIGHT = "deny tcp:*(*)->*(443) when=22:00-06:00"
STAFF, ALICE = Scope.parse("group:staff"), Scope.parse("user:alice")


def allow(scope: Scope, rule: str, origin: str = "") -> LayerVote:
    """The vote of an allow rule."""
    return LayerVote(scope, Vote.ALLOW, rule, origin)


def test_rules_that_ask_are_listed_up_to_the_one_that_decides() -> None:
    """Those behind it, and those that do not fit, would change nothing."""
    rules = policy({"user:alice": ["tcp:*(*)->*(80) app=http", TLS, "tcp:*(*)->*(443)", "deny tcp:*(*)->*(*) app=ssh"]})
    found = rules.explain(request("192.0.2.1"))
    assert found.asking == (allow(ALICE, TLS),)
    assert found.votes[-1] == allow(ALICE, "tcp:*(*)->*(443)")
    assert isinstance(found.verdict, Permit)
    assert found.verdict.sniff


def test_nobody_asks_where_it_is_known() -> None:
    """Then the rule votes like any other."""
    rules = policy({"user:alice": [TLS]})
    assert rules.explain(request("192.0.2.1")).votes[-1] == LayerVote(ALICE, Vote.NONE)
    found = rules.explain(request("192.0.2.1", finding=Finding(App.TLS)))
    assert found.asking == ()
    assert found.votes[-1] == allow(ALICE, TLS)


def test_rules_of_a_directory_ask_where_the_store_has_not_decided() -> None:
    """Each entry by itself, behind the store's rules of the layer."""
    entries = (EntryRules("staff", "cn=one", (TLS, "tcp:*(*)->*(*)", TLS)), EntryRules("staff", "cn=two", (TLS,)))
    asked = request("192.0.2.1", who=attrs.evolve(identity("alice", ["staff"]), rules=entries))
    assert policy({}).explain(asked).asking == (allow(STAFF, TLS, "cn=one"), allow(STAFF, TLS, "cn=two"))
    assert policy({"group:staff": ["tcp:*(*)->*(443)"]}).explain(asked).asking == ()


def test_hours_are_listed_with_their_next_change() -> None:
    """Of rules that fit, in their hours or not, as long as no earlier rule of the layer decides."""
    rules = policy({"global": [NIGHT], "user:alice": ["tcp:*(*)->*(80) when=01:00-02:00", OFFICE, f"{OFFICE} log=yes"]})
    found = rules.explain(request("192.0.2.1"), NOON)
    night = LayerVote(Scope.parse("global"), Vote.DENY, NIGHT)
    assert found.hours == (
        RuleHours(night, False, NOON + timedelta(hours=10)),
        RuleHours(allow(ALICE, OFFICE), True, NOON + timedelta(hours=6)),
    )
    evening = rules.explain(request("192.0.2.1"), NOON + timedelta(hours=8))
    tomorrow = NOON + timedelta(hours=20)
    assert [(hours.speaks, hours.change) for hours in evening.hours[1:]] == [(False, tomorrow)] * 2


def test_hours_of_the_whole_week_have_no_change() -> None:
    """They never end."""
    rules = policy({"user:alice": ["tcp:*(*)->*(443) when=00:00-24:00"]})
    assert [hours.change for hours in rules.explain(request("192.0.2.1"), NOON).hours] == [None]


def test_an_explanation_is_never_made_up() -> None:
    """Without a time where rules have hours."""
    with pytest.raises(AssertionError, match="nobody said what time it is"):
        policy({"user:alice": [OFFICE]}).explain(request("192.0.2.1"))
    assert policy({"user:alice": [TLS]}).explain(request("192.0.2.1")).hours == ()


@given(strategies.policies(), strategies.requests(unknown=True), strategies.moments())
def test_p3_where_it_is_looked_some_rule_asks(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime
) -> None:
    """P3: the explanation of a permit to look names a rule that asks; for an address without another one inside."""
    asked = attrs.evolve(asked, address=request("93.184.216.34").address)
    found = Policy(rule_sets, Floor(), strategies.ZONES).explain(asked, now)
    assert not isinstance(found.verdict, Permit) or not found.verdict.sniff or found.asking
