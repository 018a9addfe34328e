"""Tests of `trioproxy.policy.canonical`: one spelling for each destination, and none for what only looks like one."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.policy.asking import ANYTHING, outcome, policy, request
from trioproxy.policy import CanonicalError, IPAddress, canonical_address, canonical_host

ALLOW_ALL = policy({"global": [ANYTHING]})

NUMERIC = st.text(st.sampled_from("0123456789abcdefx.:%[]-_\0 "), max_size=40).map(str.encode)
QUADS = st.lists(
    st.one_of(
        st.integers(0, 300).map(str), st.integers(0, 2**32).map(hex), st.integers(0, 255).map(lambda n: f"0{n:o}")
    ),
    min_size=1,
    max_size=5,
).map(lambda parts: ".".join(parts).encode())
HOST_BYTES = st.one_of(
    NUMERIC,
    QUADS,
    st.ip_addresses().map(lambda found: str(found).encode()),
    st.from_regex(rb"\A[a-zA-Z0-9_-]{1,9}(\.[a-zA-Z0-9_-]{1,9}){0,3}\.?\Z"),
    st.binary(max_size=300),
)


def canonical(host: bytes) -> str | IPAddress | None:
    """None for what is refused."""
    try:
        return canonical_host(host)
    except CanonicalError:
        return None


def numeric(host: bytes | str) -> IPAddress | None:
    """The address that the operating system reads here without asking anybody, if any."""
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)[0]
    except (OSError, ValueError):
        return None
    return canonical_address(ip_address(str(found[4][0]).partition("%")[0]))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"example.org", "example.org"),
        (b"EXAMPLE.Org", "example.org"),
        (b"example.org.", "example.org"),
        (b"localhost", "localhost"),
        (b"_dmarc.a_b.example", "_dmarc.a_b.example"),
        (b"a-b.c--d", "a-b.c--d"),
        (b"1.2.3.4a", "1.2.3.4a"),
        (b"4.example", "4.example"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"www.xn--fsq.example", "www.xn--fsq.example"),
        (b"xn--strae-oqa.example", "xn--strae-oqa.example"),
        (b"192.0.2.1", IPv4Address("192.0.2.1")),
        (b"192.0.2.1.", IPv4Address("192.0.2.1")),
        (b"2001:DB8::1", IPv6Address("2001:db8::1")),
        (b"::ffff:192.0.2.1", IPv4Address("192.0.2.1")),
        (b"::FFFF:C000:201", IPv4Address("192.0.2.1")),
        (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.1")),
        (IPv6Address("::ffff:192.0.2.1"), IPv4Address("192.0.2.1")),
        (IPv6Address("2001:db8::1"), IPv6Address("2001:db8::1")),
    ],
)
def test_each_destination_has_one_spelling(host: bytes | IPAddress, expected: str | IPAddress) -> None:
    """CASES 2.5: lower case, one trailing dot less, literals in names are addresses, mapped addresses are unwrapped."""
    assert expected == canonical_host(host)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (b"", "labels"),
        (b".", "labels"),
        (b"a..b", "labels"),
        (b".a", "labels"),
        (b"a b", "printable ASCII"),
        (b"a\tb", "printable ASCII"),
        (b"a\x7f", "printable ASCII"),
        ("bücher.example".encode(), "printable ASCII"),
        (b"a/b", "labels"),
        (b"a@b", "labels"),
        (b"-->", "labels"),
        (b"a" * 64, "labels"),
        (b".".join([b"a" * 49] * 5) + b"aaaaa", "at most 253"),
        (b"fe80::1%eth0", "zone"),
        (b"::1::", "IPv6"),
        (b"example.org:80", "IPv6"),
        (b":", "IPv6"),
        (b"127.1", "IPv4"),
        (b"1.2.3.04", "IPv4"),
        (b"1.2.3.256", "IPv4"),
        (b"1.2.3.4.5", "IPv4"),
        (b"example.0x7f", "IPv4"),
        (b"example.0x", "IPv4"),
        (b"xn--.example", "xn--"),
        (b"xn--evil-.com", "xn--"),  # plain "evil"
        (b"xn--vil-.com", "xn--"),
        (b"xn--vil-376s.com", "xn--"),  # full-width e
        (b"xn--99999999999.com", "xn--"),
        (b"xn--BCHER-kva-.example", "xn--"),
    ],
)
def test_what_is_neither_name_nor_address_is_refused(host: bytes, reason: str) -> None:
    """CASES 2.5 in its order; the message says what a host looks like."""
    with pytest.raises(CanonicalError, match=reason):
        canonical_host(host)


def test_lengths_of_names_and_labels_are_bounded() -> None:
    """RFC 1035 section 2.3.4: labels of 63, names of 253 characters pass, one more does not."""
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert longest == canonical_host(f"{longest}.".encode())
    with pytest.raises(CanonicalError):
        canonical_host(f"{longest}b".encode())


def test_an_address_with_a_zone_is_refused() -> None:
    """`fe80::1%eth0` names an interface of this machine; no SOCKS field can carry it."""
    with pytest.raises(CanonicalError, match="zone"):
        canonical_address(IPv6Address("fe80::1%eth0"))


def test_the_error_does_not_repeat_the_strangers_bytes() -> None:
    """Case 105: what a stranger sends does not reach a log unescaped."""
    with pytest.raises(CanonicalError) as caught:
        canonical_host(b"\x1b[31mevil\n")
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize("host", [b"EVIL.com", b"evil.com.", b"Evil.Com."])
def test_61_spellings_of_a_denied_name_are_denied(host: bytes) -> None:
    """Case 61: deny `evil.com`; other cases and the trailing dot are the same name (CVE-2022-24825)."""
    rules = policy({"global": ["deny any:*(*)->evil.com(*)", ANYTHING]})
    name = canonical_host(host)
    assert isinstance(name, str)
    expected = ("rule", "global", "deny any:*(*)->evil.com(*)")
    assert expected == outcome(rules.judge(request("192.0.2.1", name=name)))


@pytest.mark.parametrize(
    "host",
    [
        *(b"[evil.com]", b"evil.com..", b"evil.com%00", b"evil.com\0", b"evil.com\0.good.org", "ｅvil.com".encode()),  # noqa: RUF001 - it is meant
        *(b"xn--vil-376s.com", b"xn--evil-.com", b" evil.com", b"evil.com\n", "evil。com".encode(), b"evil.com/"),
    ],
)
def test_61_what_only_looks_like_a_denied_name_is_malformed(host: bytes) -> None:
    """Case 61: brackets (CVE-2022-29188), NUL, two dots, full-width letters and their xn-- form are no names."""
    assert canonical(host) is None


@pytest.mark.parametrize("name", ["notevil.com", "evil.com.good.org", "www.evil.com", "evil.com-a.org", "com"])
def test_61_other_names_are_not_touched(name: str) -> None:
    """Case 61: a rule for `evil.com` is about that name alone."""
    rules = policy({"global": ["deny any:*(*)->evil.com(*)", ANYTHING]})
    assert name == canonical_host(name.encode())
    assert outcome(rules.judge(request("192.0.2.1", name=name)))[0] == "permit"


@pytest.mark.parametrize(
    ("name", "denied"),
    [("www.evil.com", True), ("a.b.evil.com", True), ("evil.com", False), ("notevil.com", False)],
)
def test_61_a_star_means_below_and_not_the_apex(name: str, denied: bool) -> None:
    """Case 61 and DESIGN section 3: `*.evil.com` is every name below evil.com, not evil.com itself."""
    rules = policy({"global": ["deny any:*(*)->*.evil.com(*)", ANYTHING]})
    assert denied == (outcome(rules.judge(request("192.0.2.1", name=name)))[0] == "rule")


@pytest.mark.parametrize(
    "host",
    [
        *(b"127.0.0.1", b"127.0.0.1.", b"127.1", b"127.0.1", b"0x7f.1", b"0x7f000001", b"0X7F.0.0.1", b"2130706433"),
        *(
            b"0177.0.0.1",
            b"0177.1",
            b"017700000001",
            b"127.0.0.1\0.example.org",
            b"127.0.0.1%00",
            b"127.0.0.01",
            b"0",
            b"0.0.0.0",
        ),
        *(
            b"127.255.255.254",
            b"127.0.0.1 ",
            b" 127.0.0.1",
            b"::1",
            b"::",
            b"0:0:0:0:0:0:0:1",
            b"[::1]",
            b"::1%lo",
            b"::0001",
        ),
        *(
            b"::ffff:127.0.0.1",
            b"::FFFF:7F00:1",
            b"::127.0.0.1",
            b"64:ff9b::7f00:1",
            b"64:ff9b:1::127.0.0.1",
            b"2002:7f00:1::1",
        ),
        *("１２７.0.0.1".encode(), "①27.0.0.1".encode(), "127。0。0。1".encode(), b"127.0.0.1\xe2\x80\xa4"),  # noqa: RUF001 - they are meant
    ],
)
def test_64_no_spelling_of_loopback_passes(host: bytes) -> None:
    """Case 64, the part of policy: with everything allowed each spelling is malformed or refused by the floor."""
    found = canonical(host)
    if found is not None:
        assert not isinstance(found, str)
        assert outcome(ALLOW_ALL.judge(request(found)))[0] == "floor"


@pytest.mark.parametrize("loopback", ["127.0.0.1", "127.8.8.8", "::1"])
def test_64_a_name_that_resolves_to_loopback_is_refused(loopback: str) -> None:
    """Case 64: `localhost`, `/etc/hosts` and rebinding names are judged by the address they resolve to."""
    rules = policy({"global": [ANYTHING, "any:*(*)->localhost(*)"]})
    assert outcome(rules.judge(request(loopback, name="localhost")))[0] == "floor"


@given(HOST_BYTES)
@example(b"evil.com..")
@example(b"::ffff:0:0")
def test_p4_the_canonical_form_is_its_own_canonical_form(host: bytes) -> None:
    """P4: idempotent, as text and as object."""
    found = canonical(host)
    if found is not None:
        assert found == canonical_host(str(found).encode())
        assert found == (found if isinstance(found, str) else canonical_host(found))


@given(HOST_BYTES)
def test_p4_a_name_is_no_number_to_any_resolver(host: bytes) -> None:
    """P4: names are LDH (and "_"), their last label is no number, and getaddrinfo(AI_NUMERICHOST) fails for them."""
    found = canonical(host)
    if isinstance(found, str):
        assert 1 <= len(found) <= 253
        assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
        assert not found.rpartition(".")[2].isdigit()
        assert numeric(found.encode()) is None
        assert numeric(found) is None


@given(HOST_BYTES)
@example(b"127.1")
@example(b"2130706433")
@example(b"1.2.3.4")
@example(b"::ffff:1.2.3.4")
def test_p4_what_the_system_reads_as_an_address_is_that_address_or_refused(host: bytes) -> None:
    """P4: for any bytes the verdict is about the address that the operating system would really connect to."""
    reached = numeric(host)
    if reached is not None:
        assert canonical(host) in (None, reached)
