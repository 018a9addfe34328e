"""Second opinions: what rules mean and how they are written, said plainly and without the code under test."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network

from auth import Identity
from tests.policy import oracle_options
from trioproxy.policy import AccessRequest, IPAddress, IPNetwork, Rule, RuleProtocol, RuleSet, Scope, ScopeKind
from trioproxy.policy.rules import Area, Domain, Host

PRIVATE = list(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))
INTERNET = list(map(ip_network, ("0.0.0.0/0", "2000::/3", "64:ff9b::/96")))
NO_INTERNET = list(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
            *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
        ),
    )
)


def _inside(address: IPAddress, networks: list[IPNetwork]) -> bool:
    return any(address in network for network in networks)


def host_covers(host: Host, address: IPAddress, name: str | None) -> bool:
    """Does this host of a rule mean this address or name?"""
    if host is Area.EVERYWHERE:
        return True
    if host is Area.PRIVATE:
        return _inside(address, PRIVATE)
    if host is Area.INTERNET:
        return _inside(address, INTERNET) and not _inside(address, NO_INTERNET)
    if isinstance(host, Domain):
        labels, asked = host.name.split("."), (name or "").split(".")
        if host.below:
            return name is not None and len(asked) > len(labels) and asked[-len(labels) :] == labels
        return asked == labels
    assert not isinstance(host, Area)
    return address in host


def matches(rule: Rule, request: AccessRequest, address: IPAddress, local: datetime) -> bool:
    """Does this rule speak about the request, if it goes to this address at this time of the tenant's clock?

    One that asks what the flow is may, as long as that is not known.
    """
    who = request.identity
    return (
        (rule.hours is None or oracle_options.is_open(rule.hours, local))
        and oracle_options.carries(rule, request.protocol)
        and (request.finding is None or oracle_options.fits(rule, request.finding))
        and rule.protocol in (None, request.protocol)
        and host_covers(rule.source, request.client_address, None)
        and any(request.client_port in range(first, last + 1) for first, last in rule.source_ports)
        and host_covers(rule.destination, address, request.name)
        and any(request.port in range(first, last + 1) for first, last in rule.destination_ports)
        and (rule.user is None or rule.user == Scope(ScopeKind.USER, who.tenant, who.user or ""))
        and (rule.group is None or rule.group in {Scope(ScopeKind.GROUP, who.tenant, group) for group in who.groups})
    )


def layers_of(who: Identity) -> list[Scope]:
    """The layers of an identity in their order."""
    if not who.member:
        return [Scope(ScopeKind.GLOBAL)]
    layers = [Scope(ScopeKind.GLOBAL), Scope(ScopeKind.TENANT, who.tenant)]
    layers += [Scope(ScopeKind.GROUP, who.tenant, group) for group in sorted(who.groups)]
    return layers + ([Scope(ScopeKind.USER, who.tenant, who.user)] if who.user else [])


def directory_rules(who: Identity, scope: Scope) -> list[list[Rule]]:
    """The rules of each entry that comes with an identity for one of its layers, read by the parser of this file."""
    groups = {ScopeKind.USER: None, ScopeKind.GROUP: scope.name}
    entries = [
        [parse(text) for text in entry.texts]
        for entry in who.rules
        if scope.kind in groups and entry.group == groups[scope.kind]
    ]
    return [[r for r in rules if r is not None and r.user is None and r.group is None] for rules in entries]


def layer_votes(
    stored: Iterable[Rule],
    written: Iterable[Iterable[Rule]],
    request: AccessRequest,
    address: IPAddress,
    local: datetime,
) -> list[Rule]:
    """The store's first match; without one the first match of each entry, of which a deny counts before an allow."""
    first, *found = [
        next((rule for rule in rules if matches(rule, request, address, local)), None) for rules in (stored, *written)
    ]
    return [first] if first else sorted(filter(None, found), key=lambda rule: rule.allow)


def judge_rules(
    rule_sets: Mapping[Scope, RuleSet], request: AccessRequest, address: IPAddress, local: datetime
) -> tuple[str, str, str]:
    """The layers' vote about one address, as `asking.decided` writes it. The finding is known, if anybody asks."""
    votes = []
    for scope in layers_of(request.identity):
        written = directory_rules(request.identity, scope)
        found = layer_votes(rule_sets.get(scope, RuleSet()), written, request, address, local)
        votes += [(scope, found[0])] if found else []
    for what, allow in (("rule", False), ("permit", True)):
        for scope, rule in votes:
            if rule.allow is allow:
                return what, str(scope), str(rule)
    return "no rule allows it", "", ""


_RULE = re.compile(
    r" *(?:(?P<verb>allow|deny) +)?(?P<protocol>tcp|udp|bind|any):"
    r"(?P<source>[^() >]+)\((?P<source_ports>[^()]+)\) *-> *(?P<destination>[^() >]+)\((?P<destination_ports>[^()]+)\)"
    r"(?P<options>(?: +(?:[a-z-]+)=(?:\"(?:[^\"\\]|\\[\"\\])*\"|[^ \"\\]+))*) *"
)
_OPTION = re.compile(r" +([a-z-]+)=(?:\"((?:[^\"\\]|\\[\"\\])*)\"|([^ \"\\]+))")


def parse(text: str) -> Rule | None:
    """Read a rule with one expression, or return None; quick to write, but cannot say what is wrong where."""
    found = _RULE.fullmatch(text)
    if found is None or not text.isprintable():
        return None
    options: dict[str, str] = {}
    for key, quoted, word in _OPTION.findall(found["options"]):
        if key in options:
            return None
        options[key] = word or re.sub(r"\\(.)", r"\1", quoted)
    if options.get("log", "yes") not in ("yes", "no") or len(options.get("note", "")) > 500:
        return None
    conditions = {key: options.pop(key) for key in oracle_options.KEYS if key in options}
    if options.keys() - {"user", "group", "log", "note"}:
        return None
    try:
        source = _host(found["source"])
        return (
            Rule(
                allow=found["verb"] != "deny",
                protocol=None if found["protocol"] == "any" else RuleProtocol(found["protocol"]),
                source=source,
                source_ports=_ports(found["source_ports"]),
                destination=_host(found["destination"]),
                destination_ports=_ports(found["destination_ports"]),
                user=Scope.parse(f"user:{options['user']}") if "user" in options else None,
                group=Scope.parse(f"group:{options['group']}") if "group" in options else None,
                log=options["log"] == "yes" if "log" in options else None,
                note=options.get("note", ""),
                **oracle_options.read(conditions, found["protocol"], allow=found["verb"] != "deny"),
            )
            if not isinstance(source, Domain)
            else None
        )
    except ValueError:
        return None


def _ports(text: str) -> tuple[tuple[int, int], ...]:
    if text == "*":
        return ((0, 65535),)
    ports = []
    for item in text.split(","):
        first, dash, last = item.partition("-")
        numbers = [first, last] if dash else [first, first]
        if not all(re.fullmatch("[0-9]{1,5}", number) for number in numbers):
            raise ValueError(item)
        ports.append((int(numbers[0]), int(numbers[1])))
    if len(ports) > 64 or not all(1 <= first <= last <= 65535 for first, last in ports):
        raise ValueError(text)
    return tuple(ports)


def _host(text: str) -> Host:
    if text in ("*", "internet", "private"):
        return Area(text)
    if "/" in text:
        if not re.fullmatch(r"[0-9a-fA-F:.]+/[0-9]{1,3}", text):
            raise ValueError(text)
        before, prefix = text.split("/")
        network = ip_network(f"{before.removesuffix('.')}/{prefix}")
        first = network.network_address
        if isinstance(first, IPv6Address) and first.ipv4_mapped and network.prefixlen >= 96:
            return ip_network((int(first.ipv4_mapped), network.prefixlen - 96))
        if isinstance(first, IPv6Address) and first.ipv4_mapped:
            raise ValueError(text)
        return network
    below = text.startswith("*.")
    name = text.removeprefix("*.").lower().removesuffix(".")
    last = name.rpartition(".")[2]
    if ":" in name or re.fullmatch("[0-9]+|0x[0-9a-f]*", last):
        address = ip_address(name)
        if below or "%" in name:
            raise ValueError(text)
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return ip_network(address)
    labels = name.split(".")
    word = name in ("internet", "private") and not below
    if word or len(name) > 253 or not all(re.fullmatch("[a-z0-9_-]{1,63}", label) for label in labels):
        raise ValueError(text)
    return Domain(name, below)
