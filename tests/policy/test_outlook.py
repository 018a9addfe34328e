"""Tests of `trioproxy.policy.outlook`: what is said about a flow before anybody has looked what it is."""

import itertools
from datetime import datetime

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from auth import EntryRules
from tests.policy import oracle, strategies
from tests.policy.asking import identity, policy, request
from trioproxy.policy import AccessRequest, Permit, Policy, Refusal, Rule, RuleProtocol, RuleSet, Scope, Verdict
from trioproxy.policy.floor import Floor
from trioproxy.sniff import App, Finding

ANY, TLS, NOT_TLS = "tcp:*(*)->*(*)", "tcp:*(*)->*(*) app=tls", "deny tcp:*(*)->*(*) app=unknown"
ALICE = identity("alice", ["staff"])


def said(verdict: Verdict) -> str:
    """In a word."""
    if isinstance(verdict, Refusal):
        return "refused"
    return "look" if verdict.sniff else "permitted"


def asked_for(*layers: list[str], finding: Finding | None = None, protocol: RuleProtocol = RuleProtocol.TCP) -> str:
    """What alice is told; the layers are global, tenant:main, group:staff, user:alice."""
    scopes = ["global", "tenant:main", "group:staff", "user:alice"]
    rules = policy(dict(zip(scopes, layers, strict=False)))
    return said(rules.judge(request("192.0.2.1", who=ALICE, finding=finding, protocol=protocol)))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([[TLS]], "look"),
        ([[NOT_TLS]], "refused"),
        ([[NOT_TLS, ANY]], "look"),
        ([[ANY, NOT_TLS]], "permitted"),
        ([[ANY], [TLS]], "permitted"),
        ([[TLS], [ANY]], "look"),  # the verdict names the outer one
        ([[ANY], [NOT_TLS]], "look"),
        ([["deny any:*(*)->*(*)"], [TLS]], "refused"),
        ([[TLS], ["deny any:*(*)->*(*)"]], "refused"),
        ([[TLS, "deny any:*(*)->*(*)"], [ANY]], "look"),
        ([["deny any:*(*)->*(*)", TLS], [ANY]], "refused"),
        ([[NOT_TLS, "deny any:*(*)->*(*)"], [ANY]], "refused"),
        ([[ANY], ["tcp:*(*)->*(*) rate=1Mbit app=tls"]], "look"),  # its terms would hold as well
        ([[ANY], [TLS, "tcp:*(*)->*(*) rate=1Mbit"]], "look"),
        ([[ANY], ["tcp:*(*)->*(*) rate=1Mbit", TLS]], "permitted"),
        ([[ANY], ["tcp:*(*)->*(80) app=tls rate=1Mbit"]], "permitted"),
        ([[ANY], ["udp:*(*)->*(*) app=quic rate=1Mbit"]], "permitted"),
        ([[ANY], ["deny tcp:*(*)->*(*) sni=*.example.org"]], "look"),
        ([["deny tcp:*(*)->*(*) http-host=a.example"], [TLS]], "look"),
        ([["udp:*(*)->*(*)"]], "refused"),
    ],
)
def test_it_is_looked_only_where_it_matters(layers: list[list[str]], expected: str) -> None:
    """A rule that asks and could decide, or add terms, makes us look; one that could change nothing does not."""
    assert expected == asked_for(*layers)


def test_what_was_found_decides() -> None:
    """After the look the caller asks again, and gets a verdict that stands."""
    layers = [["tcp:*(*)->internet(443) app=tls", "tcp:*(*)->*(*) sni=*.example.org", "deny any:*(*)->*(443)", ANY]]
    assert asked_for(*layers) == "look"
    assert asked_for(*layers, finding=Finding(App.TLS, sni="www.example.org")) == "permitted"
    assert asked_for(*layers, finding=Finding(App.TLS, sni="www.example.com")) == "refused"
    assert asked_for(*layers, finding=Finding(App.UNKNOWN)) == "refused"


def test_what_bind_carries_is_looked_at_by_nobody() -> None:
    """A rule with app= says nothing about BIND: it neither allows nor denies it."""
    assert asked_for(["any:*(*)->*(*) app=tls"], protocol=RuleProtocol.BIND) == "refused"
    assert asked_for(["deny any:*(*)->*(*) app=tls,quic", "bind:*(*)->*(*)"], protocol=RuleProtocol.BIND) == "permitted"


def test_a_datagram_is_known_by_the_first_one() -> None:
    """UDP is judged with a finding at once; without one the answer is the same as for TCP."""
    rules = ["udp:*(*)->*(*) app=quic"]
    assert asked_for(rules, protocol=RuleProtocol.UDP) == "look"
    assert asked_for(rules, protocol=RuleProtocol.UDP, finding=Finding(App.QUIC)) == "permitted"
    assert asked_for(rules, protocol=RuleProtocol.UDP, finding=Finding(App.DNS)) == "refused"


def test_a_permit_to_look_names_what_may_come_out_and_has_no_terms() -> None:
    """The rule that would allow stands in the record of a flow that ends before anything was found."""
    rules = policy({"global": ["tcp:*(*)->*(*) app=tls rate=1Mbit"]})
    assert not rules.wants_time(ALICE)
    assert rules.wants_finding(ALICE)
    verdict = rules.judge(request("192.0.2.1"))
    assert isinstance(verdict, Permit)
    assert (verdict.sniff, verdict.terms, verdict.scope) == (True, (), "global")
    assert verdict.rule == "tcp:*(*)->*(*) rate=1Mbit app=tls"


def of_directory(*texts: tuple[str, ...]) -> AccessRequest:
    """A request of somebody in a group of which several entries of a directory speak."""
    entries = tuple(EntryRules("staff", f"cn=staff,ou={number}", lines) for number, lines in enumerate(texts))
    return request("192.0.2.1", who=attrs.evolve(ALICE, rules=entries))


@pytest.mark.parametrize(
    ("stored", "entries", "expected"),
    [
        ([], [(TLS,)], "look"),
        ([], [(NOT_TLS, ANY)], "look"),
        ([ANY], [(NOT_TLS,)], "permitted"),  # the store has the first word in this layer
        ([TLS], [("deny any:*(*)->*(*)",)], "look"),
        ([NOT_TLS], [(ANY,)], "look"),
        ([], [(ANY,), ("deny any:*(*)->*(*)",)], "refused"),
        ([], [(TLS,), ("deny any:*(*)->*(*)",)], "refused"),
        ([], [(TLS, "deny any:*(*)->*(*)"), (ANY,)], "look"),
        ([], [(ANY,), (TLS,)], "look"),
        ([], [(ANY,), ("udp:*(*)->*(*) app=quic",)], "permitted"),
        ([], [("tcp:*(*)->*(80) app=tls",)], "refused"),
    ],
)
def test_rules_of_a_directory_make_us_look_as_those_of_the_store(
    stored: list[str], entries: list[tuple[str, ...]], expected: str
) -> None:
    """Behind the store's rules of the same layer each entry votes by itself, and one deny denies."""
    rules = policy({"group:staff": stored})
    asked = of_directory(*entries)
    assert expected == said(rules.judge(asked))
    assert rules.wants_finding(asked.identity) == any("app=" in text for text in [*stored, *itertools.chain(*entries)])


# ---- P3


def final(verdict: Verdict) -> tuple[object, ...]:
    """All of a verdict but its request."""
    if isinstance(verdict, Refusal):
        return ("refused",)
    return verdict.scope, verdict.rule, verdict.log, verdict.terms


@given(
    strategies.policies(),
    strategies.requests(unknown=True),
    strategies.moments(),
    st.lists(strategies.findings(), min_size=1, max_size=8),
)
def test_p3_what_is_said_before_the_look_holds_after_it(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime, findings: list[Finding]
) -> None:
    """P3: what is refused is refused for every finding, what needs no look is permitted alike for every finding."""
    rules = Policy(rule_sets, Floor(), strategies.ZONES)
    before = rules.judge(asked, now)
    for finding in findings:
        after = rules.judge(attrs.evolve(asked, finding=finding), now)
        if isinstance(after, Permit):
            assert isinstance(before, Permit)
            assert not after.sniff
        if isinstance(before, Permit) and not before.sniff:
            assert final(before) == final(after)


def possible_outcomes(rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime) -> set[tuple[object, ...]]:
    """Every outcome if each rule that asks is free to match or not."""
    local, options = strategies.local(now, asked.identity), []
    for scope in oracle.layers_of(asked.identity):
        votes: list[Rule | None] = []
        for rule in rule_sets.get(scope, ()):
            if oracle.matches(rule, asked, asked.address, local):
                votes.append(rule)
                if not (rule.apps or rule.sni or rule.http_host):
                    break
        else:
            votes.append(None)
        options.append([(scope, rule) for rule in votes])
    outcomes: set[tuple[object, ...]] = set()
    for together in itertools.product(*options):
        votes_cast = [(scope, rule) for scope, rule in together if rule is not None]
        if not votes_cast or not all(rule.allow for _, rule in votes_cast):
            outcomes.add(("refused",))
            continue
        scope, rule = votes_cast[0]
        limits = tuple((str(s), str(r)) for s, r in votes_cast if r.rate or r.quota or r.hours or r.scan_ignored)
        outcomes.add((str(scope), str(rule), limits))
    return outcomes


OUTSIDE = st.sampled_from(["10.1.2.3", "8.8.8.8", "93.184.216.34"])


@given(strategies.policies(), strategies.requests(unknown=True), strategies.moments(), OUTSIDE)
@example({Scope.parse("global"): RuleSet()}, request("8.8.8.8"), datetime.fromisoformat("2026-01-01T00:00Z"), "8.8.8.8")
def test_p3_it_is_looked_exactly_where_rules_that_ask_could_change_something(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime, destination: str
) -> None:
    """P3: against every choice of which of these rules match; without a directory, where the layers are plain lists."""
    bare = attrs.evolve(asked.identity, rules=())
    asked = attrs.evolve(asked, identity=bare, address=request(destination).address)
    verdict = Policy(rule_sets, Floor(), strategies.ZONES).judge(asked, now)
    outcomes = possible_outcomes(rule_sets, asked, now)
    if isinstance(verdict, Refusal):
        assert outcomes == {("refused",)}
    elif verdict.sniff:
        assert len(outcomes) > 1
        assert outcomes != {("refused",)}
    else:
        terms = tuple((term.scope, term.text) for term in verdict.terms)
        assert outcomes == {(verdict.scope, verdict.rule, terms)}
