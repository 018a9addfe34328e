"""The record of a session: every field, one line, one Termination for each way out (CASES K, issue item 8)."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from tests.associations import associated
from tests.harness import running_server
from tests.socks_client import CONNECT, connected, logged_in
from tests.targets import Origin, free_port
from tests.wires import UdpSocket

FIELDS = {
    "started_at", "session", "listener", "tenant", "user", "client", "command", "asked", "target", "bytes_to_target",
    "bytes_to_client", "duration_s", "termination", "reply", "scope", "rule",
}  # fmt: skip


async def test_every_field_of_a_connect(tmp_path: Path) -> None:
    """Issue item 8: who, from where, what, the judged address, bytes each way, duration, Termination, the rule."""
    rules = {"user:alice": ["deny tcp:*(*)->*(25)", 'tcp:127.0.0.0/8(*)->*(1-65535) note="all but mail"']}
    async with Origin.open() as origin, running_server(tmp_path, rules=rules) as running:
        begin = datetime.now(UTC)
        async with logged_in(running.address) as client:
            assert (await client.ask(CONNECT, b"localhost", origin.port)).code == 0
            target = await origin.accept()
            await client.send(b"12345")
            client.finish()
            assert (await target.rest())[0] == b"12345"
            await target.send(b"1234567")
            target.finish()
            assert (await client.rest())[0] == b"1234567"
            host, port = client.local
        await running.until_idle()
        (row,) = running.records.rows()
        assert row.keys() == FIELDS
        started_at, duration_s = datetime.fromisoformat(row.pop("started_at")), row.pop("duration_s")
        assert begin.timestamp() - 0.01 <= started_at.timestamp() <= datetime.now(UTC).timestamp()
        assert 0 <= duration_s < 60
        assert row == {
            "session": 1,
            "listener": f"127.0.0.1:{running.address[1]}",
            "tenant": "main",
            "user": "alice",
            "client": f"{host}:{port}",
            "command": "CONNECT",
            "asked": f"localhost:{origin.port}",
            "target": f"127.0.0.1:{origin.port}",
            "bytes_to_target": 5,
            "bytes_to_client": 7,
            "termination": "client closed",
            "reply": 0,
            "scope": "user:alice",
            "rule": 'tcp:127.0.0.0/8(*)->*(1-65535) note="all but mail"',
        }


async def test_refusals_name_what_refused(tmp_path: Path) -> None:
    """Issue item 8: the rule, the part of the floor, or that no rule allows it; and the reply that was sent."""
    rules = {"global": ["deny tcp:*(*)->*(25)"], "user:alice": ["tcp:*(*)->127.0.0.1(25,80)", "tcp:*(*)->0.0.0.0/0(9)"]}
    async with running_server(tmp_path, rules=rules) as running:
        for host, port in (("127.0.0.1", 25), ("127.0.0.1", 443), ("169.254.169.254", 9)):
            async with logged_in(running.address) as client:
                assert (await client.ask(CONNECT, host, port)).code == 2
        await running.until_idle()
        rows = sorted(running.records.rows(), key=lambda row: int(row["session"]))
        assert [(row["termination"], row["reply"], row["scope"], row["rule"]) for row in rows] == [
            ("refused by rule", 2, "global", "deny tcp:*(*)->*(25)"),
            ("refused by rule", 2, "", "no rule allows it"),
            ("refused by rule", 2, "", "169.254.0.0/16 link-local and cloud metadata"),
        ]


HOSTILE = b'a\r\n{"user":"root"}\x1b[2J"\\\0' + "\u202e\u2028\u00e9".encode() + b"\xff\xfe" + b"x" * 200


async def test_hostile_texts_stay_in_their_line(tmp_path: Path) -> None:
    """Case 105: CR LF, ESC, U+202E, U+2028, quotes, NUL, invalid UTF-8: one line, valid JSON, nothing unprintable."""
    async with running_server(tmp_path) as running:
        async with logged_in(running.address) as client:
            assert (await client.ask(CONNECT, HOSTILE, 80)).code == 1
        async with connected(running.address) as client:
            assert await client.log_in(HOSTILE, b"x") == 1
        await running.until_idle()
        (line,) = running.records.lines
        assert json.loads(line)["user"] == "alice"
        log = [text for text in running.log.lines if b"login rejected" in text]
        assert len(log) == 1
        for text in (line, *log):
            assert text.decode().isprintable()
            assert len(text) < 2_000


async def test_accounted_to_the_name_as_stored(tmp_path: Path) -> None:
    """Law 1 for users: other spellings of a name are the same user in records and limits."""
    async with running_server(tmp_path) as running:
        for name in (b"alice", b"ALICE"):
            async with logged_in(running.address, name) as client:
                assert (await client.ask(CONNECT, "127.0.0.1", free_port())).code == 5
        await running.until_idle()
        assert [row["user"] for row in running.records.rows()] == ["alice", "alice"]


async def test_association_leaves_one_record_for_each_destination_and_its_own(tmp_path: Path) -> None:
    """Issue item 8: each flow of an association by itself, all with the number of the session."""
    async with running_server(tmp_path) as running, UdpSocket.open() as one, UdpSocket.open() as two:
        async with associated(running.address, announce=True) as client:
            for target, data in ((one, b"1"), (two, b"22"), (one, b"333")):
                await client.send(target.host, target.port, data)
            for target in (two, one, one):
                await target.receive()
            announced = f"127.0.0.1:{client.udp.port}"
        await running.until_idle()
        rows = running.records.rows()
        assert {row["asked"]: row["bytes_to_target"] for row in rows[:2]} == {
            f"127.0.0.1:{one.port}": 4,
            f"127.0.0.1:{two.port}": 2,
        }
        assert (rows[2]["asked"], rows[2]["bytes_to_target"]) == (announced, 0)
        assert {(row["session"], row["user"], row["command"]) for row in rows} == {(1, "alice", "UDP_ASSOCIATE")}
        assert [row["reply"] for row in rows] == [None, None, 0]


async def test_sessions_have_numbers_of_their_own(tmp_path: Path) -> None:
    """Issue item 8: many at once, one record each, no number twice."""
    async with running_server(tmp_path) as running:
        port = free_port()

        async def refused() -> None:
            async with logged_in(running.address) as client:
                assert (await client.ask(CONNECT, "127.0.0.1", port)).code == 5

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(refused)
        await running.until_idle()
        assert sorted(row["session"] for row in running.records.rows()) == list(range(1, 31))


@pytest.mark.parametrize(("option", "records", "lines"), [("", 1, 0), (" log=no", 0, 0), (" log=yes", 1, 1)])
@pytest.mark.parametrize("allow", [True, False])
async def test_rule_decides_about_the_record(
    tmp_path: Path, option: str, records: int, lines: int, allow: bool
) -> None:
    """DESIGN section 3, `log=`: no record of what a rule decided, or a line in the log as well."""
    rule = f"{'allow' if allow else 'deny'} tcp:*(*)->127.0.0.1(*){option}"
    async with running_server(tmp_path, rules={"user:alice": [rule]}) as running, Origin.open() as origin:
        async with logged_in(running.address) as client:
            assert (await client.ask(CONNECT, *origin.address)).code == (0 if allow else 2)
            client.reset()
        await running.until_idle()
        assert len(running.records.rows()) == records
        assert running.log.text().count("] flow ") == lines
