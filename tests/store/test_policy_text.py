"""All rules as one text: what is written reads back, and what is wrong is said with line and column."""

from collections.abc import Sequence
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.samples import ALICE, BOB, GLOBAL, rule, rules
from trioproxy.policy import Rule, Scope
from trioproxy.store import (
    PolicyTextError,
    StoredRule,
    difference,
    listing_order,
    parse_policy_untrusted,
    render_policy,
)

Layers: TypeAlias = dict[Scope, Sequence[Rule | StoredRule]]

TEXT = """# our rules
[global]
deny tcp:*(*)->*(25) note="no # mail"

   [ user:main/ALICE ]
   tcp:*(*)->*(*)
# and udp
udp:*(*)->*(*)
[user:physics/bob]
"""


def problems_of(text: str | bytes, tenants: tuple[str, ...] = ("main", "physics")) -> list[tuple[int, int, str]]:
    """Everything that is wrong with a text."""
    with pytest.raises(PolicyTextError) as caught:
        parse_policy_untrusted(text, tenants)
    return [(found.line, found.column, found.message) for found in caught.value.problems]


def test_reading() -> None:
    """Comments and indentation are free, names become canonical, an empty layer is one without rules."""
    assert parse_policy_untrusted(TEXT, ("main", "physics")) == {
        GLOBAL: (rule('deny tcp:*(*)->*(25) note="no # mail"'),),
        ALICE: (rule("tcp:*(*)->*(*)"), rule("udp:*(*)->*(*)")),
        BOB: (),
    }


def test_other_line_ends() -> None:
    """A file edited on Windows, with a byte order mark."""
    text = b"\xef\xbb\xbf[global]\r\ntcp:*(*)->*(*)\r\n"
    assert parse_policy_untrusted(text) == {GLOBAL: (rule("tcp:*(*)->*(*)"),)}


def test_nothing() -> None:
    """An empty file is no rules, and no rules deny everything (case 63)."""
    assert parse_policy_untrusted("# nothing\n") == {}


def test_writing() -> None:
    """Layers in their order; layers without rules are left out."""
    layers: Layers = {
        BOB: [StoredRule(7, "tcp:*(*)->*(1)")],
        ALICE: [],
        GLOBAL: rules("udp:*(*)->*(2)", "tcp:*(*)->*(3)"),
    }
    assert render_policy(layers) == (
        "# The rules of trioproxy. `trioproxy policy import FILE` replaces all rules by those of a file.\n"
        "\n[global]\nudp:*(*)->*(2)\ntcp:*(*)->*(3)\n"
        "\n[user:physics/bob]\ntcp:*(*)->*(1)\n"
    )


def test_every_problem_with_its_place() -> None:
    """Case 62: each wrong line with its column, and nothing is taken from the file."""
    text = (
        "tcp:*(*)->*(*)\n"
        "[everybody]\n"
        "  tcp:*(*)->*(x)\n"
        "[user:chemistry/x]\n"
        "[global\n"
        "[user:alice]\n"
        "tcp:*(*)->*(*) user=bob\n"
        "tcp:10.0.0.1/8(*)->*(*)\n"
        "[global]\n"
        "tcp:*(*)->*(*) user=chemistry/x\n"
        "[user:alice]\n"
    )
    assert problems_of(text) == [
        (1, 1, "a rule needs a layer above it, for example a line [global]"),
        (2, 1, "'everybody' is no scope; write global, tenant:NAME, group:NAME or user:NAME (or user:TENANT/NAME)"),
        (3, 15, "expected *, a port, or a range such as 8000-8010"),
        (4, 1, "there is no tenant chemistry, only main, physics"),
        (5, 1, "a layer is written in brackets, for example [global] or [user:alice]"),
        (7, 1, "user= and group= are for the global layer, not for user:alice"),
        (8, 5, "expected no bits behind the prefix: the network is 10.0.0.0/8"),
        (10, 1, "there is no tenant chemistry, only main, physics"),
        (11, 1, "[user:alice] begins on line 6 already"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"[global]\n\xff\n", (2, 1, "not UTF-8")),
        (b"#" * ((16 << 20) + 1), (1, 1, "larger than 16,777,216 bytes: is this the right file?")),
    ],
)
def test_what_is_no_text(text: bytes, problem: tuple[int, int, str]) -> None:
    """Another file by mistake is one clear line."""
    assert problems_of(text) == [problem]


def test_the_error_as_text() -> None:
    """Whoever prints the exception alone sees the places as well."""
    with pytest.raises(PolicyTextError, match=r"^line 1, column 1: a rule needs a layer above it"):
        parse_policy_untrusted("tcp")


def test_difference() -> None:
    """What an import would change, and a little of what is around it."""
    ports = [rule(f"tcp:*(*)->*({port})") for port in range(1, 10)]
    before: Layers = {GLOBAL: ports, ALICE: [StoredRule(1, "tcp:*(*)->*(1)")], BOB: rules("udp:*(*)->*(5)")}
    after: Layers = {GLOBAL: [*ports[1:8], rule("udp:*(*)->*(1)")], ALICE: rules("tcp:*(*)->*(1)")}
    assert list(difference(before, after)) == [
        "  [global]",
        "- tcp:*(*)->*(1)",
        "  tcp:*(*)->*(2)",
        "  tcp:*(*)->*(3)",
        "  ...",
        "  tcp:*(*)->*(7)",
        "  tcp:*(*)->*(8)",
        "- tcp:*(*)->*(9)",
        "+ udp:*(*)->*(1)",
        "  [user:physics/bob]",
        "- udp:*(*)->*(5)",
    ]


def test_no_difference() -> None:
    """What was exported and comes back unchanged."""
    assert list(difference({GLOBAL: rules("tcp:*(*)->*(1)"), BOB: []}, {GLOBAL: rules("tcp:*(*)->*(1)")})) == []


_scopes = st.sampled_from([GLOBAL, ALICE, BOB, Scope.parse("tenant:physics"), Scope.parse("group:anna ] maria")])
_rules = st.sampled_from(
    rules("tcp:*(*)->*(*)", "deny any:*(*)->10.0.0.0/8(1-9)", r'udp:*(*)->x.org(5) note="a \" # [ ü"')
)


@given(layers=st.dictionaries(_scopes, st.lists(_rules, min_size=1, max_size=4).map(tuple)))
def test_what_is_written_reads_back(layers: Layers) -> None:
    """P2: export and import are inverse, whatever stands in names and notes."""
    text = render_policy(layers)
    assert parse_policy_untrusted(text) == layers
    assert list(parse_policy_untrusted(text)) == sorted(layers, key=listing_order)


@given(text=st.text(max_size=200) | st.lists(st.sampled_from([*TEXT.split("\n"), "[", "]", "x"])).map("\n".join))
def test_only_its_own_error_escapes(text: str) -> None:
    """CASES 5: any text gives rules, or problems that each have a place inside it."""
    try:
        layers = parse_policy_untrusted(text)
    except PolicyTextError as error:
        places = [(found.line, found.column) for found in error.problems]
    else:
        places = [(1, 1)]
        assert parse_policy_untrusted(render_policy(layers)) == {
            scope: found for scope, found in layers.items() if found
        }
    lines = text.split("\n")
    assert places == sorted(places)
    assert all(1 <= line <= len(lines) and 1 <= column <= len(lines[line - 1]) + 1 for line, column in places)
