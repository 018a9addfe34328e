"""Tests of `trioproxy.policy.networks`: the tables against the registries, and IPv4 inside IPv6."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policy import oracle, strategies
from trioproxy.policy import IPAddress
from trioproxy.policy.networks import FLOOR_NETWORKS, INTERNET, PRIVATE, embedded_addresses
from trioproxy.policy.ranges import address_number, within
from trioproxy.policy.rules import Area

DESIGN_FLOOR = "0/8 127/8 169.254/16 224/4 240/4 :: ::1 fe80::/10 fec0::/10 ff00::/8"


def covers(ranges: tuple[tuple[int, int], ...], address: str) -> bool:
    """Is the address in one of the ranges?"""
    return within(ranges, address_number(ip_address(address)))


def test_the_floor_has_every_network_of_the_design() -> None:
    """DESIGN section 3, the list of the floor, and the metadata addresses of CASES 2.5."""
    floor = {network for network, _ in FLOOR_NETWORKS}
    written = [*DESIGN_FLOOR.split(), "100.100.100.200", "168.63.129.16", "fd00:ec2::254"]
    for text in written:
        first, _, length = text.partition("/")
        padded = first if ":" in first else ".".join([*first.split("."), "0", "0", "0"][:4])
        assert ip_network(f"{padded}/{length}" if length else padded) in floor


def test_each_part_of_the_floor_says_what_it_is() -> None:
    """A refusal names the network and its meaning."""
    parts = dict(FLOOR_NETWORKS)
    assert parts[ip_network("127.0.0.0/8")] == "127.0.0.0/8 loopback"
    assert all(ip_network(part.split()[0]) == network for network, part in parts.items())


@pytest.mark.parametrize(
    ("address", "internet", "private"),
    [
        ("8.8.8.8", True, False),
        ("1.0.0.0", True, False),
        ("9.255.255.255", True, False),
        ("10.0.0.0", False, True),
        ("11.0.0.0", True, False),
        ("100.63.255.255", True, False),
        ("100.64.0.0", False, True),
        ("100.127.255.255", False, True),
        ("100.128.0.0", True, False),
        ("127.0.0.1", False, False),
        ("169.254.169.254", False, False),
        ("172.15.255.255", True, False),
        ("172.16.0.0", False, True),
        ("172.31.255.255", False, True),
        ("172.32.0.0", True, False),
        ("192.0.0.8", False, False),
        ("192.0.2.1", False, False),
        ("192.168.0.0", False, True),
        ("198.18.0.1", False, False),
        ("203.0.113.1", False, False),
        ("223.255.255.255", True, False),
        ("224.0.0.1", False, False),
        ("255.255.255.255", False, False),
        ("2001:4860::1", True, False),
        ("2001::1", False, False),
        ("2001:1ff::1", False, False),
        ("2001:200::1", True, False),
        ("2001:db8::1", False, False),
        ("2002:808:808::1", False, False),
        ("2003::1", True, False),
        ("3fff::1", False, False),
        ("3fff:1000::1", True, False),
        ("4000::1", False, False),
        ("64:ff9b::808:808", True, False),
        ("64:ff9b:1::808:808", False, False),
        ("fbff::1", False, False),
        ("fc00::1", False, True),
        ("fdff::1", False, True),
        ("fe00::1", False, False),
        ("fec0::1", False, False),
        ("::1", False, False),
    ],
)
def test_internet_and_private_are_what_the_registries_say(address: str, internet: bool, private: bool) -> None:
    """DESIGN section 3: globally routable addresses; RFC 1918, ULA and CGNAT. CASES 2.4: not what `ipaddress` says."""
    assert internet == covers(INTERNET, address)
    assert private == covers(PRIVATE, address)


@given(strategies.addresses())
def test_the_tables_agree_with_a_list_of_networks(address: IPAddress) -> None:
    """P3 for areas: complement and ranges against one membership test per network."""
    number = address_number(address)
    assert within(INTERNET, number) == oracle.host_covers(Area.INTERNET, address, None)
    assert within(PRIVATE, number) == oracle.host_covers(Area.PRIVATE, address, None)
    assert not (within(INTERNET, number) and within(PRIVATE, number))


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("::ffff:192.0.2.33", ["192.0.2.33"]),
        ("::192.0.2.33", ["192.0.2.33"]),
        ("::", []),
        ("::1", []),
        ("::2", ["0.0.0.2"]),
        ("64:ff9b::192.0.2.33", ["192.0.2.33"]),
        ("64:ff9b:0:0:0:1:c000:221", []),
        ("2002:c000:221::1", ["192.0.2.33"]),
        ("2001:0:c000:221:0:0:3fff:fdde", ["192.0.2.33", "192.0.2.33"]),
        ("2001:0:808:808:8000:63bf:3fff:fdde", ["8.8.8.8", "192.0.2.33"]),
        ("2001:1::c000:221", []),
        ("2a00::5efe:192.0.2.33", ["192.0.2.33"]),
        ("2a00::200:5efe:192.0.2.33", ["192.0.2.33"]),
        ("2a00::100:5efe:192.0.2.33", []),
        ("2002:808:808::5efe:192.0.2.33", ["8.8.8.8", "192.0.2.33"]),
        ("2001:db8::1", []),
        ("2a00:1450::c000:221", []),
    ],
)
def test_66_an_ipv4_address_inside_an_ipv6_one_is_found(address: str, inside: list[str]) -> None:
    """Case 66: mapped, compatible, NAT64, 6to4, Teredo (server and client) and ISATAP; others carry nothing."""
    found = embedded_addresses(IPv6Address(address))
    assert inside == [str(one) for one in found]


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b:1:c000:2:2100::",  # /48: RFC 6052 section 2.2, the octet of bits 64 to 71 skipped
        "64:ff9b:1:5c0:0:221::",  # /56
        "64:ff9b:1:5:c0:2:2100::",  # /64
        "64:ff9b:1::192.0.2.33",  # /96
        "64:ff9b:1:5:6:7:192.0.2.33",
    ],
)
def test_66_local_nat64_is_read_at_each_place_that_can_be_meant(address: str) -> None:
    """Case 66, RFC 8215 and RFC 6052 section 2.2: the site's prefix length is not known, so each layout is judged."""
    assert IPv4Address("192.0.2.33") in embedded_addresses(IPv6Address(address))


def test_66_local_nat64_is_not_read_where_nothing_can_be() -> None:
    """RFC 6052 section 2.2: what is behind the address is zero, so an address with a prefix of /48 is none of /96.

    Otherwise each of them would be taken for 0.0.0.0 and refused.
    """
    found = embedded_addresses(IPv6Address("64:ff9b:1:c000:2:2100::"))
    assert [str(one) for one in found] == ["2.33.0.0", "0.2.33.0", "192.0.2.33"]
    assert [str(one) for one in embedded_addresses(IPv6Address("64:ff9b:1::c0:2:2100:1"))] == ["33.0.0.1"]


@given(st.ip_addresses(v=4))
def test_66_no_ipv4_address_hides(address: IPAddress) -> None:
    """Case 66 for all addresses (:: and ::1 are themselves, not compatible addresses)."""
    number = int(address)
    hidden = {
        "compatible": number,
        "mapped": 0xFFFF << 32 | number,
        "NAT64": 0x64FF9B << 96 | number,
        "local NAT64": 0x64FF9B0001 << 80 | number,
        "local NAT64 /64": 0x64FF9B0001 << 80 | 7 << 64 | number << 24,
        "6to4": 0x2002 << 112 | number << 80 | 1,
        "Teredo": 0x20010000 << 96 | 0x08080808 << 64 | (number ^ 0xFFFFFFFF),
        "ISATAP": 0x2A00 << 112 | 0x5EFE << 32 | number,
    }
    missed = [kind for kind, value in hidden.items() if address not in embedded_addresses(IPv6Address(value))]
    trivial = {"compatible": number < 2, "local NAT64": number == 0}
    assert missed == [kind for kind in missed if trivial.get(kind)]
