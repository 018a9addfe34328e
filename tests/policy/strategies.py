"""Rules, rule sets and requests from a world so small that they often meet."""

from datetime import UTC, date, datetime, time, timedelta
from functools import cache  # Hypothesis checks each new strategy anew, which takes longer than drawing from it
from ipaddress import ip_address, ip_network
from typing import Any
from zoneinfo import ZoneInfo

import attrs
from hypothesis import strategies as st

from auth import EntryRules, Identity
from trioproxy.policy import (
    AccessRequest,
    IPAddress,
    IPNetwork,
    Rule,
    RuleProtocol,
    RuleSet,
    Scope,
    ScopeKind,
    TimeZones,
    canonical_address,
)
from trioproxy.policy.hours import Hours, Span
from trioproxy.policy.rules import EVERY_PORT, Area, Domain, Host, Ports
from trioproxy.policy.units import Period, Quota, Rates
from trioproxy.sniff import App, Finding

TENANTS = ["main", "physics"]
USERS = ["alice", "bob", "jane doe", "zoë@example.org"]
GROUPS = ["staff", "students", "it-ops", "system-proxy"]
PORTS = [1, 2, 22, 80, 443, 444, 1023, 1024, 5000, 32767, 32768, 65534, 65535]
ADDRESSES = [
    *("10.0.0.0", "10.0.0.1", "10.0.0.2", "10.1.2.3", "10.255.255.255", "192.168.1.1", "100.64.0.1", "172.32.0.1"),
    *("8.8.8.8", "8.8.8.9", "93.184.216.34", "192.0.0.8", "203.0.113.7", "223.255.255.255", "127.0.0.1", "0.0.0.0"),
    *("2001:4860::8888", "2001:db8::1", "fd00::1", "64:ff9b::808:808", "64:ff9b::a00:1", "2002:a00:1::1", "::1"),
    *("2a00:1450::1", "2a00:1450::2", "64:ff9b:1::a00:1", "2a00::5efe:a00:1", "fe80::1", "4000::1", "::808:808"),
]


NETWORKS = [
    ip_network(f"{address}/{length}", strict=False)
    for address in ADDRESSES
    for length in (0, 1, 7, 8, 15, 16, 23, 24, 31, 32, 48, 64, 96, 127, 128)
    if length <= ip_address(address).max_prefixlen
]


@cache
def addresses() -> st.SearchStrategy[IPAddress]:
    """Mostly addresses that rules speak about, sometimes any."""
    known = st.sampled_from([ip_address(address) for address in ADDRESSES])
    return st.one_of(known, known, known, st.ip_addresses().map(canonical_address))


@cache
def networks() -> st.SearchStrategy[IPNetwork]:
    """Networks around those addresses, /0 and single addresses included."""
    return st.sampled_from(NETWORKS) | addresses().map(ip_network)


@cache
def names() -> st.SearchStrategy[str]:
    """Canonical names, of few labels."""
    return st.lists(st.sampled_from(["a", "b", "c", "_x-1"]), min_size=1, max_size=5).map(".".join)


@cache
def hosts(*, names_too: bool = True) -> st.SearchStrategy[Host]:
    """The left or right side of a rule."""
    some: list[st.SearchStrategy[Host]] = [
        st.just(Area.EVERYWHERE),
        st.sampled_from(Area),
        networks(),
    ]
    return st.one_of(*some, st.builds(Domain, names(), st.booleans())) if names_too else st.one_of(*some)


@cache
def ports() -> st.SearchStrategy[Ports]:
    """`*`, single ports, ranges and lists of them."""
    single = st.sampled_from(PORTS).map(lambda port: (port, port))
    some = st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(lambda pair: (min(pair), max(pair)))
    return st.one_of(st.just(EVERY_PORT), st.lists(st.one_of(single, some), min_size=1, max_size=4).map(tuple))


@cache
def owners(kind: ScopeKind) -> st.SearchStrategy[Scope]:
    """A user or a group of some tenant."""
    return st.builds(
        Scope, st.just(kind), st.sampled_from(TENANTS), st.sampled_from(USERS if kind is ScopeKind.USER else GROUPS)
    )


# Times of the day that meet, with the hour that a change of the clocks leaves out or repeats.
TIMES = [0, 30, 60, 2 * 60, 2 * 60 + 30, 3 * 60, 8 * 60, 12 * 60, 18 * 60, 22 * 60, 23 * 60 + 59]


@cache
def hours() -> st.SearchStrategy[Hours]:
    """One to three spans; some go round midnight or the end of the week, some are every day."""
    days = st.one_of(st.just((0, 6)), st.tuples(st.integers(0, 6), st.integers(0, 6)))
    span = st.builds(
        lambda days, begin, end: Span(days[0], days[1], begin, end),
        days.filter(lambda days: days == (0, 6) or (days[1] + 1 - days[0]) % 7 != 0),
        st.sampled_from(TIMES),
        st.sampled_from([*TIMES[1:], 24 * 60]),
    )
    usable = span.filter(lambda span: span.begin != span.end)
    return st.lists(usable, min_size=1, max_size=3).map(lambda spans: Hours(tuple(spans)))


ZONES = TimeZones(ZoneInfo("America/New_York"), {"physics": ZoneInfo("Europe/Berlin")})


@cache
def moments() -> st.SearchStrategy[datetime]:
    """Around the days on which the clocks of Europe are changed, most often when hours of some rule begin or end."""
    day = st.dates(date(2026, 3, 26), date(2026, 4, 2)) | st.dates(date(2026, 10, 22), date(2026, 10, 29))
    minute = st.sampled_from([0, *TIMES[1:]]) | st.integers(0, 24 * 60 - 1)
    zone = st.sampled_from([UTC, *ZONES.all()])
    near = st.sampled_from([timedelta(), timedelta(microseconds=-1), timedelta(seconds=59)])
    return st.builds(
        lambda day, minute, zone, near: (
            datetime.combine(day, time(minute // 60, minute % 60), zone).astimezone(UTC) + near
        ),
        day,
        minute,
        zone,
        near,
    )


def local(now: datetime, who: Identity) -> datetime:
    """What the clock on the wall of the identity's tenant shows."""
    return now.astimezone(ZONES.of(who.tenant))


DATAGRAM_APPS = {App.QUIC, App.DNS, App.STUN}


@cache
def findings() -> st.SearchStrategy[Finding]:
    """What may be found, with the names that rules speak of and others."""
    name = st.none() | names()
    tls = st.builds(Finding, st.just(App.TLS), sni=name, ech=st.booleans())
    host = name | st.sampled_from(["10.0.0.1", "2001:db8::1"])
    http = st.builds(Finding, st.just(App.HTTP), http_host=host)
    quic = st.builds(Finding, st.just(App.QUIC), sni=name)
    return st.one_of(tls, http, quic, st.sampled_from(App).map(Finding))


def _subset(items: list[App]) -> st.SearchStrategy[tuple[App, ...]]:
    return st.lists(st.sampled_from(items), min_size=1, max_size=3, unique=True).map(tuple)


@cache
def _domains() -> st.SearchStrategy[tuple[Domain, ...]]:
    return st.lists(st.builds(Domain, names(), st.booleans()), min_size=1, max_size=3).map(tuple)


@cache
def _asking(protocol: RuleProtocol | None) -> st.SearchStrategy[dict[str, Any]]:
    """Nothing, app=, sni= or http-host=, as they go with the protocol."""
    nothing: st.SearchStrategy[dict[str, Any]] = st.just({})
    streams = [app for app in App if app not in DATAGRAM_APPS]
    match protocol:
        case RuleProtocol.BIND:
            return nothing
        case RuleProtocol.UDP:
            return nothing | st.fixed_dictionaries({"apps": _subset([*DATAGRAM_APPS, App.UNKNOWN])})
        case _:
            apps = st.fixed_dictionaries({"apps": _subset(list(App) if protocol is None else streams)})
            address = st.sampled_from([Domain("10.0.0.1"), Domain("2001:db8::1")])
            hosts = _domains() | address.map(lambda one: (one,))
            sni = st.fixed_dictionaries({"sni": _domains()}, optional={"apps": st.just((App.TLS,))})
            http_host = st.fixed_dictionaries({"http_host": hosts}, optional={"apps": st.just((App.HTTP,))})
            return st.one_of(nothing, apps, sni, http_host)


@cache
def _limiting() -> st.SearchStrategy[dict[str, Any]]:
    """What an allow rule may set as terms."""
    rate = st.integers(1_000, 125 * 10**9)
    size = st.integers(1, 2**60)
    shaped = st.builds(Rates, rate, rate).flatmap(
        lambda rates: st.fixed_dictionaries(
            {"rate": st.just(rates)}, optional={"burst": st.integers(rates.least_burst, 2**60)}
        )
    )
    rest = st.fixed_dictionaries(
        {},
        optional={"quota": st.builds(Quota, size, st.sampled_from(Period)), "scan_ignored": st.booleans()},
    )
    return st.builds(lambda one, two: one | two, st.just({}) | shaped, rest)


@cache
def _timed(*, allow: bool) -> st.SearchStrategy[dict[str, Any]]:
    grace = {"grace_s": st.integers(1, 86_400)} if allow else {}
    return st.just({}) | st.fixed_dictionaries({"hours": hours()}, optional=grace)


@cache
def _options(*, allow: bool, protocol: RuleProtocol | None) -> st.SearchStrategy[dict[str, Any]]:
    limiting = _limiting() if allow else st.just({})
    return st.builds(lambda *parts: parts[0] | parts[1] | parts[2], _asking(protocol), _timed(allow=allow), limiting)


@cache
def rules(*, for_global: bool = False, conditions: bool = False) -> st.SearchStrategy[Rule]:
    """Rules as `parse_rule` returns them; with user= and group= for the global layer.

    With `conditions` half of them have hours, ask for a finding, or put what they permit under terms.
    """
    nobody: st.SearchStrategy[Scope | None] = st.none()
    plain = st.builds(
        Rule,
        allow=st.booleans(),
        protocol=st.sampled_from([None, *RuleProtocol]),
        source=hosts(names_too=False),
        source_ports=st.one_of(st.just(EVERY_PORT), ports()),
        destination=hosts(),
        destination_ports=ports(),
        user=nobody | owners(ScopeKind.USER) if for_global else nobody,
        group=nobody | owners(ScopeKind.GROUP) if for_global else nobody,
        log=st.sampled_from([None, True, False]),
        note=st.text(st.characters(categories=["L", "N", "P", "S"], include_characters=" "), max_size=20),
    )
    if not conditions:
        return plain
    return plain | plain.flatmap(
        lambda rule: _options(allow=rule.allow, protocol=rule.protocol).map(
            lambda options: attrs.evolve(rule, **options)
        )
    )


INNER_SCOPES = [
    scope
    for tenant in TENANTS
    for scope in (
        Scope(ScopeKind.TENANT, tenant),
        Scope(ScopeKind.GROUP, tenant, GROUPS[0]),
        Scope(ScopeKind.GROUP, tenant, GROUPS[1]),
        Scope(ScopeKind.USER, tenant, USERS[0]),
    )
]


def policies() -> st.SearchStrategy[dict[Scope, RuleSet]]:
    """All layers of a small site: long enough together for every kind of table."""
    return st.builds(
        _layers,
        st.lists(rules(for_global=True, conditions=True), max_size=10),
        st.lists(st.tuples(st.sampled_from(INNER_SCOPES), rules(conditions=True)), max_size=15),
    )


def _layers(outer: list[Rule], inner: list[tuple[Scope, Rule]]) -> dict[Scope, RuleSet]:
    layers = {Scope(ScopeKind.GLOBAL): outer}
    for scope, rule in inner:
        layers.setdefault(scope, []).append(rule)
    return {scope: RuleSet(found) for scope, found in layers.items()}


# What people write into a directory: nearly rules, rules of the global layer, and anything.
NO_RULES = [
    *("", " ", "yes", "tcp", "allow", "tcp:*(*)->*", "tcp:*(*)->*(0)", "tcp:*(*)->*(*) rate=1", "{1}tcp:*(*)->*(*)"),
    "tcp:*(*)->*(*) when=mon",
    *(
        "any:*(*)->*(*) user=alice",
        "deny any:*(*)->*(*) group=staff",
        "deny any:*(*)->*(*)\n",
        "d\u0435ny any:*(*)->*(*)",
    ),
    *("deny any:*(*)->10.0.0.1/8(*)", "any:a(*)->*(*)", "#deny any:*(*)->*(*)", "\0", "\u202e"),
]


@cache
def directory_texts() -> st.SearchStrategy[str]:
    """Mostly rules."""
    return (
        rules(conditions=True).map(str)
        | rules(conditions=True).map(str)
        | st.sampled_from(NO_RULES)
        | rules(for_global=True).map(str)
    )


@cache
def directory_entries() -> st.SearchStrategy[EntryRules]:
    """The rules of a user, or of a group in which the user may not be; two entries may be about one group."""
    return st.builds(
        EntryRules,
        st.sampled_from([None, *GROUPS]),
        st.sampled_from(["uid=alice", "cn=staff", "cn=students"]),
        st.lists(directory_texts(), max_size=6).map(tuple),
    )


@cache
def identities() -> st.SearchStrategy[Identity]:
    """Users of the store and of a directory, members of the proxy group and others, and clients without login."""
    known = st.builds(
        Identity,
        st.sampled_from(TENANTS),
        st.sampled_from(USERS),
        st.frozensets(st.sampled_from(GROUPS)),
        st.just("local"),
        member=st.sampled_from([True, True, False]),
    )
    entries = st.lists(directory_entries(), max_size=3).map(tuple)
    of_directory = st.builds(lambda who, rules: attrs.evolve(who, rules=rules), known, entries)
    return st.one_of(known, of_directory, of_directory, st.builds(Identity, st.sampled_from(TENANTS), st.none()))


def requests(*, unknown: bool = False) -> st.SearchStrategy[AccessRequest]:
    """Questions, port 0 and names included; with a finding, or about flows that nobody has looked at."""
    port = st.sampled_from([0, *PORTS, 6000])
    return st.builds(
        AccessRequest,
        identities(),
        addresses(),
        port,
        st.sampled_from(RuleProtocol),
        st.none() | names(),
        addresses(),
        port,
        st.none() if unknown else findings(),
    )
