"""The page `docs/usage.md`, done as it says: each command shows exactly what stands below it."""

import json
import re
import shlex
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from tests.pages import Example, examples, page
from tests.store.usage_samples import flow
from trioproxy.cli.app import run
from trioproxy.store import Store, UsageStore, usage_path

PAGE: Final = page("usage.md")
ZONE: Final = ZoneInfo("Europe/Vienna")
BEGIN: Final = datetime(2026, 11, 2, 9, tzinfo=ZONE)

# Who moves what every working day: user, groups, target, app, bytes to the client and to the target.
HABITS: Final = (
    ("alice", ("staff", "system-proxy"), "meet.example.org:443", "tls", 412_000_000, 380_000_000),
    ("alice", ("staff", "system-proxy"), "www.example.org:443", "tls", 61_000_000, 2_100_000),
    ("bob", ("students", "system-proxy"), "videos.example.net:443", "tls", 1_930_000_000, 14_000_000),
    ("bob", ("students", "system-proxy"), "198.51.100.7:6881", "unknown", 0, 900),
    ("carol", ("staff", "students", "system-proxy"), "git.example.com:22", "ssh", 22_000_000, 47_000_000),
    ("", (), "time.example.org:123", "", 960, 960),
)


def seed(data_dir: Path) -> None:
    """What the page speaks of."""
    store_path = data_dir / "trioproxy.db"
    Store.open(store_path, create=True).close()
    with UsageStore.open(usage_path(store_path), create=True) as usage:
        for number in range(19):
            day = BEGIN + timedelta(days=number)
            if day.weekday() < 5:
                share = 100 + 7 * (number % 4)
                usage.add(
                    [
                        flow(user, down * share // 100, up, at=day, groups=groups, target=target, app=app)
                        for user, groups, target, app, down, up in HABITS
                    ]
                )
        usage.add([flow("dora", 734_000_000, 9_000_000, tenant="physics", groups=("lab",), at=BEGIN, app="tls")])


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The installation of the page: two tenants, clocks as in Vienna."""
    (tmp_path / "trioproxy.toml").write_text('[tenant.physics]\nrealms = ["physics.example.org"]\n', encoding="utf-8")
    monkeypatch.setenv("TRIOPROXY_CONFIG", str(tmp_path / "trioproxy.toml"))
    monkeypatch.setenv("TRIOPROXY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TZ", ZONE.key)
    monkeypatch.chdir(tmp_path)
    seed(tmp_path)
    return tmp_path


@pytest.mark.parametrize("example", list(examples(PAGE)), ids=lambda example: str(example.typed))
def test_each_command_shows_what_the_page_says(
    installation: Path, capsys: pytest.CaptureFixture[str], example: Example
) -> None:
    """Copied and typed, with the same flows, it shows the same."""
    if "--plot" in example.typed:
        pytest.importorskip("matplotlib")
    program, *arguments = shlex.split(example.typed)
    assert program == "trioproxy"
    assert run(arguments) == 0
    assert capsys.readouterr().out.splitlines() == example.answer


def test_the_json_of_the_page(installation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its keys are those of the program."""
    [text] = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert (
        run(["usage", "--by", "user", "--since", "2026-11-01", "--until", "2026-11-30", "--limit", "1", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == json.loads(text)


def test_words_in_parentheses_are_explained() -> None:
    """Each that a report may show."""
    for word in ("(no login)", "(no group)", "(not looked at)", "(several)", "(5 more)"):
        assert f"`{word}`" in PAGE
