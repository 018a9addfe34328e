"""Addresses as numbers on one line, and a sorted table that answers which ranges cover a number.

Measured: a bisection costs 0.2 microseconds whatever the table holds; `address in network` of `ipaddress` costs one
microsecond for each network.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Final, Generic, TypeAlias, TypeVar

from trioproxy.policy.request import IPAddress

__all__ = [
    "ADDRESS_LAST",
    "IPV6_FIRST",
    "IPNetwork",
    "RangeTable",
    "Ranges",
    "address_number",
    "network_range",
    "within",
]

IPNetwork: TypeAlias = IPv4Network | IPv6Network
Ranges: TypeAlias = tuple[tuple[int, int], ...]  # first and last number of each, both inside

IPV6_FIRST: Final = 1 << 32  # IPv4 has the first 2**32 numbers, IPv6 those behind: ::/0 and 0.0.0.0/0 do not overlap
ADDRESS_LAST: Final = IPV6_FIRST + (1 << 128) - 1

Value = TypeVar("Value")


def address_number(address: IPAddress) -> int:
    """The place of an address on the line."""
    return int(address) if isinstance(address, IPv4Address) else int(address) + IPV6_FIRST


def network_range(network: IPNetwork) -> tuple[int, int]:
    """First and last number of a network."""
    first = address_number(network.network_address)
    return first, first + (1 << (network.max_prefixlen - network.prefixlen)) - 1


def within(ranges: Ranges, number: int) -> bool:
    """Does one of these few ranges cover the number?"""
    for first, last in ranges:  # noqa: SIM110 - a loop costs half of any() with a generator, and this is asked per rule
        if first <= number <= last:
            return True
    return False


class RangeTable(Generic[Value]):
    """Ranges with values, cut at each edge into pieces that know all values covering them.

    Networks nest at most 129 deep and never overlap otherwise, so the table stays in proportion to what is put in.
    """

    __slots__ = ("_edges", "_pieces")

    def __init__(self, entries: Iterable[tuple[Ranges, Value]]) -> None:
        opened: defaultdict[int, list[int]] = defaultdict(list)
        closed: defaultdict[int, list[int]] = defaultdict(list)
        values: list[Value] = []
        for ranges, value in entries:
            for first, last in ranges:
                opened[first].append(len(values))
                closed[last + 1].append(len(values))
                values.append(value)
        self._edges = sorted(opened.keys() | closed.keys())
        self._pieces: list[tuple[Value, ...]] = [()]
        active: dict[int, Value] = {}
        for edge in self._edges:
            for place in closed.get(edge, ()):
                del active[place]
            for place in opened.get(edge, ()):
                active[place] = values[place]
            self._pieces.append(tuple(active.values()))

    def at(self, number: int) -> tuple[Value, ...]:
        """The values of all ranges that cover the number; the ranges that begin first come first."""
        return self._pieces[bisect_right(self._edges, number)]
