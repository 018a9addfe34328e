"""Tests of `trioproxy.policy.reach`, through `Policy.may_ever`."""

from datetime import datetime
from ipaddress import ip_address

import attrs
import pytest
from hypothesis import given

from tests.policy import strategies
from tests.policy.asking import identity, policy
from trioproxy.policy import AccessRequest, Floor, Permit, Policy, RuleProtocol, RuleSet, Scope

TCP, UDP, BIND = RuleProtocol.TCP, RuleProtocol.UDP, RuleProtocol.BIND
INSIDE, OUTSIDE = ip_address("10.1.2.3"), ip_address("192.0.2.1")


@pytest.mark.parametrize("scope", ["global", "tenant:main", "group:staff", "user:alice"])
def test_an_allow_rule_in_one_of_the_layers_is_enough(scope: str) -> None:
    """A client whom any layer allows something may go on to be judged."""
    rules = policy({scope: ["udp:10.0.0.0/8(*)->example.org(443)"]})
    alice = identity("alice", ["staff"])
    assert rules.may_ever(alice, INSIDE, UDP)
    assert not rules.may_ever(alice, OUTSIDE, UDP)
    assert not rules.may_ever(alice, INSIDE, TCP)


@pytest.mark.parametrize(
    "scope", ["tenant:physics", "group:students", "group:physics/staff", "user:bob", "user:physics/alice"]
)
def test_layers_of_others_do_not_help(scope: str) -> None:
    """DESIGN section 1: no tenant, group or user sees or affects another."""
    assert not policy({scope: ["any:*(*)->*(*)"]}).may_ever(identity("alice", ["staff"]), INSIDE, TCP)


def test_hours_and_findings_are_left_open() -> None:
    """A name is looked up for whom a rule allows something at some hour, or for some kind of traffic."""
    assert policy({"global": ["tcp:*(*)->*(*) when=08:00-18:00"]}).may_ever(identity(), INSIDE, TCP)
    either = policy({"global": ["any:*(*)->*(*) app=tls"]})
    assert [either.may_ever(identity(), INSIDE, protocol) for protocol in (TCP, UDP, BIND)] == [True, False, False]


def test_a_deny_rule_allows_nothing() -> None:
    """Only allow rules count; a deny cannot make it possible."""
    assert not policy({"global": ["deny any:*(*)->*(*)"]}).may_ever(identity(), INSIDE, TCP)


def test_any_stands_for_each_protocol() -> None:
    """DESIGN section 3: `any` is tcp, udp and bind."""
    rules = policy({"global": ["any:*(*)->*(*)"]})
    assert [rules.may_ever(identity(), INSIDE, protocol) for protocol in (TCP, UDP, BIND)] == [True] * 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("user=alice", True),
        ("user=bob", False),
        ("group=staff", True),
        ("group=students", False),
        ("user=physics/alice", False),
    ],
)
def test_a_global_rule_for_somebody_helps_nobody_else(options: str, expected: bool) -> None:
    """DESIGN section 3: user= and group= in the global layer."""
    rules = policy({"global": [f"tcp:*(*)->*(*) {options}"]})
    assert expected == rules.may_ever(identity("alice", ["staff"]), INSIDE, TCP)
    assert not rules.may_ever(identity(None), INSIDE, TCP)


@pytest.mark.parametrize("option", ["", " user=alice", " group=staff"])
def test_nonmembers_reach_what_the_global_layer_allows(option: str) -> None:
    """`nonmembers = "global-rules"`: no look-up is made for one whom only the other layers allow something."""
    outside = attrs.evolve(identity("alice", ["staff"]), member=False)
    assert policy({"global": [f"tcp:*(*)->*(*){option}"]}).may_ever(outside, INSIDE, TCP)
    inner = policy({scope: ["tcp:*(*)->*(*)"] for scope in ("tenant:main", "group:staff", "user:alice")})
    assert not inner.may_ever(outside, INSIDE, TCP)
    assert inner.may_ever(identity(), INSIDE, TCP)


@given(strategies.policies(), strategies.requests() | strategies.requests(unknown=True), strategies.moments())
def test_it_is_an_upper_bound(rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime) -> None:
    """What is permitted may ever be: False never refuses what `judge` permits."""
    rules = Policy(rule_sets, Floor(), strategies.ZONES)
    if isinstance(rules.judge(asked, now), Permit):
        assert rules.may_ever(asked.identity, asked.client_address, asked.protocol)
