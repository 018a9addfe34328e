"""`trioproxy block add|list|remove`."""

import json
import os
import pwd
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from trioproxy.cli.moments import parse_duration
from trioproxy.store import Store

SUDO_USER = "alice"


@pytest.fixture(autouse=True)
def become_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests run as if by sudo, whoever starts them."""
    monkeypatch.setenv("SUDO_USER", SUDO_USER)


def add(cli: Command, *arguments: str) -> list[str]:
    """What `block add` says."""
    result = cli("block", "add", *arguments, "--reason", "attack")
    assert result.code == 0
    return [re.sub(r"until \d{4}-.*\)", "until T)", line) for line in result.lines]


def stored(data_dir: Path) -> list[str]:
    """The blocks that the store holds."""
    with Store.open(data_dir / "trioproxy.db", create=True) as store:
        return [f"{block.id} {block.subject}" for block in store.blocks.all()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["user", "physics/Bob"], "block 1 of user physics/bob: attack (until it is removed)"),
        (["user", "bob", "--for", "2h"], "block 1 of user bob: attack (until T)"),
        (["source", "10.1.0.0/16"], "block 1 of source 10.1.0.0/16: attack (until it is removed)"),
        (["target", "[2001:db8::1]:443"], "block 1 of target [2001:db8::1]:443: attack (until it is removed)"),
        (["target", "10.0.0.0/8:25,587"], "block 1 of target 10.0.0.0/8:25,587: attack (until it is removed)"),
        (["everything"], "block 1 of everything: attack (until it is removed)"),
        (
            ["everything", "--tenant", "physics"],
            "block 1 of everything in tenant physics: attack (until it is removed)",
        ),
    ],
)
def test_add(cli: Command, arguments: list[str], said: str) -> None:
    """Each kind, for everybody or a tenant, for a time or until further notice."""
    assert add(cli, *arguments) == [said]


def test_list(cli: Command) -> None:
    """Who set it, when, until when, why and what."""
    before = datetime.now(UTC).replace(microsecond=0)
    add(cli, "user", "physics/bob", "--for", "2h")
    add(cli, "target", "*.example.org:443")
    head, user, target = cli("block", "list").lines
    assert head.split() == ["ID", "WHAT", "TENANT", "UNTIL", "SET", "BY", "AT", "REASON"]
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d \S+"
    assert re.fullmatch(rf"1   user physics/bob +physics +{moment} +alice +{moment} +attack", user)
    assert re.fullmatch(rf"2   target \*\.example\.org:443 +all +no end +alice +{moment} +attack", target)
    first, second = json.loads(cli("block", "list", "--json").out)
    assert before <= datetime.fromisoformat(first.pop("set_at")) <= datetime.now(UTC)
    ends_at = datetime.fromisoformat(first.pop("ends_at"))
    assert before + timedelta(hours=2) <= ends_at <= datetime.now(UTC) + timedelta(hours=2)
    assert first == {
        "id": 1,
        "kind": "user",
        "subject": "physics/bob",
        "tenant": "physics",
        "reason": "attack",
        "set_by": "alice",
    }
    assert (second["subject"], second["tenant"], second["ends_at"]) == ("*.example.org:443", None, None)


def test_list_of_one_tenant(cli: Command) -> None:
    """What holds for it: its own, and what holds for all."""
    for arguments in (["user", "bob"], ["user", "physics/bob"], ["everything"], ["source", "*", "--tenant", "main"]):
        add(cli, *arguments)
    shown = json.loads(cli("block", "list", "--tenant", "physics", "--json").out)
    assert [block["id"] for block in shown] == [2, 3]
    assert json.loads(cli("block", "list", "--json").out)[2]["subject"] is None


def test_what_has_ended_is_not_listed(cli: Command, data_dir: Path) -> None:
    """Expired blocks do nothing, and go with the next change."""
    add(cli, "everything")
    with Store.open(data_dir / "trioproxy.db", create=False) as store:
        store._database.run("UPDATE block SET ends_at = '2001-01-01T00:00:00+00:00'")
    assert cli("block", "list").out == "nothing is blocked\n"
    assert stored(data_dir) == ["1 everything"]
    add(cli, "user", "bob")
    assert stored(data_dir) == ["2 user bob"]


def test_remove(cli: Command, data_dir: Path) -> None:
    """Several at once, all or none."""
    for _ in range(3):
        add(cli, "everything")
    failed = cli("block", "remove", "1", "7")
    assert (failed.code, failed.err) == (1, "trioproxy: there is no block 7; it may have ended\n")
    assert cli("block", "remove", "3", "1").lines == [
        "removed: block 1 of everything: attack",
        "removed: block 3 of everything: attack",
    ]
    assert stored(data_dir) == ["2 everything"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["planet", "mars"], 2, "planet"),
        (["user"], 2, "say what to block: user NAME, source NETWORK"),
        (["everything", "else"], 2, "say what to block"),
        (["target", "127.1"], 1, "target '127.1' cannot be blocked: expected a host"),
        (["source", "example.org"], 1, "source 'example.org' cannot be blocked: expected an address or network"),
        (["source", "10.1.0.0/16:80"], 1, "a source has no ports; leave out what follows the colon"),
        (["source", "[2001:db8::1]:80"], 1, "a source has no ports; leave out what follows the colon"),
        (["user", "a:b"], 1, "user 'a:b' cannot be blocked: a user name holds none of"),
        (["user", "chemistry/bob"], 1, "there is no tenant 'chemistry', only main, physics"),
        (["user", "bob", "--tenant", "physics"], 1, "user bob is of tenant main, not of physics"),
        (["everything", "--tenant", "chemistry"], 1, "there is no tenant 'chemistry', only main, physics"),
        (["everything", "--for", "long"], 1, "'long' is no duration"),
        (["everything", "--for", "0h"], 1, "'0h' is no duration"),
        (["everything", "--for", "-1h"], 1, "'-1h' is no duration"),
    ],
)
def test_a_typing_mistake_blocks_nothing(
    cli: Command, data_dir: Path, arguments: list[str], code: int, message: str
) -> None:
    """Issue: refused with what was expected; nothing is stored."""
    result = cli("block", "add", *arguments, "--reason", "attack")
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert stored(data_dir) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [([], 2, "--reason"), (["--reason", " "], 1, "a reason is one line of 1 to 500 characters")],
)
def test_a_reason_is_needed(cli: Command, data_dir: Path, arguments: list[str], code: int, message: str) -> None:
    """Whoever finds the block at night has to know what it is for."""
    result = cli("block", "add", "everything", *arguments)
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert stored(data_dir) == []


def test_a_name_that_nobody_has(cli: Command) -> None:
    """Most often a typing mistake, and then somebody else goes on; the block is kept."""
    cli("user", "add", "alice", "--generate")
    assert cli("block", "add", "user", "alice", "--reason", "attack").err == ""
    assert cli("block", "add", "user", "alcie", "--reason", "x").err == (
        "note: there is no local user alcie; a typing mistake?\n"
    )


@pytest.mark.parametrize("has_name", [True, False])
def test_who_set_it_without_sudo(cli: Command, monkeypatch: pytest.MonkeyPatch, has_name: bool) -> None:
    """The user of the operating system, by name if there is one."""
    monkeypatch.delenv("SUDO_USER")
    expected = pwd.getpwuid(os.getuid()).pw_name
    if not has_name:
        monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
        expected = "4000000000"
    add(cli, "everything")
    assert json.loads(cli("block", "list", "--json").out)[0]["set_by"] == expected


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("7d", timedelta(days=7)),
        ("4w", timedelta(weeks=4)),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    """A number and a unit."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "2H", "-2h", "1.5h", "3661d", "999999w", "2h30m"])
def test_no_durations(cli: Command, text: str) -> None:
    """Nothing is guessed."""
    result = cli("block", "add", "everything", f"--for={text}", "--reason", "attack")
    assert result.code == 1
    assert "is no duration of up to ten years; write a number with s, m, h, d or w, such as 2h" in result.err


def test_listing_needs_a_tenant_that_there_is(cli: Command) -> None:
    """A typing mistake is no empty list."""
    assert cli("block", "list", "--tenant", "chemistry").code == 1


def test_a_block_is_explained(cli: Command) -> None:
    """`rule explain` says that it is no rule, which one it is, and how it is lifted."""
    cli("user", "add", "alice", "--generate")
    cli("rule", "add", "user:alice", "tcp:*(*)->*(*)")
    arguments = [
        *("rule", "explain", "--user", "alice", "--source", "10.1.2.3", "tcp", "example.org:443"),
        *("--address", "8.8.8.8", "--address", "8.8.4.4"),
    ]
    add(cli, "target", "8.8.4.4")
    lines = cli(*arguments).lines
    assert "8.8.8.8: allowed" in lines
    assert "block               deny   1   target 8.8.4.4: attack" in lines
    assert lines[-1] == "the proxy connects to 8.8.8.8 only"
    add(cli, "user", "alice")
    assert cli(*arguments).lines[-2:] == [
        "DENIED: block 2 of user alice: attack; a block outweighs every rule",
        "  to lift it: trioproxy block remove 2",
    ]
    addresses = json.loads(cli(*arguments, "--json").out)["addresses"]
    assert [address["block"]["id"] for address in addresses] == [2, 1]
    assert cli("block", "remove", "1", "2").code == 0
    assert cli(*arguments).lines[-1].startswith("ALLOWED by rule 1")
    assert json.loads(cli(*arguments, "--json").out)["addresses"][0]["block"] is None


def test_what_is_blocked_already(cli: Command) -> None:
    """Who lifts one of two blocks would wonder; what has ended or is about another tenant says nothing."""
    for arguments in (["everything", "--tenant", "physics"], ["source", "2001:db8::/32"], ["source", "::/0"]):
        assert cli("block", "add", *arguments, "--reason", "attack").err == ""
    assert cli("block", "add", "everything", "--reason", "attack").err == ""
    assert cli("block", "add", "everything", "--reason", "again").err == (
        "note: it is blocked already, by block 4 of everything: attack (until it is removed);"
        " each has to end, or to be removed\n"
    )


def test_a_login_that_a_block_makes_worthless(cli: Command) -> None:
    """`auth test` says that the password is right, and why it does not help."""
    cli("user", "add", "alice", "--password-stdin", stdin=b"secret")
    arguments = ("auth", "test", "alice", "--password-stdin", "--source", "10.1.2.3")
    assert json.loads(cli(*arguments, "--json", stdin=b"secret").out)["block"] is None
    add(cli, "source", "10.1.0.0/16")
    result = cli(*arguments, stdin=b"secret")
    assert result.code == 0
    assert result.lines[5:8] == [
        "ACCEPTED by local",
        "  but every request is refused by block 1 of source 10.1.0.0/16: attack (until it is removed)",
        "  to lift it: trioproxy block remove 1",
    ]
    assert json.loads(cli(*arguments, "--json", stdin=b"secret").out)["block"]["id"] == 1
    assert "block" not in cli("auth", "test", "alice", "--no-password").out
    add(cli, "user", "alice")
    assert "block 2 of user alice: attack" in cli("auth", "test", "alice", "--no-password").out
