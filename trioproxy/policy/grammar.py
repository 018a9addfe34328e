r"""The text of a rule, read from left to right; each error knows its column.

    rule     = [ "allow" | "deny" ] protocol ":" host "(" ports ")" "->" host "(" ports ")" { option }
    protocol = "tcp" | "udp" | "bind" | "any"
    host     = "*" | address | address "/" prefix | name | "*." name | "internet" | "private"
    ports    = "*" | port or from-to { "," port or from-to }
    option   = key "=" ( word | '"' text '"' )

Spaces separate words and may surround the arrow. In quotes, \" and \\ stand for " and \. What the keys are and may say
is in `trioproxy.policy.options`.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any, Final

import attrs

from trioproxy.policy.canonical import CanonicalError, canonical_host
from trioproxy.policy.options import KEYS, NOTE_LENGTH_MAX, OptionError, conflicts, read_option
from trioproxy.policy.ranges import IPNetwork
from trioproxy.policy.request import RuleProtocol
from trioproxy.policy.rules import EVERY_PORT, Area, Domain, Host, Ports, Rule

__all__ = ["NOTE_LENGTH_MAX", "PORT_ITEMS_MAX", "RULE_LENGTH_MAX", "RuleSyntaxError", "parse_rule"]

# Characters; room for two full port lists, two owners and each option at its longest. With the limits of the parts no
# accepted rule prints longer than this.
RULE_LENGTH_MAX: Final = 8192
PORT_ITEMS_MAX: Final = 64  # as many as iptables' multiport has, four times over

_PROTOCOLS: Final = {"any": None} | {protocol.value: protocol for protocol in RuleProtocol}
_AREAS: Final = {area.value: area for area in Area}
_EACH_KEY: Final = f"{', '.join(f'{key}=' for key in KEYS[:-1])} or {KEYS[-1]}="

_VERB: Final = re.compile(r"(allow|deny)(?: +|$)")
_PROTOCOL: Final = re.compile(r"([^ :]*):")
_HOST: Final = re.compile(r"(?:(?!->)[^ ()])+")
_PORTS: Final = re.compile(r"[^()]+")
_PORT_ITEM: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_PREFIX_LENGTH: Final = re.compile(r"[0-9]{1,3}", re.ASCII)
_ARROW: Final = re.compile(r" *-> *")
_SPACES: Final = re.compile(r" +")
_KEY: Final = re.compile(r"[^ =]+")
_VALUE: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"|([^ "\\]+)')
_ESCAPE: Final = re.compile(r"\\(.)")
_PORT_LAST: Final = 65535


class RuleSyntaxError(ValueError):
    """A rule that cannot be read.

    Attributes:
        column: where, beginning with 1.
        expected: what should have been there.
    """

    def __init__(self, column: int, expected: str) -> None:
        super().__init__(f"column {column}: expected {expected}")
        self.column = column
        self.expected = expected


def parse_rule(text: str) -> Rule:
    """Read one rule. `parse_rule(str(rule)) == rule` for each rule that this returns.

    Raises:
        RuleSyntaxError: with the column and what was expected there.
    """
    if len(text) > RULE_LENGTH_MAX:
        raise RuleSyntaxError(RULE_LENGTH_MAX + 1, f"the end: a rule has at most {RULE_LENGTH_MAX} characters")
    if not text.isprintable():
        column = next(place for place, character in enumerate(text, 1) if not character.isprintable())
        raise RuleSyntaxError(column, "printable characters and plain spaces")
    return _Reader(text.rstrip(" ")).rule()


@attrs.define
class _Reader:
    """The text, how far it has been read, the options found, and where."""

    text: str
    place: int = 0
    options: dict[str, Any] = attrs.field(factory=dict)  # by the fields of `Rule`
    places: dict[str, int] = attrs.field(factory=dict)  # by key

    def rule(self) -> Rule:
        self._take(_SPACES)
        verb = self._take(_VERB)
        protocol = self._protocol()
        source = self._source()
        source_ports = self._ports()
        if not self._take(_ARROW):
            raise self._error("'->' between source and destination")
        destination = self._host()
        destination_ports = self._ports()
        self._options()
        rule = Rule(
            allow=verb is None or verb[1] == "allow",
            protocol=protocol,
            source=source,
            source_ports=source_ports,
            destination=destination,
            destination_ports=destination_ports,
            **self.options,
        )
        for key, expected in conflicts(rule):
            raise self._error(expected, self.places[key])
        return rule

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.place)
        if found:
            self.place = found.end()
        return found

    def _word(self, pattern: re.Pattern[str]) -> str:
        found = self._take(pattern)
        return found[0] if found else ""

    def _error(self, expected: str, place: int | None = None) -> RuleSyntaxError:
        return RuleSyntaxError((self.place if place is None else place) + 1, expected)

    def _protocol(self) -> RuleProtocol | None:
        place = self.place
        word = self._take(_PROTOCOL)
        if word is None or word[1] not in _PROTOCOLS:
            raise self._error("tcp:, udp:, bind: or any: (with allow or deny before it)", place)
        return _PROTOCOLS[word[1]]

    def _source(self) -> Host:
        place = self.place
        host = self._host()
        if isinstance(host, Domain):
            raise self._error("an address or network as source: names of clients are never looked up", place)
        return host

    def _host(self) -> Host:
        place = self.place
        text = self._word(_HOST)
        if not text:
            raise self._error("a host: *, an address, a network, a name, *.name, internet or private")
        if area := _AREAS.get(text.lower()):
            return area
        if "/" in text:
            return self._network(text, place)
        below = text.startswith("*.")
        try:
            host = canonical_host((text[2:] if below else text).encode())
        except CanonicalError as exc:
            raise self._error(f"a host: {exc}", place) from exc
        if host in _AREAS and not below:  # `internet.`, which would be read as another one when it is printed
            raise self._error(f"a host: {host} is a word of its own here, and no name", place)
        if isinstance(host, str):
            return Domain(host, below)
        if below:
            raise self._error("a name after '*.'", place + 2)
        return IPv4Network(host) if isinstance(host, IPv4Address) else IPv6Network(host)

    def _network(self, text: str, place: int) -> IPNetwork:
        before, _, prefix = text.partition("/")
        behind = place + len(before) + 1
        try:
            address = canonical_host(before.encode())
        except CanonicalError as exc:
            raise self._error(f"an address before '/': {exc}", place) from exc
        if isinstance(address, str):
            raise self._error("an address before '/'", place)
        length = int(prefix) if _PREFIX_LENGTH.fullmatch(prefix) else -1
        if ":" in before and isinstance(address, IPv4Address):
            length -= 96  # a mapped network is written like the IPv4 network it is
        if not 0 <= length <= address.max_prefixlen:
            raise self._error(f"a prefix length up to {address.max_prefixlen} behind '/'", behind)
        kind = IPv4Network if isinstance(address, IPv4Address) else IPv6Network
        network = kind((int(address), length), strict=False)
        if network.network_address != address:
            raise self._error(f"no bits behind the prefix: the network is {network}", place)
        return network

    def _ports(self) -> Ports:
        if not self.text.startswith("(", self.place):
            raise self._error("'(' after the host")
        self.place += 1
        place = self.place
        text = self._word(_PORTS)
        if not self.text.startswith(")", self.place):
            raise self._error("')' after the ports")
        self.place += 1
        if text == "*":
            return EVERY_PORT
        items = text.split(",")
        if len(items) > PORT_ITEMS_MAX:
            raise self._error(f"at most {PORT_ITEMS_MAX} ports and ranges", place)
        ports = []
        for item in items:
            ports.append(self._port_item(item, place))
            place += len(item) + 1
        return tuple(ports)

    def _port_item(self, item: str, place: int) -> tuple[int, int]:
        numbers = _PORT_ITEM.fullmatch(item)
        if numbers is None:
            raise self._error("*, a port, or a range such as 8000-8010", place)
        first = int(numbers[1])
        last = first if numbers[2] is None else int(numbers[2])
        if not 1 <= first <= last <= _PORT_LAST:
            raise self._error(f"ports from 1 to {_PORT_LAST}, the smaller one first", place)
        return first, last

    def _options(self) -> None:
        while self.place < len(self.text):
            if not self._take(_SPACES):
                raise self._error("a space before the option")
            place = self.place
            key = self._word(_KEY)
            if key not in KEYS:
                raise self._error(_EACH_KEY, place)
            if key in self.places:
                raise self._error(f"{key}= only once", place)
            if not self.text.startswith("=", self.place):
                raise self._error(f"'=' after {key}")
            self.place += 1
            self.places[key] = place
            self._option(key)

    def _option(self, key: str) -> None:
        begin = self.place
        value = self._value()
        try:
            field, found = read_option(key, value)
        except OptionError as exc:
            # What goes before the place in a list holds no escapes, so it is as long in the text as in the value.
            quote = 1 if exc.place and self.text.startswith('"', begin) else 0
            raise self._error(str(exc), begin + quote + exc.place) from exc
        self.options[field] = found

    def _value(self) -> str:
        found = self._take(_VALUE)
        if found is None:
            raise self._error('a word, or text in "quotes" with \\" and \\\\ inside')
        if found[1] is not None:
            return _ESCAPE.sub(r"\1", found[1])
        return found[2]
