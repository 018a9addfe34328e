"""Run one fuzz target under Atheris: `python -m fuzz.run socks5_stream --seconds 30`.

The seeds are `fuzz/corpus/TARGET/`; nothing is written there, and what is found is kept only with `--corpus`. An input
that fails is left in the working folder as `crash-...`: mend the fault and add the input to the corpus, where
`tests/test_fuzz_corpus.py` replays it for ever.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

__all__ = ["CORPUS", "load_target", "main", "target_names"]

_HERE = Path(__file__).parent
CORPUS = _HERE / "corpus"
_INSTRUMENTED = ["trioproxy", "auth", "fuzz"]  # not the oracle, nor the libraries: their branches are not what we seek
_INPUT_LENGTH_MAX = 8_704  # octets; a little more than the longest rule, and 17 times the longest SOCKS message
_SLOW_INPUT_S = 10  # libFuzzer's own limit of 20 minutes would outlast any run


def target_names() -> list[str]:
    """Every module beside this one is a target."""
    return sorted(path.stem for path in _HERE.glob("*.py") if path.stem not in {"__init__", "run"})


def load_target(name: str) -> Callable[[bytes], None]:
    """The function that checks one input of the target."""
    return cast("Callable[[bytes], None]", importlib.import_module(f"fuzz.{name}").test_one_input)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fuzz until the time is up (exit code 0) or an input fails (another one)."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.run", description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=target_names())
    parser.add_argument("--seconds", type=int, default=30, help="how long (default: 30)")
    parser.add_argument("--corpus", type=Path, help="folder that is read too and keeps what is found")
    options = parser.parse_args(arguments)
    if options.seconds < 1:
        parser.error("--seconds must be at least 1: libFuzzer takes 0 for ever")
    _fuzz(options.target, options.seconds, options.corpus)


def _fuzz(target: str, seconds: int, found: Path | None) -> None:
    try:
        import atheris  # noqa: PLC0415 - targets and corpora must work where there is no Atheris
    except ImportError:
        sys.exit("Atheris is not installed; the dependency group `fuzz` has it (Python 3.13 or older)")
    with atheris.instrument_imports(include=_INSTRUMENTED):
        test_one_input = load_target(target)
    seeds = ",".join(str(path) for path in sorted((CORPUS / target).glob("*")))
    limits = [f"-max_total_time={seconds}", f"-max_len={_INPUT_LENGTH_MAX}", f"-timeout={_SLOW_INPUT_S}"]
    # Seeds by name and not as a folder: libFuzzer writes what it finds into the first folder that it is given.
    inputs = [f"-seed_inputs={seeds}"] if seeds else []
    if found is not None:
        found.mkdir(parents=True, exist_ok=True)
        inputs.append(str(found))
    atheris.Setup(["fuzz.run", *limits, "-print_final_stats=1", *inputs], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
