"""trioproxy beside other SOCKS servers, in one go: measures, tables, pictures.

For example:
  make bench                                     all of it, some 15 minutes
  make bench-quick                               rough figures within 3 minutes
  make bench ARGS="--only rtt udp200"            two measures
  make bench ARGS="--servers straight full dante --rounds 9"
  make bench ARGS="--only grow-streams"          how cost grows with one thing
  make bench ARGS="--keep"                       and put the results into docs/
  make bench ARGS="--again build/bench/results.json --keep"
                                                 draw kept results again, measure nothing
"""

import argparse
import re
import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench import plot, report
from tests.bench.growth import GROWTHS, estimate_s, run_growths
from tests.bench.load import Load
from tests.bench.machine import describe
from tests.bench.measures import MEASURES, Lab
from tests.bench.results import Results
from tests.bench.runner import Progress, plan, run_rounds
from tests.bench.servers import SERVERS

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
MARKS: Final = ("<!-- measured: begin -->\n", "<!-- measured: end -->\n")


def main() -> None:
    """Run what was asked for."""
    options = _parser().parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # every server ends with its block
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    results = Results.load(options.again) if options.again else _measure(options)
    results.save(folder / "results.json", **report.computed(results))
    (folder / "table.md").write_text(report.page(results, "."), encoding="utf-8")
    plot.draw_all(results, folder)
    sys.stdout.write(f"{report.targets_table(results)}\n\n{report.servers_table(results)}\n\n{folder}/\n")
    if options.keep:
        keep(results, folder, DOCS)


def _parser() -> argparse.ArgumentParser:
    summary, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each measure is repeated (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long each part lasts (default: 1.5)")
    parser.add_argument("--quick", action="store_true", help="shorter waits and fewer points, too")
    keys = [*MEASURES, *GROWTHS]
    parser.add_argument("--only", nargs="+", choices=keys, default=keys, metavar="MEASURE", help=", ".join(keys))
    names = list(SERVERS)
    parser.add_argument("--servers", nargs="+", choices=names, default=names, metavar="SERVER", help=", ".join(names))
    parser.add_argument("--output", type=Path, default=ROOT / "build/bench", help="folder (default: build/bench)")
    parser.add_argument("--keep", action="store_true", help="put the results into docs/ as well")
    parser.add_argument("--again", type=Path, metavar="FILE", help="measure nothing, read this results.json")
    return parser


def _measure(options: argparse.Namespace) -> Results:
    machine = describe()
    with ExitStack() as stack:
        load = Load.build(options.output)
        origin, other_origin = (stack.enter_context(load.origin()) for _ in range(2))
        lab = Lab(load, origin, other_origin, options.seconds, options.quick)
        steps = list(plan([MEASURES[key] for key in options.only if key in MEASURES], options.servers, options.rounds))
        growths = [GROWTHS[key] for key in options.only if key in GROWTHS]
        total_s = sum(step.estimate_s(lab) for step in steps) + estimate_s(growths, options.servers, lab)
        progress = Progress(total_s)
        rounds = run_rounds(lab, steps, progress)
        growth = run_growths(lab, growths, options.servers, progress)
    settings = {"rounds": str(options.rounds), "seconds of each part": f"{options.seconds:g}"}
    return Results(machine, settings, rounds, growth)


def keep(results: Results, folder: Path, docs: Path) -> None:
    """Put the results into the pages: the text between the marks, the JSON file and the pictures."""
    page = docs / "benchmarks.md"
    begin, end = MARKS
    text = f"{begin}\n{report.page(results, 'benchmarks')}\n{end}"
    page.write_text(
        re.sub(f"{begin}.*{end}", lambda _: text, page.read_text(encoding="utf-8"), flags=re.DOTALL), encoding="utf-8"
    )
    shutil.copy(folder / "results.json", docs / "benchmarks.json")
    pictures = docs / "benchmarks"
    pictures.mkdir(exist_ok=True)
    for picture in folder.glob("*.svg"):
        shutil.copy(picture, pictures)


if __name__ == "__main__":
    main()
