"""Blocks: what an administrator has cut off for a time, or until further notice. They come before every rule.

A block names a user, the addresses of clients, a target, or everything, in one tenant or in all of them.
"""

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from ipaddress import IPv6Address
from itertools import chain
from operator import attrgetter
from typing import Final, Self, assert_never

import attrs

from auth import Identity
from trioproxy.policy.grammar import RuleSyntaxError, parse_rule
from trioproxy.policy.networks import embedded_addresses
from trioproxy.policy.ranges import RangeTable, address_number, within
from trioproxy.policy.request import AccessRequest, IPAddress
from trioproxy.policy.rules import EVERY_PORT, Area, Domain, Host, Ports, Rule, host_ranges, host_text, ports_text
from trioproxy.policy.scope import Scope, ScopeKind

__all__ = ["NO_BLOCKS", "REASON_LENGTH_MAX", "Block", "BlockKind", "BlockSubject", "Blocks"]

REASON_LENGTH_MAX: Final = 500  # characters, as the note of a rule

_ID: Final = attrgetter("id")


class BlockKind(enum.Enum):
    """What a block is about; the words of the command line."""

    USER = "user"
    SOURCE = "source"
    TARGET = "target"
    EVERYTHING = "everything"


@attrs.frozen
class BlockSubject:
    """What is cut off: `user alice`, `source 10.1.0.0/16`, `target *.example.org:443`, `everything`.

    Attributes:
        kind: which of the next three counts.
        user: a user, logged in by any client.
        host: where clients come from, or what they ask for; names are compared with what was asked.
        ports: of a target, as in a rule.
    """

    kind: BlockKind
    user: Scope | None = None
    host: Host = Area.EVERYWHERE
    ports: Ports = EVERY_PORT

    def __str__(self) -> str:
        return f"{self.kind.value} {self.text}".rstrip()

    @property
    def text(self) -> str:
        """What stands behind the word for the kind; `parse` reads it back."""
        if self.user is not None:
            return self.user.owner
        match self.kind:
            case BlockKind.TARGET:
                return _target_text(self.host, self.ports)
            case BlockKind.SOURCE:
                return host_text(self.host)
            case _:
                return ""

    @classmethod
    def parse(cls, kind: BlockKind, text: str) -> Self:
        """Read what stands behind the word for the kind.

        Raises:
            ValueError: says what was expected.
        """
        match kind:
            case BlockKind.USER:
                return cls(kind, user=Scope.parse(f"{ScopeKind.USER.value}:{text}"))
            case BlockKind.SOURCE:
                return cls(kind, host=_parse_rule(kind, text, f"any:{text}(*)->*(*)").source)
            case BlockKind.TARGET:
                host, ports = _split_target(text)
                rule = _parse_rule(kind, host + ports, f"any:*(*)->{host}({ports})")
                return cls(kind, host=rule.destination, ports=rule.destination_ports)
            case BlockKind.EVERYTHING:
                if text:
                    raise ValueError("everything stands alone")
                return cls(kind)
            case _:
                assert_never(kind)


@attrs.frozen
class Block:
    """One block.

    Attributes:
        id: as `trioproxy block list` shows it.
        subject: what is cut off.
        tenant: it holds for users and clients of this tenant alone; None: for those of all.
        reason: for people.
        set_by: who did it, a user of the operating system.
        set_at: aware.
        ends_at: aware; from then on it does nothing. None: it has to be removed.
    """

    id: int
    subject: BlockSubject
    tenant: str | None
    reason: str
    set_by: str
    set_at: datetime
    ends_at: datetime | None = None

    def __str__(self) -> str:
        where = f" in tenant {self.tenant}" if self.tenant is not None and self.subject.user is None else ""
        return f"block {self.id} of {self.subject}{where}: {self.reason}"


class Blocks:
    """All blocks at once. Immutable, and quick however many there are.

    It knows no clock: `in_force` gives those that have not ended, and every other method takes each block for one that
    holds. Of several that fit the oldest is named.
    """

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self._all = tuple(sorted(blocks, key=_ID))
        self._next_end = min((block.ends_at for block in self._all if block.ends_at is not None), default=None)
        self._everything = self._of_kind(BlockKind.EVERYTHING)
        self._users: defaultdict[tuple[str, str], list[Block]] = defaultdict(list)
        for block in self._all:
            if block.subject.user is not None:
                self._users[block.subject.user.tenant, block.subject.user.name].append(block)
        self._sources = _table(self._of_kind(BlockKind.SOURCE))
        targets = self._of_kind(BlockKind.TARGET)
        self._targets = _table(targets)
        self._names: defaultdict[Domain, list[Block]] = defaultdict(list)
        for block in targets:
            if isinstance(block.subject.host, Domain):
                self._names[block.subject.host].append(block)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Block]:
        return iter(self._all)

    def __eq__(self, other: object) -> bool:
        return self._all == other._all if isinstance(other, Blocks) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._all)

    def __repr__(self) -> str:
        return f"Blocks({list(map(str, self._all))})"

    @property
    def next_end(self) -> datetime | None:
        """When the next one ends; None if each has to be removed."""
        return self._next_end

    def in_force(self, now: datetime) -> "Blocks":
        """Those that have not ended by `now` (aware); the very same object if none has."""
        if self._next_end is None or now < self._next_end:
            return self
        return Blocks(block for block in self._all if block.ends_at is None or now < block.ends_at)

    def of_source(self, address: IPAddress, tenant: str | None) -> Block | None:
        """What keeps out a client that has said nothing yet.

        Args:
            address: where it comes from, canonical.
            tenant: of its listener; None if only its login will tell: then what holds for one tenant does not count.
        """
        return _first(self._about_source(address), tenant)

    def of_identity(self, identity: Identity, client_address: IPAddress) -> Block | None:
        """What keeps out somebody who has logged in, or a client that need not, whatever it asks for."""
        return _first(self._about_identity(identity, client_address), identity.tenant)

    def of_name(self, identity: Identity, client_address: IPAddress, name: str, port: int) -> Block | None:
        """The same for a request for this canonical name, before the name is looked up."""
        about_name = self._about_name(name, port)
        return _first(chain(self._about_identity(identity, client_address), about_name), identity.tenant)

    def deciding(self, request: AccessRequest) -> Block | None:
        """What forbids this request."""
        found = chain(
            self._about_identity(request.identity, request.client_address),
            self._about_address(request.address, request.port),
            () if request.name is None else self._about_name(request.name, request.port),
        )
        return _first(found, request.identity.tenant)

    def _of_kind(self, kind: BlockKind) -> tuple[Block, ...]:
        return tuple(block for block in self._all if block.subject.kind is kind)

    def _about_source(self, address: IPAddress) -> Iterator[Block]:
        yield from self._everything
        for number in _numbers(address):
            yield from self._sources.at(number)

    def _about_identity(self, identity: Identity, client_address: IPAddress) -> Iterator[Block]:
        yield from self._about_source(client_address)
        if identity.user is not None:
            yield from self._users.get((identity.tenant, identity.user), ())

    def _about_address(self, address: IPAddress, port: int) -> Iterator[Block]:
        for number in _numbers(address):
            yield from _with_port(self._targets.at(number), port)

    def _about_name(self, name: str, port: int) -> Iterator[Block]:
        if not self._names:
            return
        yield from _with_port(self._names.get(Domain(name), ()), port)
        while name := name.partition(".")[2]:
            yield from _with_port(self._names.get(Domain(name, below=True), ()), port)


def _table(blocks: Iterable[Block]) -> RangeTable[Block]:
    return RangeTable((host_ranges(block.subject.host), block) for block in blocks)


def _numbers(address: IPAddress) -> Iterator[int]:
    """Of the address and of every IPv4 address inside it: each of them may be what is meant."""
    yield address_number(address)
    if isinstance(address, IPv6Address):
        yield from map(address_number, embedded_addresses(address))


def _with_port(blocks: Iterable[Block], port: int) -> Iterator[Block]:
    return (block for block in blocks if block.subject.ports is EVERY_PORT or within(block.subject.ports, port))


def _first(found: Iterable[Block], tenant: str | None) -> Block | None:
    return min((block for block in found if block.tenant in (None, tenant)), key=_ID, default=None)


def _split_target(text: str) -> tuple[str, str]:
    """Host and ports: of `example.org`, `10.0.0.0/8:25,587`, `2001:db8::/32` or `[2001:db8::1]:443`."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, ports = rest[:1], rest[1:]
        if not bracket or colon not in ("", ":"):
            raise ValueError("a target in brackets is written [2001:db8::1] or [2001:db8::1]:443")
    elif text.count(":") > 1:
        host, colon, ports = text, "", ""
    else:
        host, colon, ports = text.partition(":")
    return host, ports if colon else "*"


def _target_text(host: Host, ports: Ports) -> str:
    text = host_text(host)
    if ports == EVERY_PORT:
        return text
    return f"[{text}]:{ports_text(ports)}" if ":" in text else f"{text}:{ports_text(ports)}"


def _parse_rule(kind: BlockKind, given: str, text: str) -> Rule:
    """Let the grammar of rules read a host; what could end the host early is no part of one."""
    if not given.isprintable() or any(character in "() " for character in given):
        raise ValueError(f"a {kind.value} has no spaces and no brackets such as ( )")
    try:
        return parse_rule(text)
    except RuleSyntaxError as error:
        raise ValueError(f"expected {error.expected}") from error


NO_BLOCKS: Final = Blocks()
