"""Flows that are looked at, for tests: sessions whose rules ask what the traffic is, and real TLS through them."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import trio
import trustme

from tests.harness import Running, config_for_tests, running_server
from tests.socks_client import CONNECT, SocksClient, logged_in, request
from tests.targets import Origin, looking_up
from tests.wires import PATIENCE_S, Wire
from trioproxy.accounting import Flow
from trioproxy.session import Session

__all__ = ["NAME", "TLS", "Looked", "TlsEnd", "looked_at", "shake_hands", "tls_ends"]

T = TypeVar("T")

NAME = "www.example.org"
TLS = "tcp:*(*)->*(*) app=tls"


@attrs.frozen
class Looked:
    """A session that has its success reply.

    Attributes:
        client: its client.
        target: the other end of its connection to the target.
    """

    running: Running
    origin: Origin
    client: SocksClient
    target: Wire

    @property
    def session(self) -> Session:
        """The only one."""
        (session,) = self.running.server._sessions.values()
        return session

    @property
    def flow(self) -> Flow:
        """What is kept of it while it runs."""
        return self.session.flow

    async def record(self) -> dict[str, Any]:
        """The only record, when all is over."""
        await self.running.until_idle()
        (row,) = self.running.records.rows()
        return row


@asynccontextmanager
async def looked_at(
    folder: Path,
    *rules: str,
    own: Iterable[str] = (),
    early_data: bytes = b"",
    name: bytes | None = None,
    ends: bool = False,
    **limits: Any,
) -> AsyncIterator[Looked]:
    """A session of alice's; nothing of ours is left when it is over.

    Args:
        folder: for the store.
        rules: for everybody.
        own: her own.
        early_data: sent behind the request, in one piece with it.
        name: asked for instead of the address.
        ends: the client sends nothing behind that, and says so.
        limits: of the configuration.
    """
    async with (
        running_server(
            folder,
            config_for_tests(limits=limits),
            rules={"global": rules, "user:alice": own},
            lookup=looking_up("127.0.0.1"),
        ) as running,
        Origin.open() as origin,
        logged_in(running.address) as client,
    ):
        await client.send(request(CONNECT, name or origin.host, origin.port) + early_data)
        if ends:
            client.finish()
        assert (await client.answer()).code == 0
        looked = Looked(running, origin, client, await origin.accept())
        yield looked
        client.close()
        looked.target.close()
        await running.until_idle()
        assert running.server.counters["internal_error"] == 0
        assert not any(running.server.services.engine.timers._queues.values())


# ---- TLS


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


@cache
def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().configure_trust(client)
    _authority().issue_cert(NAME, "*.example.org", "example.com").configure_cert(server)
    return client, server


class TlsEnd:
    """One end of TLS over a wire.

    Attributes:
        sent: octets that went over the wire.
    """

    def __init__(self, wire: Wire, name: str | None) -> None:
        client, server = _contexts()
        self.sent = 0
        self._wire = wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = (client if name else server).wrap_bio(
            self._incoming, self._outgoing, server_side=name is None, server_hostname=name
        )

    def hello(self) -> bytes:
        """The first flight, which is then not sent by `shake_hands`."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return self._outgoing.read()
        raise AssertionError("a handshake takes two")

    async def shake_hands(self) -> None:
        """Until this end is content."""
        await self._do(self._tls.do_handshake)

    async def send(self, data: bytes) -> None:
        """Encrypt and send."""
        await self._do(lambda: self._tls.write(data))

    async def receive(self, count: int) -> bytes:
        """Exactly so many octets."""
        received = b""
        while len(received) < count:
            received += await self._do(partial(self._tls.read, count - len(received)))
        return received

    async def _do(self, step: Callable[[], T]) -> T:
        with trio.fail_after(PATIENCE_S):
            while True:
                try:
                    result = step()
                except ssl.SSLWantReadError:
                    await self._flush()
                    self._incoming.write(await self._wire.sock.recv(65_536))
                else:
                    await self._flush()
                    return result

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._wire.send(data)
            self.sent += len(data)


def tls_ends(looked: Looked, name: str = NAME) -> tuple[TlsEnd, TlsEnd]:
    """The ends of the client and of the target."""
    return TlsEnd(looked.client, name), TlsEnd(looked.target, None)


async def shake_hands(*ends: TlsEnd) -> None:
    """Both ends of a connection at once."""
    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(end.shake_hands)
