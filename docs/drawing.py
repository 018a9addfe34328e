"""Two drawings: the way of the data, and the states of a connection from the table of transitions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from trioproxy.protocol import TRANSITIONS, State, Step

__all__ = ["draw_data_path", "draw_states"]

# All in pixels.
_BOX_WIDTH: Final = 250
_BOX_HEIGHT: Final = 46
_ROW: Final = 88
_LEFT: Final = 190
_RIGHT: Final = _LEFT + _BOX_WIDTH
_MIDDLE: Final = _LEFT + _BOX_WIDTH // 2
_WALL: Final = 720  # where CLOSED begins
_WALL_WIDTH: Final = 130

_STAGES: Final = (
    ("protocol", "what was", "said"),
    ("session", "the story", "of one client"),
    ("authenticate", "who is it?", "(auth)"),
    ("policy", "may it?", ""),
    ("dial", "connect to what", "was judged"),
    ("relay", "carry both ways,", "meter"),
    ("accounting", "one record", "for each flow"),
)
_STAGE_WIDTH: Final = 100
_STAGE_STEP: Final = 117

_TURN_OF_THE_CLIENT: Final = {State.GREETING, State.SUBNEGOTIATION, State.REQUEST}


def draw_states() -> str:
    """The states from top to bottom, an arrow for each transition, and CLOSED as a wall at the right."""
    column: list[State] = [state for state in State if state is not State.CLOSED]
    tops: dict[State, int] = {state: 10 + _ROW * row for row, state in enumerate(column)}
    height = 10 + _ROW * (len(column) - 1) + _BOX_HEIGHT + 10
    width = _WALL + _WALL_WIDTH + 10
    head = _begin(width, height, "The states of one connection")
    parts = [head, *_wall(height), *(_box(state, top) for state, top in tops.items())]
    for state in column:
        parts += _arrows(state, column, tops)
    return "\n".join([*parts, "</svg>"])


def draw_data_path() -> str:
    """The stages that a client's bytes pass, from left to right."""
    width = _STAGE_STEP * (len(_STAGES) - 1) + _STAGE_WIDTH + 4
    parts = [_begin(width, 112, "The way of the data"), _text(2, 14, "client", kind="small")]
    parts.append('<path d="M20,20 L20,36" marker-end="url(#tip)"/>')
    for number, (name, first, second) in enumerate(_STAGES):
        left = 2 + _STAGE_STEP * number
        middle = left + _STAGE_WIDTH // 2
        parts += [
            f'<rect x="{left}" y="38" width="{_STAGE_WIDTH}" height="32" rx="6"/>',
            _text(middle, 59, name, anchor="middle"),
            _text(middle, 88, first, kind="small", anchor="middle"),
            _text(middle, 104, second, kind="small", anchor="middle"),
        ]
        if name == "relay":
            parts.append(f'<path d="M{middle},36 L{middle},20" marker-end="url(#tip)"/>')
            parts.append(_text(middle, 14, "target", kind="small", anchor="middle"))
        if number:
            parts.append(f'<path d="M{left - _STAGE_STEP + _STAGE_WIDTH},54 L{left},54" marker-end="url(#tip)"/>')
    return "\n".join([*parts, "</svg>"])


def _begin(width: int, height: int, title: str) -> str:
    return (
        f'<svg class="drawing" viewBox="0 0 {width} {height}" width="{width}" role="img"'
        f' aria-label="{title}" xmlns="http://www.w3.org/2000/svg">\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z"/></marker></defs>'
    )


def _text(x: int, y: int, text: str, *, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'


def _wall(height: int) -> Iterator[str]:
    middle = _WALL + _WALL_WIDTH // 2
    yield f'<rect x="{_WALL}" y="10" width="{_WALL_WIDTH}" height="{height - 20}" rx="6"/>'
    yield _text(middle, height // 2 - 4, State.CLOSED.name, anchor="middle")
    yield _text(middle, height // 2 + 14, State.CLOSED.value.rpartition(": ")[2], kind="small", anchor="middle")


def _box(state: State, top: int) -> str:
    kind = "client" if state in _TURN_OF_THE_CLIENT else "server"
    return (
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6"/>'
        + _text(_MIDDLE, top + 20, state.name, anchor="middle")
        + _text(_MIDDLE, top + 37, state.value, kind="small", anchor="middle")
    )


def _arrows(state: State, column: Sequence[State], tops: Mapping[State, int]) -> Iterator[str]:
    steps: dict[State, list[Step]] = {}
    for (before, step), after in TRANSITIONS.items():
        if before is state:
            steps.setdefault(after, []).append(step)
    for after, ways in steps.items():
        if after is State.CLOSED:
            yield from _arrow_to_the_wall(tops[state] + _BOX_HEIGHT // 2, ways)
        elif column.index(after) == column.index(state) + 1:
            yield from _arrow_down(tops[state] + _BOX_HEIGHT, tops[after], ways)
        else:
            yield from _arrow_round(tops[state] + _BOX_HEIGHT // 2, tops[after] + _BOX_HEIGHT // 2, ways)


def _arrow_to_the_wall(y: int, ways: Sequence[Step]) -> Iterator[str]:
    yield f'<path d="M{_RIGHT},{y} L{_WALL},{y}" marker-end="url(#tip)"/>'
    for line, step in enumerate(reversed(ways)):
        yield _text(_RIGHT + 10, y - 6 - 15 * line, step.value, kind="step")


def _arrow_down(start: int, end: int, ways: Sequence[Step]) -> Iterator[str]:
    yield f'<path d="M{_MIDDLE},{start} L{_MIDDLE},{end}" marker-end="url(#tip)"/>'
    yield _text(_MIDDLE + 8, (start + end) // 2 + 4, " / ".join(step.value for step in ways), kind="step")


def _arrow_round(start: int, end: int, ways: Sequence[Step]) -> Iterator[str]:
    bend = _LEFT - 70
    yield f'<path d="M{_LEFT},{start} C{bend},{start} {bend},{end} {_LEFT},{end}" marker-end="url(#tip)"/>'
    for line, step in enumerate(ways):
        yield _text(_LEFT - 60, (start + end) // 2 + 4 + 15 * line, step.value, kind="step", anchor="end")
