"""Records: complete, one line, whatever a stranger put into names."""

import json
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth import Identity
from trioproxy.accounting import Flow, Termination, escaped
from trioproxy.policy import AccessRequest, Permit, Reason, Refusal, RuleProtocol
from trioproxy.protocol import Command, Reply

CLIENT = IPv4Address("10.1.2.3")


def a_flow() -> Flow:
    """A flow that has just begun."""
    return Flow(7, "127.0.0.1:1080", CLIENT, 40_000, "main")


def a_request(identity: Identity) -> AccessRequest:
    """A question about an IPv6 target."""
    return AccessRequest(identity, CLIENT, 40_000, RuleProtocol.TCP, None, IPv6Address("2001:db8::1"), 443)


def test_record_of_a_relayed_flow() -> None:
    """Who, from where, command, asked name, judged address, bytes each way, termination, rule (issue item 8)."""
    flow = a_flow()
    flow.identity = Identity("physics", "alice")
    flow.ask(Command.CONNECT, b"www.example.org", 443)
    flow.verdict = Permit(a_request(flow.identity), "user:physics/alice", "tcp:*(*)->*(*)")
    flow.reply = Reply.SUCCEEDED
    flow.bytes_to_target, flow.bytes_to_client = 3, 5
    row = json.loads(flow.end(Termination.TARGET_CLOSED).to_json())
    assert {key: row[key] for key in row if key not in ("started_at", "duration_s")} == {
        "session": 7,
        "listener": "127.0.0.1:1080",
        "tenant": "physics",
        "user": "alice",
        "client": "10.1.2.3:40000",
        "command": "CONNECT",
        "asked": "www.example.org:443",
        "target": "[2001:db8::1]:443",
        "bytes_to_target": 3,
        "bytes_to_client": 5,
        "termination": "target closed",
        "reply": 0,
        "scope": "user:physics/alice",
        "rule": "tcp:*(*)->*(*)",
    }
    assert row["started_at"].endswith("Z")
    assert row["duration_s"] >= 0


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        ((Reason.FLOOR, "", "loopback"), "loopback"),
        ((Reason.NO_RULE, "", ""), "no rule allows it"),
        ((Reason.RULE, "global", "deny tcp:*(*)->*(25)"), "deny tcp:*(*)->*(25)"),
    ],
)
def test_record_of_a_refusal_says_what_refused(refusal: tuple[Reason, str, str], expected: str) -> None:
    """The record names the rule, the part of the floor, or that no rule allowed it."""
    flow = a_flow()
    flow.identity = Identity("main", None)
    flow.verdict = Refusal(a_request(flow.identity), *refusal)
    record = flow.end(Termination.REFUSED)
    assert record.rule == expected
    assert record.user is None


def test_counts_appear_only_if_there_are_any() -> None:
    """Dropped datagrams are part of an association's record."""
    flow = a_flow()
    assert b"counts" not in flow.end(Termination.CLIENT_CLOSED).to_json()
    flow.count("stranger")
    flow.count("stranger")
    assert json.loads(flow.end(Termination.CLIENT_CLOSED).to_json())["counts"] == {"stranger": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"evil\r\n{}", "evil\\r\\n{}"),
        (b"\x1b[2J", "\\x1b[2J"),
        (b"\xff\x00", "\\xff\\x00"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u2028b", "a\\u2028b"),
        ("Zoë", "Zoë"),
        ("x" * 10_000, "x" * 512 + "..."),
    ],
)
def test_case_105_escaped(text: str | bytes, expected: str) -> None:
    """Case 105: CR, LF, ESC, U+202E, U+2028, invalid UTF-8 and 10 KiB of name become one short visible text."""
    assert escaped(text) == expected


@given(st.one_of(st.text(), st.binary(max_size=255)))
def test_case_105_any_name_gives_one_line_of_json(text: str | bytes) -> None:
    """Case 105: whatever the name, the record is one line of valid JSON without a character that does not print."""
    flow = a_flow()
    flow.identity = Identity("main", text if isinstance(text, str) else "bob")
    flow.ask(Command.CONNECT, text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text, 80)
    line = flow.end(Termination.REFUSED).to_json().decode()
    assert line.isprintable()
    assert json.loads(line)["asked"].endswith(":80") or json.loads(line)["asked"].endswith("]:80")
