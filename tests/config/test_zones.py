"""By whose clock the hours of rules are read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo

import pytest

from trioproxy.config import ConfigError, build_zones, parse_config_untrusted
from trioproxy.config.zones import system_zone

BERLIN, TOKYO = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Tokyo")
SUMMER, WINTER = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)


def test_a_tenant_may_have_a_zone_of_its_own() -> None:
    """Left out, it has that of [policy]; the tenant main may have one as well."""
    text = '[policy]\ntime_zone = "Europe/Berlin"\n[tenant.tokyo]\ntime_zone = "Asia/Tokyo"\n[tenant.physics]\n'
    zones = build_zones(parse_config_untrusted(text, "t"))
    assert [zones.of(tenant) for tenant in ("main", "physics", "tokyo")] == [BERLIN, BERLIN, TOKYO]
    main = build_zones(parse_config_untrusted(f'{text}[tenant.main]\ntime_zone = "UTC"\n', "t"))
    assert [main.of(tenant) for tenant in ("main", "physics")] == [ZoneInfo("UTC"), BERLIN]


def test_left_out_it_is_the_zone_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every other program reads it."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    zones = build_zones(parse_config_untrusted("", "t"))
    assert zones.of("main").utcoffset(SUMMER) == timedelta(hours=9)


@pytest.mark.parametrize(
    "zone", ["Europe/Berln", "Europe", "../../etc/passwd", "/etc/localtime", "", "CET-1CEST,M3", "\\u0000"]
)
def test_what_is_no_zone(zone: str) -> None:
    """A name of the database, and nothing else; each mistake with its path."""
    with pytest.raises(ConfigError) as caught:
        parse_config_untrusted(f'[policy]\ntime_zone = "{zone}"\n[tenant.a]\ntime_zone = "{zone}"\n', "t")
    assert [error.partition(": ")[0] for error in caught.value.errors] == ["tenant.a.time_zone", "policy.time_zone"]
    assert all('is not a time zone of this system, e.g. "Europe/Berlin"' in error for error in caught.value.errors)


def test_a_zone_is_a_text() -> None:
    """No number of hours."""
    with pytest.raises(ConfigError, match=r'policy\.time_zone: 1 is not a time zone in quotes, e\.g\. "Europe/Berlin"'):
        parse_config_untrusted("[policy]\ntime_zone = 1\n", "t")


@pytest.mark.parametrize(
    ("name", "offsets"), [("Europe/Berlin", (1, 2)), (":Europe/Berlin", (1, 2)), ("", (0, 0)), ("Asia/Tokyo", (9, 9))]
)
def test_the_environment_says_which_zone_it_is(name: str, offsets: tuple[int, int], tmp_path: Path) -> None:
    """`TZ` as the C library reads it; empty means UTC."""
    zone = system_zone({"TZ": name}, tmp_path / "nothing")
    assert [zone.utcoffset(moment) for moment in (WINTER, SUMMER)] == [timedelta(hours=hours) for hours in offsets]


def test_the_system_says_which_zone_it_is(tmp_path: Path) -> None:
    """/etc/localtime is most often a link into the database, and names the zone then."""
    database = next(path for path in map(Path, TZPATH) if (path / "Asia/Tokyo").exists())
    folder = tmp_path / "zoneinfo" / "Asia"
    folder.mkdir(parents=True)
    (folder / "Tokyo").write_bytes((database / "Asia/Tokyo").read_bytes())
    localtime = tmp_path / "localtime"
    localtime.symlink_to(folder / "Tokyo")
    zone = system_zone({}, localtime)
    assert (zone.utcoffset(SUMMER), str(zone)) == (timedelta(hours=9), "Asia/Tokyo")


@pytest.mark.parametrize("environ", [{"TZ": "CET-1CEST,M3.5.0,M10.5.0/3"}, {"TZ": "Europe/Berln"}, {}])
def test_a_system_that_does_not_say_is_read_by_its_clock(environ: dict[str, str], tmp_path: Path) -> None:
    """It is what the clock is ahead of UTC today."""
    (tmp_path / "localtime").write_bytes(b"no zone")
    ahead = datetime.now(UTC).astimezone().utcoffset()
    for localtime in ("localtime", "nothing"):
        assert system_zone(environ, tmp_path / localtime).utcoffset(datetime.now(UTC)) == ahead
