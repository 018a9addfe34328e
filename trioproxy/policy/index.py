"""Finding the first matching rule of every layer at once, without asking every rule.

The rules of all layers hang in trees of tables, one level for each part of a rule:

    protocol -> destination -> its ports -> whose (user, group or tenant) -> source -> its ports -> rules

What hangs at their ends, rules that ask what a flow is among it, is in `trioproxy.policy.leaves`. A table only leaves
out rules that cannot match; what is left is asked itself (`Rule.matches`), in order, until one says yes. So a mistake
here can overlook a rule, but never make one match, and the property test against the naive scan looks for exactly that.

All layers share one tree per tenant because a user in twenty groups has twenty-three of them:
one walk costs less than twenty-three look-ups. Rules of the global layer without `user=` and `group=` have a tree of
their own, so that they are not copied for each tenant; and no request ever walks the tree of another tenant. Those with
`user=` or `group=` stand a second time in a tree without the inner layers, for users outside the proxy group.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from trioproxy.policy.leaves import Entry, NameTree, Node, Votes, leaf
from trioproxy.policy.ranges import RangeTable
from trioproxy.policy.request import RuleProtocol
from trioproxy.policy.rules import Domain, Host, Ports, Question, Rule, host_ranges
from trioproxy.policy.ruleset import RuleSet
from trioproxy.policy.scope import Scope, ScopeKind

__all__ = ["Index", "LayerIndex", "port_blocks", "scope_order"]

ROW_LENGTH: Final = 4  # asking four rules costs about as much as one more table
_PORTS: Final = 65536
PORT_BLOCKS_MAX: Final = (
    64  # a full list of single ports stays exact; a list of many odd ranges may be left to the rules
)

Build: TypeAlias = "Callable[[list[Entry]], Node]"


def scope_order(scope: Scope) -> tuple[int, str, str]:
    """The key by which layers are put in order: global, tenants, groups, users; by name among themselves."""
    return list(ScopeKind).index(scope.kind), scope.tenant, scope.name


def _entries(scope: Scope, rules: Iterable[Rule], origin: str = "") -> Iterator[tuple[RuleProtocol, Entry]]:
    """The rules of a layer in their places, each once for every protocol that it speaks about."""
    name, order = str(scope), scope_order(scope)
    for number, rule in enumerate(rules):
        audience = rule.user or rule.group or scope
        entry = Entry(rule, number, (rule.allow, *order), name, str(rule), audience, origin)
        for protocol in rule.protocols:
            yield protocol, entry


class Index:
    """All rules of all layers. Immutable."""

    def __init__(self, rule_sets: Mapping[Scope, RuleSet]) -> None:
        everybody: defaultdict[RuleProtocol, list[Entry]] = defaultdict(list)
        members: defaultdict[tuple[str, RuleProtocol], list[Entry]] = defaultdict(list)
        nonmembers: defaultdict[tuple[str, RuleProtocol], list[Entry]] = defaultdict(list)
        for scope, rules in rule_sets.items():
            for protocol, entry in _entries(scope, rules):
                if entry.audience.kind is ScopeKind.GLOBAL:
                    everybody[protocol].append(entry)
                    continue
                members[entry.audience.tenant, protocol].append(entry)
                if scope.kind is ScopeKind.GLOBAL:
                    nonmembers[entry.audience.tenant, protocol].append(entry)
        self._everybody = {protocol: _DestinationTable(entries, _everybody) for protocol, entries in everybody.items()}
        self._members = {key: _DestinationTable(entries, _tenant) for key, entries in members.items()}
        self._nonmembers = {key: _DestinationTable(entries, _tenant) for key, entries in nonmembers.items()}

    def votes(self, question: Question) -> Votes:
        """The first matching rule of each layer that has one and judges the identity."""
        votes: Votes = {}
        protocol, identity = question.protocol, question.identity
        if tree := self._everybody.get(protocol):
            tree.collect(question, votes)
        trees = self._members if identity.member else self._nonmembers
        if tree := trees.get((identity.tenant, protocol)):
            tree.collect(question, votes)
        return votes


class LayerIndex:
    """The rules of one inner layer by themselves; whose layer it is, is the caller's to know. Immutable.

    Args:
        scope: the layer.
        rules: in their order, none with `user=` or `group=`.
        origin: where they are written.
    """

    def __init__(self, scope: Scope, rules: Iterable[Rule], origin: str) -> None:
        entries: defaultdict[RuleProtocol, list[Entry]] = defaultdict(list)
        for protocol, entry in _entries(scope, rules, origin):
            entries[protocol].append(entry)
        self._trees = {protocol: _by_destination(below) for protocol, below in entries.items()}

    def collect(self, question: Question, votes: Votes) -> None:
        """Note the first rule that matches."""
        if tree := self._trees.get(question.protocol):
            tree.collect(question, votes)


class _DestinationTable:
    """By destination: networks and areas in one sorted table, names in a tree."""

    __slots__ = ("_names", "_ranges")

    def __init__(self, entries: Iterable[Entry], build: Build) -> None:
        hosts: defaultdict[Host, list[Entry]] = defaultdict(list)
        for entry in entries:
            hosts[entry.rule.destination].append(entry)
        children = {host: build(below) for host, below in hosts.items()}
        self._ranges = RangeTable((host_ranges(host), child) for host, child in children.items())
        self._names = NameTree()
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
        rows: defaultdict[tuple[Scope, str], list[Entry]] = defaultdict(list)
        for entry in entries:
            rows[entry.audience, entry.scope].append(entry)
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


def _by_destination(entries: list[Entry]) -> Node:
    return leaf(entries) if len(entries) <= ROW_LENGTH else _DestinationTable(entries, _everybody)


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
        return leaf(entries)
    hosts: defaultdict[Host, list[Entry]] = defaultdict(list)
    for entry in entries:
        hosts[entry.rule.source].append(entry)
    return _SourceTable({host: _by_source_port(below) for host, below in hosts.items()})


def _by_source_port(entries: list[Entry]) -> Node:
    if len(entries) <= ROW_LENGTH:
        return leaf(entries)
    blocks: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        for block in port_blocks(entry.rule.source_ports, 1):  # one, so that the two port levels do not multiply
            blocks[block].append(entry)
    return _PortTable({block: leaf(below) for block, below in blocks.items()}, of_client=True)


def _everybody(entries: list[Entry]) -> Node:
    return _by_destination_port(entries, _by_source)


def _tenant(entries: list[Entry]) -> Node:
    return _by_destination_port(entries, _AudienceTable)
