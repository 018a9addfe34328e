"""`trioproxy limit set|list|remove`."""

import json

import pytest

from tests.cli.conftest import Command, Result


@pytest.fixture
def limited(cli: Command) -> Command:
    """An installation with some limits."""
    cli("user", "add", "alice", "--generate", "--group", "students")
    for arguments in (
        ["group:students", "rate=10Mbit/2Mbit", "quota=20GB/month", "sessions=200"],
        ["--together", "global", "rate=4Gbit"],
        ["tenant:physics", "--together", "rate=1Gbit"],
        ["global", "new_sessions=60/min"],
    ):
        assert cli("limit", "set", *arguments).code == 0
    return cli


def test_set_and_list(limited: Command) -> None:
    """Whom each is for, as it can be typed again; one tenant at a time."""
    assert limited("limit", "list").lines == [
        "SCOPE           FOR       LIMIT",
        "global          each      new_sessions=60/min",
        "global          together  rate=4Gbit",
        "group:students  each      rate=10Mbit/2Mbit quota=20GB/month sessions=200",
    ]
    assert limited("limit", "list", "--tenant", "physics").lines[3:] == ["tenant:physics  together  rate=1Gbit"]
    assert len(limited("limit", "list", "--all-tenants").lines) == 5
    assert json.loads(limited("limit", "list", "group:students", "--json").out) == [
        {
            "scope": "group:students",
            "together": False,
            "limit": {"rate": "10Mbit/2Mbit", "quota": "20GB/month", "sessions": "200"},
        }
    ]


def test_setting_one_key_leaves_the_others(limited: Command) -> None:
    """What is not named stays; none lifts a limit, and the last one takes the line away."""
    result = limited("limit", "set", "group:students", "sessions=100", "quota=none")
    assert result.lines == ["group:students, each user: rate=10Mbit/2Mbit sessions=100"]
    assert limited("limit", "set", "--together", "global", "rate=none").lines == [
        "global, all together: no limit any more"
    ]
    assert "together" not in limited("limit", "list").out


def test_remove(limited: Command) -> None:
    """Each of the two limits of a scope by itself."""
    assert limited("limit", "remove", "global", "--together").lines == ["removed, global, all together: rate=4Gbit"]
    assert limited("limit", "remove", "global").lines == ["removed, global, each user: new_sessions=60/min"]
    again = limited("limit", "remove", "global")
    assert (again.code, again.err) == (1, "trioproxy: there is no limit for global\n")
    limited("limit", "remove", "group:students")
    assert limited("limit", "list").out == (
        "no limits for everybody or in tenant main but those of the configuration\n"
    )


def test_no_limits_at_all(cli: Command) -> None:
    """As a new installation has it."""
    cli("user", "add", "alice", "--generate")
    assert cli("limit", "list", "--all-tenants").out == "no limits of any scope but those of the configuration\n"


def test_list_of_a_name_that_nobody_has(limited: Command) -> None:
    """The answer says which scope it is about: others may have limits."""
    assert limited("limit", "list", "user:alice") == Result(
        0, "no limits of user:alice but those of the configuration\n", ""
    )
    assert limited("limit", "list", "user:alcie").err == "note: there is no local user alcie; a typing mistake?\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["global"], 2, "WORD"),
        (["everybody", "rate=1Mbit"], 1, "'everybody' is no scope"),
        (["user:chemistry/bob", "rate=1Mbit"], 1, "there is no tenant 'chemistry', only main, physics"),
        (["global", "rate=20"], 1, "rate: expected a rate such as 20Mbit or 20Mbit/2Mbit: a number with bit, kbit"),
        (["global", "sessions=5", "quota=5GB/year"], 1, "quota: expected a quota such as 5GB/day: the period is day"),
        (["global", "speed=5"], 1, "speed=5: expected one of rate=, burst="),
        (["global", "--together", "binds=5"], 1, "binds: expected for each user"),
        (["user:alice", "--together", "rate=1Mbit"], 1, "user:alice is one user, who shares with nobody"),
    ],
)
def test_bad_values_store_nothing(limited: Command, arguments: list[str], code: int, message: str) -> None:
    """Issue: refused with the key and what was expected; what was there stays."""
    before = limited("limit", "list", "--all-tenants").out
    result = limited("limit", "set", *arguments)
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert limited("limit", "list", "--all-tenants").out == before


def test_a_name_that_nobody_has(limited: Command) -> None:
    """Most often a typing mistake; but another backend may know it."""
    assert limited("limit", "set", "group:students", "binds=1").err == ""
    result = limited("limit", "set", "group:studnets", "binds=1")
    assert (result.code, result.err) == (0, "note: no local user is in the group studnets; a typing mistake?\n")


@pytest.mark.parametrize("arguments", [["global", "--all-tenants"], ["--tenant", "main", "--all-tenants"]])
def test_listings_exclude_each_other(cli: Command, arguments: list[str]) -> None:
    """As with rules."""
    assert cli("limit", "list", *arguments).code == 2


def test_limits_are_explained(limited: Command) -> None:
    """`rule explain` says which would hold, and who says so."""
    limited("limit", "set", "tenant:main", "rate=1Mbit", "binds=5")
    arguments = ("rule", "explain", "--user", "alice", "--source", "10.1.2.3", "tcp", "8.8.8.8:443")
    assert [line for line in limited(*arguments).lines if line.startswith("limit")] == [
        "limit: rate=10Mbit/2Mbit for each user, says group:students",
        "limit: quota=20GB/month for each user, says group:students",
        "limit: sessions=200 for each user, says group:students",
        "limit: binds=5 for each user, says tenant:main",
        "limit: new_sessions=60/min for each user, says global",
        "limit: rate=4Gbit for everybody in global together",
    ]
    assert json.loads(limited(*arguments, "--json").out)["limits"]["together"] == [
        {"scope": "global", "limit": {"rate": "4Gbit"}}
    ]


def test_check_counts_and_names_foreign_tenants(limited: Command) -> None:
    """What is in the store shows, also what would wait for a tenant that is not configured."""
    assert limited("check").lines[-2].endswith("1 local user, 0 rules in 0 layers, 4 limits")
    limited("block", "add", "everything", "--reason", "attack")
    assert limited("check").lines[-2].endswith("4 limits, 1 block")


def test_a_key_that_needs_another(limited: Command) -> None:
    """Another scope may have that one, so it is kept; most often it was forgotten."""
    assert limited("limit", "set", "tenant:main", "burst=2MB", "over_quota_rate=1Mbit").err == (
        "note: burst does nothing by itself: it needs rate=, here or from another scope\n"
        "note: over_quota_rate does nothing by itself: it needs quota=, here or from another scope\n"
    )
    assert limited("limit", "set", "tenant:main", "rate=2Mbit", "quota=1GB/day").err == ""


def test_one_of_several_limits_goes_another_way(limited: Command) -> None:
    """`limit remove` takes a scope alone; the answer says how to take one key away."""
    assert "`trioproxy limit set SCOPE KEY=none`" in limited("limit", "remove", "global", "rate").err
