"""`trioproxy check`: what would be started, and what is wrong, without starting anything."""

import sqlite3
from contextlib import closing
from datetime import timedelta, timezone
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.store.usage_samples import NOON, flow
from trioproxy.cli.periods import show_moment_in, show_zone
from trioproxy.config.zones import system_zone
from trioproxy.store import UsageStore, usage_path

CONFIG = """
[[listener]]
address = "127.0.0.1:1080"
anonymous = true
[[listener]]
address = "[::]:1081"
tenant = "physics"
realms = true
[tenant.physics]
realms = ["physics.example.org"]
proxy_group = "socks"
time_zone = "Asia/Tokyo"
[policy]
time_zone = "Europe/Vienna"
open_floor = ["127.0.0.0/8"]
"""


def test_what_would_be_started(cli: Command, tmp_path: Path, data_dir: Path) -> None:
    """DESIGN section 5: everything in view, and nothing started or made."""
    config = tmp_path / "trioproxy.toml"
    config.write_text(CONFIG, encoding="utf-8")
    result = cli("check")
    assert (result.code, result.err) == (0, "")
    assert result.lines == [
        f"{config} is fine",
        "  listens on 127.0.0.1:1080: tenant main; login or none",
        "  listens on [::]:1081: tenant physics, or that of the realm; login needed",
        "  tenant main: backends local, group system-proxy",
        "  tenant physics: backends local, group socks, realms physics.example.org",
        "  rules may open 127.0.0.0/8 of the floor",
        "  time zone Europe/Vienna; tenant physics Asia/Tokyo",
        f"  records {data_dir}/records.jsonl",
        f"  store {data_dir}/trioproxy.db: not there yet, the first start makes it",
    ]
    assert not data_dir.exists()


def test_what_is_in_the_store(cli: Command, data_dir: Path) -> None:
    """Case 38: what can never work is reported: a hash that nothing verifies, a rule that nobody reads."""
    cli("user", "add", "alice", "--generate")
    cli("rule", "add", "user:alice", "tcp:*(*)->*(*)")
    result = cli("check")
    assert result.err == ""
    assert result.lines[-2:] == [
        f"  store {data_dir}/trioproxy.db: 1 local user, 1 rule in 1 layer",
        f"  usage {data_dir}/trioproxy-usage.db: not there yet, the first flow makes it; kept for 90 days",
    ]
    with closing(sqlite3.connect(data_dir / "trioproxy.db")) as hand, hand:
        hand.execute("UPDATE local_user SET password_hash = '!'")
        hand.execute("UPDATE rule SET content = 'nonsense'")
    result = cli("check")
    assert result.code == 0
    assert result.err.splitlines()[0] == "note: user alice: the password is locked"
    assert result.err.splitlines()[1].startswith("note: rule 1 of user:alice cannot be read")


def test_what_is_in_the_usage_store(cli: Command, tmp_path: Path, data_dir: Path) -> None:
    """Since when usage is known, for how long it is kept, and that a file is none of ours."""
    cli("user", "add", "alice", "--generate")
    path = usage_path(data_dir / "trioproxy.db")
    with UsageStore.open(path, create=True) as usage:
        assert cli("check").lines[-1] == f"  usage {path}: empty; kept for 90 days"
        usage.add([flow(at=NOON)])
    (tmp_path / "trioproxy.toml").write_text("[usage]\nretention_days = 0\n", encoding="utf-8")
    since = show_moment_in(system_zone(), NOON)
    assert cli("check").lines[-1] == f"  usage {path}: since {since}; nothing is kept"
    path.unlink()
    path.write_bytes(b"a letter\n" * 100)
    result = cli("check")
    assert (result.code, result.err) == (
        1,
        f"trioproxy: {path}: not a trioproxy store (no SQLite database at all)\n",
    )


def test_a_store_by_url(cli: Command, tmp_path: Path) -> None:
    """DESIGN section 6: the configuration can say where the store is; every command finds it there."""
    (tmp_path / "trioproxy.toml").write_text(f'[store]\nurl = "sqlite:///{tmp_path}/other.db"\n', encoding="utf-8")
    assert cli("user", "add", "alice", "--generate").code == 0
    assert (tmp_path / "other.db").exists()
    assert f"store {tmp_path}/other.db: 1 local user, 0 rules in 0 layers" in cli("check").out


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("none", "  records are not kept"),
        ("stdout", "  records on standard output"),
        ("/var/log/records.jsonl", "  records /var/log/records.jsonl"),
    ],
)
def test_where_records_go(cli: Command, tmp_path: Path, wish: str, said: str) -> None:
    """An administrator looks for them first."""
    (tmp_path / "trioproxy.toml").write_text(f'[log]\nrecords = "{wish}"\n', encoding="utf-8")
    assert said in cli("check").lines


def test_a_relative_store(cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It depends on where the process stands, so the whole path is shown."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trioproxy.toml").write_text('[store]\nurl = "sqlite:///relative.db"\n', encoding="utf-8")
    assert f"  store {tmp_path}/relative.db: not there yet, the first start makes it" in cli("check").lines


def test_the_zone_of_the_machine(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the configuration says none; one without a name is known by its abbreviation."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert "  time zone Asia/Tokyo" in cli("check").lines
    assert show_zone(timezone(timedelta(hours=5))) == "UTC+05:00"
