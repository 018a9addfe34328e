"""`trioproxy usage`: who has moved how much, as a table, for programs, or as a picture."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

import attrs
from cyclopts import App, Parameter

from trioproxy.cli.amounts import show_size
from trioproxy.cli.output import Failure, say, show_json, show_table, usage, warn
from trioproxy.cli.periods import begin_of_period, end_of_period, show_moment_in
from trioproxy.cli.place import HERE, Place, check_tenant
from trioproxy.config import Config, build_zones
from trioproxy.store import By, UsageLine, UsageReport, UsageStore, UsageWish, report_usage, usage_path

__all__ = ["app"]

app = App(name="usage", help_epilogue="Example: `trioproxy usage --by group --since 7d`")

_TABLE_LIMIT: Final = 50  # what is read; a program wants everything
_PLOT_LIMIT: Final = 20  # bars that can be told apart on one page
_FORMULA: Final = ("=", "+", "-", "@")  # a cell that begins so is a program for a spreadsheet, and clients choose names


@Parameter(name="*")
@attrs.frozen
class Output:
    """In which form; a table if nothing is said.

    Attributes:
        as_json: print JSON, with all lines unless --limit is said.
        as_csv: print CSV, with all lines unless --limit is said, and without totals.
        plot: draw a picture into this file, .png, .svg or .pdf.
    """

    as_json: Annotated[bool, Parameter(name="--json")] = False
    as_csv: Annotated[bool, Parameter(name="--csv")] = False
    plot: Path | None = None

    def limit(self, by: By, wanted: int | None) -> int | None:
        """How many lines it has."""
        if wanted is not None or self.as_json or self.as_csv or (self.plot is not None and by is By.DAY):
            return wanted
        return _TABLE_LIMIT if self.plot is None else _PLOT_LIMIT


TABLE: Final = Output()


@app.default
def show_usage(  # noqa: PLR0913 - the options of a command
    *,
    by: Literal["user", "group", "target", "app", "day"] = "user",
    since: str = "month",
    until: str | None = None,
    tenant: str | None = None,
    limit: int | None = None,
    output: Output = TABLE,
    place: Place = HERE,
) -> None:
    """Show how many flows there were, and how many bytes they carried.

    Args:
        by: what the lines are for: user, group, target, app or day.
        since: the first day, 2026-11-01, or time, 2026-11-01T08:00; today, yesterday, week, month, year; or the last
            hours, days or weeks: 12h, 7d, 4w. By default this month.
        until: the last day, or time. By default now.
        tenant: the users of this tenant alone; by default all. Days and times are those of its time zone; by default
            of that of the installation.
        limit: the largest so many; of days the last. By default 50 in a table and 20 in a picture.
        output: in which form.
        place: which installation.
    """
    config = place.load()
    _check(output, limit)
    if tenant is not None:
        check_tenant(tenant, config)
    now = datetime.now(UTC)
    zones = build_zones(config)
    zone = zones.default if tenant is None else zones.of(tenant)
    begin = begin_of_period(since, now, zone)
    end = None if until is None else end_of_period(until, now, zone)
    if end is not None and begin >= end:
        raise Failure(f"this period ends before it begins, at {show_moment_in(zone, begin)}")
    if begin > now:
        raise Failure(f"this period begins in the future, at {show_moment_in(zone, begin)}")
    wish = UsageWish(By(by), begin, end, tenant, output.limit(By(by), limit), zone)
    report = _read(place, config, wish)
    _note_retention(config, begin, now)
    if output.plot is not None:
        _plot(output.plot, report, wish, now)
    elif output.as_json:
        show_json(_as_json(report, wish))
    elif output.as_csv:
        _show_csv(report, wish)
    else:
        _show_table(report, wish)


def _check(output: Output, limit: int | None) -> None:
    if sum((output.as_json, output.as_csv, output.plot is not None)) > 1:
        raise usage("--json, --csv and --plot exclude each other")
    if limit is not None and limit < 1:
        raise usage("--limit is at least 1")
    if output.plot is not None:
        from trioproxy.cli.usage_plot import check_plot  # noqa: PLC0415 - needed by few

        check_plot(output.plot)


def _read(place: Place, config: Config, wish: UsageWish) -> UsageReport:
    path = usage_path(place.store_path(config))
    if not path.exists() and place.store_path(config).exists():  # nobody has used it yet, or nothing is kept
        return UsageReport((), UsageLine("", 0, 0, 0), 0)
    with UsageStore.open(path, create=False) as store:
        return report_usage(store, wish)


def _note_retention(config: Config, begin: datetime, now: datetime) -> None:
    days = config.usage.retention_days
    if days == 0:
        warn("usage is not kept: usage.retention_days is 0")
    elif begin < now - timedelta(days=days):
        warn(f"usage is kept for {days} days, so the beginning is missing")


def _title(wish: UsageWish) -> str:
    tenant = "" if wish.tenant is None else f" of tenant {wish.tenant}"
    begin = show_moment_in(wish.zone, wish.since)
    period = f"since {begin}" if wish.until is None else f"from {begin} until {show_moment_in(wish.zone, wish.until)}"
    return f"usage{tenant} by {wish.by.value} {period}"


def _show_table(report: UsageReport, wish: UsageWish) -> None:
    say(_title(wish))
    if not report.lines:
        say("no flows")
        return
    rows = [_row(line) for line in report.lines]
    if report.left_out:
        # Somebody may be in several groups, so nobody knows what the others have together.
        others = _others(report)
        rows.append([others.key, "", "", "", ""] if wish.by is By.GROUP else _row(others))
    rows.append(_row(attrs.evolve(report.totals, key="TOTAL")))
    headers = [wish.by.value.upper(), "FLOWS", "TO CLIENT", "TO TARGET", "BYTES"]
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    show_table(_to_the_right(headers, widths), [_to_the_right(row, widths) for row in rows])


def _row(line: UsageLine) -> list[str]:
    sizes = (line.bytes_to_client, line.bytes_to_target, line.bytes_total)
    return [line.key, f"{line.flows:,}", *map(show_size, sizes)]


def _others(report: UsageReport) -> UsageLine:
    """What the lines that were left out have together."""
    whole = report.totals
    return UsageLine(
        f"({report.left_out} more)",
        whole.flows - sum(line.flows for line in report.lines),
        whole.bytes_to_client - sum(line.bytes_to_client for line in report.lines),
        whole.bytes_to_target - sum(line.bytes_to_target for line in report.lines),
    )


def _to_the_right(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0], *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


_COLUMNS: Final = ("flows", "bytes_to_client", "bytes_to_target", "bytes_total")


def _as_json(report: UsageReport, wish: UsageWish) -> dict[str, object]:
    return {
        "by": wish.by.value,
        "since": wish.since.isoformat(),
        "until": None if wish.until is None else wish.until.isoformat(),
        "tenant": wish.tenant,
        "rows": [{"key": line.key} | _columns(line) for line in report.lines],
        "left_out": report.left_out,
        "totals": _columns(report.totals),
    }


def _columns(line: UsageLine) -> dict[str, int]:
    return {name: getattr(line, name) for name in _COLUMNS}


def _show_csv(report: UsageReport, wish: UsageWish) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([wish.by.value, *_COLUMNS])
    for line in report.lines:
        key = f"'{line.key}" if line.key.startswith(_FORMULA) else line.key
        writer.writerow([key, *_columns(line).values()])
    say(*text.getvalue().splitlines())


def _plot(path: Path, report: UsageReport, wish: UsageWish, now: datetime) -> None:
    from trioproxy.cli.usage_plot import draw_usage  # noqa: PLC0415 - loads matplotlib

    if not report.lines:
        raise Failure("there is nothing to draw: no flows in this period")
    flows = "1 flow" if report.totals.flows == 1 else f"{report.totals.flows:,} flows"
    sums = f"{show_size(report.totals.bytes_total)} in {flows}"
    if report.left_out:
        which = "last" if wish.by is By.DAY else "largest"
        sums += f"; shown are the {which} {len(report.lines):,} of {len(report.lines) + report.left_out:,}"
    try:
        draw_usage(path, (_title(wish), sums), report.lines, wish, now)
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror}") from error
    say(f"drawn into {path}")
