"""The tables: targets, all servers, growth, the machine; as Markdown, and what was computed for the JSON file."""

from collections.abc import Iterable, Sequence

from tests.bench.growth import GROWTHS, Growth
from tests.bench.measures import MEASURES
from tests.bench.results import Results
from tests.bench.servers import SERVERS, configurations
from tests.bench.targets import TARGETS, Outcome, judge, median_of

__all__ = ["computed", "growth_table", "number", "page", "servers_table", "shown", "targets_table"]


def number(figure: float | None) -> str:
    """Three digits that matter: `0.26`, `12.4`, `103`, `61,300`."""
    if figure is None:
        return "-"
    size = abs(figure)
    if size >= 1000:
        return f"{float(f'{figure:.3g}'):,.0f}"
    return f"{figure:.0f}" if size >= 100 else f"{figure:.1f}" if size >= 10 else f"{figure:.2f}"


def _with_unit(figure: float, unit: str) -> str:
    return number(figure) + (unit if unit.startswith("/") else f" {unit}" if unit else "")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; numbers stand at the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# ---- the targets


def _outcomes(results: Results) -> list[Outcome]:
    return [outcome for target in TARGETS if (outcome := judge(target, results.rounds)) is not None]


def targets_table(results: Results) -> str:
    """Each target, the figure, what it is held against, the ratio, and whether it is met."""
    head = ("measure", "trioproxy", "held against", "ratio", "target", "met")
    return table(head, ([*_row(outcome)] for outcome in _outcomes(results)))


def _row(outcome: Outcome) -> Iterable[str]:
    target, reference = outcome.target, outcome.reference
    name = SERVERS[reference.name].label if reference.name in SERVERS else reference.name
    yield target.title
    yield _with_unit(outcome.figure, target.unit)
    yield f"{name}: {_with_unit(reference.figure, target.unit)}"
    yield f"{outcome.ratio:.2f}"
    yield target.wanted
    yield "yes" if outcome.met else "**no**"


# ---- all servers


def servers_table(results: Results) -> str:
    """The median of each measure for each server, and the processor time that bulk costs."""
    names = [name for name in SERVERS if any(name in found for r in results.rounds for found in r.values())]
    head = ("", *(SERVERS[name].label for name in names))
    lines = [
        (f"{measure.title}, {measure.unit}", measure.key, "value")
        for measure in MEASURES.values()
        if measure.key != "hashing"
    ]
    for key, title in (("bulk1", "1 stream"), ("down16", "16 streams down"), ("up16", "16 streams up")):
        lines.append((f"Processor seconds per GB, {title}", key, "cpu_s_per_gb"))
    lines.append(("Fairness of 16 streams down", "down16", "fairness"))
    rows = [[title, *(number(shown(results, key, name, figure)) for name in names)] for title, key, figure in lines]
    return table(head, [row for row in rows if any(cell != "-" for cell in row[1:])])


def shown(results: Results, key: str, name: str, figure: str) -> float | None:
    """The median to show; None: there is none, or it means nothing."""
    if figure == "cpu_s_per_gb" and name == "straight":
        return None  # it has no process
    return median_of(results.rounds, key, name, figure)


# ---- growth


def growth_table(growth: Growth, results: Results) -> str:
    """The figures of each point; one column for each server and figure."""
    found = results.growth[growth.key]
    columns = [(name, panel) for panel in growth.panels for name in found]
    titles = [panel.title + (f", {SERVERS[name].label}" if len(found) > 1 else "") for name, panel in columns]
    points = sorted({point for servers in found.values() for point in servers})
    rows = (
        [
            f"{point:,}",
            *(number(found[name].get(point, {}).get(panel.figure)) for name, panel in columns),
        ]
        for point in points
    )
    return table((growth.axis, *titles), rows)


# ---- all of it


def page(results: Results, pictures: str) -> str:
    """The part of the page that belongs to one run.

    Args:
        results: the run.
        pictures: the folder of the pictures, as seen from the page.
    """
    return "\n\n".join(_parts(results, pictures)) + "\n"


def _parts(results: Results, pictures: str) -> Iterable[str]:
    yield "## The targets"
    yield targets_table(results)
    yield f"![Bars for each measure]({pictures}/bars.svg)"
    yield "## All servers"
    yield servers_table(results)
    if results.growth:
        yield "## How cost grows"
    for key in results.growth:
        growth = GROWTHS[key]
        yield f"### {growth.title}"
        yield f"![{growth.title}]({pictures}/{key}.svg)"
        yield growth_table(growth, results)
    yield "## The machine and the run"
    yield table(("", ""), ([name, text] for name, text in {**results.machine, **results.settings}.items()))
    yield "## How each server was started"
    for name, text in configurations().items():
        language = "toml" if name == "trioproxy" else "text"
        yield f"{name}:\n\n```{language}\n{text.rstrip()}\n```"


def computed(results: Results) -> dict[str, object]:
    """Medians and outcomes for the JSON file."""
    medians = {
        key: {
            name: {figure: median_of(results.rounds, key, name, figure) for figure in found[key][name]}
            for found in reversed(results.rounds)
            for name in found.get(key, ())
        }
        for key in MEASURES
    }
    return {"medians": medians, "targets": [_plain(outcome) for outcome in _outcomes(results)]}


def _plain(outcome: Outcome) -> dict[str, object]:
    return {
        "measure": outcome.target.title,
        "server": outcome.target.server,
        "figure": outcome.figure,
        "against": outcome.reference.name,
        "against_figure": outcome.reference.figure,
        "ratio": outcome.ratio,
        "wanted": outcome.target.wanted,
        "met": outcome.met,
    }
