"""Waiting for what another process does: asked again and again until it is so, with an end to the patience."""

import time
from collections.abc import Callable
from typing import Final, Literal, TypeVar

__all__ = ["PATIENCE_S", "measured", "until"]

T = TypeVar("T")

PATIENCE_S: Final = 20.0  # for a busy machine; what a test measures it measures itself
ASK_AGAIN_S: Final = 0.01


def measured(text: str) -> None:
    """Tell what was measured; `pytest -s` shows it, and so does the report of a failure."""
    print(text)  # noqa: T201 - a measurement is for a reader


def until(what: str, ask: Callable[[], T | Literal[False]], within_s: float = PATIENCE_S) -> T:
    """The first true answer of `ask`.

    Args:
        what: what is waited for, for the reader of a failure.
        ask: asked every 10 ms.
        within_s: the end of the patience.

    Raises:
        TimeoutError: it did not come true.
    """
    give_up_s = time.monotonic() + within_s
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"waited {within_s:g} s for {what}; the last answer was {answer!r}")
        time.sleep(ASK_AGAIN_S)
