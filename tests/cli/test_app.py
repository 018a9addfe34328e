"""The commands as a whole: help, exit codes, and one clear line for everything that goes wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Command
from trioproxy import __version__
from trioproxy.cli import app as cli_app

COMMANDS = [
    ["serve"],
    ["check"],
    ["usage"],
    ["user"],
    *(
        ["user", name]
        for name in ("add", "passwd", "list", "show", "disable", "enable", "change", "group", "remove", "import")
    ),
    ["rule"],
    *(["rule", name] for name in ("add", "list", "remove", "explain")),
    ["policy"],
    ["policy", "export"],
    ["policy", "import"],
    ["auth"],
    ["auth", "test"],
    ["session"],
    ["session", "list"],
    ["session", "kill"],
]


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_each_help_has_an_example(cli: Command, command: list[str]) -> None:
    """Issue item 9: help texts with an example each, which begins with the command it explains."""
    result = cli(*command, "--help")
    assert result.code == 0
    assert result.err == ""
    assert f"Usage: trioproxy {' '.join(command)}".strip() in " ".join(result.out.split())
    assert f"Example: trioproxy {' '.join(command)}".strip() in " ".join(result.out.split())


@pytest.mark.parametrize("command", [command for command in COMMANDS if len(command) == 2 or command == ["check"]])
def test_each_command_takes_the_place(cli: Command, command: list[str]) -> None:
    """DESIGN section 5: all of them take --config FILE, and the environment variable does the same."""
    text = cli(*command, "--help").out
    assert "--config" in text
    assert "TRIOPROXY_CONFIG" in text
    assert "--data-dir" in text


def test_the_first_help_says_what_each_command_is_for(cli: Command) -> None:
    """A newcomer sees at once where to go on."""
    text = cli("--help").out
    for name in ("serve", "check", "user", "rule", "limit", "policy", "block", "session", "usage", "auth"):
        assert any(f" {name} " in line and len(line.split()) > 4 for line in text.splitlines()), name


def test_version(cli: Command) -> None:
    """What a bug report needs."""
    assert cli("--version").lines == [__version__]


@pytest.mark.parametrize("arguments", [[], ["user"], ["rule"], ["policy"], ["session"], ["auth"]], ids=" ".join)
def test_no_command_is_wrong_usage(cli: Command, arguments: list[str]) -> None:
    """DESIGN section 5: exit code 2, so that a script with an empty variable does not go on."""
    result = cli(*arguments)
    assert result.code == 2
    assert "Usage: trioproxy" in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["usr"], 'Unknown command "usr". Did you mean "user"?'),
        (["user", "ad"], 'Unknown command "ad". Did you mean "add"?'),
        (["user", "add"], "NAME is missing: alice, or physics/alice for a user of the tenant physics"),
        (["user", "list", "--tenat", "x"], "Unknown option: --tenat. Did you mean --tenant?"),
        (["user", "list", "main"], "there are more arguments than this command takes"),
        (["rule", "remove", "x"], 'unable to convert "x" into int'),
        (["rule", "explain", "sctp", "x:1", "--source", "1.2.3.4"], "PROTOCOL"),
        (["policy", "export", "--tenat"], "there is no option --tenat"),
        (["rule", "explain", "tcp", "x:1"], "--source is missing: the client's address\n"),
        (["rule", "explain", "tcp", "x:1", "--source"], "--source needs a value: the client's address\n"),
        (["block", "add", "everything"], "--reason is missing: why, for those who find it in the list"),
        (["rule", "add", "user:alice"], "RULE is missing: [allow|deny] PROTOCOL:SOURCE(PORTS)"),
        (["rule", "add", "user:alice", "tcp:*(*)", "->", "*(*)"], "-> is no option; put the rule in quotes\n"),
        (["rule", "add", "user:alice", "deny", "tcp:*(*)->*(*)"], "this command takes; put the rule in quotes\n"),
        (["rule", "remove"], "NUMBER is missing: the id of a rule\n"),
        (["limit", "list", "a", "b"], "there are more arguments than this command takes\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(cli: Command, arguments: list[str], message: str) -> None:
    """DESIGN section 5: exit code 2, one line on stderr, and nothing on stdout."""
    result = cli(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("trioproxy: ")
    assert message in result.err


def test_a_broken_configuration_lists_every_error(cli: Command, tmp_path: Path) -> None:
    """Issue: a broken configuration starts nothing and lists every error with its path."""
    file = tmp_path / "broken.toml"
    file.write_text("[limits]\ndrain = 1\n[log]\nlevel = 'x'\n", encoding="utf-8")
    for command in (["check"], ["user", "list"], ["serve"]):
        result = cli(*command, "--config", str(file))
        assert (result.code, result.out) == (1, "")
        assert [line.split(": ")[:3] for line in result.err.splitlines()] == [
            ["trioproxy", str(file), "limits.drain"],
            ["trioproxy", str(file), "log.level"],
        ]
    assert not (tmp_path / "data").exists()


def test_an_empty_environment_variable_is_none(cli: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`TRIOPROXY_CONFIG= trioproxy check` asks about the defaults, not about the current folder."""
    monkeypatch.setenv("TRIOPROXY_CONFIG", "")
    monkeypatch.setenv("TRIOPROXY_DATA_DIR", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    result = cli("check")
    assert result.code == 0
    assert result.lines[0] == "no configuration file, so the defaults hold"
    assert f"store {tmp_path}/home/trioproxy/trioproxy.db: not there yet" in result.out


def test_a_broken_store_is_one_line(cli: Command, data_dir: Path) -> None:
    """Issue item 2: a broken store gives one clear line and exit code 1, and stays as it is."""
    data_dir.mkdir()
    file = data_dir / "trioproxy.db"
    file.write_bytes(b"not a database" * 100)
    for command in (
        ["user", "list"],
        ["rule", "list"],
        ["check"],
        ["policy", "export"],
        ["user", "add", "x", "--generate"],
    ):
        result = cli(*command)
        assert result.code == 1
        assert result.err == f"trioproxy: {file}: not a trioproxy store (no SQLite database at all)\n"
    assert file.read_bytes() == b"not a database" * 100


def test_ctrl_c(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who presses Ctrl-C at a question gets no traceback; shells know the exit code."""

    def interrupted(_arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_app, "_run", interrupted)
    result = cli("user", "list")
    assert (result.code, result.err) == (130, "")


def test_a_reader_that_has_seen_enough(cli: Command, data_dir: Path) -> None:
    """`trioproxy policy export | head -1` ends without a traceback."""
    rules = "\n".join(f"tcp:*(*)->host{number}.example.org(443)" for number in range(5000))
    assert cli("policy", "import", "-", stdin=f"[global]\n{rules}\n".encode()).code == 0
    with subprocess.Popen(
        [sys.executable, "-m", "trioproxy", "policy", "export"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_as_a_process(shell: Command) -> None:
    """`python -m trioproxy` is the command: results on stdout, problems on stderr, the exit code for scripts."""
    assert shell("user", "add", "alice", "--password-stdin", stdin=b"secret\n").lines == [
        "user alice added, groups: system-proxy"
    ]
    result = shell("user", "add", "alice", "--generate")
    assert (result.code, result.out, result.err) == (1, "", "trioproxy: there already: user alice\n")
    assert shell("user", "nonsense").code == 2


def test_light_commands_load_no_trio(data_dir: Path) -> None:
    """LIBRARIES 8: Trio takes longer to load than a listing takes to run."""
    code = (
        "import sys\n"
        "from trioproxy.cli.app import run\n"
        "assert run(['user', 'add', 'x', '--generate']) == 0\n"
        "assert run(['rule', 'list']) == 0\n"
        "print(sorted({'trio', 'rich', 'structlog'} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
