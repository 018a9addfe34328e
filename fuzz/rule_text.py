"""The text of rules, one in each line, as an administrator or an imported file gives it."""

from ipaddress import ip_address

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

__all__ = ["test_one_input"]

_LINES_MAX = 8
_GLOBAL = Scope(ScopeKind.GLOBAL)
_FLOOR = Floor()
_ALICE = Identity("main", "alice", frozenset({"staff"}))
_NOBODY = Identity("main", None)
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
    for request in _REQUESTS:
        first = rules.naive_first_match(request)
        verdict = policy.judge(request)
        assert isinstance(verdict, Permit) == (first is not None and first.allow)
        assert verdict.rule == ("" if first is None else str(first))
        reachable = policy.may_ever(request.identity, request.client_address, request.protocol)
        assert reachable or not isinstance(verdict, Permit)
