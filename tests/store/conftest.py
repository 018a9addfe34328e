"""A store on disk for each test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trioproxy.store import Store

NOBODY = 65_534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store will be."""
    return tmp_path / "data" / "trioproxy.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """A new store."""
    with Store.open(path, create=True) as opened:
        yield opened


@pytest.fixture
def unprivileged_path() -> Iterator[Path]:
    """A store in a folder that anybody may enter, in a test without root's power to write everywhere."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    path = folder / "trioproxy.db"
    Store.open(path, create=True).close()
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(folder, NOBODY, NOBODY)
        os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield path
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)
