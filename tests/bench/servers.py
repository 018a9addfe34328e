"""The servers that are compared: each is started with what it needs, says where it listens, and ends with its block."""

import os
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import ClassVar, Final, Self

import trioproxy
from auth.local import LocalUser
from auth.passwords import hash_password
from tests.bench.processes import free_port, listens
from tests.system.proxy import LOOPBACK_FLOOR, PASSWORD, USER, Proxy
from tests.system.waiting import until
from trioproxy.policy import Scope, parse_rule
from trioproxy.store import Store

__all__ = ["CLIENTS", "CROWD", "OURS", "SERVERS", "Server", "ServerError", "configurations"]

CROWD: Final = 200  # users crowd0, crowd1 ..., who log in all at once

# Addresses of the client. Each has some 28,000 ports, and waits a second before it uses one again. Few, because a login
# is remembered for the address that it came from.
CLIENTS: Final = 8

LIMITS: Final = """
[limits]
unauthenticated_max = 20000
unauthenticated_per_source_max = 20000
sessions_per_user_max = 20000
associations_per_user_max = 1000
handshake_s = 60
[auth]
deadline_s = 30
"""

# Some dozens of a campus: the ones that permit stand last in their layers.
RULES: Final[Mapping[str, Iterable[str]]] = {
    "global": [
        *(f"deny any:*(*)->bad{n}.example.net(*)" for n in range(10)),
        *(f"deny any:*(*)->198.51.{n}.0/24(*)" for n in range(10)),
        "deny tcp:*(*)->*(25)",
    ],
    "tenant:main": [
        *(f"tcp:*(*)->10.20.{n}.0/24(22,443)" for n in range(10)),
        "any:*(*)->127.0.0.0/8(*)",
    ],
    f"user:{USER}": [
        *(f"tcp:*(*)->*.host{n}.example.org(443)" for n in range(10)),
        "udp:*(*)->192.0.2.0/24(3478-3481)",
        "any:127.0.0.0/8(*)->127.0.0.0/8(1024-65535)",
    ],
}
OPEN: Final[Mapping[str, Iterable[str]]] = {"global": ["any:*(*)->*(*)"]}


class ServerError(Exception):
    """A server did not start."""


class Server(ABC):
    """A way to the origin: `with` starts it and ends it."""

    key: ClassVar[str]
    label: ClassVar[str]

    def __init__(self) -> None:
        self.port: int | None = None
        self.pid: int | None = None
        self.login: str | None = None

    @abstractmethod
    def __enter__(self) -> Self:
        """Start it and wait until it listens."""

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """End it and whatever it started."""

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Which one it is."""

    def way(self, origin: str, login: str | None = None) -> tuple[str, ...]:
        """The options of the load generator that lead through this server to that origin."""
        login = login or self.login
        proxy = ("-x", f"127.0.0.1:{self.port}") if self.port else ()
        return ("-n", str(CLIENTS), *proxy, *(("-u", login) if login else ()), "-o", origin)


class Straight(Server):
    """No server at all: what the machine can do."""

    key = "straight"
    label = "straight"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @classmethod
    def version(cls) -> str:
        """There is none."""
        return ""


class Bare(Server):
    """trioproxy without logins, with one rule and without records: what the others do."""

    key = "bare"
    label = "trioproxy, bare"
    listener: ClassVar = "anonymous = true"
    rules: ClassVar = OPEN
    records: ClassVar = 'records = "none"'
    users: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()

    @classmethod
    def config(cls, port: int) -> str:
        """Its configuration file."""
        listener = f'[[listener]]\naddress = "127.0.0.1:{port}"\n{cls.listener}\n'
        return f"{listener}{LOOPBACK_FLOOR}{LIMITS}[log]\n{cls.records}\n".replace("\n\n", "\n")

    def __enter__(self) -> Self:
        with self._stack as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trioproxy-bench-")))
            self.proxy = Proxy(folder, self.config(free_port()))
            self._seed(self.proxy.data_dir / "trioproxy.db")
            stack.enter_context(self.proxy)
            self.port, self.pid = self.proxy.addresses[0][1], self.proxy.pid
            self._stack = stack.pop_all()
        return self

    def _seed(self, path: Path) -> None:
        with Store.open(path, create=True) as store:
            if self.users:
                one_hash = hash_password(PASSWORD)  # the same for all: making 200 takes longer than a measurement
                groups = frozenset({"system-proxy"})
                store.users.add([LocalUser("main", name, one_hash, groups) for name in self.users])
            store.rules.replace({Scope.parse(scope): [*map(parse_rule, self.rules[scope])] for scope in self.rules})

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @classmethod
    def version(cls) -> str:
        """Of this source tree."""
        return f"{trioproxy.__version__}, Python {sys.version.split()[0]}, Trio {metadata.version('trio')}"


class Anonymous(Bare):
    """trioproxy without logins, with records."""

    key = "anonymous"
    label = "trioproxy, records"
    records = ""


class Full(Bare):
    """trioproxy as it is meant to be run: login, some dozens of rules, records."""

    key = "full"
    label = "trioproxy, full"
    listener = ""
    records = ""
    rules = RULES
    users = (USER, *(f"crowd{number}" for number in range(CROWD)))

    def __enter__(self) -> Self:
        self.login = f"{USER}:{PASSWORD}"
        return super().__enter__()


class Peer(Server):
    """A server of somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()

    @classmethod
    @abstractmethod
    def command(cls, port: int, folder: Path) -> list[str]:
        """What starts it, in the foreground; files it needs go into the folder."""

    def __enter__(self) -> Self:
        with self._stack as stack:
            port = free_port()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trioproxy-bench-")))
            process = stack.enter_context(_running(self.command(port, folder)))
            until(f"{self.label} on port {port}", lambda: _has_come_up(process, port))
            self.port, self.pid = port, process.pid
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@contextmanager
def _running(command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process group of its own, ended with the block: the program and its children."""
    null = subprocess.DEVNULL
    try:
        process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)
    except FileNotFoundError as exc:
        raise ServerError(f"{command[0]} is not installed") from exc
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # it has ended already
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Dante(Peer):
    """Debian's dante-server, with the one main server that is its default; it has many processes all the same."""

    key = "dante"
    label = "Dante"
    main_servers: ClassVar = 1

    @classmethod
    def config(cls, port: int) -> str:
        """No log, no look-ups, one permissive rule of each kind."""
        everything = "{ from: 0.0.0.0/0 to: 0.0.0.0/0 }"
        users = "user.privileged: root\nuser.unprivileged: nobody\n" if os.geteuid() == 0 else ""
        return f"""logoutput: /dev/null
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
clientmethod: none
socksmethod: none
{users}client pass {everything}
socks pass {everything}
"""

    @classmethod
    def command(cls, port: int, folder: Path) -> list[str]:
        """In the foreground."""
        file = folder / "danted.conf"
        file.write_text(cls.config(port))
        return ["danted", "-N", str(cls.main_servers), "-f", str(file), "-p", str(folder / "pid")]

    @classmethod
    def version(cls) -> str:
        """Of the Debian package."""
        return _debian("dante-server")


class DanteForEachProcessor(Dante):
    """The same with as many main servers as there are processors: more of some things, less of others."""

    key = "dante-n"
    main_servers = os.cpu_count() or 1
    label = f"Dante -N {main_servers}"


class Microsocks(Peer):
    """Debian's microsocks."""

    key = "microsocks"
    label = "microsocks"

    @classmethod
    def command(cls, port: int, folder: Path) -> list[str]:
        """What it says goes to /dev/null."""
        return ["microsocks", "-i", "127.0.0.1", "-p", str(port)]

    @classmethod
    def version(cls) -> str:
        """Of the Debian package."""
        return _debian("microsocks")


class Pproxy(Peer):
    """pproxy of PyPI, on asyncio."""

    key = "pproxy"
    label = "pproxy"

    @classmethod
    def command(cls, port: int, folder: Path) -> list[str]:
        """It says nothing of sessions unless asked."""
        return [sys.executable, "-m", "pproxy", "-l", f"socks5://127.0.0.1:{port}"]

    @classmethod
    def version(cls) -> str:
        """Of the package."""
        return f"{metadata.version('pproxy')}, uvloop {metadata.version('uvloop')}"


def _has_come_up(process: "subprocess.Popen[bytes]", port: int) -> bool:
    if process.poll() is not None:
        raise ServerError(f"{process.args!r}: exit code {process.returncode}")
    return listens(port)


def _debian(package: str) -> str:
    query = ["dpkg-query", "--show", "--showformat=${Version}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout or "not installed"


_PEERS: Final = (Dante, DanteForEachProcessor, Microsocks, Pproxy)
SERVERS: Final[Mapping[str, type[Server]]] = {
    server.key: server for server in (Straight, Full, Anonymous, Bare, *_PEERS)
}
OURS: Final = ("full", "anonymous", "bare")


def configurations() -> Mapping[str, str]:
    """How each server was started, for those who doubt."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = {
            peer.label: " ".join(peer.command(1080, folder)).replace(name, "FOLDER").replace(sys.executable, "python")
            for peer in _PEERS
        }
    rules = "\n".join(f"{scope}: {rule}" for scope in RULES for rule in RULES[scope])
    return {"trioproxy": Full.config(1080), "rules of trioproxy": rules, "danted.conf": Dante.config(1080), **commands}
