"""The pages about incidents and limits: every command on them is run, in its order, and says what the page says."""

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.pages import examples, page

MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d \w+"


def without_moments(line: str) -> str:
    """The line with every time replaced."""
    return re.sub(MOMENT, "MOMENT", line)


@pytest.mark.parametrize("name", ["incidents.md", "limits.md"])
def test_a_page_says_what_happens(cli: Command, data_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each example can be typed as it stands, one after the other, by an administrator called carol."""
    monkeypatch.setenv("SUDO_USER", "carol")
    monkeypatch.setenv("TZ", "UTC")
    for user, more in (("alice", []), ("bob", ["--group", "students"])):
        cli("user", "add", user, "--generate", *more)
    cli("rule", "add", "user:alice", "tcp:*(*)->*(*)")
    ran = 0
    for example in examples(page(name)):
        program, *arguments = shlex.split(example.typed)
        assert program == "trioproxy"
        result = cli(*arguments)
        said, shown = [*result.lines, *result.err.splitlines()], example.answer
        assert [without_moments(line) for line in said] == [without_moments(line) for line in shown], example.typed
        assert result.code == (1 if shown[0].startswith("trioproxy: ") else 0)
        ran += 1
    assert ran > 5
