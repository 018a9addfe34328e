"""Bytes to and from a directory: addresses, TCP, TLS. Nothing here waits beyond its deadline.

A deadline is absolute. With a time limit for each read, as ldap3 has it, a server that sends one byte a second holds a
thread for ever.
"""

import contextlib
import math
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final, TypeVar

import attrs

from auth.backend import Cause
from auth.ldap.deadline import Deadline
from auth.ldap.failure import DirectoryError

__all__ = ["Certificates", "Host", "Transport", "connect"]

T = TypeVar("T")

_KEEP_ADDRESSES_S: Final = 60.0  # as long as a directory's name usually lives
_READ_BYTES: Final = 16_384  # a TLS record

# A kept connection whose other end has gone without a word shows that after a minute and a half.
_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

_CA_ADVICE: Final = "set ca_file to the PEM file of the authority that signed the certificate"
_TLS_ADVICE: Final = {  # by OpenSSL's numbers, x509_vfy.h
    9: "the certificate is not valid yet: look at the clocks of both machines",
    10: "the certificate has expired: the directory needs a new one",
    18: f"the certificate is self-signed: {_CA_ADVICE}",
    19: _CA_ADVICE,
    20: _CA_ADVICE,
    21: _CA_ADVICE,
    62: "write the host in urls as the certificate has it (in subjectAltName), or renew the certificate",
    64: "write the host in urls as the certificate has it (in subjectAltName), or renew the certificate",
}


class Host:
    """A directory's name and its addresses.

    The system's look-up knows no time limit, so it runs in a thread of its own, one at a time: whoever waits for it
    stops waiting at the deadline. If a look-up fails the last known addresses serve on: whom we reach there must still
    show the certificate of the name.
    """

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self._lock = threading.Lock()
        self._known: tuple[str, ...] = ()
        self._known_at_s = -math.inf
        self._running: Future[tuple[str, ...]] | None = None
        self._literal = _is_address(name)
        if self._literal:
            self._known = (name,)

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"

    def endpoints(self) -> frozenset[tuple[IPv4Address | IPv6Address, int]]:
        """Where it is, as far as that is known; asks again if that was long ago, and does not wait for it."""
        self.look_up()
        return frozenset((ip_address(address), self.port) for address in self._known)

    def addresses(self, deadline: Deadline) -> tuple[str, ...]:
        """Its addresses in text form, at least one.

        Raises:
            DirectoryError: there are none, or they are not known in time.
        """
        running = self.look_up()
        try:
            return running.result(deadline.left_s())
        except (OSError, TimeoutError) as error:
            if self._known:
                return self._known
            raise DirectoryError(
                f"the name {self.name} cannot be resolved: {str(error) or 'no answer in time'}",
                Cause.CONNECT,
                "look for a typing mistake in urls, or write the address; then look at this machine's name servers",
            ) from None

    def look_up(self) -> "Future[tuple[str, ...]]":
        """Begin to look the name up, unless its addresses are known or on their way."""
        with self._lock:
            if self._literal or time.monotonic() - self._known_at_s < _KEEP_ADDRESSES_S:
                known: Future[tuple[str, ...]] = Future()
                known.set_result(self._known)
                return known
            if self._running is not None:
                return self._running
            running: Future[tuple[str, ...]] = Future()
            # A daemon: an interpreter that ends does not wait for a dead name server.
            thread = threading.Thread(target=self._look_up, args=(running,), name="ldap-host", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system gives us no thread now; whoever asks next tries again
                running.set_exception(OSError(str(error)))
            else:
                self._running = running
            return running

    def _look_up(self, running: "Future[tuple[str, ...]]") -> None:
        try:
            found = socket.getaddrinfo(self.name, self.port, type=socket.SOCK_STREAM)
            addresses = tuple(dict.fromkeys(str(info[4][0]).partition("%")[0] for info in found))
        except (OSError, UnicodeError) as error:
            with self._lock:
                self._running = None
            running.set_exception(error if isinstance(error, OSError) else OSError(str(error)))
            return
        with self._lock:
            self._known, self._known_at_s, self._running = addresses, time.monotonic(), None
        running.set_result(addresses)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class Certificates:
    """The authorities we trust. The file is read again when it has changed, so that a new one needs no restart.

    Args:
        ca_file: PEM; None: those of the system.
    """

    def __init__(self, ca_file: str | None) -> None:
        self._ca_file = ca_file
        self._lock = threading.Lock()
        self._made_of: tuple[int, int, int] | None = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """A context that verifies chain and name, with TLS 1.2 at least.

        Raises:
            DirectoryError: the file cannot be read, or holds no certificate.
        """
        try:
            with self._lock:
                state = self._state()
                if self._context is None or state != self._made_of:
                    self._context, self._made_of = _make_context(self._ca_file), state
                return self._context
        except OSError as error:  # an ssl.SSLError is one
            raise DirectoryError(
                f"ca_file: {self._ca_file} cannot be used: {error.strerror or error}",
                Cause.TLS,
                "ca_file must be a PEM file that this user can read",
            ) from None

    def _state(self) -> tuple[int, int, int]:
        if self._ca_file is None:
            return (0, 0, 0)
        found = Path(self._ca_file).stat()
        return (found.st_mtime_ns, found.st_size, found.st_ino)


def _make_context(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)  # verifies, unlike ldap3's own default
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    return context


class _Tls:
    """TLS over a socket, fed by hand: a record at a time, with a look at the clock in between.

    OpenSSL reads on by itself for as long as records come that carry no data. A server that sends nothing but key
    updates (RFC 8446 section 4.6.3) holds a thread in one `SSLSocket.recv` beyond any time limit.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str) -> None:
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    def do(self, step: Callable[[], T], deadline: Deadline) -> T:
        """Do a step of TLS, and send and receive what it needs."""
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                self._send(deadline)
                self._feed(deadline)
            except ssl.SSLError:
                with contextlib.suppress(OSError, DirectoryError):
                    self._send(deadline)  # the alert, for the other side's log
                raise
            else:
                self._send(deadline)
                return done

    def has_more(self) -> bool:
        """Whether something is here that was not asked for."""
        return bool(self._incoming.pending or self.object.pending())

    def _send(self, deadline: Deadline) -> None:
        if self._outgoing.pending:
            self._sock.settimeout(deadline.left_s())
            self._sock.sendall(self._outgoing.read())

    def _feed(self, deadline: Deadline) -> None:
        self._sock.settimeout(deadline.left_s())
        data = self._sock.recv(_READ_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()


@attrs.define(eq=False)
class Transport:
    """A connected stream of bytes. For one thread at a time."""

    _sock: socket.socket
    _tls: _Tls | None = attrs.field(default=None, init=False)

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Send all of it.

        Raises:
            DirectoryError: the connection is gone, or it takes too long.
        """
        try:
            if self._tls is None:
                self._sock.settimeout(deadline.left_s())
                self._sock.sendall(data)
            else:
                self._tls.do(partial(self._tls.object.write, data), deadline)
        except TimeoutError:
            raise _too_late() from None
        except OSError as error:
            raise _lost(error) from None

    def receive(self, deadline: Deadline) -> bytes:
        """Some bytes, at least one.

        Raises:
            DirectoryError: the connection is gone, or nothing comes in time.
        """
        try:
            if self._tls is None:
                self._sock.settimeout(deadline.left_s())
                data = self._sock.recv(_READ_BYTES)
            else:
                data = self._tls.do(partial(self._tls.object.read, _READ_BYTES), deadline)
        except TimeoutError:
            raise _too_late() from None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            data = b""
        except OSError as error:
            raise _lost(error) from None
        if not data:
            raise DirectoryError("it closed the connection", Cause.CONNECT, "look at the directory's log")
        return data

    def start_tls(self, context: ssl.SSLContext, name: str, deadline: Deadline) -> str:
        """Shake hands; returns what the certificate says.

        Raises:
            DirectoryError: the certificate is not accepted, or there is no TLS to be had.
        """
        try:
            self._tls = _Tls(self._sock, context, name)
            self._tls.do(self._tls.object.do_handshake, deadline)
        except ssl.SSLCertVerificationError as error:
            advice = _TLS_ADVICE.get(error.verify_code, "look at the certificate: openssl s_client -connect HOST:PORT")
            raise DirectoryError(
                f"the certificate is not accepted: {error.verify_message}", Cause.TLS, advice
            ) from None
        except (TimeoutError, DirectoryError):
            raise DirectoryError(
                "no TLS handshake in time", Cause.TIMEOUT, "is this really the TLS port? ldaps:// has 636, ldap:// 389"
            ) from None
        except (OSError, ValueError) as error:  # ValueError: a name that can be in no certificate
            raise DirectoryError(
                f"no TLS: {getattr(error, 'reason', None) or error}",
                Cause.TLS,
                "is this really the TLS port (ldaps:// has 636, ldap:// 389), and does it speak TLS 1.2?",
            ) from None
        return _describe(self._tls.object)

    def is_stale(self) -> bool:
        """Whether something came that nobody asked for: its end, a farewell. Then it is of no more use."""
        if self._tls is not None and self._tls.has_more():
            return True
        poll = select.poll()  # select() knows no descriptor above 1023
        poll.register(self._sock, select.POLLIN | select.POLLHUP)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close it, without a word."""
        self._sock.close()


def connect(host: Host, addresses: Sequence[str], deadline: Deadline) -> Transport:
    """Connect to the first address that answers, each with its share of the time.

    Raises:
        DirectoryError: none does.
    """
    problem: OSError | None = None
    for number, address in enumerate(addresses):
        share_s = deadline.left_s() / (len(addresses) - number)
        try:
            sock = socket.create_connection((address, host.port), timeout=share_s)
        except OSError as error:
            problem = error
            continue
        # Small messages to and fro: without this each TLS handshake waits 40 ms for a delayed acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for level, option, value in _KEEP_ALIVE:
            sock.setsockopt(level, option, value)
        return Transport(sock)
    late = isinstance(problem, TimeoutError)
    raise DirectoryError(
        f"no connection: {'no answer in time' if late else problem and problem.strerror}",
        Cause.CONNECT,
        "is the directory running, are host and port in urls right, and does a firewall let us through?",
    )


def _describe(tls: ssl.SSLObject) -> str:
    certificate = tls.getpeercert() or {}
    alternatives: Sequence[tuple[str, str]] = certificate.get("subjectAltName", ())  # type: ignore[assignment]
    names = [value for _, value in alternatives]
    return f"{tls.version()}, certificate for {', '.join(names)}, valid until {certificate.get('notAfter')}"


def _too_late() -> DirectoryError:
    return DirectoryError("no answer in time", Cause.TIMEOUT, "the directory is slow or hangs; look at its log")


def _lost(error: OSError) -> DirectoryError:
    return DirectoryError(
        f"the connection is lost: {error.strerror or type(error).__name__}",
        Cause.CONNECT,
        "look at the directory's log",
    )
