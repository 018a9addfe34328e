"""Machines of a test's own: network namespaces, where port 1080 is free and a cable can be pulled."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.proxy import environment, run
from tests.system.waiting import PATIENCE_S

__all__ = ["Machine", "machine", "popen"]

# Whoever is not root becomes it inside, where the system allows that.
_BECOME_ROOT = () if os.geteuid() == 0 else ("--user", "--map-root-user")
_STAY_ROOT = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")


class Machine:
    """A network namespace (and a mount namespace) with an empty network."""

    def __init__(self, holder: "subprocess.Popen[bytes]") -> None:
        self.pid = holder.pid

    def inside(self, *command: str | Path) -> list[str | Path]:
        """The command line that runs a program in there."""
        kept = ["nsenter", "--target", str(self.pid), *_STAY_ROOT, "--net", "--mount", "--wd=."]
        return [*kept, "--", *command]

    def run(self, *command: str | Path, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a program in there to its end; it must succeed."""
        done = run(self.inside(*command), env=env)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done


@contextmanager
def machine(hosts: str = "127.0.0.1 localhost\n::1 localhost\n", *, folder: Path) -> Iterator[Machine]:
    """A machine until the block ends; skips the test where none can be made.

    Args:
        hosts: what its /etc/hosts says.
        folder: where that file is kept.
    """
    (folder / "hosts").write_text(hosts)
    setup = f"ip link set lo up && mount --bind '{folder}/hosts' /etc/hosts && echo ready && exec cat"
    holder = subprocess.Popen(
        ["unshare", *_BECOME_ROOT, "--net", "--mount", "sh", "-c", setup],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            if holder.stdout.readline() != b"ready\n":
                pytest.skip(f"no network namespace can be made here: {holder.stderr.read().decode().strip()}")
            yield Machine(holder)
        finally:
            holder.stdin.close()
            holder.wait(PATIENCE_S)


def popen(command: Sequence[str | Path], output: Path) -> "subprocess.Popen[bytes]":
    """Start a program in the background, what it says in a file."""
    with output.open("ab") as said:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment())
