"""The command line, in this process where many cases are tried, and as a process of its own where that matters."""

import getpass
import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import attrs
import pytest

from trioproxy.cli.app import run

ROOT = Path(__file__).parents[2]

CONFIG = """
[[listener]]
address = "127.0.0.1:1080"
[tenant.physics]
realms = ["physics.example.org"]
proxy_group = "socks"
"""


@attrs.frozen
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What was printed."""
        return self.out.splitlines()


class Command(Protocol):
    """Runs one command line."""

    def __call__(self, *arguments: str, stdin: bytes = b"", typed: Sequence[str] = ()) -> Result:
        """Run it; standard input is a terminal only if something is `typed` there."""
        ...


class _Terminal(io.TextIOWrapper):
    """A standard input that is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with the tenants main and physics; a store is made by the first command that needs one."""
    config = tmp_path / "trioproxy.toml"
    config.write_text(CONFIG, encoding="utf-8")
    monkeypatch.setenv("TRIOPROXY_CONFIG", str(config))
    monkeypatch.setenv("TRIOPROXY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path / "data"


@pytest.fixture
def cli(data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line in this process."""

    def call(*arguments: str, stdin: bytes = b"", typed: Sequence[str] = ()) -> Result:
        answers = list(typed)
        monkeypatch.setattr(getpass, "getpass", lambda _prompt: answers.pop(0))
        monkeypatch.setattr(sys, "stdin", (_Terminal if typed else io.TextIOWrapper)(io.BytesIO(stdin)))
        code = run(arguments)
        captured = capsys.readouterr()
        assert answers == []
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def shell(data_dir: Path) -> Command:
    """The command line as a process of its own."""

    def call(*arguments: str, stdin: bytes = b"", typed: Sequence[str] = ()) -> Result:
        assert not typed
        done = subprocess.run(
            [sys.executable, "-m", "trioproxy", *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    return call


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make stdout look like a terminal from now on."""

    def look() -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)

    return look
