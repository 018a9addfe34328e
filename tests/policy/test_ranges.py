"""Tests of `trioproxy.policy.ranges`."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from tests.policy import strategies
from trioproxy.policy import IPAddress, IPNetwork
from trioproxy.policy.ranges import ADDRESS_LAST, IPV6_FIRST, RangeTable, address_number, network_range, within


def test_both_families_lie_on_one_line_without_overlap() -> None:
    """`0.0.0.0/0` must not cover an IPv6 address, nor `::/0` an IPv4 one."""
    assert address_number(ip_address("0.0.0.0")) == 0
    assert address_number(ip_address("255.255.255.255")) == IPV6_FIRST - 1
    assert address_number(ip_address("::")) == IPV6_FIRST
    assert address_number(ip_address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")) == ADDRESS_LAST
    assert network_range(ip_network("0.0.0.0/0")) == (0, IPV6_FIRST - 1)
    assert network_range(ip_network("::/0")) == (IPV6_FIRST, ADDRESS_LAST)


def test_both_ends_of_a_network_belong_to_it() -> None:
    """The first and the last address are inside, their neighbours are not."""
    ranges = (network_range(ip_network("10.0.0.0/8")), network_range(ip_network("192.0.2.7/32")))
    inside = ["10.0.0.0", "10.255.255.255", "192.0.2.7"]
    outside = ["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "::10.0.0.0"]
    assert [within(ranges, address_number(ip_address(text))) for text in inside] == [True] * 3
    assert [within(ranges, address_number(ip_address(text))) for text in outside] == [False] * 5
    assert not within((), 0)


@given(st.lists(strategies.networks(), max_size=20), strategies.addresses())
def test_the_table_answers_as_asking_each_network(networks: list[IPNetwork], address: IPAddress) -> None:
    """P3: table and naive scan agree, for nested, equal and neighbouring networks, /0 and single addresses."""
    table = RangeTable(((network_range(network),), place) for place, network in enumerate(networks))
    expected = {place for place, network in enumerate(networks) if address in network}
    found = table.at(address_number(address))
    assert expected == set(found)
    assert len(expected) == len(found)


def test_a_value_with_several_ranges_is_found_in_each_and_only_once() -> None:
    """Areas such as `private` have many ranges, and what hangs below must be asked once."""
    table = RangeTable([(((10, 19), (30, 39)), "tens"), (((0, 99),), "all")])
    assert table.at(9) == ("all",)
    assert {"all", "tens"} == set(table.at(10)) == set(table.at(19)) == set(table.at(30)) == set(table.at(39))
    assert ("all",) == table.at(20) == table.at(29) == table.at(40)
    assert table.at(100) == ()


def test_an_empty_table_covers_nothing() -> None:
    """A layer without networks has such a table."""
    nothing: RangeTable[str] = RangeTable([])
    assert nothing.at(0) == ()
