"""Rules about what the traffic is, through a real server: what may pass, and what a target never learns of."""

import os
import random
from pathlib import Path

import pytest
import trio

from tests.harness import settle
from tests.looking import NAME, TLS, Looked, looked_at, shake_hands, tls_ends
from tests.sniff.hellos import browser_hello, client_hello, record, server_hello
from tests.wires import Ending

pytestmark = pytest.mark.usefixtures("either_engine")

WRONG_APP, WRONG_ANSWER = "not allowed for what the traffic is", "target answered in another protocol"
HTTP = b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n"


async def is_cut(looked: Looked, *, app: str, sni: str | None = None) -> None:
    """The target learns nothing, both sides are reset, and the record says why."""
    assert await looked.client.rest() == (b"", Ending.RESET)
    assert await looked.target.rest() == (b"", Ending.RESET)
    row = await looked.record()
    assert (row["termination"], row["app"], row.get("sni")) == (WRONG_APP, app, sni)
    assert (row["bytes_to_target"], row["bytes_to_client"], row["reply"]) == (0, 0, 0)
    assert looked.running.server.counters["refused_by_app"] == 1


async def passes(looked: Looked, hello: bytes) -> None:
    """The target gets just this, and may answer."""
    assert await looked.target.receive(len(hello)) == hello


# ---- TLS and nothing else


async def test_real_tls_passes(tmp_path: Path) -> None:
    """Issue item 6: a real client and a real server; each byte arrives and is counted, and the record has the name."""
    async with looked_at(tmp_path, TLS) as looked:
        client, server = tls_ends(looked)
        await shake_hands(client, server)
        question, answer = os.urandom(100_000), os.urandom(1_000_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, question)
            assert await server.receive(len(question)) == question
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.send, answer)
            assert await client.receive(len(answer)) == answer
        looked.client.finish()
        assert await looked.target.rest() == (b"", Ending.CLOSED)
        looked.target.finish()
        assert await looked.client.rest() == (b"", Ending.CLOSED)
        row = await looked.record()
        assert (row["termination"], row["app"], row["sni"]) == ("client closed", "tls", NAME)
        assert (row["bytes_to_target"], row["bytes_to_client"]) == (client.sent, server.sent)
        assert row["rule"] == TLS


@pytest.mark.parametrize(
    ("data", "app"),
    [
        (b"\x9d" + random.Random(1).randbytes(300), "unknown"),
        (HTTP, "http"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "ssh"),
        (b"\x16\x03\x01\xff\xff" + bytes(300), "unknown"),
        (b"\x16\x03\x01" + bytes(20), "unknown"),
    ],
)
async def test_what_is_not_tls_never_reaches_the_target(tmp_path: Path, data: bytes, app: str) -> None:
    """Issue item 6: a program that tunnels its own protocol over the port is stopped, not told to the target."""
    async with looked_at(tmp_path, TLS) as looked:
        await looked.client.send(data)
        await is_cut(looked, app=app)


@pytest.mark.parametrize("size", [1, 7])
async def test_hello_in_small_pieces(tmp_path: Path, size: int) -> None:
    """A ClientHello that comes octet by octet, and one that is cut into records so that nobody finds the name."""
    body = client_hello(NAME)[5:]
    hello = b"".join(record(body[at : at + 50]) for at in range(0, len(body), 50))
    async with looked_at(tmp_path, TLS) as looked:
        for at in range(0, len(hello), size):
            await looked.client.send(hello[at : at + size])
            if at < 3:
                await trio.testing.wait_all_tasks_blocked()
        await passes(looked, hello)
        looked.client.reset()
        row = await looked.record()
        assert (row["sni"], row["bytes_to_target"]) == (NAME, len(hello))


@pytest.mark.parametrize("more", [b"", b"x" * 20_000])
@pytest.mark.parametrize("name", [None, b"www.example.org"])
async def test_hello_that_came_with_the_request(tmp_path: Path, more: bytes, name: bytes | None) -> None:
    """CASES 1.9, early data: the client did not wait for the reply; what it sent is looked at, and arrives once."""
    hello = client_hello(NAME) + more
    async with looked_at(tmp_path, TLS, early_data=hello, name=name) as looked:
        await passes(looked, hello)
        await looked.client.send(b"more")
        await passes(looked, b"more")
        looked.client.reset()
        row = await looked.record()
        assert (row["app"], row["bytes_to_target"]) == ("tls", len(hello) + 4)


@pytest.mark.parametrize("name", [None, b"www.example.org"])
async def test_all_came_with_the_request(tmp_path: Path, name: bytes | None) -> None:
    """And FIN with it, before the reply."""
    hello = client_hello(NAME)
    async with looked_at(tmp_path, TLS, early_data=hello, name=name, ends=True) as looked:
        assert await looked.target.rest() == (hello, Ending.CLOSED)
        looked.target.finish()
        assert await looked.client.rest() == (b"", Ending.CLOSED)
        assert (await looked.record())["app"] == "tls"


async def test_noise_that_came_with_the_request(tmp_path: Path) -> None:
    """The same for what is not TLS."""
    async with looked_at(tmp_path, TLS, early_data=HTTP) as looked:
        await is_cut(looked, app="http")


async def test_client_that_ends_behind_its_hello(tmp_path: Path) -> None:
    """CASES 1.9, half-close: the hello and FIN in one; both are carried on, and the answer comes back."""
    hello = client_hello(NAME)
    async with looked_at(tmp_path, TLS) as looked:
        await looked.client.send(hello)
        looked.client.finish()
        assert await looked.target.rest() == (hello, Ending.CLOSED)
        looked.target.finish()
        assert await looked.client.rest() == (b"", Ending.CLOSED)
        row = await looked.record()
        assert (row["termination"], row["app"]) == ("client closed", "tls")


async def test_client_that_ends_in_its_hello(tmp_path: Path) -> None:
    """Half a hello is no TLS, and nothing more will come."""
    async with looked_at(tmp_path, TLS) as looked:
        await looked.client.send(client_hello(NAME)[:-1])
        looked.client.finish()
        await is_cut(looked, app="unknown")


# ---- the answer


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x03\x00\x02junk" * 5_000, server_hello(cipher_suite=b"\xff\xff")],
    ids=["http", "noise", "another suite"],
)
async def test_tls_that_is_not_answered_by_tls(tmp_path: Path, answer: bytes) -> None:
    """Issue item 6: a ServerHello must answer it; of anything else the client sees nothing, and both are reset."""
    hello = client_hello(NAME)
    async with looked_at(tmp_path, TLS) as looked:
        await looked.client.send(hello)
        await passes(looked, hello)
        await looked.target.send(answer)
        assert await looked.client.rest() == (b"", Ending.RESET)
        with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012 - until the news has come round
            while True:
                await looked.target.send(b"x" * 1_000)
        row = await looked.record()
        assert (row["termination"], row["app"], row["bytes_to_client"]) == (WRONG_ANSWER, "tls", 0)
        assert row["bytes_to_target"] == len(hello)


async def test_target_that_has_spoken_before_the_hello(tmp_path: Path) -> None:
    """A target that says something first does not speak TLS: neither side hears the other."""
    async with looked_at(tmp_path, TLS) as looked:
        await looked.target.send(b"anything")
        await trio.sleep(0.1)
        await looked.client.send(client_hello(NAME))
        assert await looked.client.rest() == (b"", Ending.RESET)
        assert await looked.target.rest() == (b"", Ending.RESET)
        row = await looked.record()
        assert (row["termination"], row["bytes_to_target"], row["bytes_to_client"]) == (WRONG_ANSWER, 0, 0)


@pytest.mark.parametrize("first", ["client", "target"])
async def test_wrong_answer_passes_where_anything_may(tmp_path: Path, first: str) -> None:
    """It goes on as what it is: by another rule, under the limits of that one, and the record says unknown."""
    everything = "tcp:*(*)->*(*) rate=8Mbit"
    async with looked_at(tmp_path, TLS, everything) as looked:
        hello = client_hello(NAME)
        if first == "target":
            await looked.target.send(b"no TLS")
            assert await looked.client.receive(6) == b"no TLS"
        await looked.client.send(hello)
        await passes(looked, hello)
        if first == "client":
            await looked.target.send(b"no TLS")
            assert await looked.client.receive(6) == b"no TLS"
        await settle(lambda: looked.flow.allowance is not None)
        looked.client.reset()
        row = await looked.record()
        assert (row["app"], row["rule"], row["bytes_to_client"]) == ("unknown", everything, 6)


async def test_hello_is_answered_in_pieces(tmp_path: Path) -> None:
    """A ServerHello that comes octet by octet is held until it is whole, and then nothing of it is missing."""
    async with looked_at(tmp_path, TLS) as looked:
        client, server = tls_ends(looked)
        hello = client.hello()
        await looked.client.send(hello)
        server._incoming.write(await looked.target.receive(len(hello)))
        answer = server.hello()
        for octet in answer[:200]:
            await looked.target.send(bytes([octet]))
        await looked.target.send(answer[200:])
        assert await looked.client.receive(len(answer)) == answer


# ---- names, and other rules


@pytest.mark.parametrize(
    ("rules", "name", "permitted"),
    [
        (["tcp:*(*)->*(*) sni=*.example.org"], "www.example.org", True),
        (["tcp:*(*)->*(*) sni=*.example.org"], "example.com", False),
        (["deny tcp:*(*)->*(*) sni=*.example.org", "tcp:*(*)->*(*)"], "www.example.org", False),
        (["deny tcp:*(*)->*(*) sni=*.example.org", "tcp:*(*)->*(*)"], "example.com", True),
    ],
)
async def test_names_in_tls(tmp_path: Path, rules: list[str], name: str, permitted: bool) -> None:
    """Issue item 6: `sni=` allows and denies by the name in the ClientHello."""
    async with looked_at(tmp_path, *rules) as looked:
        if permitted:
            await shake_hands(*tls_ends(looked, name))
            looked.client.reset()
            assert (await looked.record())["sni"] == name
        else:
            await looked.client.send(client_hello(name))
            await is_cut(looked, app="tls", sni=name)


@pytest.mark.parametrize(("host", "permitted"), [("www.example.org", True), ("example.com", False)])
async def test_hosts_in_http(tmp_path: Path, host: str, permitted: bool) -> None:
    """Issue item 6: `http-host=` by the request; the port in it does not count."""
    question = f"GET / HTTP/1.1\r\nHost: {host}:8080\r\n\r\n".encode()
    async with looked_at(tmp_path, "tcp:*(*)->*(*) http-host=*.example.org") as looked:
        await looked.client.send(question)
        if permitted:
            await passes(looked, question)
            await looked.target.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert await looked.client.receive(27) == b"HTTP/1.1 204 No Content\r\n\r\n"
        else:
            await is_cut(looked, app="http")


@pytest.mark.parametrize(("data", "permitted"), [(client_hello(NAME), True), (HTTP, False)], ids=["tls", "http"])
async def test_one_layer_asks(tmp_path: Path, data: bytes, permitted: bool) -> None:
    """Layers vote: the user may do everything, but a rule for everybody denies what is not TLS."""
    async with looked_at(tmp_path, TLS, "deny tcp:*(*)->*(*)", own=["tcp:*(*)->*(*)"]) as looked:
        await looked.client.send(data)
        if permitted:
            await passes(looked, data)
        else:
            await is_cut(looked, app="http")


async def test_the_record_says_that_a_hello_carries_an_encrypted_one(tmp_path: Path) -> None:
    """Then the name in it is the outer one; that of others says nothing of the kind."""
    for hello, told in ((browser_hello(), True), (client_hello(NAME), False)):
        folder = tmp_path / str(told)
        folder.mkdir()
        async with looked_at(folder, TLS) as looked:
            await looked.client.send(hello)
            assert await looked.target.receive(len(hello)) == hello
            looked.client.reset()
            assert (await looked.record()).get("ech", False) is told


async def test_an_alert_opens_no_tunnel(tmp_path: Path) -> None:
    """The client learns why TLS is refused; two ends that go on with something else are ended."""
    async with looked_at(tmp_path, TLS) as looked:
        hello, alert = client_hello(NAME), record(b"\2\x28", kind=21)
        await looked.client.send(hello)
        await passes(looked, hello)
        await looked.target.send(alert)
        assert await looked.client.receive(len(alert)) == alert
        assert (await looked.client.rest())[1] is Ending.RESET
        assert (await looked.record())["termination"] == WRONG_ANSWER


async def test_a_warning_is_no_answer(tmp_path: Path) -> None:
    """The ServerHello has to come behind it, and nothing passes before."""
    async with looked_at(tmp_path, TLS) as looked:
        hello = client_hello(NAME)
        await looked.client.send(hello)
        await passes(looked, hello)
        await looked.target.send(record(b"\1\x70", kind=21) + b"anything")
        assert await looked.client.rest() == (b"", Ending.RESET)
        assert (await looked.record())["termination"] == WRONG_ANSWER
