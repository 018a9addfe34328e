"""Finding the first matching rule of every layer at once, without asking every rule.

The rules of all layers hang in trees of tables, one level for each part of a rule:

    protocol -> destination -> its ports -> whose (user, group or tenant) -> source -> its ports -> rules

A table only leaves out rules that cannot match; what is left is asked itself (`Rule.matches`), in order, until one
says yes. So a mistake here can overlook a rule, but never make one match, and the property test against the naive scan
looks for exactly that. All layers share one tree per tenant because a user in twenty groups has twenty-three of them:
one walk costs less than twenty-three look-ups. Rules of the global layer without `user=` and `group=` have a tree of
their own, so that they are not copied for each tenant; and no request ever walks the tree of another tenant.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

import attrs

from trioproxy.policy.ranges import RangeTable
from trioproxy.policy.request import RuleProtocol
from trioproxy.policy.rules import Domain, Host, Ports, Question, Rule, host_ranges
from trioproxy.policy.ruleset import RuleSet
from trioproxy.policy.scope import Scope, ScopeKind

__all__ = ["Entry", "Index", "Votes", "port_blocks", "scope_order"]

ROW_LENGTH: Final = 4  # asking four rules costs about as much as one more table
_PORTS: Final = 65536
PORT_BLOCKS_MAX: Final = (
    64  # a full list of single ports stays exact; a list of many odd ranges may be left to the rules
)

Build: TypeAlias = "Callable[[list[Entry]], Node]"


@attrs.frozen(eq=False)
class Entry:
    """A rule in its place.

    Attributes:
        rule: what is asked.
        number: its place in its layer.
        layer: the place of the layer among all layers, the outermost first.
        rank: the lowest of several votes decides: a deny before each allow, outer layers before inner ones.
        scope: the text of the layer.
        text: the text of the rule.
        audience: whom it is about: `user=alice` in the global layer is about as many as the layer `user:alice`.
    """

    rule: Rule
    number: int
    layer: int
    rank: int
    scope: str
    text: str
    audience: Scope


Votes: TypeAlias = dict[int, Entry]  # for each layer (by its number) the first entry that matches


class Node(Protocol):
    """A table, or the row of rules at the end."""

    def collect(self, question: Question, votes: Votes) -> None:
        """Note for each layer the first matching entry below this node, unless an earlier one is known."""
        ...


def scope_order(scope: Scope) -> tuple[int, str, str]:
    """The key by which layers are put in order: global, tenants, groups, users; by name among themselves."""
    return list(ScopeKind).index(scope.kind), scope.tenant, scope.name


class Index:
    """All rules of all layers. Immutable."""

    def __init__(self, rule_sets: Mapping[Scope, RuleSet]) -> None:
        everybody: defaultdict[RuleProtocol, list[Entry]] = defaultdict(list)
        tenants: defaultdict[tuple[str, RuleProtocol], list[Entry]] = defaultdict(list)
        for layer, scope in enumerate(sorted(rule_sets, key=scope_order)):
            name = str(scope)
            for number, rule in enumerate(rule_sets[scope]):
                audience = rule.user or rule.group or scope
                rank = layer + len(rule_sets) if rule.allow else layer
                entry = Entry(rule, number, layer, rank, name, str(rule), audience)
                for protocol in RuleProtocol if rule.protocol is None else (rule.protocol,):
                    if audience.kind is ScopeKind.GLOBAL:
                        everybody[protocol].append(entry)
                    else:
                        tenants[audience.tenant, protocol].append(entry)
        self._everybody = {protocol: _DestinationTable(entries, _everybody) for protocol, entries in everybody.items()}
        self._tenants = {key: _DestinationTable(entries, _tenant) for key, entries in tenants.items()}

    def votes(self, question: Question) -> Votes:
        """The first matching rule of each layer that has one."""
        votes: Votes = {}
        protocol = question.protocol
        if tree := self._everybody.get(protocol):
            tree.collect(question, votes)
        if tree := self._tenants.get((question.identity.tenant, protocol)):
            tree.collect(question, votes)
        return votes


class _Row:
    """Rules of one layer in their order; the end of each path."""

    __slots__ = ("_entries", "_layer")

    def __init__(self, entries: Sequence[Entry]) -> None:
        # Unpacked once, because this loop is most of what a verdict costs.
        self._entries = tuple((entry.number, entry.rule.matches, entry) for entry in entries)
        self._layer = entries[0].layer

    def collect(self, question: Question, votes: Votes) -> None:
        known = votes.get(self._layer)
        for number, matches, entry in self._entries:
            if known is not None and number >= known.number:
                return
            if matches(question):
                votes[self._layer] = entry
                return


class _Name:
    """A name in the tree of names, from the last label to the first."""

    __slots__ = ("below", "children", "here")

    def __init__(self) -> None:
        self.here: Node | None = None
        self.below: Node | None = None
        self.children: dict[str, _Name] = {}

    def add(self, domain: Domain, node: Node) -> None:
        name = self
        for label in reversed(domain.name.split(".")):
            if label not in name.children:
                name.children[label] = _Name()
            name = name.children[label]
        if domain.below:
            name.below = node
        else:
            name.here = node

    def collect(self, question: Question, votes: Votes, asked: str) -> None:
        # Leaves as soon as no rule ends like the name: a name of 127 labels costs no more than the rules are deep.
        name = self
        for label in reversed(asked.split(".")):
            if name.below is not None:
                name.below.collect(question, votes)
            child = name.children.get(label)
            if child is None:
                return
            name = child
        if name.here is not None:
            name.here.collect(question, votes)


class _DestinationTable:
    """By destination: networks and areas in one sorted table, names in a tree."""

    __slots__ = ("_names", "_ranges")

    def __init__(self, entries: Iterable[Entry], build: Build) -> None:
        hosts: defaultdict[Host, list[Entry]] = defaultdict(list)
        for entry in entries:
            hosts[entry.rule.destination].append(entry)
        children = {host: build(below) for host, below in hosts.items()}
        self._ranges = RangeTable((host_ranges(host), child) for host, child in children.items())
        self._names = _Name()
        for host, child in children.items():
            if isinstance(host, Domain):
                self._names.add(host, child)

    def collect(self, question: Question, votes: Votes) -> None:
        for child in self._ranges.at(question.destination):
            child.collect(question, votes)
        if question.name is not None:
            self._names.collect(question, votes, question.name)


class _AudienceTable:
    """By whom a rule is about, inside one tenant. What hangs below belongs to one audience and one layer."""

    __slots__ = ("_everybody", "_groups", "_users")

    def __init__(self, entries: Iterable[Entry]) -> None:
        rows: defaultdict[tuple[Scope, int], list[Entry]] = defaultdict(list)
        for entry in entries:
            rows[entry.audience, entry.layer].append(entry)
        nodes: dict[ScopeKind, defaultdict[str, list[Node]]] = {kind: defaultdict(list) for kind in ScopeKind}
        for (audience, _), row in rows.items():
            nodes[audience.kind][audience.name].append(_by_source(row))
        self._everybody = nodes[ScopeKind.TENANT].get("", [])
        self._users = dict(nodes[ScopeKind.USER])
        self._groups = dict(nodes[ScopeKind.GROUP])

    def collect(self, question: Question, votes: Votes) -> None:
        for child in self._everybody:
            child.collect(question, votes)
        identity = question.identity
        if identity.user is not None:
            for child in self._users.get(identity.user, ()):
                child.collect(question, votes)
        if groups := self._groups:
            for group in identity.groups:
                for child in groups.get(group, ()):
                    child.collect(question, votes)


class _SourceTable:
    """By the client's address."""

    __slots__ = ("_ranges",)

    def __init__(self, children: Mapping[Host, Node]) -> None:
        self._ranges = RangeTable((host_ranges(host), child) for host, child in children.items())

    def collect(self, question: Question, votes: Votes) -> None:
        for child in self._ranges.at(question.source):
            child.collect(question, votes)


def port_blocks(ports: Ports, blocks_max: int) -> list[int]:
    """Cover a list of ports with blocks of powers of two; with one block around them all if that takes too many.

    A block is a node of the binary tree over all ports: 1 is all of them, 65536 + port a single one.
    """
    blocks = []
    for first, last in ports:
        begin = first
        while begin <= last:
            size = begin & -begin or _PORTS
            while begin + size - 1 > last:
                size >>= 1
            blocks.append((_PORTS | begin) // size)
            begin += size
    if len(blocks) <= blocks_max:
        return blocks
    lowest, highest = min(first for first, _ in ports), max(last for _, last in ports)
    return [(_PORTS | lowest) >> (lowest ^ highest).bit_length()]


class _PortTable:
    """By port of the client or of the destination, in the blocks of `port_blocks`."""

    __slots__ = ("_blocks", "_of_client", "_shifts")

    def __init__(self, blocks: Mapping[int, Node], *, of_client: bool) -> None:
        self._blocks = blocks
        self._of_client = of_client
        self._shifts = sorted({_PORTS.bit_length() - block.bit_length() for block in blocks})

    def collect(self, question: Question, votes: Votes) -> None:
        block = _PORTS | (question.source_port if self._of_client else question.destination_port)
        for shift in self._shifts:
            node = self._blocks.get(block >> shift)
            if node is not None:
                node.collect(question, votes)


def _by_destination_port(entries: list[Entry], build: Build) -> Node:
    if len(entries) <= ROW_LENGTH:
        return build(entries)
    blocks: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        for block in port_blocks(entry.rule.destination_ports, PORT_BLOCKS_MAX):
            blocks[block].append(entry)
    return _PortTable({block: build(below) for block, below in blocks.items()}, of_client=False)


def _by_source(entries: list[Entry]) -> Node:
    if len(entries) <= ROW_LENGTH:
        return _Row(entries)
    hosts: defaultdict[Host, list[Entry]] = defaultdict(list)
    for entry in entries:
        hosts[entry.rule.source].append(entry)
    return _SourceTable({host: _by_source_port(below) for host, below in hosts.items()})


def _by_source_port(entries: list[Entry]) -> Node:
    if len(entries) <= ROW_LENGTH:
        return _Row(entries)
    blocks: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        for block in port_blocks(entry.rule.source_ports, 1):  # one, so that the two port levels do not multiply
            blocks[block].append(entry)
    return _PortTable({block: _Row(below) for block, below in blocks.items()}, of_client=True)


def _everybody(entries: list[Entry]) -> Node:
    return _by_destination_port(entries, _by_source)


def _tenant(entries: list[Entry]) -> Node:
    return _by_destination_port(entries, _AudienceTable)
