"""Which networks mean what: the floor, `internet`, `private`, and the IPv4 addresses that hide inside IPv6 ones.

These are our own tables. `ipaddress.is_private` and its siblings differ between Python versions and call
`64:ff9b::7f00:1`, multicast and `192.0.0.8` global.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

from trioproxy.policy.ranges import IPNetwork, Ranges, network_range

__all__ = ["FLOOR_NETWORKS", "INTERNET", "PRIVATE", "embedded_addresses"]

# Nobody reaches these by rule. CVE-2020-26262: a relay's loopback filter forgot 0.0.0.0, :: and ::1.
FLOOR_NETWORKS: Final[tuple[tuple[IPNetwork, str], ...]] = tuple(
    (ip_network(network), f"{network} {meaning}")
    for network, meaning in (
        ("0.0.0.0/8", "this host"),  # RFC 1122 section 3.2.1.3; Linux connects 0.0.0.0 to loopback
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local and cloud metadata"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved and broadcast"),
        ("100.100.100.200/32", "cloud metadata (Alibaba)"),
        ("168.63.129.16/32", "cloud metadata (Azure)"),
        ("::/128", "unspecified address"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4-mapped address"),  # canonical addresses are never mapped: fail closed if one is
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        ("fd00:ec2::254/128", "cloud metadata (AWS)"),
    )
)


def _ranges(networks: Iterable[str]) -> Ranges:
    return tuple(sorted(network_range(ip_network(network)) for network in networks))


def _without(whole: Ranges, holes: Ranges) -> Ranges:
    """What is left of the ranges; each hole lies inside one of them."""
    left = []
    for first, last in whole:
        begin = first
        for hole_first, hole_last in holes:
            if first <= hole_first <= last:
                left.append((begin, hole_first - 1))
                begin = hole_last + 1
        left.append((begin, last))
    return tuple((first, last) for first, last in left if first <= last)


# What a campus uses inside: RFC 1918, shared address space (RFC 6598), unique local addresses (RFC 4193).
PRIVATE: Final[Ranges] = _ranges(("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))

# Globally routable: what IANA has opened, without the special-purpose registries (RFC 6890) where they do not say
# "globally reachable". The few anycast exceptions inside 192.0.0.0/24 and 2001::/23 are for a host's own router, not
# for a client of a proxy. 64:ff9b::/96 is how an IPv6-only site reaches IPv4; the address inside is judged as well.
INTERNET: Final[Ranges] = _without(
    _ranges(("0.0.0.0/0", "64:ff9b::/96", "2000::/3")),
    _ranges(
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",  # documentation, RFC 5737, with the next two
            "192.88.99.0/24",  # 6to4 relays, given up by RFC 7526
            "192.168.0.0/16",
            "198.18.0.0/15",  # benchmarks, RFC 2544
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast, reserved, broadcast
            "2001::/23",  # IETF protocol assignments, Teredo among them
            "2001:db8::/32",
            "2002::/16",  # 6to4, given up by RFC 7526
            "3fff::/20",  # documentation, RFC 9637
        )
    ),
)

_IPV4_BITS: Final = 0xFFFFFFFF

# An address whose bits from `shift` upwards are `prefix` carries an IPv4 address at bit `place`, xor `turned`.
_EMBEDDINGS: Final[tuple[tuple[int, int, int, int], ...]] = (
    # shift, prefix, place, turned
    (32, 0xFFFF, 0, 0),  # ::ffff:0:0/96 mapped, RFC 4291 section 2.5.5.2
    (32, 0, 0, 0),  # ::/96 compatible, RFC 4291 section 2.5.5.1
    (32, 0x0064FF9B << 64, 0, 0),  # 64:ff9b::/96 NAT64, RFC 6052
    (112, 0x2002, 80, 0),  # 2002::/16 6to4, RFC 3056
    (96, 0x20010000, 64, 0),  # 2001::/32 Teredo: its server, RFC 4380 section 4
    (96, 0x20010000, 0, _IPV4_BITS),  # and its client, with the bits turned
)
_LOOPBACK: Final = 1  # :: and ::1 lie inside ::/96, but carry nothing
_NAT64_LOCAL: Final = 0x0064FF9B0001  # 64:ff9b:1::/48, RFC 8215
_ISATAP: Final = 0x00005EFE  # RFC 5214 section 6.1; the bit "universal/local" may be set
_UNIVERSAL_BIT: Final = 0x02000000


def embedded_addresses(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that a router on the way may take this IPv6 address for; usually none."""
    value = int(address)
    if value <= _LOOPBACK:
        return ()
    found = [
        (value >> place & _IPV4_BITS) ^ turned
        for shift, prefix, place, turned in _EMBEDDINGS
        if value >> shift == prefix
    ]
    if value >> 80 == _NAT64_LOCAL:
        found += _nat64_local(value)
    if value >> 32 & _IPV4_BITS & ~_UNIVERSAL_BIT == _ISATAP:
        found.append(value & _IPV4_BITS)
    return tuple(map(IPv4Address, found))


def _nat64_local(value: int) -> list[int]:
    # RFC 6052 section 2.2: where the IPv4 address lies depends on the length of the site's prefix, which is not known
    # here; what is behind it is zero. So each place is read that can be meant. The layout skips bits 64 to 71.
    found = []
    if value & 0xFFFFFFFF:
        found.append(value & _IPV4_BITS)  # /96
    if not value & 0xFFFFFF:
        found.append(value >> 24 & _IPV4_BITS)  # /64
    if not value & 0xFFFFFFFF:
        found.append((value >> 64 & 0xFF) << 24 | value >> 32 & 0xFFFFFF)  # /56
    if not value & 0xFFFFFFFFFF:
        found.append((value >> 64 & 0xFFFF) << 16 | value >> 40 & 0xFFFF)  # /48
    return found
