"""Everything the server needs of the store, as one consistent and unchanging reading."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from auth.local import LocalUser
from auth.passwords import DEFAULT_PASSWORDS
from trioproxy.policy.blocks import Block
from trioproxy.policy.grammar import parse_rule
from trioproxy.policy.limits import Limit, Party
from trioproxy.policy.rules import check_scope
from trioproxy.policy.ruleset import RuleSet
from trioproxy.policy.scope import Scope, ScopeKind
from trioproxy.store.rules import StoredRule

__all__ = ["Snapshot", "login_problems", "read_rule_set"]

_NOTHING: Final = "deny any:*(*)->*(*)"


@attrs.frozen
class Snapshot:
    """Users, rules, limits and blocks as they were at one moment.

    Attributes:
        revision: of the store; another number means that something has changed.
        users: by tenant and name.
        rules: of the layers that have any, each in its order.
        limits: whose there are any.
        blocks: by id; some may have ended.
    """

    revision: int
    users: Mapping[tuple[str, str], LocalUser]
    rules: Mapping[Scope, tuple[StoredRule, ...]]
    limits: Mapping[Party, Limit] = attrs.field(factory=dict)
    blocks: tuple[Block, ...] = ()


def read_rule_set(scope: Scope, rules: Sequence[StoredRule]) -> tuple[RuleSet, str]:
    """The rules of one layer, and what is wrong with them (empty if nothing is).

    A layer with a rule that cannot be read, because another version or a hand wrote it, denies everything: nobody knows
    what the unreadable rule would have forbidden.
    """
    parsed = []
    for stored in rules:
        try:
            rule = parse_rule(stored.text)
            check_scope(rule, scope)
        except ValueError as error:
            problem = f"rule {stored.id} of {scope} cannot be read, so this layer denies everything: {error}"
            return RuleSet([parse_rule(_NOTHING)]), problem
        parsed.append(rule)
    return RuleSet(parsed), ""


def login_problems(users: Iterable[LocalUser]) -> tuple[str, ...]:
    """Which users can never log in because of what is stored as their password hash, and why (case 38)."""
    return tuple(
        f"user {Scope(ScopeKind.USER, user.tenant, user.name).owner}: {problem}"
        for user in users
        if (problem := DEFAULT_PASSWORDS.problem(user.password_hash)) is not None
    )
