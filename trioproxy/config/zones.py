"""By whose clock the hours of rules are read, as the configuration and the system say."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from trioproxy.config.model import Config
from trioproxy.policy.hours import TimeZones

__all__ = ["build_zones", "system_zone"]

_LOCALTIME: Final = Path("/etc/localtime")


def build_zones(config: Config) -> TimeZones:
    """The zones that server and command line share."""
    default = config.policy.time_zone or system_zone()
    return TimeZones(
        default, {name: tenant.time_zone for name, tenant in config.tenants().items() if tenant.time_zone is not None}
    )


def system_zone(environ: Mapping[str, str] = os.environ, localtime: Path = _LOCALTIME) -> tzinfo:
    """The zone of this machine: that of `TZ`, or else of /etc/localtime.

    Where neither tells (a `TZ` that spells a zone out, another system), it is what the clock is ahead of UTC today.
    """
    name = environ.get("TZ")
    try:
        if name is not None:
            return ZoneInfo(name.removeprefix(":") or "UTC")
        with localtime.open("rb") as file:
            return ZoneInfo.from_file(file, key=localtime.resolve().as_posix().rpartition("/zoneinfo/")[2])
    except (OSError, ValueError, KeyError):  # KeyError: there is no zone of this name
        return datetime.now(UTC).astimezone().tzinfo or UTC
