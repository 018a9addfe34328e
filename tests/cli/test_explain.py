"""`trioproxy rule explain`: what the help desk reads to a caller."""

import json
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from auth import EntryRules, Identity, Rejected, Rejection, Unavailable
from auth.registry import BackendError
from tests.cli.conftest import Command
from tests.plugins import Directory, install_directory

UNRESOLVED = "cannot be resolved on this machine, so the proxy cannot reach it either"
CHANGE_SOURCE = "`trioproxy user change alice --source NETWORK` changes that"
CLIENT = ("--source", "10.1.2.3")


@pytest.fixture
def desk(cli: Command) -> Command:
    """An installation with one user and some rules."""
    cli("user", "add", "alice", "--generate", "--group", "staff")
    for scope, rule in (
        ("global", 'deny tcp:*(*)->*(25) note="no mail"'),
        ("group:staff", "tcp:10.0.0.0/8(*)->internet(80,443)"),
        ("user:alice", "tcp:*(*)->*.example.org(8000-8010)"),
        ("user:alice", "tcp:*(*)->*(25)"),
    ):
        assert cli("rule", "add", scope, rule).code == 0
    return cli


def explain(desk: Command, *arguments: str) -> list[str]:
    """The explanation for alice."""
    result = desk("rule", "explain", "--user", "alice", *CLIENT, *arguments)
    assert (result.code, result.err) == (0, "")
    return result.lines


def test_allowed(desk: Command) -> None:
    """Issue item 6: each layer's vote and the rule that cast it, and who decided."""
    assert explain(desk, "tcp", "93.184.216.34:443") == [
        "alice (groups: staff, system-proxy) from 10.1.2.3 asks for tcp 93.184.216.34:443",
        "",
        "93.184.216.34: allowed",
        "LAYER               VOTE   ID  RULE",
        "floor               -          not part of it",
        "global              -          none of 1 fits",
        "tenant:main         -          no rules",
        "group:staff         allow  2   tcp:10.0.0.0/8(*)->internet(80,443)",
        "group:system-proxy  -          no rules",
        "user:alice          -          none of 2 fits",
        "",
        "ALLOWED by rule 2 of group:staff",
    ]


def test_a_deny_outweighs(desk: Command) -> None:
    """DESIGN section 3: one deny denies, whatever the user's own rules say; the way out keeps the ban for others."""
    lines = explain(desk, "tcp", "93.184.216.34:25")
    assert 'global              deny   1   deny tcp:*(*)->*(25) note="no mail"' in lines
    assert "user:alice          allow  4   tcp:*(*)->*(25)" in lines
    assert lines[-3:] == [
        "DENIED: rule 1 of global forbids it, and one deny outweighs every allow",
        "  to allow it to alice: trioproxy rule add global --position 1 'tcp:*(*)->93.184.216.34(25) user=alice'",
        "  or to lift the ban for everybody in global: trioproxy rule remove 1",
    ]


def run_advice(desk: Command, line: str) -> None:
    """Do what the explanation says."""
    import shlex  # noqa: PLC0415 - for this one call

    assert desk(*shlex.split(line.partition("trioproxy ")[2])).code == 0


@pytest.mark.parametrize("target", ["93.184.216.34:25", "93.184.216.34:99", "[2a00::1]:99"])
def test_the_advice_works(desk: Command, target: str) -> None:
    """What is printed as the way out can be pasted, and then it is allowed."""
    [advice] = [line for line in explain(desk, "tcp", target) if "to allow it to alice" in line]
    run_advice(desk, advice)
    assert explain(desk, "tcp", target)[-1].startswith("ALLOWED by rule 5 of ")


def test_a_ban_in_another_layer(desk: Command) -> None:
    """In a layer of a tenant or group an exception holds for all who are in it, and the advice says so."""
    desk("rule", "add", "group:staff", "deny tcp:*(*)->93.184.216.34(*)", "--position", "1")
    assert explain(desk, "tcp", "93.184.216.34:80")[-2] == (
        "  to allow it to everybody in group:staff:"
        " trioproxy rule add group:staff --position 1 'tcp:*(*)->93.184.216.34(80)'"
    )


def test_no_rule_and_what_is_close(desk: Command) -> None:
    """Rules that fit but for one thing are what the caller is most often talking about."""
    lines = explain(desk, "tcp", "www.example.org:9000", "--address", "93.184.216.34")
    assert lines[-5:] == [
        "DENIED: no rule allows it",
        "  close: rule 2 of group:staff fits but for the destination port: tcp:10.0.0.0/8(*)->internet(80,443)",
        "  close: rule 3 of user:alice fits but for the destination port: tcp:*(*)->*.example.org(8000-8010)",
        "  close: rule 4 of user:alice fits but for the destination port: tcp:*(*)->*(25)",
        "  to allow it to alice: trioproxy rule add user:alice 'tcp:*(*)->www.example.org(9000)'",
    ]


@pytest.mark.parametrize(
    ("arguments", "aspect"),
    [
        (["udp", "93.184.216.34:80"], "the protocol"),
        (["tcp", "93.184.216.34:80", "--source", "11.0.0.1"], "the source address"),
    ],
)
def test_what_is_close_names_the_difference(desk: Command, arguments: list[str], aspect: str) -> None:
    """Each thing that a rule asks for can be the one that is missing."""
    source = [] if "--source" in arguments else [*CLIENT]
    result = desk("rule", "explain", "--user", "alice", *arguments, *source)
    assert f"close: rule 2 of group:staff fits but for {aspect}: " in result.out


def test_a_rule_for_somebody_else_is_close(desk: Command) -> None:
    """A global rule with user= that names another user, and one that asks for a source port."""
    desk("rule", "add", "global", "udp:*(*)->*(53) user=bob")
    desk("rule", "add", "global", "udp:*(5000)->*(53)")
    lines = explain(desk, "udp", "93.184.216.34:53")
    assert "  close: rule 5 of global fits but for whom it is for: udp:*(*)->*(53) user=bob" in lines
    assert "  close: rule 6 of global fits but for the source port: udp:*(5000)->*(53)" in lines
    assert explain(desk, "udp", "93.184.216.34:53", "--source-port", "5000")[-1] == "ALLOWED by rule 6 of global"


def test_several_addresses(desk: Command) -> None:
    """CASES 2.5: of the addresses of a name only those that are allowed are tried; equal ones are told together."""
    addresses = [f"--address={address}" for address in ("93.184.216.34", "127.0.0.1", "93.184.216.35", "93.184.216.34")]
    lines = explain(desk, "tcp", "www.example.org:80", *addresses)
    assert "93.184.216.34, 93.184.216.35: allowed" in lines
    assert "127.0.0.1: denied" in lines
    assert lines[-2:] == [
        "ALLOWED by rule 2 of group:staff",
        "the proxy connects to 93.184.216.34, 93.184.216.35 only",
    ]


@pytest.mark.parametrize(
    ("target", "decided"),
    [
        ("127.0.0.1:80", "127.0.0.1 is 127.0.0.0/8 loopback"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1 is 127.0.0.0/8 loopback"),
        ("[64:ff9b::7f00:1]:80", "127.0.0.1 is 127.0.0.0/8 loopback"),
        ("169.254.169.254:80", "169.254.169.254 is 169.254.0.0/16 link-local and cloud metadata"),
    ],
)
def test_the_floor(desk: Command, target: str, decided: str) -> None:
    """Cases 64 and 66: what no rule can allow says so, also where an IPv4 address hides inside."""
    lines = explain(desk, "tcp", target)
    assert lines[-2:] == [
        f"DENIED: {decided}, which no rule can allow",
        "  the administrator can open parts of the floor in the configuration: [policy] open_floor",
    ]
    assert ("  because of the IPv4 address 127.0.0.1 inside it" in lines) == ("64:ff9b" in target)


def test_the_proxy_itself(desk: Command, tmp_path: Path) -> None:
    """Case 68: our own listener cannot be opened, so no advice says it could."""
    config = tmp_path / "trioproxy.toml"
    config.write_text(config.read_text(encoding="utf-8") + '[policy]\nopen_floor = ["127.0.0.0/8"]\n', encoding="utf-8")
    assert explain(desk, "tcp", "127.0.0.1:1080")[-2:] == [
        "DENIED: 127.0.0.1 is a listener of this proxy, which no rule can allow",
        "  nobody reaches the proxy's own endpoints through the proxy",
    ]


def test_a_name_is_looked_up(desk: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """CASES 2.5: the system's resolver is asked as the server does it, without the search domains."""
    monkeypatch.setenv("LOCALDOMAIN", "example.org")
    asked: list[str] = []

    def getaddrinfo(host: str, *_arguments: object, **_options: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert explain(desk, "tcp", "WWW.example.org.:443")[-1] == "ALLOWED by rule 2 of group:staff"
    assert (asked, os.environ["LOCALDOMAIN"]) == (["www.example.org"], "")


def test_a_name_that_nobody_knows(desk: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a question of rules at all, and there is a way to ask about them nevertheless."""
    monkeypatch.setenv("LOCALDOMAIN", "")

    def getaddrinfo(*_arguments: object, **_options: object) -> list[object]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    result = desk("rule", "explain", "--user", "alice", *CLIENT, "tcp", "nix.example.org:80")
    assert result.code == 1
    assert result.err.splitlines() == [
        f"trioproxy: nix.example.org {UNRESOLVED}: Name or service not known",
        "  --address ADDR tells what it would mean",
    ]


@pytest.mark.parametrize("target", ["127.1:80", "0x7f.1:80", "2130706433:80", "a..b:80", "\uff45vil.com:80", "a b:80"])
def test_what_the_proxy_never_reads(desk: Command, target: str) -> None:
    """Case 64: spellings that the proxy refuses are refused here, and not looked up."""
    result = desk("rule", "explain", "--user", "alice", *CLIENT, "tcp", target)
    assert result.code == 1
    assert "the proxy refuses every request for" in result.err


@pytest.mark.parametrize(
    "target", ["example.org", "example.org:", "example.org:0", "example.org:65536", "::1:80", "[1.2.3.4]:x", "[x]:80"]
)
def test_what_is_no_target(desk: Command, target: str) -> None:
    """HOST:PORT, and IPv6 in brackets."""
    result = desk("rule", "explain", "--user", "alice", *CLIENT, "tcp", target)
    assert (result.code, result.out) == (2, "")


def test_bind_may_leave_the_port_open(desk: Command) -> None:
    """RFC 1928 section 4: a BIND request may not know the port; 0 fits `*` alone."""
    desk("rule", "add", "user:alice", "bind:*(*)->93.184.216.34(*)")
    assert explain(desk, "bind", "93.184.216.34:0")[-1] == "ALLOWED by rule 5 of user:alice"
    assert (
        "to allow it to alice: trioproxy rule add user:alice 'bind:*(*)->93.184.216.35(*)'"
        in (explain(desk, "bind", "93.184.216.35:0")[-1])
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--user", "alice", "--anonymous"],
        ["--anonymous", "--group", "x"],
        ["--user", "alice", "--tenant", "physics"],
        ["--user", "alice", "--address", "x"],
    ],
)
def test_who_asks_must_be_clear(desk: Command, arguments: list[str]) -> None:
    """One identity, or none."""
    result = desk("rule", "explain", *arguments, *CLIENT, "tcp", "93.184.216.34:80")
    assert (result.code, result.out) == (2, "")


def test_a_login_that_is_refused(desk: Command) -> None:
    """The rules are not the reason: everything else that keeps the user out comes first, with what to do about it."""
    desk("user", "change", "alice", "--source", "10.9.0.0/16")
    desk("user", "disable", "alice")
    lines = explain(desk, "tcp", "93.184.216.34:80")
    assert lines[1:3] == [
        "login refused: alice is disabled; `trioproxy user enable alice` changes that",
        f"login refused: alice may log in from 10.9.0.0/16 only, not from 10.1.2.3; {CHANGE_SOURCE}",
    ]
    assert lines[-2:] == ["DENIED: the login is refused", "apart from that: ALLOWED by rule 2 of group:staff"]


def test_a_user_who_is_not_there(desk: Command) -> None:
    """A typing mistake at the help desk."""
    result = desk("rule", "explain", "--user", "alcie", *CLIENT, "tcp", "93.184.216.34:80")
    assert result.code == 0
    assert "login refused: there is no user alcie; `trioproxy user add alcie` adds one" in result.lines
    assert result.lines[-3:-1] == ["DENIED: the login is refused", "apart from that: DENIED: no rule allows it"]


STAFF, UID = "cn=staff,ou=groups,dc=example", "uid=carol,ou=people,dc=example"
CAROL = Identity(
    "main",
    "carol",
    frozenset({"staff", "system-proxy"}),
    rules=(
        EntryRules("staff", STAFF, ("deny tcp:*(*)->*(22)", "tcp:*(*)->*(21,22)")),
        EntryRules(None, UID, ("tcp:*(*)->*(everything)", "tcp:*(*)->*.example.org(9000)")),
    ),
)
SKIPPED = f'{UID}: the rule "tcp:*(*)->*(everything)" is left out; column 13: expected *, a port, or a range'


@pytest.fixture
def campus(desk: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The same installation with a directory behind the local users."""
    install_directory(monkeypatch, CAROL)
    with (tmp_path / "trioproxy.toml").open("a", encoding="utf-8") as config:
        config.write('[auth]\nbackends = ["local", "campus"]\n[auth.campus]\ntype = "directory"\n')
    return desk


def rewrite(tmp_path: Path, old: str, new: str) -> None:
    """Change the configuration."""
    config = tmp_path / "trioproxy.toml"
    text = config.read_text(encoding="utf-8")
    assert old in text
    config.write_text(text.replace(old, new), encoding="utf-8")


def explain_carol(campus: Command, *arguments: str) -> list[str]:
    """The explanation for a user of the directory."""
    result = campus("rule", "explain", "--user", "carol", *CLIENT, *arguments)
    assert (result.code, result.err.count("\n")) == (0, 1)
    assert result.err.startswith(f"note: {SKIPPED}")
    assert Directory.is_open == 0
    return result.lines


def test_a_user_of_a_directory(campus: Command) -> None:
    """Groups and rules that the directory knows take part; each layer says from where its deciding rule comes."""
    assert explain_carol(campus, "tcp", "93.184.216.34:21") == [
        "carol (groups: staff, system-proxy) from 10.1.2.3 asks for tcp 93.184.216.34:21",
        "",
        "93.184.216.34: allowed",
        "LAYER               VOTE   ID  RULE                FROM",
        "floor               -          not part of it",
        "global              -          none of 1 fits",
        "tenant:main         -          no rules",
        f"group:staff         allow      tcp:*(*)->*(21,22)  {STAFF}",
        "group:system-proxy  -          no rules",
        "user:carol          -          none of 1 fits",
        "",
        f"ALLOWED by a rule of group:staff in {STAFF}",
    ]
    assert Directory.asked == [("main", "carol")]


def test_a_directory_and_the_store_in_one_layer(campus: Command) -> None:
    """Inside a layer the store's rules are asked first."""
    lines = explain_carol(campus, "tcp", "93.184.216.34:80")
    assert "group:staff         allow  2   tcp:10.0.0.0/8(*)->internet(80,443)  store" in lines
    assert lines[-1] == "ALLOWED by rule 2 of group:staff"
    campus("rule", "add", "group:staff", "tcp:*(*)->*(22)")
    assert explain_carol(campus, "tcp", "93.184.216.34:22")[-1] == "ALLOWED by rule 5 of group:staff"


def test_a_ban_in_a_directory(campus: Command) -> None:
    """What to do about it: an exception in the store, which is asked first, or a change of the directory."""
    lines = explain_carol(campus, "tcp", "93.184.216.34:22")
    assert lines[-3:] == [
        f"DENIED: a rule of group:staff in {STAFF} forbids it, and one deny outweighs every allow",
        "  to allow it to everybody in group:staff: trioproxy rule add group:staff 'tcp:*(*)->93.184.216.34(22)'",
        f"  or to lift the ban for everybody in group:staff: change the directory, {STAFF}",
    ]
    run_advice(campus, lines[-2])
    assert explain_carol(campus, "tcp", "93.184.216.34:22")[-1] == "ALLOWED by rule 5 of group:staff"


def test_a_rule_of_a_directory_is_close(campus: Command) -> None:
    """Near misses are looked for there as well."""
    lines = explain_carol(campus, "udp", "www.example.org:9000", "--address", "93.184.216.34")
    assert f"  close: a rule of user:carol in {UID} fits but for the protocol: tcp:*(*)->*.example.org(9000)" in lines


def test_json_of_a_user_of_a_directory(campus: Command) -> None:
    """The entry of the directory takes the place of the id."""
    result = campus("rule", "explain", "--user", "carol", *CLIENT, "--json", "tcp", "93.184.216.34:21")
    explanation = json.loads(result.out)
    assert (explanation["allowed"], explanation["member"]) == (True, True)
    [staff] = [layer for layer in explanation["addresses"][0]["layers"] if layer["vote"] == "allow"]
    assert staff == {
        "scope": "group:staff",
        "vote": "allow",
        "rule": "tcp:*(*)->*(21,22)",
        "id": None,
        "entry": STAFF,
    }


def test_more_groups_than_the_directory_knows(campus: Command) -> None:
    """What would be if: the given group counts, the directory's groups stay."""
    campus("rule", "add", "group:mailers", "tcp:*(*)->*(465)")
    assert explain_carol(campus, "tcp", "93.184.216.34:465", "--group", "Mailers")[-1] == (
        "ALLOWED by rule 5 of group:mailers"
    )


def test_local_users_are_not_looked_up_elsewhere(campus: Command) -> None:
    """The first backend that knows the user decides, and the directory may be slow."""
    assert explain(campus, "tcp", "93.184.216.34:443")[-1] == "ALLOWED by rule 2 of group:staff"
    assert Directory.asked == []


def test_a_directory_in_front_of_the_local_users(campus: Command, tmp_path: Path) -> None:
    """Alice of the directory is somebody else than alice of the store; where it does not know her, the store does."""
    rewrite(tmp_path, '["local", "campus"]', '["campus", "local"]')
    assert explain(campus, "tcp", "93.184.216.34:443")[-1] == "ALLOWED by rule 2 of group:staff"
    Directory.people["main", "alice"] = Identity("main", "alice", frozenset({"system-proxy"}))
    assert explain(campus, "tcp", "93.184.216.34:443")[-3] == "DENIED: no rule allows it"


def test_a_user_whom_no_backend_knows(campus: Command) -> None:
    """A typing mistake, after all backends were asked."""
    result = campus("rule", "explain", "--user", "dave", *CLIENT, "tcp", "93.184.216.34:80")
    assert "login refused: there is no user dave; `trioproxy user add dave` adds one" in result.lines
    assert Directory.asked == [("main", "dave")]


def test_a_user_whom_the_directory_refuses(campus: Command) -> None:
    """The reason is that of the backend, which alone knows more."""
    Directory.people["main", "carol"] = Rejected(Rejection.EXPIRED)
    result = campus("rule", "explain", "--user", "carol", *CLIENT, "tcp", "93.184.216.34:80")
    assert "login refused: campus says: user is expired or not yet valid" in result.lines


def test_a_directory_that_cannot_tell(campus: Command) -> None:
    """Without groups and rules every explanation would be a guess."""
    Directory.people["main", "carol"] = Unavailable("ldaps://ldap1.example.org does not answer\x1b[2J")
    result = campus("rule", "explain", "--user", "carol", *CLIENT, "tcp", "93.184.216.34:80")
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines() == [
        "trioproxy: campus cannot tell who carol is: ldaps://ldap1.example.org does not answer\\x1b[2J",
        "  `trioproxy auth test carol` shows each step",
    ]
    assert Directory.is_open == 0


@pytest.mark.parametrize("problem", [OSError("no such file"), ValueError("no such file")])
def test_a_directory_that_cannot_be_opened(
    campus: Command, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    """A missing file with the certificates, say."""

    def fail(_self: object) -> None:
        raise problem

    monkeypatch.setattr(Directory, "open", fail)
    result = campus("rule", "explain", "--user", "carol", *CLIENT, "tcp", "93.184.216.34:80")
    assert (result.code, result.err) == (
        1,
        "trioproxy: a backend of tenant main cannot be opened: no such file\n",
    )


def test_a_backend_that_cannot_be_built(campus: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the configuration could not show: another plug-in of the same name has come in between."""

    def fail(*_arguments: object) -> None:
        raise BackendError("auth.campus: gone")

    monkeypatch.setattr("trioproxy.backends.build", fail)
    result = campus("rule", "explain", "--user", "carol", *CLIENT, "tcp", "93.184.216.34:80")
    assert (result.code, result.err) == (1, "trioproxy: auth.campus: gone\n")


OUTSIDE = attrs.evolve(CAROL, groups=frozenset({"staff"}))


def test_a_user_of_a_directory_outside_the_proxy_group(campus: Command) -> None:
    """The login is refused; what the rules would say to a member is said all the same."""
    Directory.people["main", "carol"] = OUTSIDE
    lines = explain_carol(campus, "tcp", "93.184.216.34:21")
    assert lines[1] == "login refused: carol is not a member of system-proxy, says campus"
    assert lines[-1] == f"apart from that: ALLOWED by a rule of group:staff in {STAFF}"


@pytest.mark.parametrize("name", ["alice", "carol"])
def test_nonmembers_have_the_global_layer_alone(campus: Command, tmp_path: Path, name: str) -> None:
    """`nonmembers = "global-rules"`: it says so, shows no other layer, and its advice is about the global layer."""
    rewrite(tmp_path, "[auth]\n", '[auth]\nnonmembers = "global-rules"\n')
    campus("user", "group", "alice", "--remove", "system-proxy")
    Directory.people["main", "carol"] = OUTSIDE
    arguments = ("rule", "explain", "--user", name, *CLIENT)
    result = campus(*arguments, "tcp", "93.184.216.34:443")
    assert result.err == ""
    assert result.lines == [
        f"{name} (groups: staff) from 10.1.2.3 asks for tcp 93.184.216.34:443",
        "not in the proxy group, so the global layer alone judges",
        "",
        "93.184.216.34: denied",
        "LAYER   VOTE  ID  RULE",
        "floor   -         not part of it",
        "global  -         none of 1 fits",
        "",
        "DENIED: no rule allows it",
        f"  to allow it to {name}: trioproxy rule add global 'tcp:*(*)->93.184.216.34(443) user={name}'",
    ]
    run_advice(campus, result.lines[-1])
    assert campus(*arguments, "tcp", "93.184.216.34:443").lines[-1] == "ALLOWED by rule 5 of global"
    assert json.loads(campus(*arguments, "--json", "tcp", "93.184.216.34:443").out)["member"] is False


def test_anonymous(desk: Command, tmp_path: Path) -> None:
    """DESIGN section 3: a client without login has the global layer and that of the listener's tenant."""
    lines = desk("rule", "explain", "--anonymous", *CLIENT, "tcp", "93.184.216.34:80").lines
    assert lines[:2] == [
        "a client of tenant main without login from 10.1.2.3 asks for tcp 93.184.216.34:80",
        "login refused: no listener of tenant main lets clients in without login; `anonymous = true` would",
    ]
    assert [line.split()[0] for line in lines[4:8]] == ["LAYER", "floor", "global", "tenant:main"]
    config = tmp_path / "trioproxy.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("[tenant", 'anonymous = true\ntenant = "physics"\n[tenant'), encoding="utf-8")
    arguments = ["rule", "explain", "--anonymous", "--tenant", "physics", *CLIENT, "tcp", "93.184.216.34:80"]
    assert desk(*arguments).lines[-1] == (
        "  to allow it to everybody in tenant:physics: trioproxy rule add tenant:physics 'tcp:*(*)->93.184.216.34(80)'"
    )
    desk("rule", "add", "tenant:physics", "tcp:*(*)->*(*)")
    assert desk(*arguments).lines[-1] == "ALLOWED by rule 5 of tenant:physics"
    assert desk("rule", "explain", "--anonymous", *CLIENT, "tcp", "93.184.216.34:80").lines[-3].startswith("DENIED")


def test_an_anonymous_client_under_a_ban(desk: Command) -> None:
    """There is nobody to make an exception for but everybody."""
    lines = desk("rule", "explain", "--anonymous", *CLIENT, "tcp", "93.184.216.34:25").lines
    assert "  to allow it to everybody in global: trioproxy rule add global --position 1" in lines[-2]


def test_tenants_have_their_own_layers(desk: Command) -> None:
    """Issue item 5: alice of another tenant has none of alice's rules."""
    desk("user", "add", "physics/alice", "--generate", "--group", "staff")
    lines = desk("rule", "explain", "--user", "physics/alice", *CLIENT, "tcp", "93.184.216.34:80").lines
    assert [line.split()[0] for line in lines[4:10]] == [
        "floor",
        "global",
        "tenant:physics",
        "group:physics/socks",
        "group:physics/staff",
        "user:physics/alice",
    ]
    assert "DENIED: no rule allows it" in lines


def test_a_layer_that_cannot_be_read(desk: Command, data_dir: Path) -> None:
    """CASES law 11: the layer denies everything, and the explanation says why."""
    with closing(sqlite3.connect(data_dir / "trioproxy.db")) as hand, hand:
        hand.execute("UPDATE rule SET content = 'tcp:*(*)->*(*) rate=9' WHERE id = 2")
    result = desk("rule", "explain", "--user", "alice", *CLIENT, "tcp", "93.184.216.34:80")
    assert result.err.startswith("note: rule 2 of group:staff cannot be read, so this layer denies everything")
    assert result.lines[-2:] == [
        "DENIED: an unreadable rule of group:staff forbids it, and one deny outweighs every allow",
        "  look for the rule that cannot be read: trioproxy rule list group:staff",
    ]


def test_json(desk: Command) -> None:
    """The same for programs."""
    result = desk(
        *("rule", "explain", "--user", "alice", *CLIENT, "--json", "tcp", "x.org:25"),
        *("--address", "93.184.216.34", "--address", "::1"),
    )
    explanation = json.loads(result.out)
    assert explanation["allowed"] is False
    assert explanation["groups"] == ["staff", "system-proxy"]
    assert [item["address"] for item in explanation["addresses"]] == ["93.184.216.34", "::1"]
    first, second = explanation["addresses"]
    assert (first["decided_by"], first["rule"]) == ("global", 'deny tcp:*(*)->*(25) note="no mail"')
    assert first["layers"][0] == {
        "scope": "global",
        "vote": "deny",
        "rule": 'deny tcp:*(*)->*(25) note="no mail"',
        "id": 1,
        "entry": None,
    }
    assert (first["floor"], second["floor"]) == (None, "::1/128 loopback")
    assert (second["decided_by"], second["rule"]) == (None, None)
    allowed = json.loads(desk("rule", "explain", "--user", "alice", *CLIENT, "--json", "tcp", "93.184.216.34:80").out)
    assert (allowed["allowed"], allowed["login_refused"]) == (True, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--user", "alice", "--tenant", "physics"], "--tenant goes with --anonymous; write --user physics/alice\n"),
        (["--user", "alice", "--source-port", "99999"], "--source-port: 99999 is no port\n"),
        (["--user", "alice", "--source-port", "-1"], "--source-port: -1 is no port\n"),
    ],
)
def test_what_goes_otherwise(desk: Command, arguments: list[str], message: str) -> None:
    """The answer says how."""
    result = desk("rule", "explain", *arguments, *CLIENT, "tcp", "93.184.216.34:80")
    assert (result.code, result.out, result.err) == (2, "", f"trioproxy: {message}")
