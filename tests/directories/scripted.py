"""An LDAP server that does what a test says, and keeps what it was asked.

A script is a function, or a list of replies for one request after the other. A reply is made of pieces: messages, bytes
as they are, and acts (`tests.directories.misbehaviour` has some)::

    def script(request: Request) -> Reply:
        if request.kind is Kind.BIND:
            return [bind_result(49)]
        return [entry(DN, {"uid": ["alice"]}), search_done()]

    with ScriptedServer(script, start_tls=authority.good().context()) as server:
        ...
    assert [] == server.binds
"""

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeAlias

import attrs

from tests.directories.ber import length_of
from tests.directories.messages import START_TLS, Kind, Message, Request, extended_result, read_request
from tests.system.waiting import PATIENCE_S

__all__ = ["Act", "GoneError", "Piece", "Reply", "Script", "ScriptedServer", "Wire", "start_tls_answer"]

_CHUNK_BYTES: Final = 65_536


class GoneError(Exception):
    """The connection is over: the client has left, an act has closed it, or the server ends."""


class Wire:
    """One connection, for acts.

    Attributes:
        number: which connection of the server it is, from 1.
        request: the last request; None before the first.
        encrypted: whether TLS protects it.
    """

    def __init__(self, sock: socket.socket, number: int, ending: threading.Event) -> None:
        self._sock = sock
        # Another handle of the same socket: it ends what another thread is doing with the first, which may have become
        # a TLS socket in the meantime.
        self._lever = sock.dup()
        self._lock = threading.Lock()  # or its number could be another socket's by the time it is used
        self._ending = ending
        self.number = number
        self.request: Request | None = None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def encrypted(self) -> bool:
        """Whether TLS protects it."""
        return isinstance(self._sock, ssl.SSLSocket)

    def encoded(self, message: Message) -> bytes:
        """A message as the answer to the last request."""
        return message.encoded(self.request.number if self.request else 0)

    def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            GoneError: it is over.
        """
        try:
            self._sock.sendall(data)
        except OSError:
            raise GoneError from None

    def receive(self) -> bytes:
        """What comes next.

        Raises:
            GoneError: it is over.
        """
        try:
            data = self._sock.recv(_CHUNK_BYTES)
        except OSError:
            data = b""
        if not data:
            raise GoneError
        return data

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the end of the server.

        Raises:
            GoneError: it ends.
        """
        if self._ending.wait(seconds):
            raise GoneError

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands.

        Raises:
            GoneError: the client does not want to.
        """
        try:
            # The handshake on its own: if it fails, the socket is held here and closed in the end.
            self._sock = context.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
            self._sock.do_handshake()
        except OSError:
            raise GoneError from None

    def reset(self) -> None:
        """Throw the connection away: the client gets a RST.

        Raises:
            GoneError: always.
        """
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        raise GoneError

    def break_off(self) -> None:
        """Wake whoever waits for it; from another thread."""
        with self._lock, suppress(OSError):
            self._lever.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it; by the thread that serves it."""
        with self._lock:
            self._lever.close()
        self._sock.close()


Act: TypeAlias = Callable[[Wire], None]
Piece: TypeAlias = Message | bytes | Act
Reply: TypeAlias = Iterable[Piece]
Script: TypeAlias = Callable[[Request], Reply]


def start_tls_answer(context: ssl.SSLContext) -> Reply:
    """Yes to StartTLS, and the handshake; what `start_tls=` of the server does by itself."""
    return [extended_result(oid=START_TLS), partial(Wire.start_tls, context=context)]


@attrs.define
class _Log:
    """What the threads of a server tell its test; appending to a list is atomic."""

    requests: list[Request] = attrs.field(factory=list)
    failures: list[BaseException] = attrs.field(factory=list)
    strangers: int = 0
    handshakes_failed: int = 0


class ScriptedServer:
    """Listens on 127.0.0.1 while its block lasts; after it all its threads have ended and all its sockets are closed.

    The script is not asked for what has no answer (unbind, abandon), nor for StartTLS if the server offers that. A list
    of replies serves all connections, in the order of their requests; a request beyond its end is a failure.

    Raises at the end of the block what the script has raised, and what was wrong with a client's messages.

    Attributes:
        port: where it listens.

    Args:
        script: what to answer.
        tls: TLS from the start.
        start_tls: StartTLS is offered.
        at_first: done with each connection before anything is read.
        port: 0: a free one.
    """

    def __init__(
        self,
        script: Script | Sequence[Reply] = (),
        *,
        tls: ssl.SSLContext | None = None,
        start_tls: ssl.SSLContext | None = None,
        at_first: Act | None = None,
        port: int = 0,
    ) -> None:
        self._script = script if callable(script) else _one_by_one(script)
        self._tls = tls
        self._start_tls = start_tls
        self._at_first = at_first
        self.port = port
        self._log = _Log()
        self._ending = threading.Event()
        self._accepted = 0
        self._wires: list[Wire] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._alarm, self._bell = socket.socketpair()
        self._accepting = threading.Thread(target=self._accept, name="scripted-accept", daemon=True)
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        self._bell.send(b"!")
        self._accepting.join(PATIENCE_S)
        for wire in self._wires:
            wire.break_off()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for sock in (self._listener, self._alarm, self._bell):
            sock.close()
        for wire in self._wires:
            wire.close()
        alive = [thread.name for thread in (self._accepting, *self._threads) if thread.is_alive()]
        assert not alive, f"these threads have not ended: {alive}"
        if self._log.failures:
            raise self._log.failures[0]

    # ---- what a test asks

    @property
    def url(self) -> str:
        """Where a client finds it."""
        return f"{'ldaps' if self._tls else 'ldap'}://localhost:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections there were. After the block none is missing, not even one that nobody has served."""
        return self._accepted

    @property
    def requests(self) -> list[Request]:
        """All that was asked, in order."""
        return list(self._log.requests)

    @property
    def binds(self) -> list[Request]:
        """The bind requests."""
        return [request for request in self.requests if request.kind is Kind.BIND]

    @property
    def searches(self) -> list[Request]:
        """The search requests."""
        return [request for request in self.requests if request.kind is Kind.SEARCH]

    @property
    def handshakes_failed(self) -> int:
        """How many TLS handshakes did not come to an end: the client did not like the certificate, say."""
        return self._log.handshakes_failed

    @property
    def strangers(self) -> int:
        """How many connections did not speak LDAP: began a TLS handshake where there is none, say."""
        return self._log.strangers

    # ---- its threads

    def _accept(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._alarm, select.POLLIN)
        ending = False
        while not ending:
            poll.poll()
            # Asked before the last look at the queue: whoever came before the end is accepted, not reset.
            ending = self._ending.is_set()
            with suppress(BlockingIOError):  # nobody waits any more
                while True:
                    self._serve_in_thread(self._listener.accept()[0])

    def _serve_in_thread(self, sock: socket.socket) -> None:
        self._accepted += 1
        sock.setblocking(True)
        wire = Wire(sock, self._accepted, self._ending)
        self._wires.append(wire)
        thread = threading.Thread(target=self._serve, args=(wire,), name=f"scripted-{wire.number}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, wire: Wire) -> None:
        try:
            if self._at_first:
                self._at_first(wire)
            if self._tls:
                self._shake_hands(wire, self._tls)
            self._converse(wire)
        except GoneError:
            pass
        except Exception as failure:  # noqa: BLE001 - a thread's failure is raised in the test
            self._log.failures.append(failure)
        finally:
            wire.close()

    def _converse(self, wire: Wire) -> None:
        buffer = b""
        while True:
            while (length := length_of(buffer)) is None or len(buffer) < length:
                buffer += wire.receive()
                if buffer[0] != 0x30:
                    self._log.strangers += 1
                    return
            wire.request = attrs.evolve(read_request(buffer[:length]), connection=wire.number, encrypted=wire.encrypted)
            buffer = buffer[length:]
            self._log.requests.append(wire.request)
            if wire.request.kind is Kind.UNBIND:
                return
            if wire.request.kind is not Kind.ABANDON:
                self._answer(wire, wire.request)

    def _answer(self, wire: Wire, request: Request) -> None:
        if request.oid == START_TLS and self._start_tls:
            wire.send(wire.encoded(extended_result(oid=START_TLS)))
            self._shake_hands(wire, self._start_tls)
        else:
            perform(wire, self._script(request))

    def _shake_hands(self, wire: Wire, context: ssl.SSLContext) -> None:
        try:
            wire.start_tls(context)
        except GoneError:
            self._log.handshakes_failed += 1
            raise


def perform(wire: Wire, reply: Reply) -> None:
    """Send a reply; what stands side by side in it goes in one piece."""
    waiting = b""
    for piece in reply:
        match piece:
            case Message():
                waiting += wire.encoded(piece)
            case bytes():
                waiting += piece
            case act:
                if waiting:
                    wire.send(waiting)
                waiting = b""
                act(wire)
    if waiting:
        wire.send(waiting)


def _one_by_one(replies: Sequence[Reply]) -> Script:
    left = iter(replies)
    lock = threading.Lock()

    def script(request: Request) -> Reply:
        with lock:
            reply = next(left, None)
        assert reply is not None, f"nobody has said what to answer to {request}"
        return reply

    return script
