"""`trioproxy usage`: tables, JSON, CSV and pictures of what the usage store holds."""

import csv
import io
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.cli.conftest import Command
from tests.store.usage_samples import flow
from trioproxy.store import UsageStore, usage_path

NOW = datetime.now(UTC)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Days begin where no machine is."""
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def path(cli: Command, data_dir: Path) -> Path:
    """A usage store of two tenants, beside a store."""
    assert cli("user", "add", "alice", "--generate").code == 0
    path = usage_path(data_dir / "trioproxy.db")
    with UsageStore.open(path, create=True) as usage:
        usage.add(
            [
                flow("alice", 1_250_000, 1_000, at=NOW, groups=("staff", "calls"), app="tls"),
                flow("bob", 5, 3, at=NOW - timedelta(days=1), target="mail.example.org:25"),
                flow("bob", 2_000_000_000, 0, at=NOW, tenant="physics", groups=()),
            ]
        )
    return path


def test_a_table(cli: Command, path: Path) -> None:
    """Who has moved most stands first; numbers end below each other; the last line is everything."""
    result = cli("usage", "--since", "7d")
    assert (result.code, result.err) == (0, "")
    begin = (NOW.date() - timedelta(days=6)).isoformat()
    assert result.lines == [
        f"usage by user since {begin} 00:00 UTC",
        "USER         FLOWS  TO CLIENT  TO TARGET    BYTES",
        "physics/bob      1    2.00 GB        0 B  2.00 GB",
        "alice            1    1.25 MB    1.00 kB  1.25 MB",
        "bob              1        5 B        3 B      8 B",
        "TOTAL            3    2.00 GB    1.00 kB  2.00 GB",
    ]


def test_what_the_limit_leaves_out_is_one_line(cli: Command, path: Path) -> None:
    """The totals are those of all, whatever is shown; of groups nobody knows what the others have together."""
    assert cli("usage", "--since", "7d", "--limit", "1").lines[2:] == [
        "physics/bob      1    2.00 GB        0 B  2.00 GB",
        "(2 more)         2    1.25 MB    1.00 kB  1.25 MB",
        "TOTAL            3    2.00 GB    1.00 kB  2.00 GB",
    ]
    assert cli("usage", "--by", "group", "--since", "7d", "--limit", "2").lines[2:] == [
        "physics/(no group)      1    2.00 GB        0 B  2.00 GB",
        "staff                   2    1.25 MB    1.00 kB  1.25 MB",
        "(1 more)",
        "TOTAL                   3    2.00 GB    1.00 kB  2.00 GB",
    ]


def test_one_tenant(cli: Command, path: Path) -> None:
    """One tenant's usage is nobody else's; a tenant that is none is an error."""
    lines = cli("usage", "--tenant", "physics", "--since", "7d", "--until", "today").lines
    begin, end = (NOW.date() - timedelta(days=6)).isoformat(), (NOW.date() + timedelta(days=1)).isoformat()
    assert lines[0] == f"usage of tenant physics by user from {begin} 00:00 UTC until {end} 00:00 UTC"
    assert [line.split()[:2] for line in lines[2:]] == [["bob", "1"], ["TOTAL", "1"]]
    result = cli("usage", "--tenant", "chemistry")
    assert (result.code, result.out) == (1, "")
    assert "there is no tenant 'chemistry', only main, physics" in result.err


@pytest.mark.parametrize("by", ["user", "group", "target", "app", "day"])
def test_json_and_csv_say_the_same(cli: Command, path: Path, by: str) -> None:
    """Programs get bytes, all lines, and the period as it was understood."""
    found = json.loads(cli("usage", "--by", by, "--since", "7d", "--json").out)
    assert found["totals"] == {
        "flows": 3,
        "bytes_to_client": 2_001_250_005,
        "bytes_to_target": 1_003,
        "bytes_total": 2_001_251_008,
    }
    assert (found["by"], found["until"], found["tenant"], found["left_out"]) == (by, None, None, 0)
    assert datetime.fromisoformat(found["since"]) == datetime.fromisoformat(found["since"][:10]).replace(tzinfo=UTC)
    [head, *rows] = csv.reader(io.StringIO(cli("usage", "--by", by, "--since", "7d", "--csv").out))
    assert head == [by, "flows", "bytes_to_client", "bytes_to_target", "bytes_total"]
    assert rows == [[str(value) for value in row.values()] for row in found["rows"]]
    assert len(rows) == {"user": 3, "group": 3, "target": 2, "app": 2, "day": 2}[by]


def test_a_limit_for_programs(cli: Command, path: Path) -> None:
    """They are told how many lines there would have been."""
    found = json.loads(cli("usage", "--since", "7d", "--json", "--limit", "1").out)
    assert (len(found["rows"]), found["left_out"], found["totals"]["flows"]) == (1, 2, 3)


def test_names_from_strangers(cli: Command, path: Path) -> None:
    """Clients choose the names of targets: none of them is a formula of a spreadsheet, or moves the cursor."""
    with UsageStore.open(path, create=False) as usage:
        usage.add([flow(at=NOW, target='=cmd|"x",1'), flow(at=NOW, target="@sum"), flow(at=NOW, target="a\x1b[2J")])
    out = cli("usage", "--by", "target", "--csv").out
    assert '\n"\'=cmd|""x"",1",1,' in out
    assert "\n'@sum,1," in out
    assert "\na\\x1b[2J,1," in out


def test_nothing_yet(cli: Command, data_dir: Path) -> None:
    """No flow is no error; no installation is one."""
    result = cli("usage")
    assert (result.code, result.out) == (1, "")
    assert "there is no usage store; `trioproxy serve` makes one" in result.err
    cli("user", "add", "alice", "--generate")
    assert cli("usage").lines[1:] == ["no flows"]
    assert json.loads(cli("usage", "--json").out)["totals"]["flows"] == 0


def test_a_period_that_is_none(cli: Command, path: Path) -> None:
    """One line says what is wrong."""
    result = cli("usage", "--since", "2026-11-10", "--until", "2026-11-09")
    assert (result.code, result.err) == (
        1,
        "trioproxy: this period ends before it begins, at 2026-11-10 00:00 UTC\n",
    )
    tomorrow = (NOW + timedelta(days=1)).date().isoformat()
    assert cli("usage", "--since", tomorrow).err == (
        f"trioproxy: this period begins in the future, at {tomorrow} 00:00 UTC\n"
    )
    assert "is no period" in cli("usage", "--since", "often").err
    assert "is no end of a period" in cli("usage", "--until", "week").err


def test_days_of_a_tenant(cli: Command, path: Path, tmp_path: Path) -> None:
    """They begin at the tenant's midnight, as the days of quotas and the hours of rules do."""
    config = tmp_path / "trioproxy.toml"
    config.write_text(
        '[policy]\ntime_zone = "Europe/Vienna"\n[tenant.physics]\ntime_zone = "Asia/Tokyo"\n', encoding="utf-8"
    )
    title = "usage by user from 2026-01-10 00:00 CET until 2026-01-11 00:00 CET"
    assert cli("usage", "--since", "2026-01-10", "--until", "2026-01-10").lines[0] == title
    found = json.loads(cli("usage", "--tenant", "physics", "--since", "2026-01-10", "--json").out)
    assert found["since"] == "2026-01-09T15:00:00+00:00"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "--csv"], "--json, --csv and --plot exclude each other"),
        (["--csv", "--plot", "x.png"], "--json, --csv and --plot exclude each other"),
        (["--limit", "0"], "--limit is at least 1"),
        (["--plot", "x.jpeg"], "--plot: x.jpeg should end in .png, .svg or .pdf"),
        (["--by", "color"], "Invalid value"),
    ],
)
def test_wrong_usage(cli: Command, path: Path, arguments: list[str], message: str) -> None:
    """DESIGN section 5: exit code 2."""
    result = cli("usage", *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_what_is_no_longer_kept(cli: Command, path: Path, tmp_path: Path) -> None:
    """Who asks for more than is kept is told so, on stderr."""
    assert "usage is kept for 90 days" in cli("usage", "--since", "91d").err
    assert cli("usage", "--since", "90d").err == ""
    (tmp_path / "trioproxy.toml").write_text("[usage]\nretention_days = 0\n", encoding="utf-8")
    assert cli("usage").err == "note: usage is not kept: usage.retention_days is 0\n"


def test_without_matplotlib(cli: Command, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are an extra; who has not installed it is told how."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = cli("usage", "--plot", str(tmp_path / "x.png"))
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines() == [
        "trioproxy: --plot needs matplotlib, which is not installed here",
        "  install it beside trioproxy: pip install 'trioproxy[plot]'",
    ]


# ---- pictures


def texts(picture: Path) -> list[str]:
    """All texts of a picture."""
    return ["".join(found.itertext()).strip() for found in ET.parse(picture).iter(f"{SVG}text")]  # noqa: S314 - ours


@pytest.fixture
def picture(tmp_path: Path, path: Path) -> Path:
    """Where it goes, as SVG: its texts can be read."""
    pytest.importorskip("matplotlib")
    return tmp_path / "usage.svg"


@pytest.mark.parametrize("by", ["user", "group", "target", "app"])
def test_a_bar_for_each_key(cli: Command, picture: Path, by: str) -> None:
    """Names, numbers and units are in it, and what it is."""
    assert cli("usage", "--by", by, "--since", "7d", "--plot", str(picture)).lines == [f"drawn into {picture}"]
    found = texts(picture)
    keys = [row["key"] for row in json.loads(cli("usage", "--by", by, "--since", "7d", "--json").out)["rows"]]
    assert set(keys) <= set(found)
    assert {"2.00 GB", "GB", "to the client", "to the target", "2.00 GB in 3 flows"} <= set(found)
    assert any(text.startswith(f"usage by {by} since ") for text in found)


def test_a_bar_for_each_day(cli: Command, picture: Path, path: Path) -> None:
    """Days without a flow have their place."""
    with UsageStore.open(path, create=False) as usage:
        usage.add([flow(at=NOW - timedelta(days=4))])
    assert cli("usage", "--by", "day", "--since", "2w", "--plot", str(picture)).code == 0
    days = [NOW.date() - timedelta(days=number) for number in range(4, -1, -1)]
    first = f"{days[0]:%b %Y}"
    assert {str(day.day) for day in days} | {first} <= set(texts(picture))


def test_one_day_is_no_wall(cli: Command, picture: Path, path: Path) -> None:
    """Its bar is as wide as that of one day of a week."""
    assert cli("usage", "--by", "day", "--since", "today", "--plot", str(picture)).code == 0
    [outline] = re.findall(
        r'<g id="patch_3">\s*<path d="M ([0-9.]+) [0-9.]+ \nL ([0-9.]+) ', picture.read_text("utf-8")
    )
    assert float(outline[1]) - float(outline[0]) < 80  # of 576 points


def test_many_days(cli: Command, picture: Path, path: Path) -> None:
    """As many labels as fit; a limit keeps the last days."""
    with UsageStore.open(path, create=False) as usage:
        usage.add([flow(at=NOW - timedelta(days=number)) for number in range(80)])
    assert cli("usage", "--by", "day", "--since", "80d", "--plot", str(picture)).code == 0
    labels = [text for text in texts(picture) if text.isdigit() and int(text) <= 31]
    assert 10 <= len(labels) <= 30
    assert cli("usage", "--by", "day", "--since", "80d", "--limit", "3", "--plot", str(picture)).code == 0
    assert any(text.endswith("shown are the last 3 of 80") for text in texts(picture))


def test_names_in_a_picture(cli: Command, picture: Path, path: Path) -> None:
    """Long ones are cut, dollars are no formula, and a limit says how many there are."""
    with UsageStore.open(path, create=False) as usage:
        usage.add([flow(at=NOW, target="$x^2$:1"), flow(at=NOW, target="x" * 99), flow(at=NOW, target="漢:1")])
    assert cli("usage", "--by", "target", "--since", "7d", "--plot", str(picture)).code == 0
    assert {"$x^2$:1", "x" * 43 + "…", "漢:1"} <= set(texts(picture))
    assert cli("usage", "--by", "target", "--since", "7d", "--limit", "2", "--plot", str(picture)).code == 0
    assert any(text.endswith("shown are the largest 2 of 5") for text in texts(picture))


def test_flows_without_bytes_can_be_drawn(cli: Command, picture: Path, path: Path) -> None:
    """Refused ones are flows, too."""
    path.unlink()
    with UsageStore.open(path, create=True) as usage:
        usage.add([flow("alice", 0, 0, at=NOW)])
    for by in ("user", "day"):
        assert cli("usage", "--by", by, "--since", "7d", "--plot", str(picture)).code == 0


def test_nothing_to_draw(cli: Command, picture: Path, path: Path) -> None:
    """An empty picture would look like a mistake."""
    path.unlink()
    result = cli("usage", "--plot", str(picture))
    assert (result.code, result.err) == (1, "trioproxy: there is nothing to draw: no flows in this period\n")
    assert not picture.exists()


@pytest.mark.parametrize(("name", "begin"), [("x.png", b"\x89PNG"), ("x.PDF", b"%PDF")])
def test_other_kinds_of_pictures(cli: Command, picture: Path, name: str, begin: bytes) -> None:
    """The end of the name says which."""
    file = picture.with_name(name)
    assert cli("usage", "--plot", str(file)).code == 0
    assert file.read_bytes().startswith(begin)


def test_a_picture_that_cannot_be_written(cli: Command, picture: Path) -> None:
    """One clear line."""
    result = cli("usage", "--plot", str(picture.parent / "missing" / "x.png"))
    assert (result.code, result.out) == (1, "")
    assert result.err.endswith("x.png: cannot be written: No such file or directory\n")
