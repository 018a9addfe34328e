"""`trioproxy policy export|import`."""

import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from trioproxy.store import Snapshot, Store

ANY = "tcp:*(*)->*(*)"
RULES = """[global]
deny tcp:*(*)->*(25) note="no mail"

[user:alice]
tcp:*(*)->*(*)
udp:*(*)->*(*)

[tenant:physics]
tcp:*(*)->*(443)
"""


def snapshot(data_dir: Path) -> Snapshot:
    """Everything in the store."""
    with Store.open(data_dir / "trioproxy.db", create=True) as store:
        return store.snapshot()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with rules."""
    path = tmp_path / "rules.txt"
    path.write_text(RULES, encoding="utf-8")
    return path


def test_export_and_import_are_inverse(cli: Command, data_dir: Path, file: Path, tmp_path: Path) -> None:
    """P2: what was exported comes back as it was, and the second import has nothing to do."""
    result = cli("policy", "import", str(file))
    assert (result.code, result.lines[-1]) == (0, "4 rules in 3 layers in force")
    before = snapshot(data_dir)
    out = tmp_path / "out.txt"
    assert cli("policy", "export", str(out)).out == f"4 rules in 3 layers written to {out}\n"
    assert out.read_text(encoding="utf-8").partition("\n\n")[2] == RULES
    assert cli("policy", "import", str(out)).out == "nothing to change: 4 rules in 3 layers\n"
    assert snapshot(data_dir) == before


def test_standard_input_and_output(cli: Command, file: Path) -> None:
    """`-` for pipes; export without a file prints."""
    assert cli("policy", "import", "-", stdin=file.read_bytes()).code == 0
    printed = cli("policy", "export").out
    assert printed == cli("policy", "export", "-").out
    assert printed.partition("\n\n")[2] == RULES


def test_import_replaces_everything(cli: Command, file: Path) -> None:
    """DESIGN section 4: the file is the whole truth; what it does not hold is gone, and the difference is shown."""
    cli("rule", "add", "group:old", "tcp:*(*)->*(1)")
    cli("rule", "add", "user:alice", "tcp:*(*)->*(*)")
    assert cli("policy", "import", str(file)).lines == [
        "  [global]",
        '+ deny tcp:*(*)->*(25) note="no mail"',
        "  [group:old]",
        "- tcp:*(*)->*(1)",
        "  [user:alice]",
        "  tcp:*(*)->*(*)",
        "+ udp:*(*)->*(*)",
        "  [tenant:physics]",
        "+ tcp:*(*)->*(443)",
        "4 rules in 3 layers in force",
    ]
    assert "group:old" not in cli("policy", "export").out


def test_dry_run(cli: Command, data_dir: Path, file: Path) -> None:
    """DESIGN section 5: --dry-run prints the difference and changes nothing."""
    cli("rule", "add", "user:alice", "tcp:*(*)->*(1)")
    before = snapshot(data_dir)
    shown = cli("policy", "import", str(file), "--dry-run").lines
    assert shown[-1] == "dry run, nothing was changed; the file holds 4 rules in 3 layers"
    assert snapshot(data_dir) == before
    assert cli("policy", "import", str(file)).lines[:-1] == shown[:-1]


def test_dry_run_makes_no_store(cli: Command, data_dir: Path, file: Path) -> None:
    """Nothing means nothing."""
    assert cli("policy", "import", str(file), "--dry-run").code == 1
    assert not data_dir.exists()


BROKEN = """[global]
tcp:*(*)->*(*)
  tcp:*(*)->*(0)
[user:chemistry/bob]
"""


@pytest.mark.parametrize("arguments", [[], ["--dry-run"], ["--tenant", "physics"]])
def test_a_broken_import_changes_nothing(cli: Command, data_dir: Path, file: Path, arguments: list[str]) -> None:
    """Issue: every wrong line with its place, and the store's file is the same to the byte afterwards."""
    cli("policy", "import", str(file))
    content = (data_dir / "trioproxy.db").read_bytes()
    before = snapshot(data_dir)
    file.write_text(BROKEN, encoding="utf-8")
    result = cli("policy", "import", str(file), *arguments)
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines() == [
        "trioproxy: nothing was changed, the file is wrong:",
        f"{file}:3:15: expected ports from 1 to 65535, the smaller one first",
        "      tcp:*(*)->*(0)",
        "                  ^",
        f"{file}:4:1: there is no tenant chemistry, only main, physics",
        "    [user:chemistry/bob]",
        "    ^",
    ]
    assert snapshot(data_dir) == before
    assert (data_dir / "trioproxy.db").read_bytes() == content


def test_one_tenant(cli: Command, data_dir: Path, file: Path) -> None:
    """Issue item 5: export and import of one tenant touch no other, and not what holds for everybody."""
    cli("policy", "import", str(file))
    before = snapshot(data_dir).rules
    exported = cli("policy", "export", "--tenant", "physics").out
    assert exported.partition("\n\n")[2] == "[tenant:physics]\ntcp:*(*)->*(443)\n"
    file.write_text("[user:physics/bob]\ntcp:*(*)->*(*)\n", encoding="utf-8")
    assert cli("policy", "import", str(file), "--tenant", "physics").lines == [
        "  [tenant:physics]",
        "- tcp:*(*)->*(443)",
        "  [user:physics/bob]",
        "+ tcp:*(*)->*(*)",
        "1 rule in 1 layer in force",
    ]
    after = snapshot(data_dir).rules
    assert {scope: rules for scope, rules in after.items() if scope.tenant != "physics"} == {
        scope: rules for scope, rules in before.items() if scope.tenant != "physics"
    }


def test_the_file_of_one_tenant_says_how_it_comes_back(cli: Command, file: Path) -> None:
    """What its comment says can be followed to the letter; without --tenant it would empty what it does not hold."""
    cli("policy", "import", str(file))
    everything, one = (cli("policy", "export", *more).out for more in ((), ("--tenant", "physics")))
    assert "`trioproxy policy import FILE` replaces all" in everything
    assert "`trioproxy policy import FILE --tenant physics` replaces those of" in one
    assert "policy import FILE`" not in one


def test_what_the_file_says_nothing_about_is_named(cli: Command, file: Path, data_dir: Path) -> None:
    """Who forgets --tenant is told which layers go, first by a dry run."""
    note = (
        "note: nothing in the file is about the global layer or tenant main, so this empties global, user:alice;"
        " --tenant replaces those of one tenant alone\n"
    )
    cli("user", "add", "alice", "--generate")
    cli("policy", "import", str(file))
    exported = cli("policy", "export", "--tenant", "physics").out.encode()
    assert cli("policy", "import", "-", "--tenant", "physics", stdin=exported).err == ""
    assert cli("policy", "import", "-", "--dry-run", stdin=exported).err == note
    assert len(snapshot(data_dir).rules) == 3
    assert cli("policy", "import", "-", stdin=exported).err == note
    assert len(snapshot(data_dir).rules) == 1
    assert cli("policy", "import", "-", stdin=b"").err == (
        "note: nothing in the file is about tenant physics, so this empties tenant:physics\n"
    )


def test_many_layers_are_not_all_named(cli: Command) -> None:
    """A note is one line; the difference has them all."""
    layers = "".join(f"[user:u{number:02}]\n{ANY}\n" for number in range(12))
    unknown = cli("policy", "import", "-", stdin=layers.encode()).err
    assert unknown == (
        "note: there is no local user u00, u01, u02, u03, u04, u05, u06, u07, u08, u09 and 2 more; a typing mistake?\n"
    )
    emptied = cli("policy", "import", "-", stdin=b"[global]\n").err
    assert emptied.endswith(
        "so this empties user:u00, user:u01, user:u02, user:u03, user:u04, user:u05, user:u06,"
        " user:u07, user:u08, user:u09, ...\n"
    )


def test_a_user_that_nobody_is(cli: Command, file: Path) -> None:
    """A layer with a mistyped name would wait for ever."""
    assert cli("policy", "import", str(file)).err == "note: there is no local user alice; a typing mistake?\n"
    cli("user", "add", "alice", "--generate")
    assert cli("policy", "import", str(file)).err == ""


def test_one_tenant_with_rules_of_another(cli: Command, data_dir: Path, file: Path) -> None:
    """Issue item 5: a tenant's file cannot reach outside."""
    cli("policy", "import", str(file))
    before = snapshot(data_dir)
    result = cli("policy", "import", str(file), "--tenant", "physics")
    assert result.err == (
        f"trioproxy: {file}: nothing was changed, these layers are not of tenant physics: global, user:alice\n"
    )
    assert snapshot(data_dir) == before
    for command in ("export", "import"):
        result = cli("policy", command, str(file), "--tenant", "chemistry")
        assert result.err.startswith("trioproxy: there is no tenant 'chemistry'")
    assert file.read_text(encoding="utf-8") == RULES


@pytest.mark.parametrize("content", [b"\xff\n", b"a" * 20])
def test_a_file_that_is_something_else(
    cli: Command, file: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear line."""
    monkeypatch.setattr("trioproxy.store.policy_text._BYTES_MAX", 10)
    file.write_bytes(content)
    lines = cli("policy", "import", str(file)).err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"{file}:1:1: ")


def test_a_file_that_is_not_there(cli: Command, tmp_path: Path, data_dir: Path) -> None:
    """One clear line, and no store is made for it."""
    result = cli("policy", "import", str(tmp_path / "none"))
    assert result.err == f"trioproxy: {tmp_path}/none: cannot be read: No such file or directory\n"
    assert not data_dir.exists()


def test_a_folder_that_cannot_be_written(cli: Command, file: Path, tmp_path: Path) -> None:
    """One clear line, and nothing is left behind."""
    cli("policy", "import", str(file))
    for target, problem in ((tmp_path / "none" / "out.txt", "No such file or directory"), (tmp_path, "Is a directory")):
        result = cli("policy", "export", str(target))
        assert result.err == f"trioproxy: {target}: cannot be written: {problem}\n"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "rules.txt", "trioproxy.toml"}


def test_a_failed_export_loses_no_earlier_one(
    cli: Command, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle of writing leaves the last export whole."""
    cli("policy", "import", str(file))
    target = tmp_path / "out.txt"
    target.write_text("the last export", encoding="utf-8")
    write_text = Path.write_text

    def half(self: Path, text: str, encoding: str) -> int:
        write_text(self, text[: len(text) // 2], encoding=encoding)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    result = cli("policy", "export", str(target))
    monkeypatch.undo()
    assert "cannot be written: No space left on device" in result.err
    assert target.read_text(encoding="utf-8") == "the last export"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out.txt", "rules.txt", "trioproxy.toml"}


def test_a_link_stays_a_link(cli: Command, file: Path, tmp_path: Path) -> None:
    """/etc/trioproxy/rules.txt may be a link into a version-controlled folder."""
    cli("policy", "import", str(file))
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    link.symlink_to(target)
    assert cli("policy", "export", str(link)).code == 0
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8").endswith(RULES)


def test_a_device_is_written_to(cli: Command, file: Path) -> None:
    """As root, replacing /dev/null by a file would break the machine."""
    cli("policy", "import", str(file))
    assert cli("policy", "export", "/dev/null").code == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


LIMITED = """[global]
limit rate=20Mbit
limit together rate=4Gbit
deny tcp:*(*)->*(25)

[group:students]
limit quota=20GB/month sessions=200
"""


def test_limits_go_out_and_in(cli: Command, data_dir: Path, file: Path) -> None:
    """The file is the whole truth about limits as well; a dry run shows what would change, and changes nothing."""
    file.write_text(LIMITED, encoding="utf-8")
    assert cli("policy", "import", str(file)).lines[-1] == "1 rule and 3 limits in 2 layers in force"
    before = snapshot(data_dir)
    assert cli("policy", "export").out.partition("\n\n")[2] == LIMITED
    file.write_text(LIMITED.replace("4Gbit", "2Gbit").replace("limit quota=20GB/month sessions=200\n", ""), "utf-8")
    shown = cli("policy", "import", str(file), "--dry-run").lines
    assert shown == [
        "  [global]",
        "  limit rate=20Mbit",
        "- limit together rate=4Gbit",
        "+ limit together rate=2Gbit",
        "  deny tcp:*(*)->*(25)",
        "  [group:students]",
        "- limit quota=20GB/month sessions=200",
        "dry run, nothing was changed; the file holds 1 rule and 2 limits in 2 layers",
    ]
    assert snapshot(data_dir) == before
    assert cli("policy", "import", str(file)).lines[:-1] == shown[:-1]
    assert len(snapshot(data_dir).limits) == 2


def test_a_broken_limit_changes_nothing(cli: Command, data_dir: Path, file: Path) -> None:
    """Issue: a rate that is no number with a unit, a period that does not exist: nothing is stored."""
    cli("policy", "import", str(file))
    before = snapshot(data_dir)
    file.write_text("[global]\nlimit rate=20\nlimit together quota=5GB/year\n", encoding="utf-8")
    result = cli("policy", "import", str(file))
    assert (result.code, result.out) == (1, "")
    assert f"{file}:2:1: rate: expected a rate such as 20Mbit" in result.err
    assert f"{file}:3:1: quota: expected a quota such as 5GB/day" in result.err
    assert snapshot(data_dir) == before


def test_a_file_without_limits(cli: Command, data_dir: Path, file: Path) -> None:
    """What an earlier version exported comes in; limits that were set meanwhile go, and the answer says so."""
    cli("limit", "set", "global", "rate=20Mbit")
    lines = cli("policy", "import", str(file)).lines
    assert "- limit rate=20Mbit" in lines
    assert lines[-1] == "4 rules in 3 layers in force"
    assert snapshot(data_dir).limits == {}
