"""`trioproxy user import`: the users of an htpasswd file, all or none."""

from pathlib import Path

import pytest

from auth.passwords import verify_password
from tests.cli.conftest import Command
from trioproxy.cli import user_import
from trioproxy.store import Snapshot, Store

# openssl passwd -apr1 -salt abcdefgh secret; htpasswd -nbs (SHA-1 of `secret`)
APR1 = "$apr1$abcdefgh$N.cw/pfCAbP4Vr3YX5qEi1"
SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="


def snapshot(data_dir: Path) -> Snapshot:
    """Everything in the store."""
    with Store.open(data_dir / "trioproxy.db", create=True) as store:
        return store.snapshot()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An htpasswd file with two users."""
    path = tmp_path / "users.htpasswd"
    path.write_text(f"# staff\nAlice:{SHA}\nbob:{SHA}\n", encoding="utf-8")
    return path


def test_import(cli: Command, data_dir: Path, file: Path) -> None:
    """Issue item 4: imported users log in with the passwords they had."""
    result = cli("user", "import", str(file), "--group", "staff")
    assert (result.code, result.out) == (0, "2 users added to tenant main, 0 passwords changed\n")
    users = snapshot(data_dir).users
    assert {key: user.groups for key, user in users.items()} == {
        ("main", "alice"): {"staff", "system-proxy"},
        ("main", "bob"): {"staff", "system-proxy"},
    }
    assert verify_password("secret", users["main", "alice"].password_hash).ok


def test_import_into_a_tenant(cli: Command, data_dir: Path, file: Path) -> None:
    """Issue item 5: users of one tenant leave those of the same name in another alone."""
    cli("user", "add", "alice", "--generate")
    before = snapshot(data_dir).users["main", "alice"]
    assert cli("user", "import", str(file), "--tenant", "physics", "--no-proxy").code == 0
    users = snapshot(data_dir).users
    assert users["main", "alice"] == before
    assert users["physics", "alice"].groups == frozenset()


def test_users_who_are_there(cli: Command, data_dir: Path, file: Path) -> None:
    """Nobody is added if somebody is there already, unless the passwords are meant to be replaced."""
    cli("user", "add", "bob", "--generate", "--no-proxy")
    before = snapshot(data_dir)
    result = cli("user", "import", str(file))
    assert (result.code, result.err) == (1, "trioproxy: there already: user bob; --update gives new passwords\n")
    assert snapshot(data_dir) == before
    result = cli("user", "import", str(file), "--update")
    assert result.out == "1 user added to tenant main, 1 password changed\n"
    bob = snapshot(data_dir).users["main", "bob"]
    assert verify_password("secret", bob.password_hash).ok
    assert bob.groups == frozenset()


def test_every_wrong_line(cli: Command, data_dir: Path, file: Path) -> None:
    """Issue: a broken import changes nothing, and each wrong line is named without its content (case 106)."""
    cli("user", "add", "zoe", "--generate")
    before = snapshot(data_dir)
    file.write_text(f"alice:{SHA}\nbob:PW-CANARY\nnonsense PW-CANARY\ncarol:{SHA}:PW-CANARY\n", encoding="utf-8")
    result = cli("user", "import", str(file))
    assert result.code == 1
    lines = result.err.splitlines()
    assert lines[0] == "trioproxy: nothing imported"
    assert [line.split(" ")[0] for line in lines[1:]] == [f"{file}:{number}:" for number in (2, 3, 4)]
    assert "PW-CANARY" not in result.err
    assert snapshot(data_dir) == before


def test_a_file_that_cannot_be_read(cli: Command, data_dir: Path, tmp_path: Path) -> None:
    """One clear line, and no store is made for it."""
    result = cli("user", "import", str(tmp_path / "none"))
    assert result.err == f"trioproxy: {tmp_path}/none: cannot be read: No such file or directory\n"
    assert not data_dir.exists()


def test_a_file_that_is_something_else(cli: Command, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless or huge file fills no memory."""
    monkeypatch.setattr(user_import, "_HTPASSWD_BYTES_MAX", 10)
    result = cli("user", "import", str(file))
    assert result.err == f"trioproxy: {file}: larger than 10 bytes: is this the right file?\n"


def test_a_group_that_nobody_knows(cli: Command, tmp_path: Path) -> None:
    """A mistyped group gives hundreds of users no rights."""
    file = tmp_path / "users.htpasswd"
    file.write_text("alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n", encoding="utf-8")
    assert cli("user", "import", str(file), "--group", "staf").err == (
        "note: nobody else is in the group staf, and no rule is about it; a typing mistake?\n"
    )
