"""Who speaks first while nobody knows what the traffic is, how long that may take, and how it may end meanwhile."""

import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.changes import ENDS_WITHIN_S
from tests.harness import config_for_tests, running_server, settle
from tests.looking import NAME, TLS, Looked, looked_at
from tests.sniff.hellos import client_hello
from tests.socks_client import CONNECT, logged_in, request
from tests.targets import Origin
from tests.wires import Ending, open_descriptors
from trioproxy.admin.client import ask_server, socket_path
from trioproxy.policy import BlockKind, BlockSubject
from trioproxy.sniff import Sniffer

pytestmark = pytest.mark.usefixtures("either_engine")

WRONG_APP = "not allowed for what the traffic is"
SMTP, SSH, UNKNOWN = "tcp:*(*)->*(*) app=smtp", "tcp:*(*)->*(*) app=ssh", "tcp:*(*)->*(*) app=unknown"
GREETING = b"220 mail.example.org ESMTP\r\n"
BANNER = b"SSH-2.0-OpenSSH_9.2\r\n"


# ---- nobody asks


class Untouchable:
    """Says so if somebody looks."""

    LIMIT = Sniffer.LIMIT

    def __init__(self) -> None:
        raise AssertionError("nobody has asked what this is")


@pytest.mark.parametrize(
    "rules",
    [
        ["tcp:*(*)->*(*)"],
        ["tcp:*(*)->*(1) app=tls", "tcp:*(*)->*(*)"],
        ["udp:*(*)->*(*) app=quic", "tcp:*(*)->*(*)"],
        ["tcp:*(*)->*(*)", "tcp:*(*)->*(*) app=tls"],
    ],
)
async def test_nobody_looks_where_no_rule_asks(
    tmp_path: Path, rules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue item 6: only where a rule that could decide asks; the target may speak and the client be silent."""
    monkeypatch.setattr("trioproxy.first_bytes.Sniffer", Untouchable)
    async with looked_at(tmp_path, *rules) as looked:
        await looked.target.send(b"noise")
        assert await looked.client.receive(5) == b"noise"
        with trio.move_on_after(1.2):  # longer than a client may be silent that is looked at
            await trio.sleep_forever()
        await looked.target.send(b"more")
        assert await looked.client.receive(4) == b"more"
        await looked.client.send(b"noise too")
        assert await looked.target.receive(9) == b"noise too"
        looked.client.reset()
        row = await looked.record()
        assert "app" not in row
        assert (row["bytes_to_target"], row["bytes_to_client"]) == (9, 9)


# ---- the server speaks first


async def test_greeting_goes_on_while_the_client_is_held(tmp_path: Path) -> None:
    """Issue item 6: a client that waits for the greeting gets it; its own words wait until they are known."""
    async with looked_at(tmp_path, SMTP) as looked:
        await looked.client.send(b"EHLO client.example.org\r\n")  # before the greeting
        await trio.testing.wait_all_tasks_blocked()
        await looked.target.send(GREETING[:10])
        assert await looked.client.receive(10) == GREETING[:10]
        await looked.target.send(GREETING[10:])
        assert await looked.client.receive(len(GREETING) - 10) == GREETING[10:]
        assert await looked.target.receive(25) == b"EHLO client.example.org\r\n"
        await looked.target.send(b"250 hello\r\n")
        assert await looked.client.receive(11) == b"250 hello\r\n"
        looked.client.reset()
        row = await looked.record()
        assert (row["app"], row["bytes_to_target"], row["bytes_to_client"]) == ("smtp", 25, len(GREETING) + 11)


async def test_greeting_of_another_protocol(tmp_path: Path) -> None:
    """The client has heard it; of what the client says the target hears nothing."""
    async with looked_at(tmp_path, SMTP) as looked:
        await looked.target.send(b"* OK IMAP4rev1 ready\r\n")
        assert await looked.client.receive(22) == b"* OK IMAP4rev1 ready\r\n"
        await looked.client.send(b"a1 LOGIN alice wonderland\r\n")
        assert await looked.client.rest() == (b"", Ending.RESET)
        assert await looked.target.rest() == (b"", Ending.RESET)
        row = await looked.record()
        assert (row["termination"], row["app"]) == (WRONG_APP, "imap")


@pytest.mark.parametrize("first", ["client", "target"])
async def test_both_speak_ssh(tmp_path: Path, first: str) -> None:
    """RFC 4253 section 4.2: each sends its banner as soon as it likes."""
    async with looked_at(tmp_path, SSH) as looked:
        if first == "target":
            await looked.target.send(BANNER)
            assert await looked.client.receive(len(BANNER)) == BANNER
        await looked.client.send(BANNER)
        assert await looked.target.receive(len(BANNER)) == BANNER
        if first == "client":
            await looked.target.send(BANNER)
            assert await looked.client.receive(len(BANNER)) == BANNER
        looked.client.reset()
        assert (await looked.record())["app"] == "ssh"


@pytest.mark.parametrize(("rule", "app"), [(SMTP, "smtp"), (TLS, "smtp")])
async def test_client_that_is_silent_behind_the_greeting(tmp_path: Path, rule: str, app: str) -> None:
    """Issue item 6: after a second the greeting alone decides; where no rule lets a server begin, nobody hears it."""
    async with looked_at(tmp_path, rule) as looked:
        begun_s = trio.current_time()
        await looked.target.send(GREETING)
        if rule == SMTP:
            assert await looked.client.receive(len(GREETING)) == GREETING
            await settle(lambda: looked.flow.finding is not None)
            looked.target.finish()
            assert await looked.client.rest() == (b"", Ending.CLOSED)
            await looked.client.send(b"QUIT\r\n")
            assert await looked.target.receive(6) == b"QUIT\r\n"
        else:
            assert await looked.client.rest() == (b"", Ending.RESET)
            row = await looked.record()
            assert (row["termination"], row["bytes_to_client"]) == (WRONG_APP, 0)
        assert trio.current_time() - begun_s >= 0.9
        looked.client.reset()
        assert (await looked.record())["app"] == app


@pytest.mark.parametrize(("rule", "most"), [(SMTP, Sniffer.LIMIT), (TLS, 0)])
async def test_server_that_floods(tmp_path: Path, rule: str, most: int) -> None:
    """Where a server may begin it may say 16 KiB; then it is decided, whatever else it wants to say."""
    async with looked_at(tmp_path, rule) as looked:
        with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012 - until it is
            while True:
                await looked.target.send(b"x" * 100_000)
        received, ending = await looked.client.rest()
        assert ending is Ending.RESET
        assert len(received) <= most
        row = await looked.record()
        assert (row["termination"], row["bytes_to_client"]) == (WRONG_APP, most)


async def test_server_that_floods_as_it_may(tmp_path: Path) -> None:
    """What was read to look at it is neither lost nor sent twice, though the client does not read for a while."""
    flood = bytes(range(256)) * 20_000
    async with looked_at(tmp_path, UNKNOWN) as looked:
        looked.session._client.channel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(looked.target.send, flood)
            await settle(lambda: looked.flow.finding is not None)
            assert await looked.client.receive(len(flood)) == flood
        looked.client.reset()
        row = await looked.record()
        assert (row["app"], row["bytes_to_client"]) == ("unknown", len(flood))


# ---- limits


@pytest.mark.parametrize("rule", [TLS, UNKNOWN])
async def test_client_that_is_undecided_for_too_long(tmp_path: Path, rule: str) -> None:
    """Issue item 6: of 16 KiB that begin like something and never become it, nothing more is expected."""
    text = b"GET /" + b"x" * (Sniffer.LIMIT - 5)
    async with looked_at(tmp_path, rule) as looked:
        await looked.client.send(text[:-1])
        await trio.testing.wait_all_tasks_blocked()
        assert looked.flow.finding is None
        await looked.client.send(text[-1:])
        if rule == UNKNOWN:
            assert await looked.target.receive(len(text)) == text
            looked.client.reset()
        else:
            assert await looked.client.rest() == (b"", Ending.RESET)
        assert (await looked.record())["app"] == "unknown"


async def test_client_that_pours_commands_before_the_greeting(tmp_path: Path) -> None:
    """The same where the server would have to speak, and does not."""
    async with looked_at(tmp_path, SMTP) as looked:
        await looked.client.send(b"NOOP\r\n" * 5_000)
        assert await looked.target.rest() == (b"", Ending.RESET)
        assert (await looked.record())["app"] == "unknown"


@pytest.mark.parametrize("rule", [TLS, UNKNOWN])
async def test_client_that_never_finishes_its_hello(tmp_path: Path, rule: str) -> None:
    """A client may take as long for it as for its handshake with us; then it is unknown."""
    hello = client_hello(NAME)[:-1]
    async with looked_at(tmp_path, rule, handshake_s=1.5) as looked:
        await looked.client.send(hello)
        if rule == UNKNOWN:
            assert await looked.target.receive(len(hello)) == hello
            looked.client.reset()
            assert (await looked.record())["app"] == "unknown"
        else:
            assert await looked.target.rest() == (b"", Ending.RESET)
            assert (await looked.record())["termination"] == WRONG_APP


@pytest.mark.parametrize("rule", [TLS, UNKNOWN])
async def test_both_are_silent(tmp_path: Path, rule: str) -> None:
    """Nothing happens until the idle limit, and then it was idle and not forbidden."""
    async with looked_at(tmp_path, rule, idle_s=1.5) as looked:
        begun_s = trio.current_time()
        assert await looked.client.rest() == (b"", Ending.RESET)
        assert await looked.target.rest() == (b"", Ending.RESET)
        assert trio.current_time() - begun_s >= 1.4
        row = await looked.record()
        assert (row["termination"], "app" in row) == ("idle", False)
        assert looked.running.server.counters["refused_by_app"] == 0


# ---- ends meanwhile


@pytest.mark.parametrize("who", ["client", "target"])
async def test_nothing_was_said_before_it_was_closed(tmp_path: Path, who: str) -> None:
    """Browsers open connections that they then do not need: that is nothing forbidden, and ends in order."""
    async with looked_at(tmp_path, TLS) as looked:
        leaving, other = (looked.client, looked.target) if who == "client" else (looked.target, looked.client)
        leaving.finish()
        assert await other.rest() == (b"", Ending.CLOSED)
        assert await leaving.rest() == (b"", Ending.CLOSED)
        row = await looked.record()
        assert (row["termination"], "app" in row) == (f"{who} closed", False)
        assert looked.running.server.counters["refused_by_app"] == 0


async def test_client_that_only_listens(tmp_path: Path) -> None:
    """It has ended its direction at once, and the server greets it: what that is decides."""
    async with looked_at(tmp_path, SMTP) as looked:
        looked.client.finish()
        await trio.testing.wait_all_tasks_blocked()
        await looked.target.send(GREETING)
        assert await looked.target.rest() == (b"", Ending.CLOSED)
        looked.target.finish()
        assert await looked.client.rest() == (GREETING, Ending.CLOSED)
        assert (await looked.record())["app"] == "smtp"


async def test_client_that_said_all_and_ended(tmp_path: Path) -> None:
    """Commands and FIN before the greeting: it may still come."""
    async with looked_at(tmp_path, SMTP) as looked:
        await looked.client.send(b"QUIT\r\n")
        looked.client.finish()
        await trio.testing.wait_all_tasks_blocked()
        await looked.target.send(GREETING)
        assert await looked.target.rest() == (b"QUIT\r\n", Ending.CLOSED)
        looked.target.finish()
        assert await looked.client.rest() == (GREETING, Ending.CLOSED)


async def test_target_that_greets_and_closes(tmp_path: Path) -> None:
    """It is too busy, and says so: the greeting decides at once, and the client learns of the end."""
    async with looked_at(tmp_path, SMTP) as looked:
        await looked.target.send(b"421 mail.example.org SMTP: too busy\r\n")
        looked.target.finish()
        assert await looked.client.rest() == (b"421 mail.example.org SMTP: too busy\r\n", Ending.CLOSED)
        looked.client.finish()
        assert await looked.target.rest() == (b"", Ending.CLOSED)
        row = await looked.record()
        assert (row["termination"], row["app"]) == ("target closed", "smtp")


@pytest.mark.parametrize("who", ["client", "target"])
@pytest.mark.parametrize("said", [b"", client_hello(NAME)[:50]], ids=["nothing", "half a hello"])
async def test_reset_meanwhile(tmp_path: Path, who: str, said: bytes) -> None:
    """Case 96: it is carried on at once."""
    async with looked_at(tmp_path, TLS) as looked:
        resetting, other = (looked.client, looked.target) if who == "client" else (looked.target, looked.client)
        await looked.client.send(said)
        await trio.testing.wait_all_tasks_blocked()
        resetting.reset()
        assert await other.rest() == (b"", Ending.RESET)
        row = await looked.record()
        assert (row["termination"], row["bytes_to_target"]) == (f"{who} reset", 0)


async def kill(looked: Looked) -> None:
    """An administrator ends it."""
    path = socket_path(looked.running.store.path)
    assert len(await trio.to_thread.run_sync(lambda: list(ask_server(path, "kill", {"user": "alice"})))) == 1


async def drain(looked: Looked) -> None:
    """The server stops."""
    looked.running.server.stop()
    looked.running.server.stop()


async def revoke(looked: Looked) -> None:
    """A rule forbids it."""
    looked.running.add_rules({"user:alice": ["deny tcp:*(*)->*(*)"]})


async def block(looked: Looked) -> None:
    """An administrator pulls the plug."""
    looked.running.store.blocks.add(BlockSubject(BlockKind.EVERYTHING), reason="attack", set_by="root")


@pytest.mark.parametrize(
    ("end", "termination"),
    [
        (kill, "ended by an administrator"),
        (drain, "server stopped"),
        (revoke, "no longer allowed"),
        (block, "blocked"),
    ],
)
async def test_ended_meanwhile(tmp_path: Path, end: Callable[[Looked], Awaitable[None]], termination: str) -> None:
    """Both are reset, nothing of what was held goes on, and there is one record."""
    async with looked_at(tmp_path, TLS) as looked:
        await looked.client.send(client_hello(NAME)[:-1])
        await trio.testing.wait_all_tasks_blocked()
        await end(looked)
        assert await looked.client.rest() == (b"", Ending.RESET)
        assert await looked.target.rest() == (b"", Ending.RESET)
        row = await looked.record()
        assert (row["termination"], row["bytes_to_target"], row["bytes_to_client"]) == (termination, 0, 0)


async def test_rules_that_are_too_old_meanwhile(tmp_path: Path) -> None:
    """Law 11: nobody can say whether what was found is allowed, so it is not; and the client is told nothing more."""
    async with looked_at(tmp_path, TLS) as looked:
        await looked.client.send(client_hello(NAME)[:-1])
        await trio.testing.wait_all_tasks_blocked()
        looked.running.server.rulebook._stale_max_s = -1.0
        await looked.client.send(client_hello(NAME)[-1:])
        assert await looked.client.rest() == (b"", Ending.RESET)
        assert (await looked.record())["termination"] == "rules too old"


async def test_rules_that_are_too_old_for_a_wrong_answer(tmp_path: Path) -> None:
    """Law 11: the same when nobody can say whether what is not in kind may pass."""
    async with looked_at(tmp_path, TLS, "tcp:*(*)->*(*)") as looked:
        hello = client_hello(NAME)
        await looked.client.send(hello)
        assert await looked.target.receive(len(hello)) == hello
        looked.running.server.rulebook._stale_max_s = -1.0
        await looked.target.send(b"no TLS")
        assert await looked.client.rest() == (b"", Ending.RESET)
        assert (await looked.record())["termination"] == "target answered in another protocol"


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    """However it ends: no descriptor, no place, no timer."""
    async with (
        running_server(tmp_path, config_for_tests(limits={"handshake_s": 2.0}), rules={"global": [TLS]}) as running,
        Origin.open() as origin,
    ):
        before = open_descriptors()
        hello = client_hello(NAME)
        for data in (b"", b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n", hello, hello[:-1]):
            for leave in ("reset", "close", "wait"):
                async with logged_in(running.address) as client:
                    assert (await client.ask(CONNECT, *origin.address)).code == 0
                    target = await origin.accept()
                    await client.send(data)
                    if leave != "wait":
                        getattr(client, leave)()
                    elif data in (b"", hello):
                        target.close()
                    else:
                        await client.rest()
                    target.close()
        await settle(lambda: running.server.open_sessions == 0, ENDS_WITHIN_S)
        assert open_descriptors() == before
        assert len(running.records.lines) == 12
        assert running.server.services.sessions.total == 0
        assert not any(running.server.services.engine.timers._queues.values())


async def test_a_greeting_waits_for_its_rate(tmp_path: Path) -> None:
    """What is passed on while nobody knows what the flow is has the limits of its user."""
    async with looked_at(tmp_path, SMTP) as looked:
        looked.running.set_limit("user:alice", "rate=80kbit burst=1kB")
        await looked.running.until_rules_hold()
        async with logged_in(looked.running.address) as client:
            await client.send(request(CONNECT, looked.origin.host, looked.origin.port))
            assert (await client.answer()).code == 0
            target = await looked.origin.accept()
            greeting = b"220-" + b"x" * 5_000 + b"\r\n220 mail ESMTP\r\n"
            begun_s = trio.current_time()
            await target.send(greeting)
            assert await client.receive(len(greeting)) == greeting
            assert trio.current_time() - begun_s >= 0.3  # 4 kB at 10 kB/s


async def test_a_greeting_counts_for_the_quota_of_the_rule(tmp_path: Path) -> None:
    """As soon as it is known which one that is."""
    async with looked_at(tmp_path, f"{SMTP} quota=1MB/day") as looked:
        await looked.target.send(GREETING)
        assert await looked.client.receive(len(GREETING)) == GREETING
        await looked.client.send(b"EHLO there\r\n")
        assert await looked.target.receive(12) == b"EHLO there\r\n"
        [account] = looked.running.server.services.allowances._accounts.values()
        await settle(lambda: account.quota.used(datetime.now(UTC)) == len(GREETING) + 12)
