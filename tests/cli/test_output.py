"""What is printed, and how."""

from collections.abc import Callable

import pytest

from trioproxy.cli.output import count, printable, say, show_json, show_table, warn


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 漢", "plain ü 漢"),
        ("a\nb\r\t", "a\\nb\\r\\t"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\u202eb\u2028c\ue000", "a\\u202eb\\u2028c\\ue000"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_nothing_moves_the_cursor(text: str, shown: str) -> None:
    """Case 105 on the terminal: what could move the cursor or turn the text around is shown as an escape."""
    assert shown == printable(text)


def test_everything_printed_is_made_printable(capsys: pytest.CaptureFixture[str]) -> None:
    """Case 105: lines, notes and tables alike."""
    say("a\x1b[2J")
    warn("b\n")
    show_table(["H"], [["c\u202e"]])
    captured = capsys.readouterr()
    assert captured.out == "a\\x1b[2J\nH\nc\\u202e\n"
    assert captured.err == "note: b\\n\n"


def test_a_plain_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns for a pipe: two spaces between them, none at the end of a line."""
    show_table(["NAME", "X"], [["a", "long cell"], ["bbbbbb", ""]])
    assert capsys.readouterr().out == "NAME    X\na       long cell\nbbbbbb\n"


def test_a_table_on_a_terminal(capsys: pytest.CaptureFixture[str], terminal: Callable[[], None]) -> None:
    """A terminal gets a drawn table; brackets in a rule are no markup, and escapes stay escapes."""
    terminal()
    show_table(["RULE"], [["[bold]tcp[/bold]\x1b"]])
    out = capsys.readouterr().out
    assert "[bold]tcp[/bold]\\x1b" in out
    assert "─" in out


def test_colours_on_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], terminal: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe, a dumb terminal and NO_COLOR get plain text."""
    say("x", tone="good")
    terminal()
    say("x", tone="bad")
    say("x")
    monkeypatch.setenv("NO_COLOR", "")
    say("x", tone="good")
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    say("x", tone="good")
    assert capsys.readouterr().out == "x\n\x1b[31;1mx\x1b[0m\nx\nx\nx\n"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """ASCII alone, so that it is the same in every locale."""
    show_json({"a": "ü\u202e"})
    assert capsys.readouterr().out == '{\n  "a": "\\u00fc\\u202e"\n}\n'


@pytest.mark.parametrize(("number", "text"), [(0, "0 rules"), (1, "1 rule"), (2, "2 rules")])
def test_count(number: int, text: str) -> None:
    """One rule is not `1 rules`."""
    assert text == count(number, "rule")
