"""The text of rules, one in each line, as an administrator or an imported file gives it."""

from datetime import UTC, datetime
from ipaddress import ip_address

import attrs

from auth import Identity
from trioproxy.policy import (
    AccessRequest,
    Floor,
    Permit,
    Policy,
    Rule,
    RuleProtocol,
    RuleSet,
    RuleSyntaxError,
    Scope,
    ScopeKind,
    parse_rule,
)
from trioproxy.policy.grammar import RULE_LENGTH_MAX
from trioproxy.policy.hours import minute_of_week
from trioproxy.sniff import App, Finding

__all__ = ["test_one_input"]

_LINES_MAX = 8
_GLOBAL = Scope(ScopeKind.GLOBAL)
_FLOOR = Floor()
_ALICE = Identity("main", "alice", frozenset({"staff"}))
_NOBODY = Identity("main", None)
_NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)  # a Monday, when the hours of the seeds begin
_FINDINGS = [
    Finding(App.TLS, sni="www.example.org"),
    Finding(App.HTTP, http_host="www.example.org"),
    Finding(App.QUIC),
    Finding(App.UNKNOWN),
]
# Outside the floor and without an address inside the address, so that the first match alone makes the verdict. Above
# them all the edges of what a rule can say: the seeds speak about these hosts and ports.
_REQUESTS = [
    AccessRequest(identity, ip_address(client), 1024, protocol, name, ip_address(address), port)
    for identity in (_ALICE, _NOBODY)
    for client, protocol, name, address, port in (
        ("10.1.2.3", RuleProtocol.TCP, None, "203.0.113.9", 443),
        ("10.1.2.3", RuleProtocol.TCP, "www.example.org", "198.51.100.7", 443),
        ("10.1.2.4", RuleProtocol.UDP, "example.org", "2001:db8::7", 65535),
        ("2001:db8::1", RuleProtocol.UDP, None, "192.168.1.1", 53),
        ("192.0.2.1", RuleProtocol.BIND, None, "10.9.8.7", 0),
    )
]


def test_one_input(data: bytes) -> None:
    """A rule is refused at a column, or printed and read again without change; and the index finds what it says."""
    # Arguments of a command line may hold octets that are no UTF-8; Python hands them on as surrogates.
    lines = data.decode("utf-8", "surrogateescape").split("\n")[:_LINES_MAX]
    rules = [rule for line in lines if (rule := _rule(line)) is not None]
    if rules:
        _check_verdicts(RuleSet(rules))


def _rule(text: str) -> Rule | None:
    try:
        rule = parse_rule(text)
    except RuleSyntaxError as exc:
        column, expected = exc.column, exc.expected
        assert 1 <= column <= min(len(text), RULE_LENGTH_MAX) + 1
        assert expected
        return None
    printed = str(rule)
    assert len(printed) <= RULE_LENGTH_MAX
    assert printed.isprintable()
    assert rule == parse_rule(printed)
    assert printed == str(parse_rule(printed))
    return rule


def _check_verdicts(rules: RuleSet) -> None:
    policy = Policy({_GLOBAL: rules}, _FLOOR)
    border = policy.next_border(_NOW)
    assert border is None or border > _NOW
    minute = minute_of_week(_NOW, UTC)
    for request in _REQUESTS:
        before = policy.judge(request, _NOW)
        reachable = policy.may_ever(request.identity, request.client_address, request.protocol)
        assert reachable or not isinstance(before, Permit)
        for finding in _FINDINGS:
            asked = attrs.evolve(request, finding=finding)
            first = rules.naive_first_match(asked, minute)
            verdict = policy.judge(asked, _NOW)
            assert isinstance(verdict, Permit) == (first is not None and first.allow)
            assert verdict.rule == ("" if first is None else str(first))
            if isinstance(before, Permit) and not before.sniff:
                assert (before.rule, before.terms) == (verdict.rule, getattr(verdict, "terms", None))
            assert isinstance(before, Permit) or not isinstance(verdict, Permit)
