"""Tests of `trioproxy.policy.rules`."""

from datetime import datetime
from ipaddress import ip_network

import pytest
from hypothesis import given

from tests.policy import oracle, strategies
from tests.policy.asking import identity, request
from trioproxy.policy import AccessRequest, Rule, RuleProtocol, Scope, check_scope, parse_rule
from trioproxy.policy.rules import EVERYWHERE, Area, Domain, Question, host_ranges
from trioproxy.sniff import App, Finding


def matches(rule: str, asked: AccessRequest) -> bool:
    """Does the rule speak about the request?"""
    return parse_rule(rule).matches(Question.of(asked, asked.address))


@pytest.mark.parametrize(
    ("rule", "protocols"),
    [("tcp", {"tcp"}), ("udp", {"udp"}), ("bind", {"bind"}), ("any", {"tcp", "udp", "bind"})],
)
def test_the_protocol_word_is_the_command(rule: str, protocols: set[str]) -> None:
    """DESIGN section 3: tcp is CONNECT, udp UDP ASSOCIATE, bind BIND, any all of them."""
    found = {
        protocol.value
        for protocol in RuleProtocol
        if matches(f"{rule}:*(*)->*(*)", request("192.0.2.1", protocol=protocol))
    }
    assert protocols == found


@pytest.mark.parametrize(
    ("ports", "fitting"),
    [
        ("*", [0, 1, 79, 80, 81, 443, 65535]),
        ("80", [80]),
        ("80-81,443", [80, 81, 443]),
        ("1-65535", [1, 79, 80, 81, 443, 65535]),
    ],
)
def test_ports_are_compared_at_both_ends(ports: str, fitting: list[int]) -> None:
    """DESIGN section 3: destination and client ports; port 0 ("not known") fits `*` alone."""
    asked = [0, 1, 79, 80, 81, 443, 65535]
    assert fitting == [port for port in asked if matches(f"tcp:*(*)->*({ports})", request("192.0.2.1", port))]
    assert fitting == [
        port for port in asked if matches(f"tcp:*({ports})->*(*)", request("192.0.2.1", source_port=port))
    ]


def test_a_bind_rule_is_about_the_ports_of_the_connecting_host() -> None:
    """DESIGN section 3: a BIND request whose DST.PORT is 0 does not know them, so only `*` fits."""
    unknown = request("192.0.2.1", 0, protocol=RuleProtocol.BIND)
    known = request("192.0.2.1", 20, protocol=RuleProtocol.BIND)
    assert [matches("bind:*(*)->*(20)", unknown), matches("bind:*(*)->*(20)", known)] == [False, True]
    assert matches("bind:*(*)->*(*)", unknown)


@pytest.mark.parametrize(
    ("host", "destination", "name", "expected"),
    [
        ("*", "192.0.2.1", None, True),
        ("*", "2001:db8::1", "example.org", True),
        ("192.0.2.1", "192.0.2.1", "example.org", True),
        ("192.0.2.1", "192.0.2.2", None, False),
        ("192.0.2.0/24", "192.0.2.255", None, True),
        ("192.0.2.0/24", "192.0.3.0", None, False),
        ("0.0.0.0/0", "192.0.2.1", None, True),
        ("0.0.0.0/0", "2001:db8::1", None, False),
        ("::/0", "2001:db8::1", None, True),
        ("::/0", "192.0.2.1", None, False),
        ("2001:db8::/32", "2001:db8:ffff::1", None, True),
        ("::ffff:192.0.2.1", "192.0.2.1", None, True),
        ("::ffff:192.0.2.0/120", "192.0.2.9", None, True),
        ("internet", "8.8.8.8", None, True),
        ("internet", "10.0.0.1", None, False),
        ("private", "10.0.0.1", None, True),
        ("private", "8.8.8.8", None, False),
        ("example.org", "192.0.2.1", "example.org", True),
        ("example.org", "192.0.2.1", "www.example.org", False),
        ("example.org", "192.0.2.1", None, False),
        ("*.example.org", "192.0.2.1", "www.example.org", True),
        ("*.example.org", "192.0.2.1", "a.b.example.org", True),
        ("*.example.org", "192.0.2.1", "example.org", False),
        ("*.example.org", "192.0.2.1", "badexample.org", False),
        ("*.example.org", "192.0.2.1", None, False),
        ("EXAMPLE.org.", "192.0.2.1", "example.org", True),
    ],
)
def test_destinations(host: str, destination: str, name: str | None, expected: bool) -> None:
    """DESIGN section 3: names fit the asked name, networks the address; `*.` is below and not the apex."""
    assert expected == matches(f"tcp:*(*)->{host}(*)", request(destination, name=name))


@pytest.mark.parametrize(
    ("host", "source", "expected"),
    [
        ("*", "192.0.2.1", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("10.0.0.0/8", "10.255.0.1", True),
        ("2001:db8::/32", "2001:db8::7", True),
        ("2001:db8::/32", "10.1.2.3", False),
        ("private", "10.1.2.3", True),
        ("internet", "10.1.2.3", False),
        ("internet", "8.8.8.8", True),
        ("*", "127.0.0.1", True),
    ],
)
def test_sources(host: str, source: str, expected: bool) -> None:
    """DESIGN section 3: the source is the client's address, wherever it comes from; `*` is every client."""
    assert expected == matches(f"tcp:{host}(*)->*(*)", request("192.0.2.1", source=source))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("user=alice", True),
        ("user=main/alice", True),
        ("user=bob", False),
        ("user=physics/alice", False),
        ("group=staff", True),
        ("group=students", False),
        ("group=physics/staff", False),
        ("user=alice group=staff", True),
        ("user=alice group=students", False),
        ("user=bob group=staff", False),
    ],
)
def test_user_and_group_options_narrow_a_global_rule(options: str, expected: bool) -> None:
    """DESIGN section 3: user= and group=, both if both are there; the tenant is part of the name."""
    assert expected == matches(f"tcp:*(*)->*(*) {options}", request("192.0.2.1", who=identity("alice", ["staff"])))


def test_a_client_without_login_is_no_user_and_in_no_group() -> None:
    """DESIGN section 3: an anonymous client fits global rules without user= and group= only."""
    asked = request("192.0.2.1", who=identity(None))
    rules = ["tcp:*(*)->*(*)", "tcp:*(*)->*(*) user=alice", "tcp:*(*)->*(*) group=staff"]
    assert [matches(rule, asked) for rule in rules] == [True, False, False]


@given(
    strategies.rules(for_global=True, conditions=True),
    strategies.requests() | strategies.requests(unknown=True),
    strategies.moments(),
)
def test_p3_a_rule_means_what_the_plain_reading_says(rule: Rule, asked: AccessRequest, now: datetime) -> None:
    """P3: number lines against `ipaddress`, minutes of the week against dates, for each part of a rule."""
    local = strategies.local(now, asked.identity)
    minute = local.weekday() * 1440 + local.hour * 60 + local.minute
    assert oracle.matches(rule, asked, asked.address, local) == rule.matches(Question.of(asked, asked.address, minute))


def test_a_rule_with_hours_is_never_asked_without_a_time() -> None:
    """Nobody guesses: the caller forgot something."""
    with pytest.raises(AssertionError, match="asked without a time"):
        matches("tcp:*(*)->*(*) when=08:00-18:00", request("192.0.2.1"))


@pytest.mark.parametrize(
    ("condition", "fitting"),
    [
        ("app=tls", {"tls", "sni", "ech"}),
        ("app=http,unknown", {"http", "host", "address", "unknown"}),
        ("sni=www.example.org", {"sni", "ech"}),
        ("sni=*.example.org", {"sni", "ech"}),
        ("sni=example.org,*.example.com", set()),
        ("http-host=*.example.org", {"host"}),
        ("http-host=192.0.2.1,2001:db8::1", {"address"}),
        ("app=ssh", set()),
    ],
)
def test_what_a_flow_is_found_to_be(condition: str, fitting: set[str]) -> None:
    """A name in a rule is compared with the name in the ClientHello or the request; ECH changes nothing about that."""
    findings = {
        "tls": Finding(App.TLS),
        "sni": Finding(App.TLS, sni="www.example.org"),
        "ech": Finding(App.TLS, sni="www.example.org", ech=True),
        "http": Finding(App.HTTP),
        "host": Finding(App.HTTP, http_host="www.example.org"),
        "address": Finding(App.HTTP, http_host="2001:db8::1"),
        "unknown": Finding(App.UNKNOWN),
    }
    rule = f"tcp:*(*)->*(*) {condition}"
    found = {key for key, finding in findings.items() if matches(rule, request("192.0.2.1", finding=finding))}
    assert fitting == found
    assert matches(rule, request("192.0.2.1"))  # nobody has looked: it may


@pytest.mark.parametrize(
    ("rule", "protocols"),
    [
        ("any:*(*)->*(*)", set(RuleProtocol)),
        ("any:*(*)->*(*) app=tls", {RuleProtocol.TCP}),
        ("any:*(*)->*(*) app=quic", {RuleProtocol.UDP}),
        ("any:*(*)->*(*) app=tls,quic", {RuleProtocol.TCP, RuleProtocol.UDP}),
        ("any:*(*)->*(*) app=unknown", {RuleProtocol.TCP, RuleProtocol.UDP}),
        ("any:*(*)->*(*) sni=example.org", {RuleProtocol.TCP}),
        ("any:*(*)->*(*) http-host=example.org app=http", {RuleProtocol.TCP}),
        ("udp:*(*)->*(*) app=unknown,dns", {RuleProtocol.UDP}),
    ],
)
def test_what_can_be_found_says_which_protocol_a_rule_is_about(rule: str, protocols: set[RuleProtocol]) -> None:
    """`any:` with app=tls is about TCP; what BIND carries is looked at by nobody, so no such rule speaks about it."""
    assert protocols == parse_rule(rule).protocols
    asked = {p for p in RuleProtocol if matches(rule, request("192.0.2.1", protocol=p))}
    assert protocols == asked


def test_the_ranges_of_hosts() -> None:
    """What the index is built from: a domain has no addresses, `*` has all."""
    assert host_ranges(Area.EVERYWHERE) is EVERYWHERE
    assert host_ranges(Domain("example.org")) == ()
    assert host_ranges(ip_network("0.0.0.0/31")) == ((0, 1),)


@pytest.mark.parametrize("option", ["user=alice", "group=staff"])
@pytest.mark.parametrize("scope", ["tenant:main", "group:staff", "user:alice"])
def test_user_and_group_options_live_in_the_global_layer_only(option: str, scope: str) -> None:
    """DESIGN section 3: `user=`/`group=` are for the global layer."""
    rule = parse_rule(f"tcp:*(*)->*(*) {option}")
    with pytest.raises(ValueError, match=f"user= and group= are for the global layer, not for {scope}"):
        check_scope(rule, Scope.parse(scope))


@pytest.mark.parametrize("scope", ["global", "tenant:main", "group:staff", "user:alice"])
def test_other_options_live_in_each_layer(scope: str) -> None:
    """log= and note= are for every layer."""
    rule = parse_rule("tcp:*(*)->*(*) log=yes note=x")
    assert check_scope(rule, Scope.parse(scope)) is None  # type: ignore[func-returns-value] # it only may raise
    assert check_scope(parse_rule("tcp:*(*)->*(*) user=a group=b"), Scope.parse("global")) is None  # type: ignore[func-returns-value]
