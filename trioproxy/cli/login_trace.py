"""What backends do while `auth test` asks them: said at once to whoever watches, and kept for the report."""

import unicodedata
from typing import Final, assert_never

import attrs

from auth import Answer, Identity, Rejected, Step, Unavailable
from trioproxy.cli.output import Tone, say

__all__ = ["Asked", "Trace", "describe"]

_WITHHELD: Final = "(not shown: the password stands in it)"
_NAME_WIDTH: Final = len("service bind")


@attrs.define
class Asked:
    """What one backend was asked, did and said.

    Attributes:
        backend: its name.
        kind: its type.
        answer: what it said, after our own checks; None while it is at it.
        duration_s: all its steps together.
        steps: as they were sent.
    """

    backend: str
    kind: str
    answer: Answer | None = None
    duration_s: float = 0.0
    steps: list[Step] = attrs.field(factory=list)

    def advice(self) -> str:
        """What the last step that failed advises; empty if none did."""
        failed = (step.advice for step in reversed(self.steps) if step.failed)
        return next((advice for advice in failed if advice not in ("", _WITHHELD)), "")

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "backend": self.backend,
            "type": self.kind,
            "answer": describe(self.answer) if self.answer is not None else None,
            "duration_s": round(self.duration_s, 6),
            "steps": [
                {**attrs.asdict(step), "duration_s": round(step.duration_s, 6)}  # microseconds
                for step in self.steps
            ],
        }


class Trace:
    """Notes what backends do, and says it at once where somebody watches.

    A backend may be anybody's code: a text of one that holds the password is not passed on.

    Args:
        password: that is tried; None: there is none.
        live: say it at once.
    """

    def __init__(self, password: str | None, *, live: bool) -> None:
        self._forms = _forms(password) if password else frozenset()
        self._live = live
        self._now: Asked | None = None
        self.asked: list[Asked] = []

    def begin(self, backend: str, kind: str) -> None:
        """This one is asked next."""
        self._now = Asked(backend, kind)
        self.asked.append(self._now)
        self._say("")
        self._say(f"{backend} ({kind})", tone="strong")

    def observe(self, step: Step) -> None:
        """A step is over. One that is sent while nobody is asked, by a backend that opens, is part of no answer."""
        if self._now is None:
            return
        step = attrs.evolve(
            step, name=self.clean(step.name), detail=self.clean(step.detail), advice=self.clean(step.advice)
        )
        told = self._now.advice() == step.advice  # a step that failed within another one, for the same reason
        self._now.steps.append(step)
        mark = "FAIL" if step.failed else "ok"
        line = f"  {mark:4}  {step.name:{_NAME_WIDTH}}  {_milliseconds(step.duration_s)}  {step.detail}"
        self._say(line.rstrip(), tone="bad" if step.failed else None)
        if step.advice and not told:
            self._say(f"        {step.advice}")

    def end(self, answer: Answer, duration_s: float) -> None:
        """It has answered."""
        assert self._now is not None  # noqa: S101 - `begin` comes before
        now, self._now = self._now, None
        now.answer, now.duration_s = self.cleaned(answer), duration_s
        self._say(f"  {'=':4}  {'answer':{_NAME_WIDTH}}  {_milliseconds(duration_s)}  {describe(now.answer)}")

    def cleaned(self, answer: Answer) -> Answer:
        """The answer, without the password."""
        if isinstance(answer, Unavailable):
            return attrs.evolve(answer, problem=self.clean(answer.problem))
        return answer

    def clean(self, text: str) -> str:
        """The text, unless the password stands in it. Starring it out would tell where, and so what it is."""
        lower = text.lower()  # as the name of a group is
        return _WITHHELD if any(form in lower for form in self._forms) else text

    def _say(self, *lines: str, tone: Tone | None = None) -> None:
        if self._live:
            say(*lines, tone=tone)


def _forms(password: str) -> frozenset[str]:
    """The password as it may stand in a text that was made fit for a terminal."""
    spellings = {password, unicodedata.normalize("NFC", password)}
    replaced = {"".join(c if c.isprintable() else "?" for c in spelling) for spelling in spellings}
    escaped = {
        "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in spelling)
        for spelling in spellings
    }
    return frozenset(form.lower() for form in spellings | replaced | escaped)


def _milliseconds(duration_s: float) -> str:
    return f"{duration_s * 1000:6.0f} ms"


def describe(answer: Answer) -> str:
    """The answer of one backend in a few words."""
    match answer:
        case Identity():
            return "accepted"
        case Rejected(reason):
            return reason.value
        case Unavailable(problem):
            return f"could not tell: {problem}"
        case _:
            assert_never(answer)
