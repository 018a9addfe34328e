"""The pages about incidents and limits: every command on them is run, in its order, and says what the page says."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Command

MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d \w+"


def examples(page: str) -> Iterator[tuple[str, list[str]]]:
    """Each command typed on a page, and the lines that it answers there."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for typed in block.split("$ trioproxy ")[1:]:
            command, *answer = typed.splitlines()
            yield command, answer


def without_moments(line: str) -> str:
    """The line with every time replaced."""
    return re.sub(MOMENT, "MOMENT", line)


@pytest.mark.parametrize("page", ["incidents.md", "limits.md"])
def test_a_page_says_what_happens(cli: Command, data_dir: Path, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    """Each example can be typed as it stands, one after the other, by an administrator called carol."""
    monkeypatch.setenv("SUDO_USER", "carol")
    monkeypatch.setenv("TZ", "UTC")
    for name, more in (("alice", []), ("bob", ["--group", "students"])):
        cli("user", "add", name, "--generate", *more)
    cli("rule", "add", "user:alice", "tcp:*(*)->*(*)")
    ran = 0
    for command, answer in examples(page):
        result = cli(*shlex.split(command))
        said = [*result.lines, *result.err.splitlines()]
        assert [without_moments(line) for line in said] == [without_moments(line) for line in answer], command
        assert result.code == (1 if answer[0].startswith("trioproxy: ") else 0)
        ran += 1
    assert ran > 5
