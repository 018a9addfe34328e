"""What a session was made of goes when it ends: the collector of cycles, which costs a tenth more, finds nothing."""

import gc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.associations import associated, passes
from tests.changes import relayed
from tests.harness import Running, running_server, settle
from tests.socks_client import BIND, CONNECT, connected, logged_in
from tests.targets import Origin, free_port
from tests.wires import UdpSocket, dialled

pytestmark = pytest.mark.usefixtures("either_engine")

RULES = {"user:alice": ["any:*(*)->127.0.0.0/8(*)"]}


@asynccontextmanager
async def no_cycles(running: Running) -> AsyncIterator[None]:
    """Of what the sessions inside the block were made of nothing is left for the collector."""
    gc.collect()
    gc.disable()
    try:
        yield
        await running.until_idle()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = Counter(f"{type(o).__module__}.{type(o).__qualname__}" for o in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    ours = {name: count for name, count in left.items() if name.startswith(("trioproxy.", "socket."))}
    assert ours == {}


@pytest.mark.parametrize("option", ["", " rate=400kbit burst=2kB", " app=unknown quota=1GB/day"])
async def test_relays(tmp_path: Path, option: str) -> None:
    """Bytes both ways, some of which wait or are looked at; an orderly end, and a reset."""
    rules = {"user:alice": [f"tcp:*(*)->127.0.0.0/8(*){option}"]}
    async with running_server(tmp_path, rules=rules) as running, Origin.open() as origin:
        await settle(lambda: running.server.services.allowances.is_restored)
        async with no_cycles(running):
            for reset in (False, True):
                async with logged_in(running.address) as client:
                    target = await relayed(client, origin)
                    await client.send(b"\xffuestion")
                    assert await target.receive(8) == b"\xffuestion"
                    await target.send(b"answer")
                    assert await client.receive(6) == b"answer"
                    await target.send(bytes(5_000))
                    await client.receive(5_000)
                    (target.reset if reset else target.close)()


async def test_refusals(tmp_path: Path) -> None:
    """A wrong login, a target that no rule allows, one that nobody listens at, and octets that are no SOCKS."""
    async with running_server(tmp_path, rules=RULES) as running, no_cycles(running):
        async with connected(running.address) as client:
            await client.send(b"GET / HTTP/1.1\r\n\r\n")
            await client.rest()
        for host, port, code in (("10.0.0.1", 80, 2), ("127.0.0.1", free_port(), 5)):
            async with logged_in(running.address) as client:
                assert (await client.ask(CONNECT, host, port)).code == code


async def test_bind(tmp_path: Path) -> None:
    """The one that is expected comes."""
    async with running_server(tmp_path, rules=RULES) as running, no_cycles(running):
        async with logged_in(running.address) as client:
            first = await client.ask(BIND, "127.0.0.7", 0)
            async with dialled((first.host, first.port), "127.0.0.7"):
                assert (await client.answer()).code == 0


async def test_associations(tmp_path: Path) -> None:
    """A datagram there."""
    async with running_server(tmp_path, rules=RULES) as running, UdpSocket.open() as target, no_cycles(running):
        async with associated(running.address) as client:
            await passes(client, target)
