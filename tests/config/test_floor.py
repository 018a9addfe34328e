"""The floor as the configuration makes it."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from trioproxy.config import SocketAddress, build_floor, parse_config_untrusted
from trioproxy.config.floor import is_local
from trioproxy.policy import RuleProtocol

TEXT = """
[[listener]]
address = "0.0.0.0:1080"
advertise = ["203.0.113.7"]
[[listener]]
address = "192.0.2.1:0"
[policy]
open_floor = ["127.0.0.0/8"]
closed = ["192.0.2.10:5432"]
"""


@pytest.mark.parametrize(
    ("address", "port", "part"),
    [
        ("127.0.0.1", 80, None),  # opened
        ("169.254.169.254", 80, "169.254.0.0/16 link-local and cloud metadata"),  # not opened
        ("127.0.0.1", 1080, "a listener of this proxy"),  # opened, but ours
        ("203.0.113.7", 1080, "a listener of this proxy"),  # in front of the NAT
        ("192.0.2.1", 4321, "a listener of this proxy"),  # the port that the kernel chose
        ("192.0.2.10", 5432, "a directory or database server of this proxy"),
        ("192.0.2.10", 5433, None),
        ("198.51.100.1", 1080, None),  # somebody else's port 1080
    ],
)
def test_own_endpoints_stay_closed(address: str, port: int, part: str | None) -> None:
    """Case 68 as far as one process can tell: our listeners and servers are nobody's target, even on an open floor."""
    floor = build_floor(parse_config_untrusted(TEXT, "t"), [SocketAddress(IPv4Address("192.0.2.1"), 4321)])
    assert part == floor.part_of(ip_address(address), port, RuleProtocol.TCP)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        (IPv4Address("127.0.0.1"), True),
        (IPv4Address("192.0.2.1"), False),  # TEST-NET-1: nobody's
        (IPv6Address("2001:db8::1"), False),
    ],
)
def test_is_local(address: IPv4Address | IPv6Address, local: bool) -> None:
    """Case 68: an address of this machine is told from others without sending anything."""
    assert is_local(address) is local
