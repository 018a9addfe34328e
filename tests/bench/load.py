"""The load generator `socksload.c`: build it, run it, read the figures that it prints."""

import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

__all__ = ["Figures", "Load", "LoadError", "Running", "parse_figures"]

Figures = Mapping[str, float]

SOURCE: Final = Path(__file__).with_name("socksload.c")
_GRACE_S: Final = 60.0  # beyond what was asked for: handshakes before, and what a stalled server holds up after


class LoadError(Exception):
    """The load generator failed, most often because the server refused it."""


def parse_figures(text: str) -> dict[str, float]:
    """The numbers of `key=value` words; the words among them (`mode=bulk`) are left out."""
    figures = {}
    for word in text.split():
        key, _, value = word.partition("=")
        try:
            figures[key] = float(value)
        except ValueError:
            continue
    return figures


class Running:
    """A run in the background."""

    def __init__(self, process: "subprocess.Popen[str]", command: str) -> None:
        self._process = process
        self._command = command

    def first_line(self) -> dict[str, float]:
        """Wait for the first line of those that print two (`origin`, `idle`)."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return self._judged(line) if line else self.rest()

    def finish(self) -> dict[str, float]:
        """Tell it to stop and take its figures."""
        self._process.terminate()
        return self.rest()

    def rest(self, lasts_s: float = 0.0) -> dict[str, float]:
        """Close its standard input, wait for its end, which may take so long, and take its figures."""
        output, said = self._process.communicate(timeout=lasts_s + _GRACE_S)
        return self._judged(output, said)

    def end(self) -> None:
        """End it, however it is."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _judged(self, output: str, said: str = "") -> dict[str, float]:
        figures = parse_figures(output)
        if not figures:
            raise LoadError(f"{self._command}: exit code {self._process.returncode}: {said.strip()}")
        return figures


@attrs.frozen
class Load:
    """The built program."""

    program: Path

    @classmethod
    def build(cls, folder: Path) -> "Load":
        """Compile it into this folder."""
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / "socksload"
        subprocess.run(["cc", "-O2", "-o", program, SOURCE, "-lpthread"], check=True)
        return cls(program)

    def run(self, mode: str, options: str, way: tuple[str, ...]) -> dict[str, float]:
        """Run it to its end.

        Args:
            mode: `connrate`, `bulk`, `rtt` or `udp`.
            options: as on a command line.
            way: the options that say through which server to which origin.

        Raises:
            LoadError: it failed.
        """
        words = shlex.split(options)
        lasts_s = float(words[words.index("-t") + 1]) if "-t" in words else 0.0
        with self.running(mode, options, way) as running:
            return running.rest(lasts_s)

    @contextmanager
    def running(self, mode: str, options: str = "", way: tuple[str, ...] = ()) -> Iterator[Running]:
        """The same in the background; it does not outlive the block."""
        command = [str(self.program), mode, *shlex.split(options), *way]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        running = Running(process, shlex.join(command))
        try:
            yield running
        finally:
            running.end()

    @contextmanager
    def origin(self) -> Iterator[str]:
        """Something to talk to, over TCP and UDP; its address."""
        with self.running("origin") as running:
            yield f"127.0.0.1:{running.first_line()['port']:.0f}"
