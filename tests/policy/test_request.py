"""Tests of `trioproxy.policy.request`."""

import attrs
import pytest

from tests.policy.asking import request
from trioproxy.policy import Permit, Reason, Refusal, RuleProtocol


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
