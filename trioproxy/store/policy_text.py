"""All rules and limits as one text that people read, keep under version control, and import again.

    # a comment
    [global]
    limit rate=20Mbit
    limit together rate=4Gbit
    deny tcp:*(*)->*(25) note="no mail"

    [user:alice]
    tcp:*(*)->*(*)

A line in brackets begins a layer. One line is one rule; before the rules stand the limits that each user of the layer
has, and those that all of them share. Comments are lines of their own and are not kept by an import; what must be kept
belongs in `note=`.
"""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Generic, TypeVar

import attrs

from trioproxy.policy.grammar import RuleSyntaxError, parse_rule
from trioproxy.policy.limits import Limit, Party, check_limit
from trioproxy.policy.rules import Rule, check_scope
from trioproxy.policy.scope import Scope
from trioproxy.store.rules import StoredRule, listing_order

__all__ = [
    "PolicyContent",
    "PolicyProblem",
    "PolicyTextError",
    "difference",
    "parse_policy_untrusted",
    "render_policy",
]

_BYTES_MAX: Final = 16 << 20  # 12,000 rules are about 1 MiB

_HEADER: Final = (
    "# The rules and limits of trioproxy. `trioproxy policy import FILE` replaces all of them by those of a file.\n"
)
_TENANT_HEADER: Final = (
    "# The rules and limits of tenant {tenant}. `trioproxy policy import FILE --tenant {tenant}` replaces those of\n"
    "# this tenant by those of a file. Without --tenant it removes those of every other tenant, and the global ones.\n"
)

_CONTEXT_LINES: Final = 2  # unchanged lines shown around a difference

_LIMIT: Final = "limit"
_TOGETHER: Final = "together "


AnyRule_co = TypeVar("AnyRule_co", bound=Rule | StoredRule, covariant=True)


@attrs.frozen
class PolicyContent(Generic[AnyRule_co]):
    """What the text says.

    Attributes:
        rules: of each layer, in their order.
        limits: for whom there are any.
    """

    rules: Mapping[Scope, Sequence[AnyRule_co]] = MappingProxyType({})
    limits: Mapping[Party, Limit] = MappingProxyType({})

    @property
    def scopes(self) -> list[Scope]:
        """Every layer that is spoken of, in `listing_order`."""
        return sorted(self.rules.keys() | {party.scope for party in self.limits}, key=listing_order)

    def lines(self, scope: Scope) -> list[str]:
        """The lines of one layer."""
        limits = [(party, self.limits.get(party)) for party in (Party(scope), Party(scope, together=True))]
        return [
            *(f"{_LIMIT} {_TOGETHER if party.together else ''}{limit}" for party, limit in limits if limit is not None),
            *(rule.text if isinstance(rule, StoredRule) else str(rule) for rule in self.rules.get(scope, ())),
        ]


@attrs.frozen
class PolicyProblem:
    """What is wrong, and where.

    Attributes:
        line: from 1.
        column: from 1.
        message: what was expected.
        text: the line.
    """

    line: int
    column: int
    message: str
    text: str = ""


class PolicyTextError(ValueError):
    """The text cannot be imported.

    Attributes:
        problems: everything that is wrong with it.
    """

    def __init__(self, problems: Iterable[PolicyProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "\n".join(f"line {found.line}, column {found.column}: {found.message}" for found in self.problems)
        )


def parse_policy_untrusted(text: str | bytes, tenants: Collection[str] | None = None) -> PolicyContent[Rule]:
    """Read the whole text; nothing is taken from a text that is wrong anywhere.

    Args:
        text: in UTF-8, lines ending in LF or CR LF.
        tenants: the tenants there are; None: any.

    Raises:
        PolicyTextError: with every line that is wrong.
    """
    reading = _Reading(tenants)
    problems = []
    # Split on LF alone: splitlines() would also end a line inside a note.
    for number, line in enumerate(_decode(text).split("\n"), start=1):
        try:
            reading.take(number, line.strip())
        except ValueError as error:
            indent = len(line) - len(line.lstrip())
            column, message = _place(error)
            problems.append(PolicyProblem(number, indent + column, message, line.rstrip()))
    if problems:
        raise PolicyTextError(problems)
    return PolicyContent({scope: tuple(rules) for scope, rules in reading.layers.items()}, reading.limits)


def render_policy(content: PolicyContent[Rule | StoredRule], tenant: str | None = None) -> str:
    """The text of all layers that have rules or limits; `parse_policy_untrusted` reads it back.

    Args:
        content: what to write.
        tenant: whose it is, if it is that of one tenant alone; the comment at the beginning says so.
    """
    layers = ((scope, content.lines(scope)) for scope in content.scopes)
    header = _HEADER if tenant is None else _TENANT_HEADER.format(tenant=tenant)
    return header + "".join(
        f"\n[{scope}]\n" + "".join(f"{line}\n" for line in lines) for scope, lines in layers if lines
    )


def difference(before: PolicyContent[Rule | StoredRule], after: PolicyContent[Rule | StoredRule]) -> Iterator[str]:
    """Lines that show what an import would change, `-` for what goes and `+` for what comes; none if nothing would."""
    for scope in sorted({*before.scopes, *after.scopes}, key=listing_order):
        old, new = before.lines(scope), after.lines(scope)
        if old == new:
            continue
        yield f"  [{scope}]"
        for line in list(difflib.unified_diff(old, new, lineterm="", n=_CONTEXT_LINES))[3:]:
            # The first three lines are two file names and the place of the first difference.
            yield "  ..." if line.startswith("@@") else f"{line[0]} {line[1:]}"


def _decode(text: str | bytes) -> str:
    if len(text) > _BYTES_MAX:
        raise PolicyTextError([PolicyProblem(1, 1, f"larger than {_BYTES_MAX:,} bytes: is this the right file?")])
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise PolicyTextError([PolicyProblem(line, 1, "not UTF-8")]) from error


@attrs.define
class _Reading:
    """What has been read so far."""

    tenants: Collection[str] | None
    layers: dict[Scope, list[Rule]] = attrs.field(factory=dict)
    limits: dict[Party, Limit] = attrs.field(factory=dict)
    begun_at: dict[Scope, int] = attrs.field(factory=dict)
    headers: int = 0
    scope: Scope | None = None  # of the lines that follow; None below a wrong header, whose lines are still read

    def take(self, number: int, content: str) -> None:
        """Read one line. Raises `ValueError` if it is wrong."""
        if not content or content.startswith("#"):
            return
        word, _, rest = content.partition(" ")
        if content.startswith("["):
            self._take_header(number, content)
        elif word == _LIMIT:
            self._take_limit(rest.lstrip(" "))
        else:
            self._take_rule(content)

    def _take_header(self, number: int, content: str) -> None:
        self.headers += 1
        self.scope = None
        scope = _read_header(content, self.tenants)
        if scope in self.begun_at:
            raise ValueError(f"[{scope}] begins on line {self.begun_at[scope]} already")
        self.begun_at[scope] = number
        self.layers[scope] = []
        self.scope = scope

    def _take_limit(self, content: str) -> None:
        if not self.headers:
            raise ValueError("a limit needs a layer above it, for example a line [global]")
        limit = Limit.parse(content.removeprefix(_TOGETHER))
        if self.scope is None:
            return
        party = Party(self.scope, together=content.startswith(_TOGETHER))
        check_limit(party, limit)
        if party in self.limits:
            raise ValueError(f"there is a limit for {party} already: write all of it on one line")
        self.limits[party] = limit

    def _take_rule(self, content: str) -> None:
        if not self.headers:
            raise ValueError("a rule needs a layer above it, for example a line [global]")
        rule = parse_rule(content)
        _check_owners(rule, self.tenants)
        if self.scope is not None:
            check_scope(rule, self.scope)
            self.layers[self.scope].append(rule)


def _read_header(content: str, tenants: Collection[str] | None) -> Scope:
    if not content.endswith("]"):
        raise ValueError("a layer is written in brackets, for example [global] or [user:alice]")
    scope = Scope.parse(content[1:-1].strip())
    _check_tenant(scope, tenants)
    return scope


def _check_owners(rule: Rule, tenants: Collection[str] | None) -> None:
    for owner in (rule.user, rule.group):
        if owner is not None:
            _check_tenant(owner, tenants)


def _check_tenant(scope: Scope, tenants: Collection[str] | None) -> None:
    if tenants is not None and scope.tenant and scope.tenant not in tenants:
        raise ValueError(f"there is no tenant {scope.tenant}, only {', '.join(sorted(tenants))}")


def _place(error: ValueError) -> tuple[int, str]:
    return (error.column, f"expected {error.expected}") if isinstance(error, RuleSyntaxError) else (1, str(error))
