"""`trioproxy user`: everything about local users, tenant by tenant."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from auth.local import LocalUser
from auth.passwords import verify_password
from tests.cli.conftest import Command
from trioproxy.store import Store


def user(data_dir: Path, tenant: str = "main", name: str = "alice") -> LocalUser:
    """A user as stored."""
    with Store.open(data_dir / "trioproxy.db", create=False) as store:
        return store.users.get(tenant, name)


def password_is(data_dir: Path, password: str, tenant: str = "main", name: str = "alice") -> bool:
    """Whether this is the user's password."""
    with Store.open(data_dir / "trioproxy.db", create=False) as store:
        return verify_password(password, store.users.get(tenant, name).password_hash).ok


def add(cli: Command, *arguments: str, password: str = "secret") -> None:  # noqa: S107 - of a test
    """Add a user who must not be there."""
    result = cli("user", "add", *arguments, "--password-stdin", stdin=f"{password}\n".encode())
    assert (result.code, result.err) == (0, "")


def test_add_and_list(cli: Command, data_dir: Path) -> None:
    """DESIGN section 5: a new local user is a member of the proxy group unless --no-proxy."""
    add(cli, "Alice", "--group", "Staff", "--group", "b")
    add(cli, "bob", "--no-proxy")
    assert cli("user", "list").lines == [
        "NAME   STATE          GROUPS                  VALID UNTIL  FROM",
        "alice  active         b, staff, system-proxy  -            any",
        "bob    no proxy user                          -            any",
    ]
    assert password_is(data_dir, "secret")


def test_a_tenant_has_its_own_proxy_group(cli: Command) -> None:
    """DESIGN section 6: the group that may use the proxy is the tenant's."""
    add(cli, "physics/bob")
    result = cli("user", "show", "physics/bob")
    assert "groups  socks" in result.lines
    assert "state   active" in result.lines


def test_tenants_do_not_show_in_each_others_listing(cli: Command) -> None:
    """Issue item 5: the same name in two tenants; each listing shows one of them unless all are asked for."""
    add(cli, "alice")
    add(cli, "physics/alice")
    add(cli, "physics/bob")
    listed = {tenant: [line.split()[0] for line in cli("user", "list", *tenant).lines[1:]] for tenant in TENANTS}
    assert listed == {
        (): ["alice"],
        ("--tenant", "main"): ["alice"],
        ("--tenant", "physics"): ["physics/alice", "physics/bob"],
        ("--all-tenants",): ["alice", "physics/alice", "physics/bob"],
    }


TENANTS: list[tuple[str, ...]] = [(), ("--tenant", "main"), ("--tenant", "physics"), ("--all-tenants",)]


def test_one_name_in_two_tenants_has_two_passwords(cli: Command, data_dir: Path) -> None:
    """Issue item 5: nothing of one changes the other."""
    add(cli, "alice", password="first")
    add(cli, "physics/alice", password="second")
    before = user(data_dir)
    assert cli("user", "passwd", "physics/alice", "--password-stdin", stdin=b"third").code == 0
    assert cli("user", "disable", "physics/alice").code == 0
    assert user(data_dir) == before
    assert password_is(data_dir, "first")
    assert password_is(data_dir, "third", "physics")


@pytest.mark.parametrize("action", [["add", "--generate"], ["show"], ["remove"], ["disable"], ["passwd", "--generate"]])
def test_a_tenant_that_there_is_not(cli: Command, data_dir: Path, action: list[str]) -> None:
    """A user of an unknown tenant could never log in; the error lists the tenants."""
    result = cli("user", action[0], "chemistry/x", *action[1:])
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("trioproxy: there is no tenant 'chemistry', only main, physics")
    assert not data_dir.exists()


def test_listing_a_tenant_that_there_is_not(cli: Command) -> None:
    """The same for listings."""
    result = cli("user", "list", "--tenant", "chemistry")
    assert result.err.startswith("trioproxy: there is no tenant 'chemistry'")
    result = cli("user", "list", "--tenant", "physics", "--all-tenants")
    assert (result.code, result.err) == (2, "trioproxy: --tenant and --all-tenants exclude each other\n")


def test_nobody_yet(cli: Command) -> None:
    """An empty listing says so."""
    add(cli, "physics/x")
    assert cli("user", "list").out == "no local users in tenant main\n"
    assert cli("user", "remove", "physics/x").code == 0
    assert cli("user", "list", "--all-tenants").out == "no local users\n"
    assert cli("user", "list", "--json").out == "[]\n"


@pytest.mark.parametrize("name", ["", "a/b/c", "a:b", 'a"b', " a", "a\x00b", "/", "physics/", "a\nb"])
def test_what_can_be_no_name(cli: Command, data_dir: Path, name: str) -> None:
    """auth.names: what separates names elsewhere can be in none; `alice:password` is not repeated."""
    result = cli("user", "add", name, "--generate")
    assert result.code == 1
    assert result.err.startswith("trioproxy: a ")
    assert not data_dir.exists()


def test_a_user_who_is_there(cli: Command, data_dir: Path) -> None:
    """Adding twice changes nothing, and nobody types a password for nothing."""
    add(cli, "alice", password="first")
    before = user(data_dir)
    result = cli("user", "add", "ALICE", "--password-stdin", stdin=b"second")
    assert (result.code, result.out, result.err) == (1, "", "trioproxy: there already: user alice\n")
    assert user(data_dir) == before


@pytest.mark.parametrize("command", ["passwd", "show", "disable", "enable", "remove"])
def test_a_user_who_is_not_there(cli: Command, command: str) -> None:
    """Every command says so in one line."""
    add(cli, "bob")
    result = cli("user", command, "alice")
    assert (result.code, result.out, result.err) == (1, "", "trioproxy: there is no local user alice\n")


def test_no_store_yet(cli: Command, data_dir: Path) -> None:
    """A listing makes no store."""
    result = cli("user", "list")
    assert result.code == 1
    assert result.err == (
        f"trioproxy: {data_dir}/trioproxy.db: there is no store; `trioproxy serve` or `trioproxy user add` makes one\n"
    )


def test_dates_and_sources(cli: Command, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 32: a last day is valid until midnight, a source is a network; both show in local time and as stored."""
    monkeypatch.setenv("TZ", "UTC-2")
    _use_time_zone()
    try:
        add(
            cli,
            *("alice", "--valid-from", "2026-01-31T08:00", "--valid-until", "2036-12-31"),
            *("--source", "10.1.2.3", "--source", "2001:db8::/32", "--source", "10.1.2.3"),
        )
        shown = cli("user", "show", "alice").lines
    finally:
        monkeypatch.delenv("TZ")
        _use_time_zone()
    assert "valid   from 2026-01-31 08:00 UTC until 2037-01-01 00:00 UTC" in shown
    assert "from    10.1.2.3/32, 2001:db8::/32" in shown
    stored = user(data_dir)
    assert stored.valid_from == datetime(2026, 1, 31, 6, 0, tzinfo=UTC)
    assert stored.valid_until == datetime(2036, 12, 31, 22, 0, tzinfo=UTC)
    assert stored.sources == ("10.1.2.3/32", "2001:db8::/32")


def _use_time_zone() -> None:
    import time  # noqa: PLC0415 - for this one call

    time.tzset()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--valid-from", "tomorrow", "'tomorrow' is no day and no time; write 2026-12-31 or 2026-12-31T18:00"),
        ("--valid-until", "2026-02-30", "'2026-02-30' is no day"),
        ("--valid-until", "9999-12-31", "'9999-12-31' is no day"),
        ("--source", "10.0.0.1/8", "--source: 10.0.0.1/8 has host bits set"),
        ("--source", "example.org", "--source: 'example.org' does not appear to be"),
        ("--group", "a/b", "a group name holds none of"),
    ],
)
def test_wrong_options_add_nobody(cli: Command, data_dir: Path, option: str, value: str, message: str) -> None:
    """What cannot be meant is refused before anything is made."""
    result = cli("user", "add", "alice", option, value, "--generate")
    assert result.code == 1
    assert message in result.err
    assert not data_dir.exists()


def test_change(cli: Command, data_dir: Path) -> None:
    """What is given changes, what is not given stays; `never`, `always`, `any` and `none` undo and close."""
    add(cli, "alice", "--valid-until", "2036-12-31", "--source", "10.0.0.0/8")
    assert cli("user", "change", "alice", "--valid-from", "2026-01-01T00:00+00:00").out == "user alice changed\n"
    shown = cli("user", "show", "alice").out
    assert "from 2026-01-01" in shown
    assert "until 2037-01-01" in shown
    assert "10.0.0.0/8" in shown
    assert cli("user", "change", "alice", "--valid-until", "never", "--source", "none").code == 0
    assert "from    none" in cli("user", "show", "alice").lines
    assert cli("user", "change", "alice", "--valid-from", "always", "--source", "any").code == 0
    shown = cli("user", "show", "alice").out
    assert "valid   always" in shown
    assert "from    any" in shown
    result = cli("user", "change", "alice")
    assert (result.code, result.err) == (
        2,
        "trioproxy: say what to change: --valid-from, --valid-until or --source\n",
    )


def test_disable_and_enable(cli: Command) -> None:
    """The state shows, and what to do about it."""
    add(cli, "alice")
    assert cli("user", "disable", "alice").out == "user alice disabled\n"
    shown = cli("user", "show", "alice").lines
    assert "state   disabled" in shown
    assert "        alice is disabled; `trioproxy user enable alice` changes that" in shown
    assert cli("user", "enable", "alice").out == "user alice enabled\n"
    assert "state   active" in cli("user", "show", "alice").lines


def test_a_user_without_a_usable_password(cli: Command, data_dir: Path) -> None:
    """Case 38: what is stored as hash can verify nothing, so the state says so and what to do."""
    add(cli, "alice")
    with Store.open(data_dir / "trioproxy.db", create=False) as store:
        store.users.change("main", "alice", lambda user: attrs.evolve(user, password_hash="*"))
    shown = cli("user", "show", "alice").lines
    assert "state   no password" in shown
    assert (
        "        alice cannot log in, the password is locked; `trioproxy user passwd alice` sets a new password"
        in shown
    )


def test_every_obstacle_shows(cli: Command) -> None:
    """The help desk sees all reasons at once."""
    add(cli, "alice", "--no-proxy", "--valid-from", "2036-01-01")
    cli("user", "disable", "alice")
    shown = cli("user", "show", "alice").out
    for part in ("is disabled", "is valid from 2036-01-01", "is not a member of system-proxy"):
        assert part in shown
    cli("user", "change", "alice", "--valid-from", "always", "--valid-until", "2020-01-01")
    assert "expired on 2020-01-02" in cli("user", "show", "alice").out


def test_groups(cli: Command) -> None:
    """Groups are joined and left; a wish that makes no sense changes nothing."""
    add(cli, "alice", "--group", "a")
    result = cli("user", "group", "alice", "--add", "B", "--add", "c", "--remove", "a")
    assert result.out == "user alice changed, groups: b, c, system-proxy\n"
    assert cli("user", "group", "alice").code == 2
    assert cli("user", "group", "alice", "--add", "x", "--remove", "X").code == 2
    assert "groups  b, c, system-proxy" in cli("user", "show", "alice").lines


def test_remove_takes_the_rules_along(cli: Command) -> None:
    """A later user of that name starts without the rules of the former one."""
    add(cli, "alice")
    cli("rule", "add", "user:alice", "tcp:*(*)->*(1)")
    cli("rule", "add", "global", "tcp:*(*)->*(2)")
    assert cli("user", "show", "alice").lines[-2:] == ["rules   1", "           1  tcp:*(*)->*(1)"]
    assert cli("user", "remove", "alice").out == "user alice removed, with 1 rule\n"
    assert [line.split()[0] for line in cli("rule", "list").lines] == ["SCOPE", "global"]


def test_json(cli: Command) -> None:
    """DESIGN section 5: --json where it lists; times with their zone, and never a hash."""
    add(cli, "alice", "--valid-until", "2036-12-31T00:00+00:00")
    listed = cli("user", "list", "--json").out
    described = {
        "tenant": "main",
        "name": "alice",
        "state": "active",
        "groups": ["system-proxy"],
        "disabled": False,
        "valid_from": None,
        "valid_until": "2036-12-31T00:00:00+00:00",
        "sources": None,
    }
    assert json.loads(listed) == [described]
    shown = cli("user", "show", "alice", "--json").out
    assert json.loads(shown) == described | {
        "obstacles": [],
        "blocks": [],
        "limits": {"each": [], "together": []},
        "rules": [],
    }
    assert "argon2" not in listed + shown


def test_a_tenant_that_the_configuration_does_not_name_any_more(cli: Command, data_dir: Path, tmp_path: Path) -> None:
    """Its users are still in the store, and show where everybody is listed."""
    add(cli, "physics/bob")
    (tmp_path / "trioproxy.toml").write_text("", encoding="utf-8")
    assert cli("user", "list", "--all-tenants").lines[1].split()[:2] == ["physics/bob", "no"]
    assert "the store has users, rules, limits or blocks of tenant physics, which" in cli("check").err


def test_never_valid(cli: Command) -> None:
    """An end before the begin is a mistake, also together with what is stored; an end that is over may be meant."""
    backwards = ("--valid-from", "2031-01-02", "--valid-until", "2031-01-01")
    refused = cli("user", "add", "alice", "--generate", *backwards)
    assert (refused.code, refused.out) == (1, "")
    assert re.fullmatch(
        r"trioproxy: valid from 2031-01-02 00:00 \S+ until 2031-01-02 00:00 \S+ is never: the end comes first\n",
        refused.err,
    )
    assert cli("user", "add", "alice", "--generate", "--valid-until", "2031-01-01").err == ""
    assert cli("user", "change", "alice", "--valid-from", "2031-06-01").code == 1
    assert json.loads(cli("user", "show", "alice", "--json").out)["valid_from"] is None
    past = cli("user", "change", "alice", "--valid-until", "2001-01-01")
    assert past.code == 0
    assert re.fullmatch(r"note: that is over already: 2001-01-02 00:00 \S+\n", past.err)


def test_groups_that_nobody_knows(cli: Command) -> None:
    """Most often typing mistakes; what is kept may be meant, so it is a note."""
    add(cli, "alice", "--group", "staff")
    add(cli, "bob")
    cli("rule", "add", "group:lab", "tcp:*(*)->*(443)")
    assert cli("user", "group", "bob", "--add", "system-proxi").err == (
        "note: nobody else is in the group system-proxi, and no rule is about it; a typing mistake?\n"
    )
    assert cli("user", "group", "bob", "--add", "staff", "--add", "lab").err == ""
    assert cli("user", "group", "bob", "--remove", "stuff").err == "note: bob was not in the group stuff\n"
    assert cli("user", "group", "bob", "--remove", "system-proxy").err == (
        "note: bob cannot log in any more: system-proxy is the group of those who may\n"
    )
    assert cli("user", "group", "bob", "--add", "system-proxy").err == ""


def test_show_what_holds_for_a_user(cli: Command) -> None:
    """The help desk sees blocks and limits, whoever set them, beside the account."""
    add(cli, "alice", "--group", "staff")
    assert "limits  none but those of the configuration" in cli("user", "show", "alice").lines
    cli("limit", "set", "group:staff", "rate=10Mbit")
    cli("limit", "set", "--together", "global", "rate=1Gbit")
    cli("limit", "set", "tenant:physics", "sessions=5")
    cli("block", "add", "user", "alice", "--reason", "stolen laptop")
    cli("block", "add", "everything", "--tenant", "physics", "--reason", "attack")
    assert cli("user", "show", "alice").lines[1:] == [
        "state   active, blocked",
        "groups  staff, system-proxy",
        "valid   always",
        "from    any",
        "        every request is refused by block 1 of user alice: stolen laptop (until it is removed)",
        "limits",
        "        rate=10Mbit for each user, says group:staff",
        "        rate=1Gbit for everybody in global together",
        "rules   none",
    ]
    shown = json.loads(cli("user", "show", "alice", "--json").out)
    assert [block["id"] for block in shown["blocks"]] == [1]
    assert shown["limits"]["each"] == [{"key": "rate", "value": "10Mbit", "scopes": ["group:staff"]}]


def test_remove_says_what_goes_and_what_stays(cli: Command) -> None:
    """Rules and limits go; a block keeps out whoever gets the name."""
    add(cli, "alice")
    cli("limit", "set", "user:alice", "rate=1Mbit")
    cli("block", "add", "user", "alice", "--reason", "theft")
    cli("block", "add", "everything", "--reason", "attack")
    result = cli("user", "remove", "alice")
    assert result.out == "user alice removed, with 0 rules and the limits\n"
    assert result.err == (
        "note: block 1 of user alice: theft stays, for whoever gets the name; `trioproxy block remove 1` lifts it\n"
    )


def test_days_of_a_tenant(cli: Command, data_dir: Path, tmp_path: Path) -> None:
    """A day is over at the tenant's midnight, and shown by the tenant's clock."""
    with (tmp_path / "trioproxy.toml").open("a", encoding="utf-8") as file:
        file.write('time_zone = "Asia/Tokyo"\n[policy]\ntime_zone = "Europe/Vienna"\n')
    add(cli, "alice", "--valid-until", "2040-01-01")
    add(cli, "physics/bob", "--valid-until", "2040-01-01", "--valid-from", "2039-01-01T08:00Z")
    assert user(data_dir).valid_until == datetime(2040, 1, 1, 23, tzinfo=UTC)
    assert user(data_dir, "physics", "bob").valid_until == datetime(2040, 1, 1, 15, tzinfo=UTC)
    assert "valid   until 2040-01-02 00:00 CET" in cli("user", "show", "alice").lines
    shown = cli("user", "show", "physics/bob").lines
    assert "valid   from 2039-01-01 17:00 JST until 2040-01-02 00:00 JST" in shown
    assert "        physics/bob is valid from 2039-01-01 17:00 JST only" in shown
    assert "2040-01-02 00:00 JST" in cli("user", "list", "--tenant", "physics").out
