"""What a run found, as it is kept in JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import attrs

from tests.bench.load import Figures
from tests.bench.targets import Round

__all__ = ["Results"]


@attrs.frozen
class Results:
    """All that was found.

    Attributes:
        machine: what it ran on, by name.
        settings: how it was run, by name.
        rounds: the figures of each round: by measure, server and name.
        growth: the figures of what grows: by growth, server and number.
    """

    machine: Mapping[str, str]
    settings: Mapping[str, str]
    rounds: Sequence[Round]
    growth: Mapping[str, Mapping[str, Mapping[int, Figures]]]

    def save(self, path: Path, **more: object) -> None:
        """Write it, and what was computed from it, as one JSON object."""
        text = json.dumps({**attrs.asdict(self), **more}, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; what was computed is left out."""
        found = json.loads(path.read_text(encoding="utf-8"))
        growth = {
            key: {name: {int(point): figures for point, figures in points.items()} for name, points in servers.items()}
            for key, servers in found["growth"].items()
        }
        return cls(found["machine"], found["settings"], found["rounds"], growth)
