"""The rules of one layer, in their order."""

from collections.abc import Iterator, Sequence
from typing import overload

from trioproxy.policy.request import AccessRequest
from trioproxy.policy.rules import Question, Rule

__all__ = ["RuleSet"]


class RuleSet(Sequence[Rule]):
    """An immutable list of rules of which the first that matches decides.

    `naive_first_match` is what a layer means. `Policy` answers the same for all layers at once through an index
    (`trioproxy.policy.index`), and a property test holds the two together.
    """

    __slots__ = ("_rules",)

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._rules = tuple(rules)

    @overload
    def __getitem__(self, place: int) -> Rule: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Rule, ...]: ...
    def __getitem__(self, place: int | slice) -> Rule | tuple[Rule, ...]:
        return self._rules[place]

    def __len__(self) -> int:
        return len(self._rules)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules)

    def __eq__(self, other: object) -> bool:
        return self._rules == other._rules if isinstance(other, RuleSet) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._rules)

    def __repr__(self) -> str:
        return f"RuleSet({list(map(str, self._rules))})"

    def naive_first_match(self, request: AccessRequest, minute: int | None = None) -> Rule | None:
        """The first rule that matches in a minute of the week, or may, found by asking each of them in turn."""
        question = Question.of(request, request.address, minute)
        return next((rule for rule in self._rules if rule.matches(question)), None)
