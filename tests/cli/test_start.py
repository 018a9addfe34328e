"""`trioproxy serve`, as far as the command line goes."""

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from trioproxy.cli import serve
from trioproxy.config import Config
from trioproxy.server import StartError


def test_the_server_is_told_where_everything_is(
    cli: Command, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Configuration, its path for SIGHUP, and the data folder."""
    started: list[tuple[int, Path | None, Path]] = []
    monkeypatch.setattr(
        serve,
        "run_server",
        lambda config, path, folder: started.append((len(config.tenants()), path, folder)),
    )
    assert cli("serve").code == 0
    assert started == [(2, tmp_path / "trioproxy.toml", data_dir)]


def test_what_is_in_the_way_is_one_line(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue item 2: a port in use is one clear line and exit code 1."""

    def fail(_config: Config, _path: Path | None, _folder: Path) -> None:
        raise StartError("cannot listen on 127.0.0.1:1080: Address already in use")

    monkeypatch.setattr(serve, "run_server", fail)
    result = cli("serve")
    assert (result.code, result.out) == (1, "")
    assert result.err == "trioproxy: cannot listen on 127.0.0.1:1080: Address already in use\n"
