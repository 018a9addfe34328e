"""Tests of `trioproxy.policy.request`."""

import attrs
import pytest

from tests.policy.asking import request
from trioproxy.policy import Permit, Reason, Refusal, RuleProtocol, Term, parse_rule


def test_what_was_judged_cannot_be_changed_afterwards() -> None:
    """Law 1: what is connected is what was judged, so request and permit are frozen."""
    permit = Permit(request("192.0.2.1"), "global", "tcp:*(*)->*(*)")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        permit.request.port = 22  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        permit.request = request("127.0.0.1")  # type: ignore[misc]


def test_a_refusal_names_no_layer_unless_a_rule_decided() -> None:
    """Records keep `scope` and `rule`; both are empty when nothing allowed it."""
    refusal = Refusal(request("192.0.2.1"), Reason.NO_RULE)
    assert (refusal.scope, refusal.rule) == ("", "")


def test_rule_words_are_those_of_the_grammar() -> None:
    """DESIGN section 3: tcp for CONNECT, udp for UDP ASSOCIATE, bind for BIND."""
    assert [protocol.value for protocol in RuleProtocol] == ["tcp", "udp", "bind"]


def test_only_hours_have_grace() -> None:
    """The longest of the rules that permitted it; where anything else stands against a flow there is none."""
    rules = [parse_rule(f"tcp:*(*)->*(*) when=mon@08:00-18:00{grace}") for grace in ("", " grace=30s", " grace=2m")]
    terms = tuple(Term("global", str(rule), rule) for rule in rules)
    asked = request("192.0.2.1")
    permits = [Permit(asked, "global", "", terms=terms[:2]), Permit(asked, "global", "", terms=terms[2:])]
    assert Refusal(asked, Reason.HOURS).grace_s(permits) == 120
    assert Refusal(asked, Reason.HOURS).grace_s(permits[:1]) == 30
    assert Refusal(asked, Reason.HOURS).grace_s([Permit(asked, "global", "", terms=terms[:1])]) == 0
    assert Refusal(asked, Reason.HOURS).grace_s([]) == 0
    assert Refusal(asked, Reason.RULE).grace_s(permits) == 0
