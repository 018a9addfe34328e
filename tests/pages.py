"""What the pages of the documentation show: commands that are typed, and what they answer."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

__all__ = ["DOCS", "Example", "examples", "page"]

DOCS: Final = Path(__file__).parent.parent / "docs"

# The administrator's prompt is `$ `, that of somebody else `bob@10.1.3.4$ `; a comment before a block tells of it.
_BLOCK: Final = re.compile(r"^(?:% (?P<remark>[^\n]*)\n)?```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT: Final = re.compile(r"^(?:(?P<who>[a-z]+)@(?P<where>[0-9.]+))?\$ (?P<typed>(?:.*\\\n)*.*)\n", re.MULTILINE)


@attrs.frozen
class Example:
    """A command, as somebody types it.

    Attributes:
        typed: without the prompt, on one line.
        answer: the lines below it.
        who: at whose prompt; empty for the administrator's.
        where: on which machine.
        remark: the comment before the block, which readers do not see.
    """

    typed: str
    answer: list[str]
    who: str = ""
    where: str = ""
    remark: str = ""


def page(name: str) -> str:
    """The text of a page of `docs/`."""
    return (DOCS / name).read_text(encoding="utf-8")


def examples(text: str) -> Iterator[Example]:
    """Each command of a page, or of a part of one, in its order."""
    for block in _BLOCK.finditer(text):
        prompts = list(_PROMPT.finditer(block["text"]))
        ends = [*(prompt.start() for prompt in prompts[1:]), len(block["text"])]
        for prompt, end in zip(prompts, ends, strict=True):
            typed = re.sub(r"\\\n\s*", "", prompt["typed"])
            answer = block["text"][prompt.end() : end].splitlines()
            yield Example(typed, answer, prompt["who"] or "", prompt["where"] or "", block["remark"] or "")
