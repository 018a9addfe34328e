"""Every input that any fuzz target ever learnt from is replayed as an ordinary test."""

import pytest

from fuzz.run import CORPUS, load_target, target_names

_INPUTS = [(name, path) for name in target_names() for path in sorted((CORPUS / name).glob("*")) if path.is_file()]


@pytest.mark.parametrize(
    ("target", "file"), [pytest.param(name, path.name, id=f"{name}-{path.name}") for name, path in _INPUTS]
)
def test_replay(target: str, file: str) -> None:
    """Case 11, CASES 5: no input of the corpus breaks a property of its target."""
    assert load_target(target)((CORPUS / target / file).read_bytes()) is None


@pytest.mark.parametrize("target", target_names())
def test_every_target_has_seeds(target: str) -> None:
    """CASES 5: a target without a corpus would replay nothing, and nobody would notice."""
    assert [name for name, _ in _INPUTS if name == target]


def test_every_corpus_has_a_target() -> None:
    """A corpus that no target reads, perhaps after a renaming, would be dead weight."""
    assert {path.name for path in CORPUS.iterdir()} <= set(target_names())
