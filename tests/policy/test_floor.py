"""Tests of `trioproxy.policy.floor`."""

from ipaddress import ip_address, ip_network

import pytest

from tests.policy.asking import ANYTHING, outcome, policy, request
from trioproxy.policy import Floor, IPAddress, OwnEndpoints, RuleProtocol
from trioproxy.policy.floor import OWN_LISTENER, OWN_SERVER

TCP, UDP, BIND = RuleProtocol.TCP, RuleProtocol.UDP, RuleProtocol.BIND


def part(floor: Floor, address: str, port: int = 443, protocol: RuleProtocol = TCP) -> str | None:
    """Which part forbids it."""
    return floor.part_of(ip_address(address), port, protocol)


@pytest.mark.parametrize(
    ("address", "forbidden_by"),
    [
        ("0.0.0.0", "0.0.0.0/8 this host"),
        ("0.255.255.255", "0.0.0.0/8 this host"),
        ("1.0.0.0", None),
        ("126.255.255.255", None),
        ("127.0.0.1", "127.0.0.0/8 loopback"),
        ("127.255.255.255", "127.0.0.0/8 loopback"),
        ("128.0.0.0", None),
        ("169.253.255.255", None),
        ("169.254.169.254", "169.254.0.0/16 link-local and cloud metadata"),
        ("169.255.0.0", None),
        ("100.100.100.200", "100.100.100.200/32 cloud metadata (Alibaba)"),
        ("100.100.100.201", None),
        ("168.63.129.16", "168.63.129.16/32 cloud metadata (Azure)"),
        ("223.255.255.255", None),
        ("224.0.0.1", "224.0.0.0/4 multicast"),
        ("240.0.0.1", "240.0.0.0/4 reserved and broadcast"),
        ("255.255.255.255", "240.0.0.0/4 reserved and broadcast"),
        ("10.0.0.1", None),
        ("::", "::/128 unspecified address"),
        ("::1", "::1/128 loopback"),
        ("::2", None),
        ("::ffff:8.8.8.8", "::ffff:0:0/96 IPv4-mapped address"),
        ("fe80::1", "fe80::/10 link-local"),
        ("febf::1", "fe80::/10 link-local"),
        ("fec0::1", "fec0::/10 site-local"),
        ("ff02::1", "ff00::/8 multicast"),
        ("fd00:ec2::254", "fd00:ec2::254/128 cloud metadata (AWS)"),
        ("fd00:ec2::255", None),
        ("2001:db8::1", None),
    ],
)
@pytest.mark.parametrize("protocol", RuleProtocol)
def test_the_floor_refuses_what_the_design_lists(
    address: str, forbidden_by: str | None, protocol: RuleProtocol
) -> None:
    """DESIGN section 3 and CASES 2.5: each network at its edges, for each command."""
    assert forbidden_by == part(Floor(), address, protocol=protocol)


def test_the_configuration_opens_parts_and_only_those() -> None:
    """DESIGN section 3: only the configuration opens parts of the floor."""
    floor = Floor([ip_network("127.0.0.0/24"), ip_network("::1/128")])
    assert [part(floor, address) for address in ("127.0.0.1", "::1", "127.0.1.1", "fe80::1")] == [
        None,
        None,
        "127.0.0.0/8 loopback",
        "fe80::/10 link-local",
    ]


LOCAL = {ip_address("192.0.2.1"), ip_address("2001:db8::1")}


def is_local(address: IPAddress) -> bool:
    """A machine with one address of each family."""
    return address in LOCAL


OWN = OwnEndpoints(
    listeners=frozenset({(None, 1080), (ip_address("127.0.0.1"), 1081), (ip_address("198.51.100.9"), 1080)}),
    endpoints=frozenset({(ip_address("192.0.2.9"), 636), (ip_address("192.0.2.10"), 5432)}),
    is_local=is_local,
)
OPEN = ["0.0.0.0/8", "127.0.0.0/8", "::/128", "::1/128"]


@pytest.mark.parametrize(
    ("address", "port", "forbidden_by"),
    [
        ("127.0.0.1", 1080, OWN_LISTENER),
        ("127.9.9.9", 1080, OWN_LISTENER),
        ("::1", 1080, OWN_LISTENER),
        ("0.0.0.0", 1080, OWN_LISTENER),
        ("::", 1080, OWN_LISTENER),
        ("192.0.2.1", 1080, OWN_LISTENER),
        ("2001:db8::1", 1080, OWN_LISTENER),
        ("198.51.100.9", 1080, OWN_LISTENER),
        ("192.0.2.2", 1080, None),
        ("127.0.0.1", 1081, OWN_LISTENER),
        ("0.0.0.0", 1081, OWN_LISTENER),
        ("::", 1081, OWN_LISTENER),
        ("192.0.2.1", 1081, None),
        ("127.0.0.2", 1081, None),
        ("192.0.2.1", 443, None),
        ("192.0.2.9", 636, OWN_SERVER),
        ("192.0.2.9", 389, None),
        ("192.0.2.10", 5432, OWN_SERVER),
        ("192.0.2.9", 5432, None),
    ],
)
def test_68_own_endpoints_are_closed_even_where_the_floor_is_open(
    address: str, port: int, forbidden_by: str | None
) -> None:
    """Case 68: SOCKS, admin, other nodes by loopback, interface, advertised, unspecified address; LDAP and database."""
    floor = Floor(map(ip_network, OPEN), OWN)
    assert forbidden_by == part(floor, address, port)


def test_68_own_endpoints_speak_tcp() -> None:
    """Case 68: a UDP datagram or a BIND never reaches a TCP listener."""
    floor = Floor((), OWN)
    assert [part(floor, "192.0.2.1", 1080, protocol) for protocol in (UDP, BIND)] == [None, None]


def test_68_servers_we_rely_on_are_closed_to_datagrams_too() -> None:
    """Case 68: directories and name servers answer datagrams as well; who connects to a BIND is another matter."""
    floor = Floor((), OWN)
    assert [part(floor, "192.0.2.9", 636, protocol) for protocol in (UDP, BIND)] == [OWN_SERVER, None]
    assert part(floor, "192.0.2.9", 637, UDP) is None


@pytest.mark.parametrize("name", [None, "proxy.example.org", "localhost"])
def test_68_no_rule_and_no_name_reaches_an_own_endpoint(name: str | None) -> None:
    """Case 68: by name or address, with everything allowed and the floor opened (CVE-2021-21382)."""
    rules = policy({"global": [ANYTHING], "user:alice": [ANYTHING]}, opened=OPEN, own=OWN)
    for address in ("127.0.0.1", "::1", "192.0.2.1", "0.0.0.0"):
        assert outcome(rules.judge(request(address, 1080, name=name))) == ("floor", "", OWN_LISTENER)
        assert outcome(rules.judge(request(address, 8080, name=name)))[0] == "permit"


def test_68_own_endpoints_are_closed_inside_ipv6_too() -> None:
    """Case 68 with case 66: a listener's IPv4 address inside NAT64 or 6to4 is the same listener."""
    rules = policy({"global": [ANYTHING]}, own=OWN)
    for address in ("64:ff9b::192.0.2.1", "2002:c000:201::1"):
        assert outcome(rules.judge(request(address, 1080))) == ("floor", "", OWN_LISTENER)


def test_only_ports_with_a_wildcard_listener_ask_the_machine() -> None:
    """Asking for local addresses costs a system call; a UDP or TCP flow to any other port must not pay it."""
    asked: list[IPAddress] = []

    def remember(address: IPAddress) -> bool:
        asked.append(address)
        return False

    own = OwnEndpoints(listeners=frozenset({(None, 1080), (ip_address("127.0.0.1"), 1081)}), is_local=remember)
    floor = Floor((), own)
    assert [part(floor, "192.0.2.1", port) for port in (443, 1080, 1081)] == [None] * 3
    assert asked == [ip_address("192.0.2.1")]


def test_without_is_local_a_wildcard_listener_still_knows_loopback() -> None:
    """The default fails neither open for loopback nor closed for everybody else."""
    floor = Floor([ip_network("127.0.0.0/8")], OwnEndpoints(listeners=frozenset({(None, 1080)})))
    assert [part(floor, "127.0.0.1", 1080), part(floor, "192.0.2.1", 1080)] == [OWN_LISTENER, None]
