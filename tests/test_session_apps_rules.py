"""Rules about what the traffic is change under running flows; and the same rules for datagrams."""

from pathlib import Path

import pytest
import trio

from tests.associations import Associated, associated, dropped, passes
from tests.changes import ENDS_WITHIN_S
from tests.harness import Running, running_server, settle
from tests.looking import NAME, TLS, Looked, looked_at, shake_hands, tls_ends
from tests.sniff.hellos import client_hello
from tests.wires import Ending, UdpSocket
from trioproxy.sniff import App

pytestmark = pytest.mark.usefixtures("either_engine")

WRONG_APP = "not allowed for what the traffic is"
ANYTHING = "tcp:*(*)->*(*)"


async def change_rules(running: Running, *texts: str) -> None:
    """These instead of all that there are for everybody, once they hold."""
    old = [rule.id for rules in running.store.rules.all().values() for rule in rules]
    running.add_rules({"global": texts})
    running.store.rules.remove(old)
    await running.until_rules_hold()


async def cut(looked: Looked, termination: str, app: str | None) -> None:
    """Both sides are reset within the usual time, and this is why."""
    with trio.fail_after(ENDS_WITHIN_S):
        assert (await looked.client.rest())[1] is Ending.RESET
        assert (await looked.target.rest())[1] is Ending.RESET
    row = await looked.record()
    assert (row["termination"], row.get("app")) == (termination, app)


async def lives(looked: Looked) -> None:
    """Bytes pass both ways."""
    await looked.client.send(b"ping")
    assert await looked.target.receive(4) == b"ping"
    await looked.target.send(b"pong")
    assert await looked.client.receive(4) == b"pong"


# ---- TCP


async def test_what_was_found_still_counts(tmp_path: Path) -> None:
    """Rules change under a flow that was looked at: nobody needs to look again."""
    async with looked_at(tmp_path, TLS) as looked:
        await shake_hands(*tls_ends(looked))
        await change_rules(looked.running, "tcp:*(*)->*(*) sni=*.example.org", "deny tcp:*(*)->*(*) app=unknown")
        finding = looked.flow.finding
        assert finding is not None
        assert (finding.app, finding.sni) == (App.TLS, NAME)
        looked.running.add_rules({"global": ["deny tcp:*(*)->*(*) sni=www.example.org"]})
        looked.running.add_rules({"user:alice": ["deny tcp:*(*)->*(*) sni=example.com"]})
        await looked.running.until_rules_hold()
        assert looked.running.server.open_sessions == 1
        looked.running.add_rules({"user:alice": ["deny tcp:*(*)->*(*) sni=www.example.org"]})
        await cut(looked, WRONG_APP, "tls")


async def test_new_rule_that_asks_meets_flows_at_which_nobody_looked(tmp_path: Path) -> None:
    """Their first bytes are gone: they count as unknown, and end where that is not allowed."""
    async with looked_at(tmp_path, ANYTHING) as looked:
        await lives(looked)
        await change_rules(looked.running, TLS)
        await cut(looked, WRONG_APP, "unknown")


async def test_new_rule_that_asks_and_allows_the_unknown(tmp_path: Path) -> None:
    """The same where it is allowed: the flow goes on, as unknown from now on."""
    async with looked_at(tmp_path, ANYTHING) as looked:
        await lives(looked)
        await change_rules(looked.running, "deny tcp:*(*)->*(*) app=bittorrent", ANYTHING)
        await lives(looked)
        assert looked.flow.finding is not None
        assert looked.flow.finding.app is App.UNKNOWN
        await change_rules(looked.running, ANYTHING)
        await lives(looked)
        await change_rules(looked.running, "deny tcp:*(*)->*(*) app=unknown", ANYTHING)
        await cut(looked, WRONG_APP, "unknown")


@pytest.mark.parametrize("permitted", [True, False])
async def test_rules_change_while_it_is_looked_at(tmp_path: Path, permitted: bool) -> None:
    """Those of the moment in which it is known count."""
    hello = client_hello(NAME)
    async with looked_at(tmp_path, TLS) as looked:
        await looked.client.send(hello[:-1])
        await trio.testing.wait_all_tasks_blocked()
        sni = "*.example.org" if permitted else "example.com"
        await change_rules(looked.running, f"tcp:*(*)->*(*) sni={sni}")
        assert looked.running.server.open_sessions == 1
        await looked.client.send(hello[-1:])
        if permitted:
            assert await looked.target.receive(len(hello)) == hello
        else:
            await cut(looked, WRONG_APP, "tls")


async def test_rules_stop_asking_while_it_is_looked_at(tmp_path: Path) -> None:
    """It is looked to the end, and then goes on whatever it is."""
    async with looked_at(tmp_path, TLS) as looked:
        await change_rules(looked.running, ANYTHING)
        await looked.client.send(b"\xffnoise")
        assert await looked.target.receive(6) == b"\xffnoise"
        await lives(looked)


async def test_rates_of_the_rule_that_fits(tmp_path: Path) -> None:
    """What was looked at runs under the terms of the rule for what it is."""
    limited = "tcp:*(*)->*(*) app=http rate=80kbit burst=2kB"
    async with looked_at(tmp_path, TLS, limited) as looked:
        question = b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n"
        await looked.client.send(question)
        assert await looked.target.receive(len(question)) == question
        assert looked.flow.allowance is not None
        begun_s = trio.current_time()
        answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 12_000
        await looked.target.send(answer)
        assert await looked.client.receive(len(answer)) == answer
        assert trio.current_time() - begun_s >= 0.9


# ---- UDP


QUIC = bytes.fromhex("c3 00000001 08") + bytes(range(8)) + b"\0\0\x44\x9e" + bytes(1_200 - 18)
DNS = bytes.fromhex("1234 0100 0001 0000 0000 0000") + b"\7example\3org\0" + bytes.fromhex("0001 0001")


async def is_dropped(running: Running, client: Associated, target: UdpSocket, data: bytes) -> None:
    """It does not arrive; what is sent behind it to somebody else does."""
    before = dropped(running, "denied")
    await client.send(target.host, target.port, data)
    await settle(lambda: dropped(running, "denied") == before + 1)
    assert target.nothing_waits()


@pytest.mark.parametrize(
    ("app", "right", "wrong"), [("quic", QUIC, DNS), ("quic", QUIC, QUIC[:-1]), ("dns", DNS, QUIC), ("dns", DNS, b"x")]
)
async def test_datagrams_of_one_kind(tmp_path: Path, app: str, right: bytes, wrong: bytes) -> None:
    """Issue item 6: `app=` for UDP; the first datagram to a destination tells what all of them are."""
    async with (
        running_server(tmp_path, rules={"global": [f"udp:*(*)->*(*) app={app}"]}) as running,
        associated(running.address) as client,
        UdpSocket.open("127.0.0.2") as good,
        UdpSocket.open("127.0.0.3") as bad,
    ):
        assert len(QUIC) == 1_200
        await is_dropped(running, client, bad, wrong)
        await is_dropped(running, client, bad, wrong)
        await passes(client, good, right)
        await passes(client, good, b"what follows looks like nothing")
        await passes(client, bad, right)  # a destination is known from what went to it, not from what was dropped
        await passes(client, bad, wrong)
        client.control.close()
        await running.until_idle()
        rows = [row for row in running.records.rows() if row["target"] is not None]
        assert {(row["app"], row["target"]) for row in rows} == {
            (app, f"{good.host}:{good.port}"),
            (app, f"{bad.host}:{bad.port}"),
        }


async def test_what_a_destination_is_stays(tmp_path: Path) -> None:
    """Rules change: a destination that was looked at is still what it was, one that was not is unknown."""
    everything = "udp:*(*)->*(*)"
    rules = {"global": ["udp:*(*)->127.0.0.2(*) app=quic", "udp:*(*)->127.0.0.3(*)"]}
    async with (
        running_server(tmp_path, rules=rules) as running,
        associated(running.address) as client,
        UdpSocket.open("127.0.0.2") as looked,
        UdpSocket.open("127.0.0.3") as other,
    ):
        await passes(client, looked, QUIC)
        await passes(client, other, QUIC)
        await change_rules(running, "udp:*(*)->*(*) app=quic,dns")
        await settle(lambda: len(running.records.lines) == 1, ENDS_WITHIN_S)
        await passes(client, looked)
        await is_dropped(running, client, other, b"not what it began with")
        (row,) = running.records.rows()
        assert (row["target"], row["termination"]) == (f"{other.host}:{other.port}", WRONG_APP)
        assert row["app"] == "unknown"
        await change_rules(running, everything, "udp:*(*)->*(9) app=quic")
        await passes(client, looked)
        await passes(client, other)


async def test_nobody_looks_at_datagrams_where_no_rule_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue item 6: only where a rule that could decide asks; the record then says nothing of it."""

    def nobody(payload: bytes) -> App:
        raise AssertionError(payload)

    monkeypatch.setattr("trioproxy.relay.destinations.datagram_app", nobody)
    rules = {"global": ["udp:*(*)->*(9) app=quic", "tcp:*(*)->*(*) app=tls", "udp:*(*)->*(*)"]}
    async with (
        running_server(tmp_path, rules=rules) as running,
        associated(running.address) as client,
        UdpSocket.open() as target,
    ):
        await passes(client, target, QUIC)
        client.control.close()
        await running.until_idle()
        assert all("app" not in row for row in running.records.rows())
