"""The rules of all layers, as canonical texts in their order."""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from trioproxy.policy.rules import Rule, check_scope
from trioproxy.policy.scope import DEFAULT_TENANT, Scope, ScopeKind
from trioproxy.store.database import Database
from trioproxy.store.errors import EntryError

__all__ = ["Rules", "StoredRule", "listing_order"]

_KINDS = list(ScopeKind)


@attrs.frozen
class StoredRule:
    """One rule as the store keeps it.

    Attributes:
        id: never used again once the rule is removed.
        text: canonical when it was written; another version may have written it.
    """

    id: int
    text: str = attrs.field(validator=attrs.validators.instance_of(str))  # SQLite would let a hand store anything


def listing_order(scope: Scope) -> tuple[bool, bool, str, int, str]:
    """Sorts layers for people: global, then each tenant (main first) from the wide to the narrow."""
    return (
        scope.kind is not ScopeKind.GLOBAL,
        scope.tenant != DEFAULT_TENANT,
        scope.tenant,
        _KINDS.index(scope.kind),
        scope.name,
    )


class Rules:
    """The rules of a store. A layer without rules is one that is not there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, scope: Scope) -> tuple[StoredRule, ...]:
        """The rules of one layer, in their order.

        Raises:
            StoreError: the store cannot be read.
        """
        rows = self._database.rows(
            "SELECT id, content FROM rule WHERE kind = ? AND tenant = ? AND name = ? ORDER BY position", _key(scope)
        )
        return tuple(StoredRule(number, text) for number, text in rows)

    def all(self, tenant: str | None = None) -> dict[Scope, tuple[StoredRule, ...]]:
        """All layers that have rules, in `listing_order`.

        Args:
            tenant: only the layers of this tenant, without the global one; None: everything.

        Raises:
            StoreError: the store cannot be read.
        """
        layers: dict[tuple[str, str, str], list[StoredRule]] = {}
        for kind, owner, name, number, text in self._database.rows(
            "SELECT kind, tenant, name, id, content FROM rule ORDER BY kind, tenant, name, position"
        ):
            if tenant is None or owner == tenant:
                layers.setdefault((kind, owner, name), []).append(StoredRule(number, text))
        scopes = {Scope(ScopeKind(kind), owner, name): tuple(rules) for (kind, owner, name), rules in layers.items()}
        return {scope: scopes[scope] for scope in sorted(scopes, key=listing_order)}

    def add(self, scope: Scope, rule: Rule, position: int | None = None) -> StoredRule:
        """Add a rule to a layer.

        Args:
            scope: the layer.
            rule: what it says.
            position: its place from 1 on, what stands there moves down; None: the end.

        Raises:
            ValueError: the rule may not live in this layer.
            EntryError: there is no such place.
            StoreError: the store cannot be written.
        """
        check_scope(rule, scope)
        with self._database.writing():
            rules = list(self.of(scope))
            place = len(rules) + 1 if position is None else position
            if not 1 <= place <= len(rules) + 1:
                raise EntryError(f"{scope} has places 1 to {len(rules) + 1} for a new rule, not {place}")
            stored = StoredRule(self._database.next_value("rule_id"), str(rule))
            self._write(scope, [*rules[: place - 1], stored, *rules[place - 1 :]])
        return stored

    def remove(self, numbers: Iterable[int]) -> dict[Scope, list[StoredRule]]:
        """Remove the rules with these ids, all or none.

        Returns:
            What was removed, by layer.

        Raises:
            EntryError: an id is of no rule; nothing was removed.
            StoreError: the store cannot be written.
        """
        wanted = set(numbers)
        removed: dict[Scope, list[StoredRule]] = {}
        with self._database.writing():
            for scope, rules in self.all().items():
                gone = [rule for rule in rules if rule.id in wanted]
                if gone:
                    removed[scope] = gone
                    self._write(scope, [rule for rule in rules if rule.id not in wanted])
            missing = wanted - {rule.id for rules in removed.values() for rule in rules}
            if missing:
                raise EntryError(f"there is no rule {', '.join(map(str, sorted(missing)))}")
        return removed

    def replace(self, wanted: Mapping[Scope, Sequence[Rule]], tenant: str | None = None) -> None:
        """Make the layers hold exactly these rules, in one step; unchanged rules keep their ids.

        Args:
            wanted: layers that are missing here lose all rules.
            tenant: touch nothing but the layers of this tenant; None: everything.

        Raises:
            ValueError: a rule may not live in its layer, or a layer is not of this tenant.
            StoreError: the store cannot be written; nothing was changed.
        """
        for scope, rules in wanted.items():
            if tenant is not None and scope.tenant != tenant:
                raise ValueError(f"{scope} does not belong to tenant {tenant}")
            for rule in rules:
                check_scope(rule, scope)
        with self._database.writing():
            present = self.all(tenant)
            for scope in present.keys() | wanted.keys():
                texts = [str(rule) for rule in wanted.get(scope, ())]
                if texts != [rule.text for rule in present.get(scope, ())]:
                    self._write(scope, self._with_ids(texts, present.get(scope, ())))

    def _with_ids(self, texts: Sequence[str], present: Sequence[StoredRule]) -> list[StoredRule]:
        numbers: dict[str, list[int]] = {}
        for rule in reversed(present):
            numbers.setdefault(rule.text, []).append(rule.id)
        return [
            StoredRule(numbers[text].pop() if numbers.get(text) else self._database.next_value("rule_id"), text)
            for text in texts
        ]

    def _write(self, scope: Scope, rules: Sequence[StoredRule]) -> None:
        self._database.run("DELETE FROM rule WHERE kind = ? AND tenant = ? AND name = ?", _key(scope))
        self._database.run_many(
            "INSERT INTO rule (kind, tenant, name, position, id, content) VALUES (?, ?, ?, ?, ?, ?)",
            [(*_key(scope), position, rule.id, rule.text) for position, rule in enumerate(rules, start=1)],
        )


def _key(scope: Scope) -> tuple[str, str, str]:
    return (scope.kind.value, scope.tenant, scope.name)
