"""What a verdict costs: `python -m tests.bench_policy` prints the median for each shape of a rule set.

10,000 rules and 2,000 users each, in CPU time. No test: times belong to a machine. What must hold everywhere, the
number of rules that are asked, is tested in `tests/policy/test_index.py`.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

import attrs

from auth import EntryRules, Identity
from trioproxy.policy import AccessRequest, Floor, Policy, Rule, RuleProtocol, RuleSet, Scope, parse_rule

RULES = 10_000
USERS = 2_000
GROUPS = 20
REPEATS = 15  # medians of these many rounds
ROUND = 2_000  # verdicts in a round


class Shape(NamedTuple):
    """A policy and what it is asked."""

    name: str
    layers: dict[str, list[str]]
    requests: list[AccessRequest]


def request(
    destination: str,
    port: int = 443,
    *,
    name: str | None = None,
    user: str | None = "user7",
    groups: Iterable[str] = ("staff", "system-proxy"),
    source: str = "10.1.2.3",
    source_port: int = 50_000,
) -> AccessRequest:
    """A TCP request of a user with a few groups."""
    identity = Identity("main", user, frozenset(groups), "local")
    client, address = ip_address(source), ip_address(destination)
    return AccessRequest(identity, client, source_port, RuleProtocol.TCP, name, address, port)


def ipv4(number: int) -> str:
    """A public address for a small number."""
    return str(IPv4Address((20 << 24) + number))


def realistic() -> Iterator[Shape]:
    """What a campus writes."""
    layers = {
        "global": [
            *(f"deny any:*(*)->bad{n}.example.net(*)" for n in range(500)),
            *(f"deny any:*(*)->*.ads{n}.example.com(*)" for n in range(500)),
            *(f"deny any:*(*)->{ipv4(n * 256)}/24(*)" for n in range(900)),
            "deny tcp:*(*)->*(25)",
            "allow tcp:private(*)->internet(80,443)",
        ],
        "tenant:main": ["tcp:*(*)->10.20.0.0/16(22,443)", "udp:*(*)->internet(3478-3481,49152-65535)"],
        "group:staff": [f"tcp:10.0.0.0/8(*)->host{n}.campus.example(22,443)" for n in range(98)],
    }
    for n in range(USERS):
        layers[f"user:user{n}"] = [
            "tcp:*(*)->*.example.org(443)",
            f"tcp:*(*)->10.{n // 256}.{n % 256}.0/24(*)",
            "udp:*(*)->internet(*)",
            "deny tcp:*(*)->*.example.org(*)",
        ]
    asked = [
        request("93.184.216.34", name="www.example.org"),
        request("20.0.5.5"),
        request("10.0.7.9", 22),
        request("93.184.216.34", name="a.b.ads7.example.com"),
        request("93.184.216.34", 25, name="mail.example.org"),
        request("10.20.1.1", 22, name="host5.campus.example"),
    ]
    yield Shape("campus: 2,000 users, all layers, names and networks", layers, asked)
    twenty = [f"g{n}" for n in range(GROUPS)]
    layers = {
        f"group:{group}": [
            *(f"tcp:*(*)->{group}-{n}.campus.example(443)" for n in range(240)),
            *(f"tcp:10.0.0.0/8(*)->{ipv4(n * 4096 + place * 256)}/24(22)" for n in range(240)),
            "tcp:*(*)->*.example.org(443)",
            "tcp:*(*)->*(80)",
            "deny tcp:*(*)->*(25)",
        ]
        for place, group in enumerate(twenty)
    } | {f"user:user{n}": ["tcp:*(*)->*(443)"] for n in range(USERS)}
    asked = [
        request("93.184.216.34", name="www.example.org", groups=twenty),
        request(ipv4(3 * 4096 + 5 * 256 + 9), 22, groups=twenty),
        request("93.184.216.34", 8080, name="www.example.net", groups=twenty),
    ]
    yield Shape("a user in 20 groups, each layer votes", layers, asked)


def directory() -> Iterator[Shape]:
    """Rules that come with the identity, beside those of `realistic`."""
    layers = next(realistic()).layers
    asked = request("93.184.216.34", name="www.example.net")
    groups = [f"g{n}" for n in range(GROUPS)]
    for title, entries in (
        ("directory: none", ()),
        (
            "directory: 3 rules of the user, 10 each of two groups",
            (directory_entry(None, 3), *entries_of(groups[:2], 10)),
        ),
        ("directory: 10 rules each of 20 groups", entries_of(groups, 10)),
        ("directory: 500 rules of one group", entries_of(groups[:1], 500)),
    ):
        who = attrs.evolve(asked.identity, groups=frozenset({*groups, "staff"}), rules=tuple(entries))
        yield Shape(title, layers, [attrs.evolve(asked, identity=who)])


def directory_entry(group: str | None, size: int) -> EntryRules:
    """So many rules of one entry, none of which fits."""
    texts = (f"tcp:10.0.0.0/8(*)->host{n}.{group}.example(22,443)" for n in range(size))
    return EntryRules(group, f"cn={group},ou=groups,dc=example,dc=org", tuple(texts))


def entries_of(groups: Sequence[str], size: int) -> tuple[EntryRules, ...]:
    """The same for several groups."""
    return tuple(directory_entry(group, size) for group in groups)


def destinations() -> Iterator[Shape]:
    """Many destinations in one layer."""
    suffixes = [f"tcp:*(*)->*.d{n}.example.org(443)" for n in range(RULES)]
    asked = [request("93.184.216.34", name=f"www.d{n}.example.org") for n in (0, 5000, 9999, 20_000)]
    yield Shape("10,000 suffixes", {"global": suffixes}, asked)
    deep = [f"tcp:*(*)->*.{'a.' * (n % 100)}d{n}.org(443)" for n in range(RULES)]
    asked = [request("93.184.216.34", name=f"{'a.' * 120}d9999.org"), request("93.184.216.34", name="a." * 126 + "b")]
    yield Shape("10,000 suffixes up to 100 labels deep, name of 121", {"global": deep}, asked)
    v4 = []
    for n in range(RULES):
        length = 8 + n % 25
        v4.append(
            f"tcp:*(*)->{IPv4Address(((n * 2654435761) % (1 << 32)) >> (32 - length) << (32 - length))}/{length}(443)"
        )
    asked = [request(str(IPv4Address((n * 2654435761) % (1 << 32) | 1))) for n in (1, 77, 5000, 9998)]
    yield Shape("10,000 IPv4 prefixes of mixed length", {"global": v4}, asked)
    v6 = []
    for n in range(RULES):
        length = 16 + n % 113
        number = (0x2600 << 112) | ((n * 0x9E3779B97F4A7C15F39CC0605CEDC835) % (1 << 112))
        v6.append(f"tcp:*(*)->{IPv6Address(number >> (128 - length) << (128 - length))}/{length}(443)")
    asked = [
        request(str(IPv6Address((0x2600 << 112) | n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 112))))
        for n in (7, 99)
    ]
    yield Shape("10,000 IPv6 prefixes of mixed length", {"global": v6}, asked)


def one_destination() -> Iterator[Shape]:
    """Many rules for the destination `*` in one layer."""
    asked = [request("93.184.216.34", source=ipv4(n)) for n in (0, 5000, 9999, 20_000)]
    yield Shape("destination *, 10,000 sources", {"global": [f"tcp:{ipv4(n)}(*)->*(443)" for n in range(RULES)]}, asked)
    asked = [request("93.184.216.34", n) for n in (1, 5000, 10_000, 20_000)]
    yield Shape("destination *, 10,000 ports", {"global": [f"tcp:*(*)->*({n + 1})" for n in range(RULES)]}, asked)
    asked = [request("93.184.216.34", n) for n in (1, 5000, 10_000, 20_000)]
    ranges = [f"tcp:*(*)->*({n + 20_001}-{65_535 - n})" for n in range(RULES)]
    yield Shape("destination *, 10,000 nested port ranges", {"global": ranges}, asked)
    asked = [request("93.184.216.34", source_port=n) for n in (1, 5000, 10_000, 20_000)]
    yield Shape(
        "destination *, 10,000 client ports", {"global": [f"tcp:*({n + 1})->*(*)" for n in range(RULES)]}, asked
    )
    users = [f"tcp:*(*)->*({443 + n // USERS}) user=user{n % USERS}" for n in range(RULES)]
    asked = [
        request("93.184.216.34", port, user=user) for port in (443, 447, 500) for user in ("user0", "user1999", "x")
    ]
    yield Shape("global layer, user= for 2,000 users", {"global": users}, asked)
    groups = [f"tcp:*(*)->*(443) group=g{n}" for n in range(RULES)]
    asked = [request("93.184.216.34", groups=[f"g{n}" for n in range(9980, 10_000)])]
    yield Shape("global layer, group= for 10,000 groups, user in 20", {"global": groups}, asked)
    nested = [
        f"tcp:10.0.0.0/{8 + source}({n + 1})->20.0.0.0/{8 + destination}(*)"
        for source in range(24)
        for destination in range(24)
        for n in range(RULES // 576)
    ]
    asked = [request("20.0.0.0", source="10.0.0.0")]
    yield Shape("24 nested sources x 24 nested destinations, no match", {"global": nested}, asked)


def median_us(call: Callable[[], object], count: int) -> float:
    """Microseconds of one of `count` calls that `call` makes."""
    times = []
    for _ in range(REPEATS):
        begin = time.process_time()
        call()
        times.append((time.process_time() - begin) / count)
    return statistics.median(times) * 1e6


def measure(shape: Shape) -> tuple[float, float, float, float]:
    """Parse and build times in seconds, the median and the slowest request's verdict in microseconds."""
    begin = time.process_time()
    rules: dict[str, list[Rule]] = {scope: list(map(parse_rule, texts)) for scope, texts in shape.layers.items()}
    parsed = time.process_time()
    policy = Policy({Scope.parse(scope): RuleSet(layer) for scope, layer in rules.items()}, Floor())
    built = time.process_time()

    def ask(question: AccessRequest) -> Callable[[], None]:
        def many() -> None:
            for _ in range(ROUND):
                policy.judge(question)

        return many

    costs = [median_us(ask(question), ROUND) for question in shape.requests]
    return parsed - begin, built - parsed, statistics.median(costs), max(costs)


def main() -> None:
    """Print the table."""
    write = sys.stdout.write
    write(f"{'shape':58}{'rules':>7}{'parse s':>9}{'build s':>9}{'verdict us':>12}{'slowest us':>12}\n")
    for shapes in (realistic, directory, destinations, one_destination):
        for shape in shapes():
            parse_s, build_s, median, slowest = measure(shape)
            rules = sum(map(len, shape.layers.values()))
            write(f"{shape.name:58}{rules:7}{parse_s:9.2f}{build_s:9.2f}{median:12.1f}{slowest:12.1f}\n")
    one = request("93.184.216.34", name="www.example.org")
    fields = (one.identity, one.client_address, one.client_port, one.protocol, one.name, one.address, one.port)
    cost = median_us(lambda: [AccessRequest(*fields) for _ in range(ROUND)], ROUND)
    write(f"an AccessRequest: {cost:.2f} us\n")


if __name__ == "__main__":
    main()
