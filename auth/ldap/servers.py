"""The servers of one directory: which to ask, and connections of our own account kept open to them."""

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import attrs

from auth.backend import Cause
from auth.ldap.connection import Connection
from auth.ldap.deadline import Deadline
from auth.ldap.failure import DirectoryError
from auth.ldap.messages import BUSY_CODES, ResultCode
from auth.ldap.settings import LdapSettings
from auth.ldap.transport import Certificates, Host, connect
from auth.ldap.watch import Watch

__all__ = ["Server", "Servers", "read_secret"]

T = TypeVar("T")

_IDLE_S: Final = 240.0  # firewalls and directories drop connections idle for 5 to 15 minutes, often without a word
_FIRST_LOOK_S: Final = 1.0  # a dead name server delays the start no longer
_QUIET_S: Final = 60.0  # after a rush of logins the connections it needed are closed one by one
_SECRET_BYTES_MAX: Final = 4096
_FILE_ADVICE: Final = "bind_password_file must hold the password of bind_dn, owned by this user: chmod 600"


@attrs.define(eq=False)
class Server:
    """One of `urls`.

    Attributes:
        host: where it is.
        ldaps: TLS from the first byte; otherwise StartTLS.
        failed_until_s: until then others are asked first.
    """

    host: Host
    ldaps: bool
    failed_until_s: float = 0.0
    _idle: list[tuple[Connection, float]] = attrs.field(factory=list)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def take(self) -> Connection | None:
        """A connection of our own account that looks alive."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection, since_s = self._idle.pop()  # the one used last
            if time.monotonic() - since_s < _IDLE_S and not connection.is_stale():
                return connection
            connection.abandon()

    def give_back(self, connection: Connection, quiet_max: int) -> None:
        """Keep it for the next one. When it has been quiet, more than `quiet_max` are too many."""
        now_s = time.monotonic()
        with self._lock:
            self._idle.append((connection, now_s))
            oldest, since_s = self._idle[0]
            if len(self._idle) <= quiet_max or now_s - since_s < _QUIET_S:
                return
            del self._idle[0]
        oldest.close()

    def forget(self) -> None:
        """Close what is kept: it was made to a server that has gone since."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.abandon()


class Servers:
    """All of them, in their order.

    Args:
        settings: of the backend.
        watch: told of every step.
    """

    def __init__(self, settings: LdapSettings, watch: Watch) -> None:
        self._settings = settings
        self._watch = watch
        self._certificates = Certificates(settings.ca_file)
        self._service_refused: tuple[float, str] | None = None  # until when, and the server's words
        self._closed = False
        self._decoding = threading.Lock()
        self.all = tuple(_server(url) for url in settings.urls)

    def check(self) -> None:
        """Look at the files.

        Raises:
            OSError: one of them is not what it must be.
        """
        try:
            self._certificates.context()
            if self._settings.bind_password_file is not None:
                read_secret(self._settings.bind_password_file)
        except DirectoryError as error:
            raise OSError(f"{error.problem}; {error.advice}") from None
        # So that from the start nobody reaches them through the proxy: that goes by addresses.
        wait([server.host.look_up() for server in self.all], _FIRST_LOOK_S)

    def close(self) -> None:
        """Close every connection kept; one that is in use is closed when it comes back."""
        self._closed = True
        for server in self.all:
            server.forget()

    def ask(self, question: Callable[[Server], T]) -> T:
        """Put a question to the first server that can answer it.

        A server that fails is asked last for a while. If all have failed all are tried nevertheless, or one hiccup of
        the only server would be an outage of half a minute.

        Raises:
            DirectoryError: none can; says so for each of them.
        """
        failures: list[DirectoryError] = []
        for server in self._in_order():
            try:
                return self._ask(server, question)
            except DirectoryError as error:
                if error.cause in (Cause.AMBIGUOUS, Cause.REFUSED, Cause.SERVICE_LOGIN):
                    raise
                server.failed_until_s = time.monotonic() + self._settings.retry_failed_s
                failures.append(_named(server, error))
                if not error.of_one_server:
                    break
        if len(failures) == 1:
            raise failures[0]
        problem = "; ".join(failure.problem for failure in failures)
        raise DirectoryError(problem, failures[0].cause, failures[0].advice, final=failures[-1].final)

    def connect(self, server: Server, deadline: Deadline) -> Connection:
        """A new connection, protected as the settings say, that nobody has logged in to.

        Raises:
            DirectoryError: not to be had.
        """
        connecting = deadline.within(self._settings.connect_s)
        with self._watch.step("resolve") as note:
            addresses = server.host.addresses(connecting)
            note.detail = f"{server.host.name} is {', '.join(addresses)}"
        with self._watch.step("connect") as note:
            transport = connect(server.host, addresses, connecting)
            note.detail = str(server.host)
        connection = Connection(transport, self._decoding)
        try:
            if server.ldaps or not self._settings.insecure_plaintext:
                with self._watch.step("TLS" if server.ldaps else "StartTLS") as note:
                    context = self._certificates.context()
                    note.detail = connection.start_tls(context, server.host.name, connecting, ask=not server.ldaps)
        except BaseException:
            connection.abandon()
            raise
        return connection

    @contextmanager
    def service(self, server: Server, deadline: Deadline) -> Iterator[Connection]:
        """A connection of our own account, one that was kept or a new one; kept again if all goes well.

        Raises:
            DirectoryError: none is to be had.
        """
        connection = server.take()
        kept = connection is not None
        if connection is None:
            connection = self._log_in(server, deadline)
        try:
            yield connection
        except BaseException as error:
            connection.abandon()
            if isinstance(error, DirectoryError):
                error.kept = kept
            raise
        if self._closed:
            connection.close()
            return
        server.failed_until_s = 0.0
        server.give_back(connection, self._settings.idle_connections_max)

    def _ask(self, server: Server, question: Callable[[Server], T]) -> T:
        try:
            return question(server)
        except DirectoryError as error:
            if error.cause not in (Cause.CONNECT, Cause.TIMEOUT):
                raise
            server.forget()  # it restarted, or something on the way has dropped them without a word
            if not error.kept or error.final or error.cause is Cause.TIMEOUT:
                raise
        return question(server)

    def _log_in(self, server: Server, deadline: Deadline) -> Connection:
        """A new connection of our own account."""
        dn, file = self._settings.bind_dn, self._settings.bind_password_file
        if dn is None or file is None:
            return self.connect(server, deadline)  # a directory that lets everybody search
        refused = self._service_refused
        if refused is not None and time.monotonic() < refused[0]:
            # A new one each time: an exception keeps the frames of all through whom it went, with their passwords.
            raise _not_accepted(refused[1], Cause.SERVICE_LOGIN)
        with self._watch.step("secret") as note:
            password = read_secret(file)
            note.detail = f"{file} is read"
        connection = self.connect(server, deadline)
        try:
            with self._watch.step("service bind") as note:
                self._bind(connection, dn, password, deadline.within(self._settings.answer_s))
                note.detail = f"as {dn}"
        except BaseException:
            connection.abandon()
            raise
        return connection

    def _bind(self, connection: Connection, dn: str, password: bytes, deadline: Deadline) -> None:
        result = connection.bind(dn, password, deadline)
        if result.code == 0:
            return
        if result.code == ResultCode.INVALID_CREDENTIALS:
            # Every login of every user would try again, and lock the account.
            self._service_refused = (time.monotonic() + self._settings.wrong_password_s, str(result))
        raise _not_accepted(str(result), Cause.BUSY if result.code in BUSY_CODES else Cause.SERVICE_LOGIN)

    def _in_order(self) -> Iterator[Server]:
        now_s = time.monotonic()
        working = [server for server in self.all if server.failed_until_s <= now_s]
        yield from working or self.all


def _not_accepted(result: str, cause: Cause) -> DirectoryError:
    return DirectoryError(
        f"our own account is not accepted: {result}",
        cause,
        "look at bind_dn, and at the password in bind_password_file (no line but the first counts)",
    )


def read_secret(path: str) -> bytes:
    """The password in the first line of a file.

    Raises:
        DirectoryError: it cannot be read, others can read it too, or there is nothing in it.
    """
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_SECRET_BYTES_MAX)
    except OSError as error:
        raise DirectoryError(
            f"bind_password_file: {path} cannot be read: {error.strerror}", Cause.SERVICE_LOGIN, _FILE_ADVICE
        ) from None
    if mode & stat.S_IRWXO:
        raise DirectoryError(
            f"bind_password_file: everybody may read {path}", Cause.SERVICE_LOGIN, f"chmod o= {path}, and change it"
        )
    secret = content.partition(b"\n")[0].removesuffix(b"\r")
    if not secret:
        raise DirectoryError(f"bind_password_file: {path} is empty", Cause.SERVICE_LOGIN, _FILE_ADVICE)
    return secret


def _server(url: str) -> Server:
    """Read a checked URL."""
    parts = urlsplit(url)
    ldaps = parts.scheme == "ldaps"
    return Server(Host(parts.hostname or "", parts.port or (636 if ldaps else 389)), ldaps)


def _named(server: Server, error: DirectoryError) -> DirectoryError:
    return DirectoryError(f"{server.host}: {error.problem}", error.cause, error.advice, final=error.final)
