"""`trioproxy rule explain` where rules have hours, limits, or ask what the traffic is."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest

from tests.cli.conftest import Command
from trioproxy.accounting import QuotaKey
from trioproxy.cli.circumstances import AppWord
from trioproxy.config.zones import system_zone
from trioproxy.policy.quotas import period_of
from trioproxy.policy.units import Period
from trioproxy.sniff import App
from trioproxy.store import UsageStore, usage_path

OFFICE = "tcp:*(*)->internet(443) when=mon-fri@08:00-18:00 grace=5m"
LIMITED = "tcp:*(*)->internet(443) rate=20Mbit/2Mbit burst=2MB quota=5GB/day scan=ignore"
MONDAY = "2026-11-23T12:00"


@pytest.fixture
def desk(cli: Command, tmp_path: Path) -> Command:
    """An installation in Berlin, with one user."""
    path = tmp_path / "trioproxy.toml"
    path.write_text(f'{path.read_text()}[policy]\ntime_zone = "Europe/Berlin"\n')
    cli("user", "add", "alice", "--generate")
    return cli


def add(desk: Command, *rules: tuple[str, str]) -> None:
    """Rules, by scope."""
    for scope, rule in rules:
        assert desk("rule", "add", scope, rule).code == 0


def explain(desk: Command, *options: str, target: str = "93.184.216.34:443", protocol: str = "tcp") -> list[str]:
    """The explanation for alice."""
    result = desk("rule", "explain", "--user", "alice", "--source", "10.1.2.3", *options, protocol, target)
    assert (result.code, result.err) == (0, "")
    return result.lines


def test_limits_are_told(desk: Command) -> None:
    """Each layer's terms hold, and each is told with its rule."""
    add(desk, ("user:alice", LIMITED), ("tenant:main", "tcp:*(*)->internet(443) rate=1Gbit quota=1TB/month"))
    lines = explain(desk, "--at", MONDAY)
    shared = "tenant:main: tcp:*(*)->internet(443) rate=1Gbit quota=1TB/month"
    quota = f"quota: 1.00 TB of 1TB/month left until Tue 2026-12-01 00:00 CET ({shared})"
    assert lines[-10:] == [
        f"user:alice          allow  1   {LIMITED}",
        "  rule 2 of tenant:main: at most 1Gbit to the client and 1Gbit to the target",
        "  rule 2 of tenant:main: at most 1TB a month",
        "  rule 1 of user:alice: at most 20Mbit to the client and 2Mbit to the target, 2MB at once",
        "  rule 1 of user:alice: at most 5GB a day",
        "  rule 1 of user:alice: it counts as no scan, whatever the number of targets",
        "",
        quota,
        f"quota: 5.00 GB of 5GB/day left until Tue 2026-11-24 00:00 CET (user:alice: {LIMITED})",
        "ALLOWED by rule 2 of tenant:main",
    ]
    assert not any(line.startswith("it is") for line in lines)  # what time it is plays no part in the verdict


def test_hours_are_told(desk: Command) -> None:
    """In the zone of the tenant: until when, or from when on."""
    add(desk, ("user:alice", OFFICE))
    inside = explain(desk, "--at", MONDAY)
    assert inside[1] == "it is Mon 2026-11-23 12:00 CET"
    assert "  rule 1 of user:alice: until Mon 2026-11-23 18:00 CET, and 5m longer for what runs then" in inside
    assert inside[-1] == "ALLOWED by rule 1 of user:alice"
    outside = explain(desk, "--at", "2026-11-27T18:00")
    assert outside[1] == "it is Fri 2026-11-27 18:00 CET"
    assert outside[-3:] == [
        "DENIED: no rule allows it at this hour",
        f"  rule 1 of user:alice allows it from Mon 2026-11-30 08:00 CET: {OFFICE}",
        "  to allow it to alice: trioproxy rule add user:alice 'tcp:*(*)->93.184.216.34(443)'",
    ]


def test_an_offset_may_be_given_with_the_time(desk: Command) -> None:
    """Then it is that moment, wherever."""
    add(desk, ("user:alice", OFFICE))
    assert explain(desk, "--at", "2026-11-23T17:30Z")[1] == "it is Mon 2026-11-23 18:30 CET"


def test_now_is_when_nobody_says_when(desk: Command) -> None:
    """The clock of the machine, in the zone of the tenant."""
    add(desk, ("user:alice", "tcp:*(*)->*(*) when=00:00-24:00"))
    lines = explain(desk)
    assert lines[1].startswith("it is ")
    assert "  rule 1 of user:alice: at all hours" in lines


def test_a_ban_by_the_hour(desk: Command) -> None:
    """Until when it holds, beside the ways out of any ban."""
    add(desk, ("global", "deny tcp:*(*)->*(443) when=08:00-18:00"), ("user:alice", "tcp:*(*)->*(*)"))
    lines = explain(desk, "--at", MONDAY)
    assert lines[-4:-2] == [
        "DENIED: rule 1 of global forbids it at this hour, and one deny outweighs every allow",
        "  rule 1 of global forbids it until Mon 2026-11-23 18:00 CET: deny tcp:*(*)->*(443) when=08:00-18:00",
    ]
    assert explain(desk, "--at", "2026-11-23T19:00")[-1] == "ALLOWED by rule 2 of user:alice"


def test_what_would_be_looked_at(desk: Command) -> None:
    """As long as nobody says what the traffic is: which rules ask."""
    add(desk, ("user:alice", "tcp:*(*)->*(443) app=tls"), ("user:alice", "deny tcp:*(*)->*(443)"))
    lines = explain(desk)
    assert "93.184.216.34: may be allowed" in lines
    assert lines[-3:] == [
        "  rule 1 of user:alice asks what the traffic is: tcp:*(*)->*(443) app=tls",
        "",
        "MAY BE ALLOWED by rule 1 of user:alice: the proxy connects, looks at the first bytes, and then decides",
    ]
    found = explain(desk, "--sni", "WWW.example.org")
    assert found[1] == "the traffic is found to be tls to www.example.org"
    assert found[-1] == "ALLOWED by rule 1 of user:alice"
    other = explain(desk, "--app", "ssh")
    assert other[1] == "the traffic is found to be ssh"
    assert (
        "DENIED: rule 2 of user:alice forbids it for what the traffic is, and one deny outweighs every allow" in other
    )


def test_a_look_that_only_adds_limits(desk: Command) -> None:
    """It is allowed in any case, by the rule that does not ask; only how fast depends on the traffic."""
    add(desk, ("tenant:main", "tcp:*(*)->*(443)"), ("user:alice", "tcp:*(*)->*(443) app=tls rate=1Mbit"))
    lines = explain(desk)
    assert "93.184.216.34: allowed" in lines
    assert "  rule 2 of user:alice asks what the traffic is: tcp:*(*)->*(443) rate=1Mbit app=tls" in lines
    assert lines[-1] == (
        "ALLOWED by rule 1 of tenant:main, whatever the traffic is; the proxy looks at the first bytes,"
        " as the limits of rule 2 of user:alice depend on them"
    )
    assert explain(desk, "--app", "ssh")[-1] == "ALLOWED by rule 1 of tenant:main"


def test_a_look_that_only_names_another_rule(desk: Command) -> None:
    """Nothing but the record depends on the traffic."""
    add(desk, ("user:alice", "tcp:*(*)->*(443) app=tls"), ("user:alice", "tcp:*(*)->*(443)"))
    assert explain(desk)[-1] == (
        "ALLOWED by rule 2 of user:alice, whatever the traffic is;"
        " the proxy looks at the first bytes only to say by which rule"
    )


def test_a_look_into_what_is_inside_an_address(desk: Command) -> None:
    """The IPv4 address in an IPv6 address may have other votes, so nothing is promised."""
    add(desk, ("global", "tcp:*(*)->*(443)"), ("user:alice", "tcp:*(*)->*(443) app=tls rate=1Mbit"))
    assert explain(desk, target="[2001:db8:1::1]:443")[-1].startswith(("ALLOWED", "DENIED"))
    assert explain(desk, target="[2002:5db8:d822::1]:443")[-1].startswith("MAY BE ALLOWED")


def test_a_look_after_which_another_layer_decides(desk: Command) -> None:
    """The rule that allows need not be the one that asks."""
    add(desk, ("user:alice", "deny tcp:*(*)->*(443) http-host=*.example.org"), ("tenant:main", "tcp:*(*)->*(443)"))
    assert explain(desk)[-1].startswith("MAY BE ALLOWED by rule 2 of tenant:main: ")
    assert explain(desk, "--http-host", "www.example.org")[-3].startswith("DENIED: rule 1 of user:alice forbids it for")
    assert explain(desk, "--http-host", "192.0.2.1")[-1] == "ALLOWED by rule 2 of tenant:main"


def test_what_is_close(desk: Command) -> None:
    """A rule about other traffic."""
    add(desk, ("user:alice", "tcp:*(*)->*(443) sni=example.org"))
    lines = explain(desk, "--app", "tls", "--sni", "example.com")
    assert lines[-3:-1] == [
        "DENIED: no rule allows it for what the traffic is",
        "  close: rule 1 of user:alice fits but for what the traffic is: tcp:*(*)->*(443) sni=example.org",
    ]


def test_datagrams(desk: Command) -> None:
    """What is found in the first of them."""
    add(desk, ("user:alice", "udp:*(*)->*(443) app=quic"))
    assert explain(desk, "--app", "quic", protocol="udp")[-1] == "ALLOWED by rule 1 of user:alice"
    assert explain(desk, "--app", "unknown", protocol="udp")[-2].startswith("  close: ")


@pytest.mark.parametrize(
    ("options", "protocol", "problem"),
    [
        (["--sni", "a.example", "--http-host", "a.example"], "tcp", "--sni is for TLS and --http-host for HTTP"),
        (["--sni", "a.example", "--app", "http"], "tcp", "--sni goes with --app tls, or with none"),
        (["--http-host", "a.example", "--app", "tls"], "tcp", "--http-host goes with --app http, or with none"),
        (["--app", "tls"], "bind", "nobody looks into what BIND carries"),
        (["--app", "quic"], "tcp", "quic is looked for in udp, not in tcp"),
        (["--sni", "a.example"], "udp", "tls is looked for in tcp, not in udp"),
        (["--sni", "a b"], "tcp", "--sni: 'a b' is no name: "),
        (["--at", "7:30"], "tcp", "--at: 7:30 needs a date, too: 2"),
        (["--at", "noon"], "tcp", "--at: 'noon' is no time; write 2026-11-23T07:30"),
        (["--at", "0001-01-01T00:00+14:00"], "tcp", "is no time"),
        (["--app", "skype"], "tcp", "skype"),
    ],
)
def test_what_makes_no_sense_together(desk: Command, options: list[str], protocol: str, problem: str) -> None:
    """Refused as a wrong command line."""
    result = desk("rule", "explain", "--user", "alice", "--source", "10.1.2.3", *options, protocol, "93.184.216.34:443")
    assert (result.code, result.out) == (2, "")
    assert problem in result.err


def test_each_word_can_be_asked_for() -> None:
    """The words of the option are those of rules."""
    assert get_args(AppWord) == tuple(app.value for app in App)


def test_json(desk: Command) -> None:
    """The same for programs, times with their offset."""
    add(desk, ("user:alice", f"{OFFICE} app=tls"), ("tenant:main", LIMITED))
    options = ("--user", "alice", "--source", "10.1.2.3", "--json", "--at", MONDAY)
    before = json.loads(desk("rule", "explain", *options, "tcp", "93.184.216.34:443").out)
    assert (before["allowed"], before["at"], before["app"]) == (True, "2026-11-23T12:00:00+01:00", None)
    (address,) = before["addresses"]
    assert (address["sniff"], address["terms"], address["reason"]) == (True, [], None)
    assert [vote["id"] for vote in address["asking"]] == [1]
    after = json.loads(desk("rule", "explain", *options, "--sni", "a.example", "tcp", "93.184.216.34:443").out)
    assert (after["app"], after["sni"], after["http_host"]) == ("tls", "a.example", None)
    (address,) = after["addresses"]
    assert (address["sniff"], address["asking"]) == (False, [])
    assert address["hours"] == [
        {
            "scope": "user:alice",
            "vote": "allow",
            "rule": f"{OFFICE} app=tls",
            "id": 1,
            "entry": None,
            "speaks": True,
            "change": "2026-11-23T18:00:00+01:00",
        }
    ]
    nothing = {"rate_down_bytes_per_s": None, "rate_up_bytes_per_s": None, "burst_bytes": None, "quota_bytes": None}
    assert address["terms"] == [
        {
            "scope": "tenant:main",
            "rule": LIMITED,
            "id": 2,
            "entry": None,
            "rate_down_bytes_per_s": 2_500_000,
            "rate_up_bytes_per_s": 250_000,
            "burst_bytes": 2_000_000,
            "quota_bytes": 5_000_000_000,
            "quota_period": "day",
            "when": None,
            "grace_s": None,
            "scan_ignored": True,
        },
        {
            "scope": "user:alice",
            "rule": f"{OFFICE} app=tls",
            "id": 1,
            "entry": None,
            **nothing,
            "quota_period": None,
            "when": "mon-fri@08:00-18:00",
            "grace_s": 300,
            "scan_ignored": False,
        },
    ]
    late = json.loads(desk("rule", "explain", *options[:-1], "2026-11-22T12:00", "tcp", "1.1.1.1:80").out)
    assert [item["reason"] for item in late["addresses"]] == ["no_rule"]


def test_says_what_is_left_of_quotas(cli: Command, data_dir: Path) -> None:
    """Of rules and of templates, by the same books that the server keeps; and what happens when nothing is left."""
    cli("user", "add", "alice", "--generate")
    cli("rule", "add", "user:alice", "tcp:*(*)->*(*) quota=5GB/month")
    cli("limit", "set", "user:alice", "quota=1MB/day", "over_quota_rate=1Mbit")
    now = datetime.now(UTC)
    with UsageStore.open(usage_path(data_dir / "trioproxy.db"), create=True) as store:
        rule = "tcp:*(*)->*(*), by the month"
        begins_at, _ = period_of(Period.MONTH, now, system_zone())
        store.add_quota_deltas([(QuotaKey("main", "alice", "user:alice", rule, begins_at), 2 * 10**9)])
        begins_at, _ = period_of(Period.DAY, now, system_zone())
        store.add_quota_deltas([(QuotaKey("main", "alice", "", "limit for each user, by the day", begins_at), 10**6)])
    question = ("rule", "explain", "--user", "alice", "--source", "10.1.2.3", "tcp", "192.0.2.1:443")
    text = cli(*question).out
    assert "quota: 3.00 GB of 5GB/month left until " in text
    assert "quota: 1MB/day is used up, so at most 1Mbit until " in text
    [address] = json.loads(cli(*question, "--json").out)["addresses"]
    assert [(state["rule"], state["quota"], state["left_bytes"]) for state in address["quotas"]] == [
        ("tcp:*(*)->*(*) quota=5GB/month", "5GB/month", 3 * 10**9),
        ("limit for each user", "1MB/day", 0),
    ]


def test_says_that_a_quota_refuses_what_the_rules_allow(cli: Command, data_dir: Path) -> None:
    """The last line is the answer, and so is `allowed`: until the next day nothing is opened."""
    cli("user", "add", "alice", "--generate")
    cli("rule", "add", "user:alice", "tcp:*(*)->*(*) quota=1MB/day")
    begins_at, _ = period_of(Period.DAY, datetime.now(UTC), system_zone())
    key = QuotaKey("main", "alice", "user:alice", "tcp:*(*)->*(*), by the day", begins_at)
    with UsageStore.open(usage_path(data_dir / "trioproxy.db"), create=True) as store:
        store.add_quota_deltas([(key, 10**6)])
    question = ("rule", "explain", "--user", "alice", "--source", "10.1.2.3", "tcp", "192.0.2.1:443")
    assert cli(*question).lines[-1] == ("REFUSED: a quota is used up; apart from that: ALLOWED by rule 1 of user:alice")
    answer = json.loads(cli(*question, "--json").out)
    assert (answer["allowed"], answer["addresses"][0]["allowed"]) == (False, True)


def test_blocks_are_those_of_the_time_that_is_asked_about(cli: Command) -> None:
    """One that ends in two hours does not stand against what happens in a week."""
    cli("user", "add", "alice", "--generate")
    cli("rule", "add", "user:alice", "tcp:*(*)->*(*)")
    cli("block", "add", "user", "alice", "--for", "2h", "--reason", "test")
    question = ("rule", "explain", "--user", "alice", "--source", "10.1.2.3", "tcp", "192.0.2.1:443")
    assert "DENIED: block 1" in cli(*question).out
    in_a_week = (datetime.now(UTC) + timedelta(days=7)).strftime("%Y-%m-%dT%H:%M")
    assert cli(*question[:2], "--at", in_a_week, *question[2:]).lines[-1] == "ALLOWED by rule 1 of user:alice"
