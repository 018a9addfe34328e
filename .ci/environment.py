"""Make or renew a virtual environment: `python3 .ci/environment.py .venv-test --group test`.

Nothing but Python is needed, and it is quick when nothing has changed. It is written so that an old Python can read it
and say that it is too old.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIP = "pip>=25.1"  # the first that knows dependency groups


def main() -> None:
    """Make the environment, unless it is as it should be."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this is the place that says so
        sys.exit(
            "trioproxy needs Python 3.11 or newer; this is {} ({}).\n"
            "If you have a newer one, name it: make PYTHON=python3.12 ...".format(
                sys.version.split()[0], sys.executable
            )
        )
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--group", action="append", default=[], help="a dependency group of pyproject.toml")
    parser.add_argument("--editable", action="store_true", help="install the source tree too, not only what it needs")
    options = parser.parse_args()
    import tomllib  # noqa: PLC0415 - not at the top: an old Python has none

    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folder = options.folder.absolute()
    stamp = folder / "trioproxy-stamp"
    digest = _digest(sys.argv[1:], pyproject)
    if stamp.exists() and stamp.read_text() == digest and (folder / "bin/python").exists():
        return
    print("making {} ...".format(options.folder), file=sys.stderr, flush=True)
    _make(folder)
    wanted = ["--editable", str(ROOT)] if options.editable else pyproject["project"]["dependencies"]
    groups = [word for group in options.group for word in ("--group", group)]
    _run(str(folder / "bin/python"), "-m", "pip", "install", "-qq", *wanted, *groups)
    stamp.write_text(digest)


def _digest(arguments: list[str], pyproject: dict[str, object]) -> str:
    """What the environment is made from: another one is needed when any of it changes."""
    parts = [pyproject["project"], pyproject["dependency-groups"], sys.version, str(ROOT), arguments, PIP]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _make(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    try:
        import ensurepip  # noqa: F401, PLC0415 - Debian keeps it in a package of its own
    except ImportError:
        _get_venv()
    _run(sys.executable, "-m", "venv", str(folder))
    _run(str(folder / "bin/python"), "-m", "pip", "install", "-qq", "--upgrade", PIP)


def _get_venv() -> None:
    install = "apt-get install --yes python3-venv"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit("This Python cannot make virtual environments. On Debian: sudo {}".format(install))
    _run("apt-get", "update", "--quiet")
    _run(*install.split())


def _run(*command: str) -> None:
    finished = subprocess.run(command, cwd=ROOT, check=False)
    if finished.returncode:
        sys.exit("failed: " + " ".join(command))


if __name__ == "__main__":
    main()
