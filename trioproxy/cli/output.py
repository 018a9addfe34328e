"""Everything the command line prints goes through here.

Names, notes and file contents may come from strangers, so what could move the cursor or turn the text around is shown
as an escape. Colours and drawn tables appear on a terminal only; a pipe gets plain columns.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

__all__ = [
    "Failure",
    "Tone",
    "complain",
    "count",
    "printable",
    "say",
    "show_json",
    "show_table",
    "usage",
    "warn",
]

Tone: TypeAlias = Literal["good", "bad", "strong"]

_CODES: Final[dict[Tone, str]] = {"good": "32;1", "bad": "31;1", "strong": "1"}


class Failure(Exception):  # noqa: N818 - how a command ends, as `Termination` is for a flow
    """The command has failed.

    Attributes:
        lines: what to say about it, on stderr.
        code: exit code, 1 for a failure and 2 for a command line that makes no sense.
    """

    def __init__(self, *lines: str, code: int = 1) -> None:
        self.lines = lines
        self.code = code
        super().__init__("\n".join(lines))


def usage(text: str) -> Failure:
    """The command line makes no sense."""
    return Failure(text, code=2)


def printable(text: str) -> str:
    """The text with everything that is not a character on one line turned into an escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def count(number: int, thing: str) -> str:
    """`1 rule`, `2 rules`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def say(*lines: str, tone: Tone | None = None) -> None:
    """Results, on stdout."""
    for line in lines:
        text = printable(line)
        print(f"\x1b[{_CODES[tone]}m{text}\x1b[0m" if tone and _on_terminal() else text)  # noqa: T201 - the place for it
    sys.stdout.flush()  # `serve` goes on running: what it says must not wait in a buffer for its end


def warn(line: str) -> None:
    """Something to know that is no result, on stderr."""
    complain([f"note: {line}"])


def complain(lines: Iterable[str]) -> None:
    """What went wrong, on stderr."""
    for line in lines:
        print(printable(line), file=sys.stderr)  # noqa: T201 - the place for it


def show_json(value: object) -> None:
    """One JSON document on stdout."""
    say(*json.dumps(value, indent=2).split("\n"))


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn on a terminal, plain columns with two spaces between them otherwise."""
    if _on_terminal():
        _draw(headers, rows)
        return
    cells = [[printable(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    say(*("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells))


def _draw(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box  # noqa: PLC0415 - 45 ms that a pipe need not pay
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(*headers, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))  # Text: brackets are no markup
    Console().print(table)


def _on_terminal() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
