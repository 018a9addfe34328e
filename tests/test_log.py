"""The human log: one line for each event, whatever a stranger put into it."""

import pytest

from tests.harness import Records
from trioproxy.accounting import escaped
from trioproxy.log import configure_log, get_log


def logged(level: str = "debug") -> Records:
    """A log whose lines are kept."""
    sink = Records()
    configure_log(level, sink=sink)
    return sink


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\u202egpj", "\u2028", '"quoted"', "\udcff"])
def test_case_105_one_line_for_each_event(name: str) -> None:
    """Case 105: control characters, bidirectional overrides and separators stay visible text in one line."""
    sink = logged()
    get_log().info("login rejected", user=name)
    get_log().info("login rejected", user=escaped(name.encode("utf-8", "surrogateescape")))
    assert len(sink.lines) == 2
    assert all(line.decode().isprintable() for line in sink.lines)


def test_level_filters() -> None:
    """`log.level`."""
    sink = logged("warning")
    get_log().info("not this")
    get_log().warning("this", count=1)
    assert len(sink.lines) == 1
    assert b"this" in sink.lines[0]
    assert b"count=1" in sink.lines[0]


def test_case_106_traceback_shows_no_values() -> None:
    """Case 106: a traceback in the log shows code, never the values of variables."""
    sink = logged()

    def fail(password: str) -> None:
        raise ValueError(len(password))

    try:
        fail("PW-CANARY"[::-1])
    except ValueError:
        get_log().exception("internal error")
    assert b"Traceback" in sink.lines[0]
    assert b"YRANAC-WP" not in sink.lines[0]
