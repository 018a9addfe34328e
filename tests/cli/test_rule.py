"""`trioproxy rule add|list|remove`."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Result

ANY = "tcp:*(*)->*(*)"
DIRECTORY = """
[auth.people]
type = "ldap"
urls = ["ldaps://ldap.example.org"]
user_base = "ou=people,dc=example,dc=org"
group_base = "ou=groups,dc=example,dc=org"
"""
APPS = "tls, http, ssh, smtp, ftp, imap, pop3, rdp, bittorrent, dns, stun, quic or unknown"


def test_add_at_the_end_and_in_between(cli: Command) -> None:
    """DESIGN section 3: the order decides, so the answer says where the rule stands now."""
    cli("user", "add", "alice", "--generate")
    assert cli("rule", "add", "user:alice", "allow tcp:*(*) -> WWW.example.org(80)").lines == [
        "rule 1 added to user:alice at place 1: tcp:*(*)->www.example.org(80)"
    ]
    assert cli("rule", "add", "user:Alice", "deny udp:*(*)->*(*)").out.startswith(
        "rule 2 added to user:alice at place 2"
    )
    assert cli("rule", "add", "user:alice", ANY, "--position", "1").out.startswith(
        "rule 3 added to user:alice at place 1"
    )
    assert cli("rule", "list", "user:alice").lines == [
        "SCOPE       PLACE  ID  RULE",
        "user:alice  1      3   tcp:*(*)->*(*)",
        "user:alice  2      1   tcp:*(*)->www.example.org(80)",
        "user:alice  3      2   deny udp:*(*)->*(*)",
    ]


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("tcp:*(*)->*(x)", 13, "*, a port, or a range such as 8000-8010"),
        ("tcp:10.0.0.1/8(*)->*(*)", 5, "no bits behind the prefix: the network is 10.0.0.0/8"),
        (
            "tcp:*(*)->*(*) rate=5",
            21,
            "a rate such as 20Mbit or 20Mbit/2Mbit: a number with bit, kbit, Mbit or Gbit",
        ),
        ("tcp:*(*)->*(*) app=skype", 20, APPS),
        ("deny tcp:*(*)->*(*) quota=5GB/day", 21, "quota= on allow rules only"),
        ("", 1, "tcp:, udp:, bind: or any: (with allow or deny before it)"),
    ],
)
def test_a_wrong_rule_shows_its_place(cli: Command, text: str, column: int, expected: str) -> None:
    """Issue item 6: a wrong rule names its column and what was expected, and a caret points at it."""
    cli("rule", "add", "global", ANY)
    result = cli("rule", "add", "global", text)
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines() == [
        f"trioproxy: this rule is wrong at column {column}, expected {expected}",
        f"    {text}",
        f"    {' ' * (column - 1)}^",
    ]
    assert len(cli("rule", "list").lines) == 2


@pytest.mark.parametrize(
    ("scope", "rule", "message"),
    [
        ("everybody", ANY, "'everybody' is no scope"),
        ("user:chemistry/x", ANY, "there is no tenant 'chemistry', only main, physics"),
        ("tenant:chemistry", ANY, "there is no tenant 'chemistry', only main, physics"),
        ("global", f"{ANY} user=chemistry/x", "there is no tenant 'chemistry', only main, physics"),
        ("global", f"{ANY} group=chemistry/x", "there is no tenant 'chemistry', only main, physics"),
        ("user:alice", f"{ANY} user=bob", "user= and group= are for the global layer"),
        ("group:a b/c", ANY, "a tenant name is"),
    ],
)
def test_a_rule_in_the_wrong_place(cli: Command, scope: str, rule: str, message: str) -> None:
    """A rule for a tenant that the configuration does not name would wait for ever; the error lists the tenants."""
    cli("rule", "add", "global", ANY)
    result = cli("rule", "add", scope, rule)
    assert (result.code, result.out) == (1, "")
    assert message in result.err
    assert len(cli("rule", "list", "--all-tenants").lines) == 2


def test_a_place_that_is_none(cli: Command) -> None:
    """The error says which places there are."""
    result = cli("rule", "add", "global", ANY, "--position", "2")
    assert result.err == "trioproxy: global has places 1 to 1 for a new rule, not 2\n"


@pytest.mark.parametrize(
    ("scope", "note"),
    [
        ("user:carol", "note: there is no local user carol; a typing mistake?\n"),
        ("group:nobodys", "note: no local user is in the group nobodys; a typing mistake?\n"),
        ("group:staff", ""),
        ("user:alice", ""),
        ("user:physics/alice", "note: there is no local user physics/alice; a typing mistake?\n"),
        ("tenant:physics", ""),
        ("global", ""),
    ],
)
def test_a_layer_of_nobody_is_noted(cli: Command, scope: str, note: str) -> None:
    """Most often a typing mistake; but the rule is kept, the user may come later."""
    cli("user", "add", "alice", "--generate", "--group", "staff")
    result = cli("rule", "add", scope, ANY)
    assert (result.code, result.err) == (0, note)


def test_tenants_do_not_show_in_each_others_listing(cli: Command) -> None:
    """Issue item 5: a listing shows one tenant and what holds for everybody."""
    for scope in ("global", "user:a", "tenant:physics", "group:physics/a"):
        cli("rule", "add", scope, ANY)
    listings = [[], ["--tenant", "main"], ["--tenant", "physics"], ["--all-tenants"], ["user:a"]]
    assert [[line.split()[0] for line in cli("rule", "list", *which).lines[1:]] for which in listings] == [
        ["global", "user:a"],
        ["global", "user:a"],
        ["global", "tenant:physics", "group:physics/a"],
        ["global", "user:a", "tenant:physics", "group:physics/a"],
        ["user:a"],
    ]
    assert cli("rule", "list", "--tenant", "chemistry").err.startswith("trioproxy: there is no tenant 'chemistry'")
    assert cli("rule", "list", "user:a", "--all-tenants").code == 2


def test_no_rules(cli: Command) -> None:
    """Case 63: an empty rule set denies, and the listing says so."""
    cli("user", "add", "alice", "--generate")
    assert cli("rule", "list").out == "no rules, neither global ones nor in tenant main: nothing is allowed\n"
    assert cli("rule", "list", "--all-tenants").out == "no rules in any layer: nothing is allowed\n"
    assert cli("rule", "list", "--json").out == "[]\n"


def test_no_rules_where_it_was_looked(cli: Command) -> None:
    """Other layers may allow, so the answer says which ones were asked for, and whether anybody has the name."""
    cli("user", "add", "alice", "--generate")
    cli("rule", "add", "tenant:physics", ANY)
    assert cli("rule", "list", "user:alice") == Result(0, "no rules in user:alice\n", "")
    assert cli("rule", "list", "user:alcie") == Result(
        0, "no rules in user:alcie\n", "note: there is no local user alcie; a typing mistake?\n"
    )
    assert cli("rule", "list", "group:nosuch") == Result(
        0, "no rules in group:nosuch\n", "note: no local user is in the group nosuch; a typing mistake?\n"
    )
    assert cli("rule", "list") == Result(
        0,
        "no rules, neither global ones nor in tenant main: nothing is allowed\n",
        "note: other tenants have rules: --all-tenants shows them\n",
    )


def test_no_rules_beside_a_directory(cli: Command, tmp_path: Path) -> None:
    """Its entries may hold rules, too: that the store has none does not mean that nothing is allowed."""
    config = tmp_path / "trioproxy.toml"
    config.write_text(f'{config.read_text("utf-8")}backends = ["local", "people"]\n{DIRECTORY}', encoding="utf-8")
    cli("user", "add", "alice", "--generate")
    assert cli("rule", "list", "--tenant", "physics").lines == [
        "no rules, neither global ones nor in tenant physics: nothing is allowed but by rules of a directory"
    ]
    assert cli("rule", "list", "user:physics/nobody").err == ""


def test_json(cli: Command) -> None:
    """DESIGN section 5: --json where it lists."""
    cli("rule", "add", "global", "deny tcp:*(*)->*(25)")
    cli("rule", "add", "global", ANY)
    assert json.loads(cli("rule", "list", "--json").out) == [
        {"id": 1, "scope": "global", "place": 1, "rule": "deny tcp:*(*)->*(25)"},
        {"id": 2, "scope": "global", "place": 2, "rule": ANY},
    ]


def test_remove(cli: Command) -> None:
    """What was removed is shown, so that it can be added again; a wrong id removes nothing."""
    for scope in ("user:a", "global"):
        cli("rule", "add", scope, ANY)
    result = cli("rule", "remove", "1", "2", "9")
    assert (result.code, result.out, result.err) == (1, "", "trioproxy: there is no rule 9\n")
    assert cli("rule", "remove", "1", "2").lines == [
        f"rule 2 removed from global: {ANY}",
        f"rule 1 removed from user:a: {ANY}",
    ]
    assert cli("rule", "list").out.endswith(": nothing is allowed\n")


def test_the_same_rule_twice(cli: Command) -> None:
    """It is kept, and does nothing."""
    cli("rule", "add", "global", ANY)
    assert cli("rule", "add", "tenant:main", ANY).err == ""
    assert cli("rule", "add", "global", ANY).err == "note: global has the same rule already: 1; the first one decides\n"
