"""A real OpenLDAP server of a test's own: any user can run it, it writes into one folder, it ends with the test."""

import os
import re
import shutil
import signal
import socket
import subprocess
from base64 import b64decode
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import randrange
from types import TracebackType
from typing import Final, Self

from tests.directories.authority import Authority, Certificate
from tests.directories.tree import BASE, SERVICE, SERVICE_PASSWORD, campus
from tests.system.proxy import environment
from tests.system.waiting import PATIENCE_S, until

__all__ = ["ADMIN", "ADMIN_PASSWORD", "SCHEMA", "Slapd", "program_path"]

ADMIN: Final = f"cn=admin,{BASE}"
ADMIN_PASSWORD: Final = "admin-secret"
SCHEMA: Final = Path(__file__).parents[2] / "docs/ldap/trioproxy.schema"

# Below the ports that connections get by themselves, so that a server which is down for a while gets its own again.
PORTS: Final = range(11_000, 32_000)
ATTEMPTS: Final = 10

OVERLAYS: Final = {
    "memberof": "overlay memberof\nmemberof-refint TRUE",
    "refint": f"overlay refint\nrefint_attributes member uniqueMember\nrefint_nothing cn=nobody,{BASE}",
    "ppolicy": f'overlay ppolicy\nppolicy_default "cn=users,ou=policies,{BASE}"\nppolicy_hash_cleartext',
}


class Slapd:
    """slapd on 127.0.0.1, ldap:// and ldaps://, with the tree of `tests.directories.tree` in it; a context manager.

    It keeps its ports when it is stopped and started again. Users' passwords serve for binding only, and all else is
    read by the service account and by the users themselves (their own entries), as on a real site.

    Attributes:
        folder: its configuration, database and log.
        ca: the certificate (PEM) that a client must trust.
        port, tls_port: where it listens, once it was started.

    Args:
        folder: made if need be; one for each server.
        authority: who vouches for it.
        certificate: of the server; by default a good one.
        ldif: what stands in it at the beginning; it goes through ldapadd, so that all overlays see it.
        overlays: those of `OVERLAYS` that are wanted. The schema of all is there in any case.
        anyone_reads: no need for a service account.
        unauthenticated_binds: a name without a password is welcome, as nobody (RFC 4513 section 5.1.2).
        tls_required: nothing but StartTLS without TLS.
        size_limit: entries in an answer, at most.
        host: the address where it listens.
        more: lines of slapd.conf, before the database.
        more_database: lines of slapd.conf, for the database.
    """

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        *,
        certificate: Certificate | None = None,
        ldif: str | None = None,
        overlays: Sequence[str] = tuple(OVERLAYS),
        anyone_reads: bool = False,
        unauthenticated_binds: bool = False,
        tls_required: bool = False,
        size_limit: int | None = None,
        host: str = "127.0.0.1",
        more: str = "",
        more_database: str = "",
    ) -> None:
        self.folder = folder
        self.ca = authority.pem
        self.port = self.tls_port = 0
        self._host = host
        self._certificate = certificate or authority.good()
        self._ldif = campus() if ldif is None else ldif
        self._global = [
            "allow bind_anon_dn bind_anon_cred" if unauthenticated_binds else "",
            "security ssf=128" if tls_required else "",
            f"sizelimit {size_limit}" if size_limit else "",
            more,
        ]
        self._database = [*(OVERLAYS[name] for name in overlays), more_database]
        self._readers = "anonymous" if anyone_reads else f'dn.exact="{SERVICE}"'
        self._process: subprocess.Popen[bytes] | None = None

    # ---- its life

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start it, the first time with its tree, later on the same ports with what it has.

        Raises:
            AssertionError: it does not start, or does not take its tree; says why.
        """
        if self.port:
            assert self._launched(), self.log[-2000:]
            return self
        self._configure()
        for _ in range(ATTEMPTS):
            self.port, self.tls_port = _free_ports()
            if self._launched():
                break
        else:
            raise AssertionError(f"slapd does not start: {self.log[-2000:]}")
        try:
            self.add(self._ldif)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Let it end, if it runs; connections are closed.

        Raises:
            AssertionError: it did not end well.
        """
        if self._process is not None:
            self.resume()
            self._process.terminate()
            self._ended()
            # Not by its exit code: it has another one when it is told to end while it is still about to start.
            assert self.log.endswith("slapd stopped.\n"), self.log[-2000:]

    def kill(self) -> None:
        """End it at once, if it runs: the kernel resets its connections."""
        if self._process is not None:
            self._process.kill()
            self._ended()

    def pause(self) -> None:
        """Stop it as it stands: connections are accepted by the kernel, and nothing is answered."""
        self._signal(signal.SIGSTOP)
        until("all its threads to stand still", self._stands_still)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def _stands_still(self) -> bool:
        """Whether no thread runs: proc(5), the state is behind the name."""
        stats = [stat.read_text() for stat in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)

    def _ended(self) -> int:
        assert self._process is not None
        code = self._process.wait(PATIENCE_S)
        self._process = None
        return code

    def _configure(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "db").mkdir()
        (self.folder / "ldap.conf").write_text(f"TLS_CACERT {self.ca}\nTLS_REQCERT demand\n")
        _secret(self.service_password_file, SERVICE_PASSWORD)
        (self.folder / "slapd.conf").write_text(_SLAPD_CONF.format(
            schema=SCHEMA,
            folder=self.folder,
            ca=self.ca,
            certificate=self._certificate,
            base=BASE,
            admin=ADMIN,
            admin_password=ADMIN_PASSWORD,
            readers=self._readers,
            more="\n".join(self._global),
            more_database="\n".join(self._database),
        ))  # fmt: skip

    def _launched(self) -> bool:
        """Start it; whether it listens, and did not end instead because a port is taken."""
        # The path of a Unix socket has 107 bytes at most, which a folder of pytest can exceed: it is relative.
        urls = f"ldap://{self._host}:{self.port}/ ldaps://{self._host}:{self.tls_port}/ ldapi://ldapi/"
        command = [program_path("slapd"), "-d", "stats", "-f", "slapd.conf", "-h", urls]
        with self._log_file.open("ab") as log:
            process = self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=environment()
            )
        try:
            until("slapd to listen", lambda: process.poll() is not None or self._listens())
        except BaseException:
            self.kill()
            raise
        if process.poll() is None:
            return True
        self._ended()
        return False

    def _listens(self) -> bool:
        """Whether it takes connections, as the kernel says: what tries to connect would be logged."""
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()]
        listening = {row[1] for row in rows if row[3] == "0A"}
        return all(any(name.endswith(f":{port:04X}") for name in listening) for port in (self.port, self.tls_port))

    # ---- what stands in it

    def add(self, ldif: str) -> None:
        """Add entries, as the administrator; records of any `changetype` may be among them."""
        self._succeed("ldapmodify", "-a", *_AS_ADMIN, text=ldif)

    def modify(self, ldif: str, *, relaxed: bool = False) -> None:
        """Change entries, as the administrator.

        Args:
            ldif: records with `changetype`.
            relaxed: the server lets through what only it may write (pwdChangedTime, entryUUID).
        """
        self._succeed("ldapmodify", *(["-e", "relax"] if relaxed else []), *_AS_ADMIN, text=ldif)

    def replace(self, dn: str, attribute: str, *values: str, relaxed: bool = False) -> None:
        """Give an attribute of an entry these values and no others; without values it is gone."""
        lines = "".join(f"{attribute}: {value}\n" for value in values)
        self.modify(f"dn: {dn}\nchangetype: modify\nreplace: {attribute}\n{lines}", relaxed=relaxed)

    def delete(self, dn: str) -> None:
        """Take an entry away."""
        self.modify(f"dn: {dn}\nchangetype: delete\n")

    def read(self, dn: str, *attributes: str) -> dict[str, list[str]]:
        """An entry as the administrator sees it; without `attributes` all, the operational ones too.

        Its values are text as far as they are UTF-8.
        """
        asked = attributes or ("*", "+")
        said = self.search("(objectClass=*)", *asked, base=dn, scope="base")
        entry: dict[str, list[str]] = {}
        for name, encoded, value in re.findall(r"^([^:#\s]+):(:?) ?(.*)$", said, re.MULTILINE):
            entry.setdefault(name, []).append(b64decode(value).decode(errors="replace") if encoded else value)
        return entry

    def search(self, text: str, *attributes: str, base: str = BASE, scope: str = "sub") -> str:
        """What the administrator finds by a filter, as LDIF."""
        where = ["-s", scope, "-b", base]
        return self._succeed("ldapsearch", *_AS_ADMIN, "-LLL", "-o", "ldif-wrap=no", *where, text, *attributes)

    def program(self, *command: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        """Run one of OpenLDAP's programs, which trusts the authority; what becomes of it is for the caller to judge.

        Its host must be given as 127.0.0.1: libldap takes "localhost" for the machine's own name.
        """
        return subprocess.run(
            command,
            input=text,
            text=True,
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
            cwd=self.folder,
            env=environment(LDAPCONF=str(self.folder / "ldap.conf")),
        )

    def _succeed(self, *command: str, text: str = "") -> str:
        done = self.program(*command, text=text)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    # ---- where it is

    @property
    def url(self) -> str:
        """For StartTLS, or without TLS."""
        return f"ldap://localhost:{self.port}"

    @property
    def tls_url(self) -> str:
        """For TLS from the start."""
        return f"ldaps://localhost:{self.tls_port}"

    @property
    def base(self) -> str:
        """The DN above everything."""
        return BASE

    @property
    def service_password_file(self) -> Path:
        """The password of `SERVICE`, in a file of mode 0600 as a configuration names it."""
        return self.folder / "service.secret"

    # ---- what it has received

    @property
    def log(self) -> str:
        """What it has logged in all its lives; a request is there before its answer is sent."""
        return self._log_file.read_text(errors="backslashreplace")

    def connections(self) -> int:
        """How many TCP connections it has accepted: none of those that this class makes.

        One on which nothing was asked may be missing for a moment.
        """
        return len(_by_tcp(self.log))

    def open_connections(self) -> int:
        """How many of them are open still, of its present life. The server learns of an end a moment later."""
        present = self.log.rpartition(_STARTING)[2]
        return sum(not re.search(r" fd=\d+ closed", lines) for lines in _by_tcp(present))

    def binds(self, dn: str) -> int:
        """How many BIND requests there were for a DN, by TCP; "" is an anonymous one."""
        found = [name for lines in _by_tcp(self.log) for name in _BIND.findall(lines)]
        return [_folded(name) for name in found].count(_folded(dn))

    def searches(self) -> list[tuple[str, str]]:
        """Base and filter of each search by TCP, as the server prints them."""
        return [found for lines in _by_tcp(self.log) for found in _SEARCH.findall(lines)]

    @property
    def _log_file(self) -> Path:
        return self.folder / "slapd.log"


_AS_ADMIN: Final = ("-H", "ldapi://ldapi/", "-x", "-D", ADMIN, "-w", ADMIN_PASSWORD)

_STARTING: Final = "slapd starting"
_BIND: Final = re.compile(r' BIND dn="(.*)" method=')
_SEARCH: Final = re.compile(r' SRCH base="(.*)" scope=\d deref=\d filter="(.*)"$', re.MULTILINE)

# localssf: what comes by the Unix socket is as good as TLS, for `tls_required`.
_SLAPD_CONF: Final = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
include "{schema}"
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
moduleload refint
moduleload ppolicy
pidfile "{folder}/slapd.pid"
argsfile "{folder}/slapd.args"
TLSCACertificateFile "{ca}"
TLSCertificateFile "{certificate.chain}"
TLSCertificateKeyFile "{certificate.key}"
localssf 256
{more}
database mdb
suffix "{base}"
rootdn "{admin}"
rootpw {admin_password}
directory "{folder}/db"
maxsize 67108864
dbnosync
index objectClass,uid,member,uniqueMember,memberUid,cn eq
access to attrs=userPassword by anonymous auth by * none
access to * by {readers} read by self read by * none
{more_database}
"""


def _by_tcp(log: str) -> list[str]:
    """What was logged of each TCP connection, all its lines.

    Their numbers begin again with each life of the server. Its threads log in any order: that a connection was accepted
    may stand behind all that it was asked, and behind its end.
    """
    found: list[str] = []
    for life in log.split(_STARTING):
        lines: dict[str, str] = {}
        for line, number in re.findall(r"^(.* (conn=\d+) .*)$", life, re.MULTILINE):
            lines[number] = f"{lines.get(number, '')}{line}\n"
        found += [text for text in lines.values() if not _is_own(text)]
    return found


def _is_own(lines: str) -> bool:
    """Whether these are the lines of a connection by the Unix socket."""
    return " ACCEPT from PATH=" in lines or (" ACCEPT from IP=" not in lines and f'BIND dn="{ADMIN}"' in lines)


def _folded(dn: str) -> str:
    """A DN to compare: without differences in case, and with what is escaped as hexadecimal digits read."""
    read = re.sub(rb"\\([0-9A-Fa-f]{2})", lambda found: bytes.fromhex(found[1].decode()), dn.encode())
    return re.sub(r"\s*([,=])\s*", r"\1", read.decode(errors="replace")).casefold()


def _free_ports() -> tuple[int, int]:
    """Two ports where nobody listens now."""
    found: set[int] = set()
    while len(found) < 2:
        port = PORTS[randrange(len(PORTS))]
        with socket.socket() as sock, suppress(OSError):
            # Asked by binding: a connection would be counted by the server of another test.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            found.add(port)
    first, second = found
    return first, second


def program_path(name: str) -> str:
    """Where a program is; for an ordinary user too, who has no sbin in the PATH.

    Raises:
        AssertionError: it is not installed.
    """
    path = shutil.which(name, path=environment()["PATH"])
    assert path is not None, f"{name} is not installed: make debian-packages"
    return path


def _secret(file: Path, text: str) -> None:
    """Write a file that nobody else can read."""
    file.touch(mode=0o600)
    file.write_text(f"{text}\n")
