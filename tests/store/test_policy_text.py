"""All rules as one text: what is written reads back, and what is wrong is said with line and column."""

from collections.abc import Sequence
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.samples import ALICE, BOB, GLOBAL, rule, rules
from trioproxy.policy import Limit, Party, Rule, Scope, ScopeKind
from trioproxy.store import (
    PolicyContent,
    PolicyTextError,
    StoredRule,
    difference,
    listing_order,
    parse_policy_untrusted,
    render_policy,
)

Layers: TypeAlias = dict[Scope, Sequence[Rule | StoredRule]]

STUDENTS = Scope.parse("group:students")

TEXT = """# our rules
[global]
deny tcp:*(*)->*(25) note="no # mail"

   [ user:main/ALICE ]
   limit rate=10Mbit
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
    assert parse_policy_untrusted(TEXT, ("main", "physics")) == PolicyContent(
        {
            GLOBAL: (rule('deny tcp:*(*)->*(25) note="no # mail"'),),
            ALICE: (rule("tcp:*(*)->*(*)"), rule("udp:*(*)->*(*)")),
            BOB: (),
        },
        {Party(ALICE): Limit.parse("rate=10Mbit")},
    )


def test_other_line_ends() -> None:
    """A file edited on Windows, with a byte order mark."""
    text = b"\xef\xbb\xbf[global]\r\ntcp:*(*)->*(*)\r\n"
    assert parse_policy_untrusted(text) == PolicyContent({GLOBAL: (rule("tcp:*(*)->*(*)"),)})


def test_nothing() -> None:
    """An empty file is no rules, and no rules deny everything (case 63)."""
    assert parse_policy_untrusted("# nothing\n") == PolicyContent()


def test_writing() -> None:
    """Layers in their order, limits before rules; layers without either are left out."""
    layers: Layers = {
        BOB: [StoredRule(7, "tcp:*(*)->*(1)")],
        ALICE: [],
        GLOBAL: rules("udp:*(*)->*(2)", "tcp:*(*)->*(3)"),
    }
    limits = {
        Party(GLOBAL, together=True): Limit.parse("rate=4Gbit"),
        Party(STUDENTS): Limit.parse("sessions=200 rate=10Mbit/2Mbit"),
        Party(GLOBAL): Limit.parse("rate=20Mbit"),
    }
    assert render_policy(PolicyContent(layers, limits)) == (
        "# The rules and limits of trioproxy. `trioproxy policy import FILE` replaces all of them by those of a file.\n"
        "\n[global]\nlimit rate=20Mbit\nlimit together rate=4Gbit\nudp:*(*)->*(2)\ntcp:*(*)->*(3)\n"
        "\n[group:students]\nlimit rate=10Mbit/2Mbit sessions=200\n"
        "\n[user:physics/bob]\ntcp:*(*)->*(1)\n"
    )


def test_reading_limits() -> None:
    """What each user has, and what all of them share, wherever in the layer it stands."""
    text = """[group:students]
    tcp:*(*)->*(*)
    limit   together  sessions=5000 rate=1Gbit
    limit sessions=200  rate=10Mbit/2Mbit
    """
    assert parse_policy_untrusted(text) == PolicyContent(
        {STUDENTS: (rule("tcp:*(*)->*(*)"),)},
        {
            Party(STUDENTS, together=True): Limit.parse("rate=1Gbit sessions=5000"),
            Party(STUDENTS): Limit.parse("rate=10Mbit/2Mbit sessions=200"),
        },
    )


def test_every_problem_with_limits() -> None:
    """Case 62: as for rules; below a wrong header limits are still read."""
    text = (
        "limit rate=1Mbit\n"
        "[everybody]\n"
        "limit rate=1Mbit\n"
        "limit rate=1\n"
        "[group:students]\n"
        "limit sessions=1\n"
        "  limit binds=1\n"
        "limit together binds=1\n"
        "limit together sessions=1\n"
        "limit\n"
        "limit \n"
        "limit speed=1\n"
        "[user:alice]\n"
        "limit together rate=1Mbit\n"
    )
    found = problems_of(text)
    assert [(line, column) for line, column, _ in found] == [
        (1, 1),
        (2, 1),
        (4, 1),
        (7, 3),
        (8, 1),
        (10, 1),
        (11, 1),
        (12, 1),
        (14, 1),
    ]
    messages = {line: message for line, _, message in found}
    assert messages[1] == "a limit needs a layer above it, for example a line [global]"
    assert messages[4].startswith("rate: expected a rate such as 20Mbit")
    assert messages[7] == "there is a limit for group:students already: write all of it on one line"
    assert messages[8] == "binds: expected for each user; what users share is rate, burst, quota, sessions"
    assert messages[10] == messages[11] == "expected at least one limit such as rate=20Mbit or sessions=200"
    assert messages[12].startswith("speed=1: expected one of rate=, burst=")
    assert messages[14].startswith("user:alice is one user, who shares with nobody")


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
    limits = {Party(BOB): Limit.parse("sessions=5")}, {Party(BOB): Limit.parse("sessions=6")}
    assert list(difference(PolicyContent(before, limits[0]), PolicyContent(after, limits[1]))) == [
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
        "- limit sessions=5",
        "- udp:*(*)->*(5)",
        "+ limit sessions=6",
    ]


def test_no_difference() -> None:
    """What was exported and comes back unchanged."""
    before = PolicyContent({GLOBAL: rules("tcp:*(*)->*(1)"), BOB: []})
    assert list(difference(before, PolicyContent({GLOBAL: rules("tcp:*(*)->*(1)")}))) == []


_scopes = st.sampled_from([GLOBAL, ALICE, BOB, Scope.parse("tenant:physics"), Scope.parse("group:anna ] maria")])
_rules = st.sampled_from(
    rules("tcp:*(*)->*(*)", "deny any:*(*)->10.0.0.0/8(1-9)", r'udp:*(*)->x.org(5) note="a \" # [ ü"')
)


_limits = st.builds(
    lambda chosen: Limit.parse(" ".join(chosen)),
    st.lists(
        st.sampled_from(["rate=10Mbit/2Mbit", "burst=2MiB", "quota=5GB/day", "sessions=5"]), min_size=1, unique=True
    ).map(lambda words: [*words, *(["rate=10Mbit/2Mbit"] if "rate=10Mbit/2Mbit" not in words else [])]),
)
_parties = st.builds(Party, _scopes.filter(lambda scope: scope.kind is not ScopeKind.USER), st.booleans()) | st.builds(
    Party, _scopes
)


@given(
    layers=st.dictionaries(_scopes, st.lists(_rules, min_size=1, max_size=4).map(tuple)),
    limits=st.dictionaries(_parties, _limits),
)
def test_what_is_written_reads_back(layers: Layers, limits: dict[Party, Limit]) -> None:
    """P2: export and import are inverse, whatever stands in names and notes."""
    content = PolicyContent(layers, limits)
    read = parse_policy_untrusted(render_policy(content))
    assert read.scopes == content.scopes == sorted(content.scopes, key=listing_order)
    assert {scope: found for scope, found in read.rules.items() if found} == layers
    assert read.limits == limits
    assert list(difference(content, read)) == []


@given(text=st.text(max_size=200) | st.lists(st.sampled_from([*TEXT.split("\n"), "[", "]", "x"])).map("\n".join))
def test_only_its_own_error_escapes(text: str) -> None:
    """CASES 5: any text gives rules and limits, or problems that each have a place inside it."""
    try:
        content = parse_policy_untrusted(text)
    except PolicyTextError as error:
        places = [(found.line, found.column) for found in error.problems]
    else:
        places = [(1, 1)]
        assert list(difference(content, parse_policy_untrusted(render_policy(content)))) == []
    lines = text.split("\n")
    assert places == sorted(places)
    assert all(1 <= line <= len(lines) and 1 <= column <= len(lines[line - 1]) + 1 for line, column in places)
