"""Tests of `trioproxy.policy.grammar`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policy import oracle, strategies
from trioproxy.policy import Rule, RuleSyntaxError, Scope, parse_rule
from trioproxy.policy.grammar import NOTE_LENGTH_MAX, PORT_ITEMS_MAX, RULE_LENGTH_MAX


def parsed(text: str) -> Rule | None:
    """None for what is refused."""
    try:
        return parse_rule(text)
    except RuleSyntaxError:
        return None


@pytest.mark.parametrize(
    "text",
    [
        "tcp:10.1.2.3(*)->*(*)",
        "deny any:*(*)->evil.com(*)",
        "udp:10.0.0.0/8(1024-65535)->internet(3478-3481,49152-65535)",
        "bind:private(*)->*.example.org(20)",
        "tcp:2001:db8::/32(*)->2001:db8::1(22,80,443)",
        "tcp:::(*)->::/0(1)",
        "tcp:0.0.0.0/0(*)->_x.a-b.example(65535)",
        "tcp:*(*)->*(*) user=alice group=physics/staff log=yes note=word",
        'tcp:*(*)->*(*) user="jane doe" log=no note="two words"',
        r'tcp:*(*)->*(*) note="a \"quoted\" word and a \\"',
        "tcp:*(*)->*(*) user=zoë@example.org note=größer",
    ],
)
def test_62_canonical_text_is_read_and_written_unchanged(text: str) -> None:
    """Case 62: parse and print are inverse, order kept."""
    assert text == str(parse_rule(text))
    assert parse_rule(text) == parse_rule(str(parse_rule(text)))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("allow tcp:*(*)->*(*)", "tcp:*(*)->*(*)"),
        ("  allow   tcp:*(*)  ->  *(*)   log=yes  ", "tcp:*(*)->*(*) log=yes"),
        ("tcp:10.1.2.3/32(*)->2001:DB8:0::1/128(*)", "tcp:10.1.2.3(*)->2001:db8::1(*)"),
        ("tcp:::ffff:10.1.2.3(*)->::ffff:10.0.0.0/104(*)", "tcp:10.1.2.3(*)->10.0.0.0/8(*)"),
        ("tcp:*(*)->Example.ORG.(443-443,080)", "tcp:*(*)->example.org(443,80)"),
        ("tcp:*(*)->*.Example.ORG(*)", "tcp:*(*)->*.example.org(*)"),
        ('tcp:*(*)->*(*) note="word" user="Alice"', "tcp:*(*)->*(*) user=alice note=word"),
        ('tcp:*(*)->*(*) note=""', "tcp:*(*)->*(*)"),
        ("tcp:*(*)->*(*) user=MAIN/alice", "tcp:*(*)->*(*) user=alice"),
    ],
)
def test_other_spellings_have_one_canonical_text(text: str, canonical: str) -> None:
    """DESIGN section 3: allow if left out, spaces around the arrow; hosts and names in their canonical form."""
    assert canonical == str(parse_rule(text))


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("", 1, "tcp:, udp:, bind: or any: (with allow or deny before it)"),
        ("allow", 6, "tcp:, udp:, bind: or any: (with allow or deny before it)"),
        ("deny icmp:*(*)->*(*)", 6, "tcp:, udp:, bind: or any: (with allow or deny before it)"),
        ("TCP:*(*)->*(*)", 1, "tcp:, udp:, bind: or any: (with allow or deny before it)"),
        ("allowtcp:*(*)->*(*)", 1, "tcp:, udp:, bind: or any: (with allow or deny before it)"),
        ("tcp:", 5, "a host: *, an address, a network, a name, *.name, internet or private"),
        ("tcp:(*)->*(*)", 5, "a host: *, an address, a network, a name, *.name, internet or private"),
        ("tcp:*(*)->(*)", 11, "a host: *, an address, a network, a name, *.name, internet or private"),
        ("tcp:10.1.2.3", 13, "'(' after the host"),
        ("tcp:10.1.2.3->*(*)", 13, "'(' after the host"),
        ("tcp:*(*)->*", 12, "'(' after the host"),
        ("tcp:*(*)->* (80)", 12, "'(' after the host"),
        ("tcp:*(*)->*(80", 15, "')' after the ports"),
        ("tcp:*(*)->*(8(0)", 14, "')' after the ports"),
        ("tcp:*(*)=>*(*)", 9, "'->' between source and destination"),
        ("tcp:*(*)", 9, "'->' between source and destination"),
        ("tcp:alice.example(*)->*(*)", 5, "an address or network as source: names of clients are never looked up"),
        ("tcp:*.example(*)->*(*)", 5, "an address or network as source: names of clients are never looked up"),
        ("tcp:*(*)->[::1](*)", 11, "a host: what has a colon is an IPv6 address without brackets"),
        ("tcp:*(*)->127.1(*)", 11, "a host: what ends in a number is an IPv4 address of four decimal numbers"),
        (
            "tcp:*(*)->www.*.org(*)",
            11,
            "a host: a name has labels of 1 to 63 letters, digits, '-' or '_' with single dots between",
        ),
        ("tcp:*(*)->*.10.0.0.1(*)", 13, "a name after '*.'"),
        (
            "tcp:*(*)->bücher.example(*)",
            11,
            "a host: a name has printable ASCII only (international names are written as xn-- labels)",
        ),
        ("tcp:10.0.0.1/8(*)->*(*)", 5, "no bits behind the prefix: the network is 10.0.0.0/8"),
        ("tcp:*(*)->2001:db8::1/32(*)", 11, "no bits behind the prefix: the network is 2001:db8::/32"),
        ("tcp:*(*)->10.0.0.0/33(*)", 20, "a prefix length up to 32 behind '/'"),
        ("tcp:*(*)->2001:db8::/129(*)", 22, "a prefix length up to 128 behind '/'"),
        ("tcp:*(*)->::ffff:10.0.0.0/95(*)", 27, "a prefix length up to 32 behind '/'"),
        ("tcp:*(*)->10.0.0.0/(*)", 20, "a prefix length up to 32 behind '/'"),
        ("tcp:*(*)->10.0.0.0/255.0.0.0(*)", 20, "a prefix length up to 32 behind '/'"),
        ("tcp:*(*)->10.0.0.0/-1(*)", 20, "a prefix length up to 32 behind '/'"),
        ("tcp:*(*)->10.0.0.0/٨(*)", 20, "a prefix length up to 32 behind '/'"),
        ("tcp:*(*)->10.0.0.0/8/8(*)", 20, "a prefix length up to 32 behind '/'"),
        ("tcp:*(*)->example.org/24(*)", 11, "an address before '/'"),
        (
            "tcp:*(*)->10/8(*)",
            11,
            "an address before '/': what ends in a number is an IPv4 address of four decimal numbers",
        ),
        ("tcp:*(*)->*(0)", 13, "ports from 1 to 65535, the smaller one first"),
        ("tcp:*(*)->*(65536)", 13, "ports from 1 to 65535, the smaller one first"),
        ("tcp:*(*)->*(80,443-22)", 16, "ports from 1 to 65535, the smaller one first"),
        ("tcp:*(*)->*(80,1-65536)", 16, "ports from 1 to 65535, the smaller one first"),
        ("tcp:*(*)->*()", 13, "*, a port, or a range such as 8000-8010"),
        ("tcp:*(*)->*(80,)", 16, "*, a port, or a range such as 8000-8010"),
        ("tcp:*(*)->*(80, 443)", 16, "*, a port, or a range such as 8000-8010"),
        ("tcp:*(*)->*(80,*)", 16, "*, a port, or a range such as 8000-8010"),
        ("tcp:*(*)->*(http)", 13, "*, a port, or a range such as 8000-8010"),
        ("tcp:*(*)->*(1-2-3)", 13, "*, a port, or a range such as 8000-8010"),
        ("tcp:*(*)->*(٨٠)", 13, "*, a port, or a range such as 8000-8010"),
        ("tcp:*(*)->*(-80)", 13, "*, a port, or a range such as 8000-8010"),
        ("tcp:*(*)->*(*)log=yes", 15, "a space before the option"),
        ('tcp:*(*)->*(*) note="a"log=yes', 24, "a space before the option"),
        ("tcp:*(*)->*(*) colour=red", 16, "user=, group=, log= or note="),
        ("tcp:*(*)->*(*) =red", 16, "user=, group=, log= or note="),
        ("tcp:*(*)->*(*) # a comment", 16, "user=, group=, log= or note="),
        ("tcp:*(*)->*(*) log", 19, "'=' after log"),
        ("tcp:*(*)->*(*) log =yes", 19, "'=' after log"),
        ("tcp:*(*)->*(*) log=maybe", 20, "yes or no"),
        ("tcp:*(*)->*(*) log=yes log=no", 24, "log= only once"),
        ("tcp:*(*)->*(*) user=a user=a", 23, "user= only once"),
        ("tcp:*(*)->*(*) note=", 21, 'a word, or text in "quotes" with \\" and \\\\ inside'),
        ('tcp:*(*)->*(*) note="open', 21, 'a word, or text in "quotes" with \\" and \\\\ inside'),
        (r'tcp:*(*)->*(*) note="\n"', 21, 'a word, or text in "quotes" with \\" and \\\\ inside'),
        ("tcp:*(*)->*(*) user=a/b/c", 21, "NAME or TENANT/NAME: a tenant name is 1 to 63 of a-z"),
        ('tcp:*(*)->*(*) group=""', 22, "NAME or TENANT/NAME: a group name has 1 to 255 bytes"),
        ("tcp:*(*)->*(*)\tlog=yes", 15, "printable characters and plain spaces"),
        ("tcp:*(*)->*(*)\n", 15, "printable characters and plain spaces"),
        ("tcp:*\0(*)->*(*)", 6, "printable characters and plain spaces"),
        ("tcp:*(*)->*(*) note=\u202eevil", 21, "printable characters and plain spaces"),
    ],
)
def test_62_a_wrong_rule_names_its_column_and_what_was_expected(text: str, column: int, expected: str) -> None:
    """Case 62: unknown keys, host bits, port 0 and 65536, reversed ranges and all else that is no rule."""
    with pytest.raises(RuleSyntaxError) as caught:
        parse_rule(text)
    assert column == caught.value.column
    assert caught.value.expected.startswith(expected)
    assert f"column {column}: expected {caught.value.expected}" == str(caught.value)


@pytest.mark.parametrize("option", ["rate", "burst", "quota", "when", "app", "sni"])
def test_options_to_come_are_refused_and_named(option: str) -> None:
    """A rule whose limit would silently not hold is not accepted."""
    with pytest.raises(RuleSyntaxError, match=f"column 16: .*{option}= is not supported yet"):
        parse_rule(f"tcp:*(*)->*(*) {option}=5")


def test_options_are_values_of_the_rule() -> None:
    """DESIGN section 3: user= and group= with tenant, log= and note=."""
    rule = parse_rule('tcp:*(*)->*(*) note="x y" log=no group=physics/Staff user=Alice')
    assert (Scope.parse("user:alice"), Scope.parse("group:physics/staff")) == (rule.user, rule.group)
    assert (rule.log, rule.note) == (False, "x y")
    plain = parse_rule("tcp:*(*)->*(*)")
    assert (plain.user, plain.group, plain.log, plain.note) == (None, None, None, "")


@pytest.mark.parametrize(
    ("fits", "too_much", "expected"),
    [
        (
            f"{'tcp:*(*)->*(*)':{RULE_LENGTH_MAX}}",
            f"{'tcp:*(*)->*(*)':{RULE_LENGTH_MAX + 1}}",
            "at most 4096 characters",
        ),
        (
            f"tcp:*(*)->*({','.join(['1'] * PORT_ITEMS_MAX)})",
            f"tcp:*(*)->*({','.join(['1'] * (PORT_ITEMS_MAX + 1))})",
            "at most 64 ports and ranges",
        ),
        (
            f"tcp:*(*)->*(*) note={'x' * NOTE_LENGTH_MAX}",
            f"tcp:*(*)->*(*) note={'x' * (NOTE_LENGTH_MAX + 1)}",
            "at most 500 characters",
        ),
    ],
)
def test_each_limit_holds_and_is_reached(fits: str, too_much: str, expected: str) -> None:
    """P2: size bounded."""
    assert parsed(fits) is not None
    with pytest.raises(RuleSyntaxError, match=expected):
        parse_rule(too_much)


def test_a_rule_that_is_too_long_should_have_ended_before() -> None:
    """Case 62: the column is the first one too many, and the text is not looked at."""
    with pytest.raises(RuleSyntaxError) as caught:
        parse_rule("x" * 100_000)
    assert (caught.value.column, caught.value.expected) == (4097, "the end: a rule has at most 4096 characters")


def test_the_longest_rule_can_be_read_back() -> None:
    """The limits leave room: whatever is accepted prints as something that is accepted."""
    host = ".".join(["a" * 63] * 3 + ["b" * 61])
    ports = ",".join(["10000-65535"] * PORT_ITEMS_MAX)
    owner = f"{'t' * 63}/{'n ' * 127}n"
    note = '\\"' * NOTE_LENGTH_MAX
    network = "1111:1111:1111:1111:1111:1111:1111:1110/127"
    text = f'deny any:{network}({ports})->*.{host}({ports}) user="{owner}" group="{owner}" log=yes note="{note}"'
    rule = parse_rule(text)
    assert text == str(rule)
    assert rule == parse_rule(str(rule))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 4096,
        "tcp:" + "*" * 4092,
        "tcp:*(" + "1," * 2045,
        'tcp:*(*)->*(*) note="' + "\\" * 4075,
        "a:" * 2048,
        "-" * 4096,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    """P2: no backtracking; these end at once (under any quadratic expression they would not)."""
    with pytest.raises(RuleSyntaxError):
        parse_rule(text)


@given(strategies.rules(for_global=True))
def test_p2_parse_undoes_print(rule: Rule) -> None:
    """P2: parse of print is the identity, print of parse idempotent, and a naive parser agrees."""
    text = str(rule)
    assert rule == parse_rule(text)
    assert text == str(parse_rule(text))
    assert rule == oracle.parse(text)


@given(strategies.rules(for_global=True), st.data())
def test_p2_one_changed_character_is_refused_or_read_as_a_naive_parser_reads_it(
    rule: Rule, data: st.DataObject
) -> None:
    """P2: no text is read in two ways; what the naive parser refuses is refused, what it accepts is the same rule."""
    text = str(rule)
    place = data.draw(st.integers(0, len(text)))
    removed = data.draw(st.integers(0, 1))
    inserted = data.draw(
        st.one_of(st.just(""), st.sampled_from('*()->:./,="\\ 019aXx-'), st.characters(max_codepoint=0x2FF))
    )
    changed = text[:place] + inserted + text[place + removed :]
    assert oracle.parse(changed) == parsed(changed)


@given(st.text(max_size=200))
def test_p2_any_text_is_a_rule_or_a_syntax_error_inside_it(text: str) -> None:
    """P2: only RuleSyntaxError escapes, and its column lies in the text or just behind it."""
    rule, column = None, 1
    try:
        rule = parse_rule(text)
    except RuleSyntaxError as exc:
        column = exc.column
    assert 1 <= column <= len(text) + 1
    assert rule is None or rule == parse_rule(str(rule))
