"""The pictures: bars with one panel for each measure, and lines for what grows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from tests.bench.growth import GROWTHS, Growth
from tests.bench.measures import MEASURES, Measure
from tests.bench.report import number
from tests.bench.results import Results
from tests.bench.servers import OURS, SERVERS
from tests.bench.targets import TARGETS, judge, median_of

__all__ = ["draw_all"]

_OURS_COLOUR: Final = "#1f77b4"
_OURS_MORE: Final = "#9ec5e8"  # the other ways to run it
_PEER_COLOUR: Final = "#b0b0b0"
_STRAIGHT_COLOUR: Final = "#e4e4e4"
_TARGET_COLOURS: Final = ("#d62728", "#9467bd")
_LINES: Final[Mapping[str, str]] = {"full": _OURS_COLOUR, "straight": "#c8c8c8", "dante": "#ff7f0e"}
_COLUMNS: Final = 3

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


def _bars(results: Results) -> Any:
    measured = [m for m in MEASURES.values() if any(m.key in found for found in results.rounds)]
    rows = -(-len(measured) // _COLUMNS)
    figure, axes = plt.subplots(rows, _COLUMNS, figsize=(14, 2.9 * rows), layout="constrained", squeeze=False)
    for axis, measure in zip(axes.flat, measured, strict=False):
        _panel(axis, measure, results)
    for axis in axes.flat[len(measured) :]:
        axis.set_visible(False)
    return figure


def _panel(axis: Any, measure: Measure, results: Results) -> None:
    medians = {name: median_of(results.rounds, measure.key, name) for name in SERVERS}
    bars = sorted(
        ((figure, name) for name, figure in medians.items() if figure is not None), reverse=not measure.more_is_better
    )
    labels = [SERVERS[name].label for _, name in bars]
    shown = axis.barh(labels, [figure for figure, _ in bars], color=[_colour(name) for _, name in bars], height=0.7)
    axis.bar_label(shown, [number(figure) for figure, _ in bars], padding=3, fontsize=8)
    for label, (_, name) in zip(axis.get_yticklabels(), bars, strict=True):
        label.set_fontweight("bold" if name in OURS else "normal")
    lines = _target_lines(measure, results)
    for colour, (wanted, text) in zip(_TARGET_COLOURS, lines, strict=False):
        axis.axvline(wanted, color=colour, linestyle="--", linewidth=1.2, label=text)
    if lines:
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.4, -0.17), ncols=1, frameon=False)
    largest = max([figure for figure, _ in bars] + [wanted for wanted, _ in lines])
    axis.set_xlim(0, largest * 1.18)
    better = "more is better" if measure.more_is_better else "less is better"
    axis.set_title(f"{measure.title}\n{measure.unit}, {better}", fontsize=9, loc="left")
    axis.xaxis.set_major_formatter(lambda figure, _: number(figure) if figure else "0")
    axis.xaxis.set_major_locator(plt.MaxNLocator(5))


def _colour(name: str) -> str:
    if name == "straight":
        return _STRAIGHT_COLOUR
    return _PEER_COLOUR if name not in OURS else _OURS_COLOUR if name == "full" else _OURS_MORE


def _target_lines(measure: Measure, results: Results) -> list[tuple[float, str]]:
    """Where a bar must reach, in the units of the panel."""
    lines = []
    for target in TARGETS:
        if target.measure == measure.key and target.figure == "value":
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
        axes.flat[0].legend(fontsize=8, frameon=False)
    figure.suptitle(growth.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _scale(axis: Any, growth: Growth, points: Sequence[int]) -> None:
    axis.set_xscale("log")
    axis.set_xticks(points, [f"{point:,}" for point in points], minor=False)
    axis.minorticks_off()
    axis.set_xlabel(growth.axis)
    axis.set_ylim(bottom=0, top=axis.get_ylim()[1] * 1.05)
    axis.yaxis.set_major_formatter(lambda figure, _: number(figure) if figure else "0")
    axis.grid(axis="y", color="#eeeeee")
