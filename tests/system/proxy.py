"""`trioproxy serve` as a process of its own, and the command line beside it: what an administrator has."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import socks

import trioproxy
from tests.harness import add_users
from tests.system.waiting import PATIENCE_S, until
from trioproxy.accounting.sinks import BATCH_S
from trioproxy.policy import Scope, parse_rule
from trioproxy.store import Store

__all__ = ["LOOPBACK_FLOOR", "PASSWORD", "USER", "Proxy", "authority", "command", "environment", "proxy_url", "run"]

USER: Final = "alice"
PASSWORD: Final = "wonderland"

# Tests have only loopback to talk to.
LOOPBACK_FLOOR: Final = '[policy]\nopen_floor = ["127.0.0.0/8", "::1/128"]\n'

# So that the same code is tested that the tests import: the tree, or the installed wheel.
_IMPORTED_FROM: Final = Path(trioproxy.__file__).parents[1]


def environment(**more: str) -> dict[str, str]:
    """The environment for a program: nothing of a developer's own settings, and this very trioproxy."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
    kept["PATH"] = f"{kept.get('PATH', '')}:/usr/sbin:/sbin"  # sshd and ip, where the user is not root
    return {**kept, "PYTHONPATH": str(_IMPORTED_FROM), "HOME": "/nonexistent", **more}


def run(
    arguments: Sequence[str | Path],
    *,
    text: str | None = None,
    env: Mapping[str, str] | None = None,
    within_s: float = PATIENCE_S * 2,
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end; its result is for the caller to judge."""
    return subprocess.run(
        arguments,
        input=text or "",
        text=True,
        errors="backslashreplace",
        capture_output=True,
        check=False,
        timeout=within_s,
        env=env or environment(),
    )


def command(*arguments: str) -> list[str]:
    """The command `trioproxy` with these arguments."""
    return [sys.executable, "-m", "trioproxy", *arguments]


def authority(address: tuple[str, int]) -> str:
    """`host:port`, with brackets round an IPv6 address."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def proxy_url(address: tuple[str, int], login: str | None = f"{USER}:{PASSWORD}", scheme: str = "socks5h") -> str:
    """What a user types into a program: `socks5h://alice:wonderland@127.0.0.1:1080`."""
    return f"{scheme}://{f'{login}@' if login else ''}{authority(address)}"


class Proxy:
    """A server process, its folder, and what it says.

    Args:
        folder: for its configuration, its store, its records and what it says.
        config: the text of the configuration file; None: started without one.
        prefix: a program that starts it, `prlimit --nofile=256` say.
        env: instead of `environment()`.
        stderr: where its human log goes; by default into a file, read by `log`.
        home: the home folder of who starts it; then nothing says where the data are.
    """

    def __init__(
        self,
        folder: Path,
        config: str | None,
        *,
        prefix: Sequence[str | Path] = (),
        env: Mapping[str, str] | None = None,
        stderr: int | None = None,
        home: Path | None = None,
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data" if home is None else home / ".local" / "share" / "trioproxy"
        self.config_file = folder / "trioproxy.toml"
        if config is not None:
            self.config_file.write_text(config)
        self._env = env or (environment() if home is None else environment(HOME=str(home)))
        self._home = home
        self._config = config
        self._prefix = prefix
        self._stderr = stderr
        self._process: subprocess.Popen[bytes] | None = None
        self._said = 0  # how much it had said before it was started last
        self.addresses: list[tuple[str, int]] = []

    # ---- its life

    def start(self) -> Self:
        """Start it and wait until it listens."""
        self.launch()
        try:
            self.addresses = until("the line that says where it listens", self._announced)
        except BaseException:
            self.kill()
            raise
        return self

    def launch(self) -> None:
        """Start it and wait for nothing."""
        with (self.folder / "stdout").open("ab") as stdout, (self.folder / "stderr").open("ab") as stderr:
            self._said = stdout.tell()
            self._process = subprocess.Popen(
                [*self._prefix, *command("serve", *self.options())],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr if self._stderr is None else self._stderr,
                cwd=self.folder,
                env=self._env,
            )

    def options(self) -> list[str]:
        """The options that tell every command which installation is meant."""
        options = ["--config", str(self.config_file)] if self._config is not None else []
        return options if self._home else [*options, "--data-dir", str(self.data_dir)]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End it without mercy, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._running.send_signal(number)

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """Wait for its end; the exit code."""
        return self._running.wait(within_s)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._running.poll() is None

    @property
    def pid(self) -> int:
        """Of the server itself: the programs of `prefix` become it."""
        return self._running.pid

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise AssertionError("it was never started")
        return self._process

    def _announced(self) -> list[tuple[str, int]]:
        if not self.alive:
            raise AssertionError(f"it ended with {self.wait()}: {self.output}{self.log}")
        line = re.search(r"^trioproxy listens on (.*); users and rules", self.output[self._said :], re.MULTILINE)
        names = line.group(1).split(", ") if line else []
        return [(name.rpartition(":")[0].strip("[]"), int(name.rpartition(":")[2])) for name in names]

    # ---- what it says

    @property
    def output(self) -> str:
        """Its standard output so far."""
        return (self.folder / "stdout").read_text()

    @property
    def log(self) -> str:
        """Its standard error so far."""
        time.sleep(2 * BATCH_S)  # lines are written in batches, and nobody can ask whether one is on its way
        return (self.folder / "stderr").read_text()

    def records(self, **wanted: object) -> list[dict[str, Any]]:
        """Its records so far; with `wanted`, those that have these values."""
        time.sleep(2 * BATCH_S)  # as above
        lines = (self.data_dir / "records.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return [row for row in rows if wanted.items() <= row.items()]

    def record(self, **wanted: object) -> dict[str, Any]:
        """Wait for the record that has these values; there must be one only."""
        [row] = until(f"a record with {wanted}", lambda: self.records(**wanted))
        return row

    def counters(self) -> dict[str, int]:
        """What it has counted, as SIGUSR1 makes it say."""
        said = self.log.count(" counters ")
        self.signal(signal.SIGUSR1)
        until("the counters in the log", lambda: self.log.count(" counters ") > said)
        line = next(line for line in reversed(self.log.splitlines()) if " counters " in line)
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}

    # ---- beside it

    def command(self, *arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command of `trioproxy` on this installation; it must succeed."""
        done = self.try_command(*arguments, text=text)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done

    def try_command(self, *arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command of `trioproxy` on this installation."""
        return run([*command(*arguments), *self.options()], text=text, env=self._env)

    def seed(self, users: Mapping[str, str], rules: Mapping[str, Iterable[str]]) -> Self:
        """Users with passwords, and rules, in the store; quicker than a command for each."""
        with Store.open(self.data_dir / "trioproxy.db", create=True) as store:
            add_users(store, users)
            for scope, texts in rules.items():
                for text in texts:
                    store.rules.add(Scope.parse(scope), parse_rule(text))
        return self

    def connect(
        self,
        target: tuple[str, int],
        *,
        listener: int = 0,
        user: str | None = USER,
        password: str | None = PASSWORD,
        source: str | None = None,
    ) -> socket.socket:
        """A connection through one of its listeners, made by PySocks.

        Raises:
            socks.ProxyError: it was refused.
            OSError: nobody answers.
        """
        host, port = self.addresses[listener]
        connected: socket.socket = socks.create_connection(
            target,
            timeout=PATIENCE_S,
            source_address=(source, 0) if source else None,
            proxy_type=socks.SOCKS5,
            proxy_addr=host,
            proxy_port=port,
            proxy_username=user,
            proxy_password=password,
        )
        return connected
