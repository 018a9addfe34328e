"""Tests of `trioproxy.policy.grammar`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policy import oracle, strategies
from trioproxy.policy import Rule, RuleSyntaxError, Scope, parse_rule
from trioproxy.policy.grammar import PORT_ITEMS_MAX, RULE_LENGTH_MAX
from trioproxy.policy.hours import Hours, Span
from trioproxy.policy.options import NAMES_LENGTH_MAX, NOTE_LENGTH_MAX, SPANS_MAX
from trioproxy.policy.rules import Domain
from trioproxy.policy.units import Period, Quota, Rates
from trioproxy.sniff import App

KEYS = "user=, group=, rate=, burst=, quota=, when=, grace=, app=, sni=, http-host=, scan=, log= or note="
WORDS = "tls, http, ssh, smtp, ftp, imap, pop3, rdp, bittorrent, dns, stun, quic or unknown"
HOURS = "hours such as mon-fri@08:00-18:00, sat@22:00-06:00, or 08:00-18:00 for every day"


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
        "tcp:*(*)->*(*) rate=20Mbit burst=2MB quota=5GB/day when=mon-fri@08:00-18:00 grace=5m scan=ignore",
        "udp:*(*)->*(*) rate=20Mbit/2Mbit quota=1500MB/week when=22:00-06:00,sat-sun@00:00-24:00 note=night",
        "tcp:*(*)->internet(443) app=tls sni=*.example.org,example.org log=yes",
        "tcp:*(*)->internet(80) http-host=www.example.org,192.0.2.1,2001:db8::1",
        "deny any:*(*)->*(*) when=fri-mon@18:00-24:00 app=bittorrent,quic,unknown",
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
        ("tcp:*(*)->*(*) rate=20Mbit/20000kbit", "tcp:*(*)->*(*) rate=20Mbit"),
        ('tcp:*(*)->*(*) burst="2000kB" rate=1.5Mbit', "tcp:*(*)->*(*) rate=1500kbit burst=2MB"),
        ("tcp:*(*)->*(*) quota=0.5GB/month", "tcp:*(*)->*(*) quota=500MB/month"),
        ("tcp:*(*)->*(*) when=mon-sun@08:00-18:00", "tcp:*(*)->*(*) when=08:00-18:00"),
        ("tcp:*(*)->*(*) when=wed-tue@08:00-18:00", "tcp:*(*)->*(*) when=08:00-18:00"),
        ("tcp:*(*)->*(*) when=mon-mon@22:00-00:00", "tcp:*(*)->*(*) when=mon@22:00-24:00"),
        ("tcp:*(*)->*(*) grace=3600s when=08:00-18:00", "tcp:*(*)->*(*) when=08:00-18:00 grace=1h"),
        ("tcp:*(*)->*(*) sni=WWW.Example.ORG.", "tcp:*(*)->*(*) sni=www.example.org"),
        ("tcp:*(*)->*(*) http-host=::ffff:192.0.2.1,2001:DB8:0::1", "tcp:*(*)->*(*) http-host=192.0.2.1,2001:db8::1"),
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
        ("tcp:*(*)->*(*) colour=red", 16, KEYS),
        ("tcp:*(*)->*(*) =red", 16, KEYS),
        ("tcp:*(*)->*(*) # a comment", 16, KEYS),
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
        ("tcp:*(*)->*(*) rate=20", 21, "a rate such as 20Mbit or 20Mbit/2Mbit"),
        ("tcp:*(*)->*(*) rate=1kbit", 21, "a rate from 8kbit to 1000Gbit"),
        ("tcp:*(*)->*(*) rate=1Mbit burst=2Mbit", 33, "a size such as 500MB or 2GiB"),
        ("tcp:*(*)->*(*) log=yes burst=2MB", 24, "rate= beside burst="),
        ("tcp:*(*)->*(*) rate=80Mbit burst=64KiB", 28, "100kB or more at this rate, a hundredth of a second of it"),
        ("tcp:*(*)->*(*) quota=5GB", 22, "a quota such as 5GB/day: the period is day, week or month"),
        ("tcp:*(*)->*(*) quota=5GB/year", 22, "a quota such as 5GB/day: the period is day, week or month"),
        ("deny tcp:*(*)->*(*) rate=1Mbit", 21, "rate= on allow rules only"),
        ("deny tcp:*(*)->*(*) rate=1Mbit burst=1MB", 21, "rate= on allow rules only"),
        ("deny tcp:*(*)->*(*) quota=5GB/day", 21, "quota= on allow rules only"),
        ("deny tcp:*(*)->*(*) scan=ignore", 21, "scan= on allow rules only"),
        ("deny tcp:*(*)->*(*) when=08:00-18:00 grace=5m", 38, "grace= on allow rules only"),
        ("tcp:*(*)->*(*) grace=5m", 16, "when= beside grace="),
        ("tcp:*(*)->*(*) when=08:00-18:00 grace=5", 39, "a time such as 30s, 5m or 1h, up to 24h"),
        ("tcp:*(*)->*(*) when=08:00-18:00 grace=0s", 39, "a time such as 30s, 5m or 1h, up to 24h"),
        ("tcp:*(*)->*(*) when=08:00-18:00 grace=25h", 39, "a time such as 30s, 5m or 1h, up to 24h"),
        ("tcp:*(*)->*(*) when=mon", 21, HOURS),
        ("tcp:*(*)->*(*) when=Mon@08:00-18:00", 21, HOURS),
        ("tcp:*(*)->*(*) when=8:00-18:00", 21, HOURS),
        ("tcp:*(*)->*(*) when=08:00-18:60", 21, HOURS),
        ("tcp:*(*)->*(*) when=08:00-18:00,", 33, HOURS),
        ("tcp:*(*)->*(*) when=08:00-18:00,fri@", 33, HOURS),
        ('tcp:*(*)->*(*) when="08:00-18:00,fri"', 34, HOURS),
        ("tcp:*(*)->*(*) when=mon-fri-sat@08:00-18:00", 21, HOURS),
        ("tcp:*(*)->*(*) when=sat@08:00-25:00", 21, "hours from 00:00 to 24:00"),
        ("tcp:*(*)->*(*) when=08:00-24:01", 21, "hours from 00:00 to 24:00"),
        ("tcp:*(*)->*(*) when=24:00-08:00", 21, "hours from 00:00 to 24:00"),
        (
            "tcp:*(*)->*(*) when=08:00-18:00,08:00-08:00",
            33,
            "hours that do not end when they begin; 00:00-24:00 is the whole day",
        ),
        (
            "tcp:*(*)->*(*) when=00:00-00:00",
            21,
            "hours that do not end when they begin; 00:00-24:00 is the whole day",
        ),
        ("tcp:*(*)->*(*) app=skype", 20, WORDS),
        ("tcp:*(*)->*(*) app=tls,TLS", 24, WORDS),
        ("tcp:*(*)->*(*) app=tls,tls", 20, "each word once"),
        ("tcp:*(*)->*(*) app=tls,quic", 16, "app=quic on udp: or any: only"),
        ("tcp:*(*)->*(*) app=dns", 16, "app=dns on udp: or any: only"),
        ("udp:*(*)->*(*) app=ssh", 16, "app=ssh on tcp: or any: only"),
        ("bind:*(*)->*(*) app=unknown", 17, "app= on tcp:, udp: or any: only"),
        ("tcp:*(*)->*(*) sni=192.0.2.1", 20, "a name or *.name, no address"),
        ("tcp:*(*)->*(*) sni=a.example,*", 30, "a name or *.name: a name has labels of"),
        ("tcp:*(*)->*(*) sni=a.example,www.*.example", 30, "a name or *.name: a name has labels of"),
        ("udp:*(*)->*(*) sni=a.example", 16, "sni= on tcp: or any: only"),
        ("bind:*(*)->*(*) http-host=a.example", 17, "http-host= on tcp: or any: only"),
        ("tcp:*(*)->*(*) http-host=*.192.0.2.1", 26, "a name after '*.'"),
        ("tcp:*(*)->*(*) http-host=a.example:80", 26, "a name or *.name: what has a colon"),
        ("tcp:*(*)->*(*) http-host=a.example sni=a.example", 16, "sni= or http-host=, not both"),
        ("tcp:*(*)->*(*) app=http sni=a.example", 16, "app=tls beside sni=, or no app="),
        ("tcp:*(*)->*(*) http-host=a.example app=http,ssh", 36, "app=http beside http-host=, or no app="),
        ("tcp:*(*)->*(*) scan=slow", 21, "ignore"),
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


def test_options_are_values_of_the_rule() -> None:
    """DESIGN section 3: user= and group= with tenant, log= and note=."""
    rule = parse_rule('tcp:*(*)->*(*) note="x y" log=no group=physics/Staff user=Alice')
    assert (Scope.parse("user:alice"), Scope.parse("group:physics/staff")) == (rule.user, rule.group)
    assert (rule.log, rule.note) == (False, "x y")
    plain = parse_rule("tcp:*(*)->*(*)")
    assert (plain.user, plain.group, plain.log, plain.note) == (None, None, None, "")
    assert (plain.rate, plain.burst, plain.quota, plain.hours, plain.grace_s) == (None,) * 5
    assert (plain.apps, plain.sni, plain.http_host, plain.scan_ignored) == ((), (), (), False)


def test_limits_and_conditions_are_values_of_the_rule() -> None:
    """Bytes, seconds, days and words, ready to be used."""
    text = "tcp:*(*)->*(*) rate=20Mbit/2Mbit burst=2MB quota=5GB/day when=mon-fri@08:00-18:00 grace=5m scan=ignore"
    rule = parse_rule(text)
    assert (rule.rate, rule.burst) == (Rates(2_500_000, 250_000), 2_000_000)
    assert rule.quota == Quota(5 * 10**9, Period.DAY)
    assert rule.hours == Hours((Span(0, 4, 8 * 60, 18 * 60),))
    assert (rule.grace_s, rule.scan_ignored) == (300, True)
    assert parse_rule("any:*(*)->*(*) app=quic,unknown").apps == (App.QUIC, App.UNKNOWN)
    assert parse_rule("tcp:*(*)->*(*) sni=a.example,*.b.example").sni == (
        Domain("a.example"),
        Domain("b.example", True),
    )
    assert parse_rule("tcp:*(*)->*(*) http-host=192.0.2.1").http_host == (Domain("192.0.2.1"),)


@pytest.mark.parametrize(
    ("fits", "too_much", "expected"),
    [
        (
            f"{'tcp:*(*)->*(*)':{RULE_LENGTH_MAX}}",
            f"{'tcp:*(*)->*(*)':{RULE_LENGTH_MAX + 1}}",
            "at most 8192 characters",
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
        (
            f"tcp:*(*)->*(*) when={','.join(['08:00-18:00'] * SPANS_MAX)}",
            f"tcp:*(*)->*(*) when={','.join(['08:00-18:00'] * (SPANS_MAX + 1))}",
            "hours of at most 21 parts",
        ),
        (
            f"tcp:*(*)->*(*) sni={','.join(['a' * 39] * (NAMES_LENGTH_MAX // 40))}",
            f"tcp:*(*)->*(*) sni={','.join(['a' * 39] * (NAMES_LENGTH_MAX // 40))},aa",
            "names of at most 2000 characters together",
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
    assert (caught.value.column, caught.value.expected) == (8193, "the end: a rule has at most 8192 characters")


def test_the_longest_rule_can_be_read_back() -> None:
    """The limits leave room: whatever is accepted prints as something that is accepted."""
    host = ".".join(["a" * 63] * 3 + ["b" * 61])
    ports = ",".join(["10000-65535"] * PORT_ITEMS_MAX)
    owner = f"{'t' * 63}/{'n ' * 127}n"
    note = '\\"' * NOTE_LENGTH_MAX
    network = "1111:1111:1111:1111:1111:1111:1111:1110/127"
    rates = "999999999992bit/999999999984bit"
    when = ",".join(["mon-fri@08:00-18:00"] * SPANS_MAX)
    names = ",".join(["a" * 39] * (NAMES_LENGTH_MAX // 40))
    options = f"rate={rates} burst=1152921504606846975B quota=1152921504606846975B/month when={when} grace=86399s"
    options += f" app=http http-host={names} scan=ignore"
    head = f'any:{network}({ports})->*.{host}({ports}) user="{owner}" group="{owner}"'
    text = f'{head} {options} log=yes note="{note}"'
    rule = parse_rule(text)
    assert text == str(rule)
    assert rule == parse_rule(str(rule))
    assert len(text) < RULE_LENGTH_MAX - 1_000


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


@given(strategies.rules(for_global=True, conditions=True))
def test_p2_parse_undoes_print(rule: Rule) -> None:
    """P2: parse of print is the identity, print of parse idempotent, and a naive parser agrees."""
    text = str(rule)
    assert rule == parse_rule(text)
    assert text == str(parse_rule(text))
    assert rule == oracle.parse(text)


@given(strategies.rules(for_global=True, conditions=True), st.data())
def test_p2_one_changed_character_is_refused_or_read_as_a_naive_parser_reads_it(
    rule: Rule, data: st.DataObject
) -> None:
    """P2: no text is read in two ways; what the naive parser refuses is refused, what it accepts is the same rule."""
    text = str(rule)
    place = data.draw(st.integers(0, len(text)))
    removed = data.draw(st.integers(0, 1))
    inserted = data.draw(
        st.one_of(st.just(""), st.sampled_from('*()->:./,=@"\\ 019aXx-'), st.characters(max_codepoint=0x2FF))
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


@pytest.mark.parametrize("host", ["internet.", "private.", "Internet."])
def test_a_host_named_like_a_word_is_refused(host: str) -> None:
    """Printed it would be read as the word: a rule about one host would become one about the whole internet."""
    with pytest.raises(RuleSyntaxError, match="is a word of its own here") as caught:
        parse_rule(f"tcp:*(*)->{host}(443)")
    assert caught.value.column == 11
    assert parse_rule(f"tcp:*(*)->*.{host}(443)").destination == Domain(host[:-1].lower(), below=True)
