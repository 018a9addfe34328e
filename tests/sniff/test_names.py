"""Hosts of ClientHellos and of requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sniff.oracle import canonical
from trioproxy.sniff.names import canonical_authority, canonical_name

_texts = st.text(st.sampled_from("aZ09-_.:x[]%@/ é\0"), max_size=12).map(lambda text: text.encode("latin-1"))


@pytest.mark.parametrize(
    ("octets", "name"),
    [
        (b"www.example.org", "www.example.org"),
        (b"WWW.Example.ORG.", "www.example.org"),
        (b"localhost", "localhost"),
        (b"_dns.xn--bcher-kva.example", "_dns.xn--bcher-kva.example"),
        (b"a" * 63 + b".org", "a" * 63 + ".org"),
        (b"a" * 64 + b".org", None),
        (b"a." * 126 + b"a", "a." * 126 + "a"),
        (b"a." * 126 + b"ab", None),
        (b"", None),
        (b".", None),
        (b"a..b", None),
        (b"a.b..", None),
        (b"*.example.org", None),
        (b"a\0.example.org", None),
        (b"b\xc3\xbccher.example", None),
        (b"192.0.2.1", None),
        (b"example.0x7f", None),
        (b"2130706433", None),
        (b"2001:db8::1", None),
        (b"a.example.org\n", None),
    ],
)
def test_names(octets: bytes, name: str | None) -> None:
    """RFC 6066 section 3: ASCII, no address; one spelling for each, so that rules can compare it."""
    assert name == canonical_name(octets)


@pytest.mark.parametrize(
    ("octets", "host"),
    [
        (b"www.Example.org", ("www.example.org", None)),
        (b"www.example.org:8080", ("www.example.org", 8080)),
        (b"www.example.org:", ("www.example.org", None)),
        (b"192.0.2.1:80", ("192.0.2.1", 80)),
        (b"[2001:DB8:0::1]", ("2001:db8::1", None)),
        (b"[::ffff:192.0.2.1]:443", ("192.0.2.1", 443)),
        (b"a:0", ("a", 0)),
        (b"a:65535", ("a", 65535)),
        (b"a:65536", None),
        (b"a:+1", None),
        (b"a:1:2", None),
        (b"2001:db8::1", None),
        (b"[2001:db8::1", None),
        (b"[fe80::1%25eth0]", None),
        (b"[192.0.2.1]", None),
        (b"[]", None),
        (b"127.1", None),
        (b"0x7f.0.0.1", None),
        (b"192.0.2.1.", None),
        (b"user@example.org", None),
        (b"a b", None),
        (b"a,b", None),
        (b"", None),
        (b":80", None),
    ],
)
def test_authorities(octets: bytes, host: tuple[str, int | None] | None) -> None:
    """RFC 3986 section 3.2 without user information: what two programs might read in two ways is no host."""
    assert host == canonical_authority(octets)


@given(_texts)
def test_the_same_as_policy_says(octets: bytes) -> None:
    """A name is what policy makes of it, or nothing: rules compare the two."""
    name = canonical_name(octets)
    assert name is None or name == canonical(octets)
    assert name is not None or canonical(octets) is None or ":" in str(canonical(octets)) or octets[:1].isdigit()
