"""Whether a client may reach anything at all: asked once per session, before a name is resolved on its behalf."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import product
from typing import TypeAlias

from auth import Identity
from trioproxy.policy.ranges import RangeTable, address_number
from trioproxy.policy.request import IPAddress, RuleProtocol
from trioproxy.policy.rules import Host, host_ranges
from trioproxy.policy.ruleset import RuleSet
from trioproxy.policy.scope import Scope, ScopeKind

__all__ = ["Reach"]

_Sources: TypeAlias = RangeTable[bool]


class Reach:
    """From which addresses each user, group, tenant and everybody may do something, for each protocol. Immutable.

    Once as all layers say it, and once as the global layer alone does, for those outside the proxy group. At any hour,
    and whatever the flow may turn out to be.
    """

    def __init__(self, rule_sets: Mapping[Scope, RuleSet]) -> None:
        hosts: defaultdict[tuple[bool, RuleProtocol, Scope], set[Host]] = defaultdict(set)
        for scope, rules in rule_sets.items():
            memberships = (True, False) if scope.kind is ScopeKind.GLOBAL else (True,)
            for rule in rules:
                for member, protocol in product(memberships, rule.protocols if rule.allow else ()):
                    hosts[member, protocol, rule.user or rule.group or scope].add(rule.source)
        # Most layers allow from the same few sources, `*` above all: they share one table.
        tables = {
            sources: RangeTable((host_ranges(host), True) for host in sources)
            for sources in set(map(frozenset, hosts.values()))
        }
        self._sources: dict[tuple[bool, RuleProtocol, Scope], _Sources] = {
            key: tables[frozenset(sources)] for key, sources in hosts.items()
        }

    def may_ever(self, identity: Identity, client_address: IPAddress, protocol: RuleProtocol) -> bool:
        """False only if no destination whatever can be permitted; True promises nothing."""
        number = address_number(client_address)
        for scope in Scope.around(identity):
            sources = self._sources.get((identity.member, protocol, scope))
            if sources is not None and sources.at(number):
                return True
        return False
