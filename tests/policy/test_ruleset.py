"""Tests of `trioproxy.policy.ruleset`."""

from tests.policy.asking import request, rule_set
from trioproxy.policy import RuleSet, parse_rule

TEXTS = ["deny tcp:*(*)->*(25)", "tcp:*(*)->*(1-1023)", "tcp:*(*)->*(25)"]


def test_62_the_order_of_rules_is_kept() -> None:
    """Case 62: order kept; a layer is a sequence of its rules."""
    rules = rule_set(*TEXTS)
    assert [str(rule) for rule in rules] == TEXTS
    assert len(rules) == 3
    assert TEXTS[1] == str(rules[1])
    assert TEXTS[1:] == [str(rule) for rule in rules[1:]]
    assert repr(rules) == f"RuleSet({TEXTS})"


def test_the_first_matching_rule_decides() -> None:
    """DESIGN section 3: inside a layer the first matching rule decides."""
    rules = rule_set(*TEXTS)
    assert [TEXTS[0], TEXTS[1], None] == [
        str(found) if (found := rules.naive_first_match(request("192.0.2.1", port))) else None
        for port in (25, 443, 8080)
    ]


def test_63_an_empty_rule_set_matches_nothing() -> None:
    """Case 63: empty means no vote."""
    assert RuleSet().naive_first_match(request("192.0.2.1")) is None


def test_a_rule_set_does_not_change_with_the_list_it_came_from() -> None:
    """What a policy was built from cannot change behind its index."""
    source = [parse_rule(TEXTS[0])]
    rules = RuleSet(source)
    source.append(parse_rule(TEXTS[1]))
    assert len(rules) == 1


def test_equal_rules_in_equal_order_are_equal_rule_sets() -> None:
    """So that a reload can see which layers changed."""
    assert rule_set(*TEXTS) == rule_set(*TEXTS)
    assert hash(rule_set(*TEXTS)) == hash(rule_set(*TEXTS))
    assert rule_set(*TEXTS) != rule_set(*reversed(TEXTS))
    assert rule_set(*TEXTS) != [parse_rule(text) for text in TEXTS]
