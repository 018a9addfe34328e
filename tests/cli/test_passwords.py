"""Where passwords come from, and where they never go (cases 36 and 106)."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Command
from tests.cli.test_user import password_is, user

CANARY = "PW-CANARY-7f3a"


def test_the_terminal_asks_twice(cli: Command, data_dir: Path) -> None:
    """A typing mistake in what nobody sees would lock the user out."""
    assert cli("user", "add", "alice", typed=["right", "right"]).code == 0
    assert password_is(data_dir, "right")


def test_two_answers_that_differ(cli: Command) -> None:
    """Nothing is added, and neither answer is shown."""
    result = cli("user", "add", "alice", typed=[CANARY, "other"])
    assert (result.code, result.err) == (1, "trioproxy: the two passwords differ; nothing was changed\n")
    assert cli("user", "list").out == "no local users in tenant main\n"


def test_a_terminal_in_another_character_set(cli: Command) -> None:
    """What is typed in Latin-1 arrives as no text; that is said, not raised."""
    result = cli("user", "add", "alice", typed=["caf\udce9", "caf\udce9"])
    assert (result.code, result.err) == (1, "trioproxy: the password is not UTF-8\n")


def test_a_login_is_tried_with_one_answer(cli: Command) -> None:
    """`auth test` compares it with the stored one anyway."""
    cli("user", "add", "alice", typed=["right", "right"])
    assert cli("auth", "test", "alice", typed=["right"]).code == 0


def test_no_terminal_and_no_stdin(cli: Command, data_dir: Path) -> None:
    """A script that forgot --password-stdin must not hang or take an empty password."""
    result = cli("user", "add", "alice")
    assert result.code == 2
    assert result.err == "trioproxy: there is no terminal to ask for the password on; use --password-stdin\n"
    assert cli("user", "list").out == "no local users in tenant main\n"


def test_a_real_terminal(data_dir: Path) -> None:
    """Case 106: the terminal does not echo the password, and no other process sees it."""
    keyboard, screen = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "trioproxy", "user", "add", "alice"],
        stdin=screen,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    ) as process:
        # The question means that the echo is off.
        assert process.stderr is not None
        seen = process.stderr.read(len("Password: "))
        assert CANARY.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert CANARY.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
        os.write(keyboard, f"{CANARY}\n".encode())
        seen += process.stderr.read(len("\nAgain: "))
        os.write(keyboard, f"{CANARY}\n".encode())
        out, err = process.communicate()
    os.close(screen)
    assert process.returncode == 0
    assert out == b"user alice added, groups: system-proxy\n"
    assert CANARY.encode() not in seen + err
    assert password_is(data_dir, CANARY)
    os.close(keyboard)


@pytest.mark.parametrize(
    ("typed", "password"),
    [
        (b"secret\n", "secret"),
        (b"secret", "secret"),
        (b"secret\r\n", "secret"),
        (b" a b \n", " a b "),
        ("ü€\n".encode(), "ü€"),
    ],
)
def test_one_line_of_standard_input(cli: Command, data_dir: Path, typed: bytes, password: str) -> None:
    """The end of the line is no part of the password, spaces are."""
    assert cli("user", "add", "alice", "--password-stdin", stdin=typed).code == 0
    assert password_is(data_dir, password)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (b"", "the password is empty"),
        (b"\n", "the password is empty"),
        (b"a\nb\n", "standard input holds more than one line; the password is one line"),
        (b"a\0b\n", "a password has at most 255 bytes (RFC 1929) and no NUL"),
        (b"x" * 256 + b"\n", "a password has at most 255 bytes (RFC 1929) and no NUL"),
        (b"x" * 100_000, "a password has at most 255 bytes (RFC 1929) and no NUL"),
        (b"\xff\xfe\n", "the password is not UTF-8"),
    ],
)
def test_what_can_be_no_password(cli: Command, typed: bytes, message: str) -> None:
    """Case 37: what no client could send is refused when it is set, and nothing is added."""
    result = cli("user", "add", "alice", "--password-stdin", stdin=typed)
    assert (result.code, result.out, result.err) == (1, "", f"trioproxy: {message}\n")
    assert cli("user", "list").out == "no local users in tenant main\n"


def test_the_longest_password(cli: Command, data_dir: Path) -> None:
    """RFC 1929 section 2: 255 bytes."""
    assert cli("user", "add", "alice", "--password-stdin", stdin=b"x" * 255 + b"\r\n").code == 0
    assert password_is(data_dir, "x" * 255)


def test_a_random_password(cli: Command, data_dir: Path) -> None:
    """--generate prints it once; a second one differs, and needs no quoting anywhere."""
    first = cli("user", "add", "alice", "--generate").lines[-1].removeprefix("password: ")
    assert password_is(data_dir, first)
    second = cli("user", "passwd", "alice", "--generate").lines[-1].removeprefix("password: ")
    assert password_is(data_dir, second)
    assert first != second
    assert first.isalnum()
    assert len(first) >= 20
    result = cli("user", "passwd", "alice", "--generate", "--password-stdin", stdin=b"x")
    assert (result.code, result.err) == (2, "trioproxy: --generate and --password-stdin exclude each other\n")


def test_passwd(cli: Command, data_dir: Path) -> None:
    """The old password is over, and so are the sessions that it opened (case 43)."""
    cli("user", "add", "alice", "--password-stdin", stdin=b"old")
    before = user(data_dir)
    assert cli("user", "passwd", "alice", "--password-stdin", stdin=b"new").out == "password of alice changed\n"
    assert password_is(data_dir, "new")
    assert not password_is(data_dir, "old")
    assert user(data_dir).epoch != before.epoch


@pytest.mark.parametrize(
    "arguments",
    [
        ["user", "add", "alice", "--password", CANARY],
        ["user", "add", "alice", f"--password={CANARY}"],
        ["user", "add", "alice", f"--passwd={CANARY}"],
        ["user", "add", "alice", CANARY],
        ["user", "add", f"alice:{CANARY}", "--generate"],
        ["user", "passwd", "alice", CANARY],
        ["auth", "test", "alice", CANARY],
        ["auth", "test", f"alice:{CANARY}", "--password-stdin"],
    ],
)
def test_a_password_on_the_command_line_is_not_repeated(cli: Command, data_dir: Path, arguments: list[str]) -> None:
    """Case 106: there is no such option, and the error about it shows nothing that could be a password."""
    result = cli(*arguments)
    assert result.code in (1, 2)
    assert result.err.startswith("trioproxy: ")
    assert CANARY not in result.out + result.err
    assert not data_dir.exists()


def test_the_canary_is_nowhere(shell: Command, tmp_path: Path) -> None:
    """Cases 36 and 106: a password that went through every command is in no output and in no file."""
    typed = f"{CANARY}\n".encode()
    commands = [
        (["user", "add", "alice", "--password-stdin"], typed),
        (["user", "add", "alice", "--password-stdin"], typed),
        (["user", "add", "bob", "--password-stdin", "--valid-until", "x"], typed),
        (["user", "passwd", "alice", "--password-stdin"], typed),
        (["user", "passwd", "nobody", "--password-stdin"], typed),
        (["auth", "test", "alice", "--password-stdin"], typed),
        (["auth", "test", "nobody", "--password-stdin"], typed),
        (["auth", "test", "alice", "--password-stdin", "--source", "x"], typed),
        (["user", "list", "--json"], b""),
        (["user", "show", "alice", "--json"], b""),
        (["check"], b""),
    ]
    results = [shell(*arguments, stdin=stdin) for arguments, stdin in commands]
    assert [result.code for result in results] == [0, 1, 1, 0, 1, 0, 1, 2, 0, 0, 0]
    assert not any(CANARY in result.out + result.err or "argon2" in result.out + result.err for result in results)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "trioproxy.db" for path in files)
    assert not any(CANARY.encode() in path.read_bytes() for path in files)
