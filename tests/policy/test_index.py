"""Tests of `trioproxy.policy.index`: it finds what the naive scan finds (P3) and asks only few rules on the way."""

from datetime import datetime
from ipaddress import IPv4Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.policy import oracle, strategies
from tests.policy.asking import identity, policy, request
from trioproxy.policy import AccessRequest, Permit, Rule, RuleSet, Scope, ScopeKind, index
from trioproxy.policy.hours import minute_of_week
from trioproxy.policy.index import Index, port_blocks, scope_order
from trioproxy.policy.leaves import Maybe, Slot
from trioproxy.policy.rules import EVERY_PORT, Ports, Question
from trioproxy.sniff import App, Finding


def expected_votes(rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime) -> dict[Slot, tuple[int, str]]:
    """Layer to place and text of its first matching rule, by asking each rule of each layer."""
    votes: dict[Slot, tuple[int, str]] = {}
    local = strategies.local(now, asked.identity)
    for scope in oracle.layers_of(asked.identity):
        for number, rule in enumerate(rule_sets.get(scope, ())):
            if oracle.matches(rule, asked, asked.address, local):
                votes[str(scope)] = (number, str(rule))
                break
    return votes


def votes(rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime) -> dict[Slot, tuple[int, str]]:
    """The same from the index."""
    minute = minute_of_week(now, strategies.ZONES.of(asked.identity.tenant))
    found = Index(rule_sets).votes(Question.of(asked, asked.address, minute))
    return {slot: (entry.number, entry.text) for slot, entry in found.items()}


@given(strategies.policies(), st.lists(strategies.requests(), min_size=1, max_size=8), strategies.moments())
def test_p3_the_index_finds_what_the_naive_scan_finds(
    rule_sets: dict[Scope, RuleSet], asked: list[AccessRequest], now: datetime
) -> None:
    """P3: for random layers and requests, the first match of each layer, by number and text."""
    for one in asked:
        assert expected_votes(rule_sets, one, now) == votes(rule_sets, one, now)


@given(strategies.policies(), st.lists(strategies.requests(), min_size=1, max_size=8), strategies.moments())
def test_p3_with_every_table_in_place(
    rule_sets: dict[Scope, RuleSet], asked: list[AccessRequest], now: datetime
) -> None:
    """P3 where even single rules hang below all tables and port lists are covered by coarse blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "ROW_LENGTH", 0)
        patch.setattr(index, "PORT_BLOCKS_MAX", 3)
        for one in asked:
            assert expected_votes(rule_sets, one, now) == votes(rule_sets, one, now)


@given(
    st.lists(strategies.rules(conditions=True), min_size=1, max_size=12), strategies.requests(), strategies.moments()
)
def test_p3_one_layer_against_its_own_naive_scan(rules: list[Rule], asked: AccessRequest, now: datetime) -> None:
    """P3: `RuleSet.naive_first_match` says what a layer means."""
    layer = RuleSet(rules)
    first = layer.naive_first_match(asked, minute_of_week(now, strategies.ZONES.of(asked.identity.tenant)))
    found = votes({Scope(ScopeKind.GLOBAL): layer}, asked, now)
    assert found == ({"global": (list(layer).index(first), str(first))} if first else {})


@pytest.mark.parametrize("row_length", [4, 0])
@given(strategies.policies(), strategies.requests(unknown=True), strategies.moments())
def test_p3_as_long_as_nobody_has_looked_the_first_of_each_kind_is_found(
    row_length: int, rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime
) -> None:
    """P3: beside the votes of the rules that do not ask, the first that would allow, limit or deny."""
    expected: dict[Slot, tuple[int, str]] = {}
    local = strategies.local(now, asked.identity)
    for scope in oracle.layers_of(asked.identity):
        for number, rule in enumerate(rule_sets.get(scope, ())):
            if oracle.matches(rule, asked, asked.address, local):
                terms = rule.rate or rule.quota or rule.hours or rule.scan_ignored
                maybe = Maybe.DENY if not rule.allow else Maybe.LIMIT if terms else Maybe.ALLOW
                asks = rule.apps or rule.sni or rule.http_host
                expected.setdefault((str(scope), maybe) if asks else str(scope), (number, str(rule)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "ROW_LENGTH", row_length)
        assert expected == votes(rule_sets, asked, now)


@given(strategies.ports(), st.sampled_from([1, 3, 64]), st.sampled_from([0, *strategies.PORTS, 3, 81, 40_000]))
@example(EVERY_PORT, 1, 0)
@example(((1, 65535),), 64, 0)
@example(((1, 65535),), 64, 40_000)
def test_blocks_cover_every_port_of_a_list(ports: Ports, blocks_max: int, port: int) -> None:
    """A block may cover too much, never too little; up to the limit it is exact."""
    blocks = port_blocks(ports, blocks_max)
    inside = any(first <= port <= last for first, last in ports)
    covered = any((65536 | port) >> shift in blocks for shift in range(17))
    assert len(blocks) <= blocks_max
    assert covered or not inside
    assert covered == inside or len(port_blocks(ports, 10_000)) > blocks_max


def test_blocks_are_the_largest_that_fit() -> None:
    """`*` is one block, a single port one, 1 to 65535 sixteen, and a list over the limit the block around it."""
    assert port_blocks(EVERY_PORT, 1) == [1]
    assert port_blocks(((443, 443),), 1) == [65536 + 443]
    assert port_blocks(((8, 15),), 1) == [(65536 + 8) // 8]
    assert port_blocks(((1, 65535),), 64) == [(65536 + (1 << bit)) >> bit for bit in range(16)]
    assert port_blocks(((9, 10), (13, 13)), 2) == [(65536 + 8) // 8]


def test_layers_are_in_the_order_of_an_explanation() -> None:
    """Global first, then tenant, groups by name, user: of equal votes the outermost is named."""
    written = [
        "global",
        "tenant:main",
        "tenant:physics",
        "group:a",
        "group:b",
        "group:physics/a",
        "user:a",
        "user:physics/a",
    ]
    scopes = [Scope.parse(text) for text in written]
    assert scopes == sorted(set(scopes), key=scope_order)


@pytest.fixture(name="asked_rules")
def fixture_asked_rules(monkeypatch: pytest.MonkeyPatch) -> list[Rule]:
    """Each rule that is asked; to be installed before the index is built."""
    asked: list[Rule] = []
    really = Rule.matches

    def matches(rule: Rule, question: Question) -> bool:
        asked.append(rule)
        return really(rule, question)

    monkeypatch.setattr(Rule, "matches", matches)
    return asked


def public(number: int) -> str:
    """An address for a small number."""
    return str(IPv4Address((20 << 24) + number))


TWENTY = [f"g{number}" for number in range(20)]
SHAPES = {
    "suffixes": (
        {"global": [f"tcp:*(*)->*.d{n}.example.org(443)" for n in range(10_000)]},
        request("192.0.2.1", name="www.d9999.example.org"),
        1,
    ),
    "names": (
        {"global": [f"tcp:*(*)->d{n}.example.org(443)" for n in range(10_000)]},
        request("192.0.2.1", name="d9999.example.org"),
        1,
    ),
    "prefixes": (
        {
            "global": [f"tcp:*(*)->{public(n << 8)}/{32 - n % 9}(443)" for n in range(9999)]
            + ["tcp:*(*)->20.0.0.0/8(443)"]
        },
        request(public(9999 << 8)),
        9,
    ),
    "sources": (
        {"global": [f"tcp:{public(n)}(*)->*(443)" for n in range(10_000)]},
        request("192.0.2.1", source=public(9999)),
        1,
    ),
    "ports": ({"global": [f"tcp:*(*)->*({n + 1})" for n in range(10_000)]}, request("192.0.2.1", 10_000), 1),
    "nested port ranges": (
        {"global": [f"tcp:*(*)->*({n + 1}-{65_535 - n})" for n in reversed(range(10_000))]},
        request("192.0.2.1", 10_000),
        17,
    ),
    "client ports": (
        {"global": [f"tcp:*({n + 1})->*(*)" for n in range(10_000)]},
        request("192.0.2.1", source_port=10_000),
        1,
    ),
    "global rules for users": (
        {"global": [f"tcp:*(*)->*(443) user=user{n % 2000}" for n in range(10_000)]},
        request("192.0.2.1", who=identity("user1999")),
        1,
    ),
    "global rules for groups": (
        {"global": [f"tcp:*(*)->*(443) group=g{n}" for n in range(10_000)]},
        request("192.0.2.1", who=identity("alice", TWENTY)),
        20,
    ),
    "names in TLS": (
        {"global": [f"deny tcp:*(*)->*(443) sni=*.d{n}.example.org" for n in range(10_000)] + ["tcp:*(*)->*(443)"]},
        request("192.0.2.1", finding=Finding(App.TLS, sni="www.d10000.example.org")),
        1,
    ),
    "hosts in HTTP": (
        {
            "global": [f"deny tcp:*(*)->*(443) http-host=d{n}.org,*.d{n}.org" for n in range(9_999)]
            + ["tcp:*(*)->*(443)"]
        },
        request("192.0.2.1", finding=Finding(App.HTTP, http_host="d10000.org")),
        1,
    ),
    "names in TLS, not looked at yet": (
        {"global": [f"tcp:*(*)->*(443) sni=*.d{n}.example.org" for n in range(10_000)]},
        request("192.0.2.1"),
        1,
    ),
    "users' own layers": (
        {
            f"user:user{n}": ["deny tcp:*(*)->*(25)", "tcp:*(*)->*(443)", "tcp:*(*)->10.0.0.0/8(22)"]
            for n in range(3_000)
        },
        request("192.0.2.1", who=identity("user2999")),
        1,
    ),
    "twenty group layers": (
        {
            f"group:{group}": [f"tcp:*(*)->{group}-{n}.example(1-1000)" for n in range(500)] + ["tcp:*(*)->*(443)"]
            for group in TWENTY
        },
        request("192.0.2.1", who=identity("alice", TWENTY), name="g1-400.example"),
        21,
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_of_ten_thousand_rules_only_those_that_can_match_are_asked(shape: str, asked_rules: list[Rule]) -> None:
    """A verdict in microseconds: not the time is counted here, but the rules that are asked."""
    layers, asked, asked_max = SHAPES[shape]
    rules = policy(layers)
    assert isinstance(rules.judge(asked), Permit)
    assert 1 <= len(asked_rules) <= asked_max


def test_a_long_name_is_looked_up_no_deeper_than_the_rules_go(asked_rules: list[Rule]) -> None:
    """A name of 127 labels costs no more than one of three, and no rule is asked for it."""
    rules = policy({"global": [f"tcp:*(*)->*.d{n}.org(443)" for n in range(100)]})
    rules.judge(request("192.0.2.1", name="a." * 126 + "org"))
    assert asked_rules == []
    assert isinstance(rules.judge(request("192.0.2.1", name="a." * 124 + "d7.org")), Permit)


def test_the_earliest_rule_wins_whatever_table_it_hangs_in() -> None:
    """First match: not the most specific one, and not the one whose table is looked at first."""
    texts = ["*.org", "192.0.2.0/24", "www.example.org", "*", "*.example.org", "192.0.2.1", "internet"]
    for turn in range(len(texts)):
        order = texts[turn:] + texts[:turn]
        rules = policy({"global": [f"tcp:*(*)->{host}(443)" for host in order]})
        verdict = rules.judge(request("192.0.2.1", name="www.example.org"))
        fitting = [host for host in order if host != "internet"]
        assert isinstance(verdict, Permit)
        assert verdict.rule == f"tcp:*(*)->{fitting[0]}(443)"


def test_a_row_stops_at_a_rule_that_is_beaten_already(asked_rules: list[Rule]) -> None:
    """A later rule of the same layer cannot decide, so it is not asked."""
    rules = policy({"global": ["tcp:*(*)->*(443)", "tcp:*(*)->www.example.org(443)"]})
    rules.judge(request("192.0.2.1", name="www.example.org"))
    assert [str(rule) for rule in asked_rules] == ["tcp:*(*)->*(443)"]
