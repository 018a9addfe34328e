"""The pictures: bars with one panel for each measure, and lines for what grows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from tests.bench.growth import GROWTHS, Growth
from tests.bench.measures import MEASURES
from tests.bench.report import number, shown
from tests.bench.results import Results
from tests.bench.servers import OURS, SERVERS
from tests.bench.targets import TARGETS, judge

__all__ = ["draw_all"]

_OURS_COLOUR: Final = "#1f77b4"
_OURS_MORE: Final = "#9ec5e8"  # the other ways to run it
_PEER_COLOUR: Final = "#b0b0b0"
_STRAIGHT_COLOUR: Final = "#e4e4e4"
_TARGET_COLOURS: Final = ("#d62728", "#9467bd")
_LINES: Final[Mapping[str, str]] = {"full": _OURS_COLOUR, "straight": "#c8c8c8", "dante": "#ff7f0e"}
_COLUMNS: Final = 3
_SLOTS: Final = 6  # bars for which each panel has room at least

_STYLE: Final[Mapping[str, Any]] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "trioproxy",  # the same figures give the same file
    "font.family": "sans-serif",
}


def draw_all(results: Results, folder: Path) -> None:
    """Write every picture as PNG and as SVG."""
    with mpl.rc_context(dict(_STYLE)):
        if any(results.rounds):
            _save(_bars(results), folder / "bars")
        for key, found in results.growth.items():
            _save(_lines(GROWTHS[key], found), folder / key)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path.with_suffix(".png"), dpi=110)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


# ---- bars


class _Bars(NamedTuple):
    """What a panel shows."""

    measure: str
    figure: str
    title: str
    unit: str
    more_is_better: bool


_PANELS: Final[Sequence[_Bars]] = (
    *(_Bars(m.key, "value", m.title, m.unit, m.more_is_better) for m in MEASURES.values()),
    _Bars("down16", "fairness", "Fairness of 16 streams down", "slowest / fastest", more_is_better=True),
    _Bars("bulk1", "cpu_s_per_gb", "Processor time of bulk, 1 stream", "seconds per GB", more_is_better=False),
)


def _bars(results: Results) -> Any:
    panels = [
        panel
        for panel in _PANELS
        if any(shown(results, panel.measure, name, panel.figure) is not None for name in SERVERS)
    ]
    rows = -(-len(panels) // _COLUMNS)
    figure, axes = plt.subplots(rows, _COLUMNS, figsize=(14, 3.0 * rows), layout="constrained", squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        _panel(axis, panel, results)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    return figure


def _panel(axis: Any, measure: _Bars, results: Results) -> None:
    medians = {name: shown(results, measure.measure, name, measure.figure) for name in SERVERS}
    bars = sorted(
        ((figure, name) for name, figure in medians.items() if figure is not None), reverse=not measure.more_is_better
    )
    lines = _target_lines(measure, results)
    end = _end([figure for figure, _ in bars], [wanted for wanted, _ in lines])
    axis.set_xlim(0, end)
    for place, (figure, name) in enumerate(bars):
        axis.barh(place, figure, color=_colour(name), height=0.7)
        text = number(figure) if figure < end else f"{number(figure)} \N{RIGHTWARDS ARROW}"
        at = axis.text(min(figure, end * 0.86), place, f" {text} ", va="center", fontsize=8, zorder=5)
        at.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.85})
    for colour, (wanted, text) in zip(_TARGET_COLOURS, lines, strict=False):
        axis.axvline(wanted, color=colour, linestyle="--", linewidth=1.3, label=text, zorder=4)
    if lines:
        axis.legend(fontsize=7.5, loc="upper left", bbox_to_anchor=(-0.25, -0.12), frameon=False)
    axis.set_yticks(range(len(bars)), [SERVERS[name].label for _, name in bars])
    axis.set_ylim(-0.6, max(len(bars), _SLOTS) - 0.4)  # bars are equally thick in all panels
    for label, (_, name) in zip(axis.get_yticklabels(), bars, strict=True):
        label.set_fontweight("bold" if name in OURS else "normal")
    better = "more is better" if measure.more_is_better else "less is better"
    axis.set_title(f"{measure.title}\n{measure.unit}, {better}", fontsize=9, loc="left")
    axis.xaxis.set_major_formatter(_tick)
    axis.xaxis.set_major_locator(plt.MaxNLocator(5))


def _end(figures: Sequence[float], wanted: Sequence[float]) -> float:
    """Where the scale ends: one bar that is much longer than all else must not make that invisible."""
    *others, longest = sorted([*figures, *wanted])
    return min(longest, 3 * others[-1] if others else longest) * 1.2


def _tick(figure: float, _: int) -> str:
    return f"{figure / 1000:g}k" if figure >= 1000 else f"{figure:g}"


def _colour(name: str) -> str:
    if name == "straight":
        return _STRAIGHT_COLOUR
    return _PEER_COLOUR if name not in OURS else _OURS_COLOUR if name == "full" else _OURS_MORE


def _target_lines(panel: _Bars, results: Results) -> list[tuple[float, str]]:
    """Where a bar must reach, in the units of the panel."""
    lines = []
    for target in TARGETS:
        if (target.measure, target.figure) == (panel.measure, panel.figure):
            outcome = judge(target, results.rounds)
            if outcome is not None:
                whose = "" if target.server == "full" else f" ({SERVERS[target.server].label})"
                lines.append((outcome.reference.figure * target.factor, f"target{whose}: {target.wanted}"))
    return lines


# ---- lines


def _lines(growth: Growth, found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Any:
    figure, axes = plt.subplots(
        1, len(growth.panels), figsize=(4.8 * len(growth.panels), 3.4), layout="constrained", squeeze=False
    )
    for axis, panel in zip(axes.flat, growth.panels, strict=True):
        for name, points in found.items():
            ours = name in OURS
            axis.plot(
                list(points),
                [figures[panel.figure] for figures in points.values()],
                marker="o",
                linewidth=2.4 if ours else 1.4,
                zorder=3 if ours else 2,
                color=_LINES.get(name, "#2ca02c"),
                label=SERVERS[name].label,
            )
        _scale(axis, growth, sorted({point for points in found.values() for point in points}))
        axis.set_title(panel.title, fontsize=10, loc="left")
    if len(found) > 1:
        lines, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside right upper", fontsize=9, frameon=False)
    figure.suptitle(growth.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _scale(axis: Any, growth: Growth, points: Sequence[int]) -> None:
    axis.set_xscale("log")
    axis.set_xticks(points, [f"{point:,}" for point in points], minor=False)
    axis.minorticks_off()
    axis.set_xlabel(growth.axis)
    axis.set_ylim(bottom=0, top=axis.get_ylim()[1] * 1.05)
    axis.yaxis.set_major_formatter(_tick)
    axis.grid(axis="y", color="#eeeeee")
