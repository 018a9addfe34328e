"""The meter of a running flow, the record it leaves, and the name of every way it may end."""

import enum
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol

import attrs
import orjson

from auth import Identity
from trioproxy.policy import IPAddress, Permit, Reason, Refusal
from trioproxy.protocol import Command, Reply
from trioproxy.sniff import Finding

__all__ = ["Flow", "FlowRecord", "Termination", "ended_by", "escaped"]

TEXT_LENGTH_MAX = 512  # characters of one logged text: twice the longest name a client can send, before escaping


class Termination(enum.Enum):
    """Who ended a flow, in which phase. Each flow ends with exactly one."""

    # the relay was running
    CLIENT_CLOSED = "client closed"
    TARGET_CLOSED = "target closed"
    CLIENT_RESET = "client reset"
    TARGET_RESET = "target reset"
    IDLE = "idle"
    FORGOTTEN = "too many destinations"  # a UDP destination that made room for another
    REVOKED = "no longer allowed"
    WRONG_ANSWER = "target answered in another protocol"
    WRONG_APP = "not allowed for what the traffic is"
    OUT_OF_HOURS = "not at this hour"
    QUOTA = "quota used up"  # also before the relay
    KILLED = "ended by an administrator"
    BLOCKED = "blocked"  # also before the relay
    DRAINED = "server stopped"
    # before the relay
    HANDSHAKE_TIMEOUT = "handshake timeout"
    CROWDED_OUT = "made room for others"
    PROTOCOL_ERROR = "protocol error"
    NO_METHOD = "no acceptable method"
    LOGIN_REJECTED = "login rejected"
    LOGIN_UNAVAILABLE = "login unavailable"
    MALFORMED_DESTINATION = "malformed destination"
    REFUSED = "refused by rule"
    LIMIT = "limit reached"
    RESOLVE_FAILED = "name not resolved"
    CONNECT_FAILED = "connect failed"
    BIND_TIMEOUT = "nobody connected"
    BIND_WRONG_TARGET = "somebody else connected"
    POLICY_STALE = "rules too old"
    INTERNAL_ERROR = "internal error"


def ended_by(refusal: Refusal) -> Termination:
    """How a running flow ends that is refused now."""
    return _ENDINGS.get(refusal.reason, Termination.REVOKED)


_ENDINGS: Final = {
    Reason.BLOCKED: Termination.BLOCKED,
    Reason.HOURS: Termination.OUT_OF_HOURS,
    Reason.APP: Termination.WRONG_APP,
}


class Charged(Protocol):
    """Who wants to know how many bytes a flow moves: its rates and quotas."""

    def charge(self, count: int) -> None:
        """So many more."""
        ...

    def is_stale(self) -> bool:
        """Whether a quota was used up meanwhile, or its next period has begun."""
        ...

    def leave(self) -> None:
        """The flow has ended."""
        ...


def escaped(text: str | bytes) -> str:
    """Make a stranger's text safe to stand in one line of a log, with a visible form for everything else.

    Control, format and separator characters (CR, LF, ESC, U+202E, U+2028 ...) become backslash escapes; at most
    512 characters are kept.
    """
    if isinstance(text, bytes):
        text = text.decode("ascii", "backslashreplace")
    if len(text) > TEXT_LENGTH_MAX:
        text = text[:TEXT_LENGTH_MAX] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@lru_cache(maxsize=8_192)  # the same hosts come again and again, and writing an address costs 1.5 us
def _host_text(host: IPAddress | bytes) -> str:
    text = escaped(host) if isinstance(host, bytes) else str(host)
    return f"[{text}]" if ":" in text else text


def _socket_text(host: IPAddress | bytes, port: int) -> str:
    """`host:port`, with brackets round an IPv6 address."""
    return f"{_host_text(host)}:{port}"


@lru_cache(maxsize=8)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _moment_text(at: float) -> str:
    second = int(at)
    return f"{_second_text(second)}.{int((at - second) * 1000):03d}Z"


@attrs.frozen
class FlowRecord:
    """What is kept of one finished flow. Byte counts are payload, without SOCKS headers.

    Attributes:
        started_at: seconds since the epoch, UTC.
        app: what its first bytes were, where a rule asked for it; with TLS also the name in them.
        ech: the ClientHello carries an encrypted one, so that the name is the outer one.
    """

    started_at: float
    session: int
    listener: str
    tenant: str
    user: str | None
    client: str
    command: str | None
    asked: str | None
    target: str | None
    bytes_to_target: int
    bytes_to_client: int
    duration_s: float
    termination: Termination
    reply: int | None
    scope: str | None
    rule: str | None
    counts: Mapping[str, int]
    app: str | None = None
    sni: str | None = None
    ech: bool = False

    def to_json(self) -> bytes:
        """One line, without its end: valid JSON, ASCII control characters and all others that do not print escaped."""
        row: dict[str, object] = {
            "started_at": _moment_text(self.started_at),
            "session": self.session,
            "listener": self.listener,
            "tenant": self.tenant,
            "user": self.user,
            "client": self.client,
            "command": self.command,
            "asked": self.asked,
            "target": self.target,
            "bytes_to_target": self.bytes_to_target,
            "bytes_to_client": self.bytes_to_client,
            "duration_s": round(self.duration_s, 3),
            "termination": self.termination.value,
            "reply": self.reply,
            "scope": self.scope,
            "rule": self.rule,
        }
        if self.app is not None:
            row["app"] = self.app
        if self.sni is not None:
            row["sni"] = self.sni
        if self.ech:
            row["ech"] = True
        if self.counts:
            row["counts"] = self.counts
        return orjson.dumps(row)


@attrs.define(eq=False)
class Flow:
    """One conversation while it runs. The relay adds to the two byte counts; `end` makes the record.

    Attributes:
        session: number of the session, unique in this process.
        listener: where the client came in, `address:port`.
        client_address: canonical.
        asked: what the client asked for, as `host:port`, escaped.
        verdict: what policy said; None until it was asked.
        rate_to_target: bytes a second, over the last few seconds; so is `rate_to_client`.
        source: what the client counts as where limits are for each source.
        allowance: what it may have; None: whatever it likes.
        block: the block that ended it, where there was nothing to judge: no address yet, or an association as a whole.
        counts: further numbers of the record (dropped datagrams by reason).
    """

    session: int
    listener: str
    client_address: IPAddress
    client_port: int
    tenant: str
    identity: Identity | None = None
    command: Command | None = None
    asked: str | None = None
    verdict: Permit | Refusal | None = None
    reply: Reply | None = None
    bytes_to_target: int = 0
    bytes_to_client: int = 0
    rate_to_target: float = 0.0
    rate_to_client: float = 0.0
    allowance: Charged | None = None
    source: str = ""
    block: str = ""
    counts: dict[str, int] = attrs.field(factory=dict)
    started_at: float = attrs.field(factory=time.time)
    _started_s: float = attrs.field(factory=time.monotonic)
    _asked_for: tuple[IPAddress | bytes, int] | None = None
    _read: tuple[int, int] = (0, 0)  # the byte counts when the meter was read last

    def ask(self, command: Command, host: IPAddress | bytes, port: int) -> None:
        """Keep what the client asked for."""
        self.command = command
        self.asked = _socket_text(host, port)
        self._asked_for = host, port

    def count(self, reason: str) -> None:
        """Add one to a further number of the record."""
        self.counts[reason] = self.counts.get(reason, 0) + 1

    def read_meter(self, elapsed_s: float) -> None:
        """Work out the current rates, and charge what has moved since the last time.

        Args:
            elapsed_s: how long ago that was.
        """
        counts = self.bytes_to_target, self.bytes_to_client
        if counts == self._read:
            self.rate_to_target = self.rate_to_client = 0.0
            return
        to_target, to_client = counts[0] - self._read[0], counts[1] - self._read[1]
        self._read = counts
        self.rate_to_target, self.rate_to_client = to_target / elapsed_s, to_client / elapsed_s
        if self.allowance is not None:
            self.allowance.charge(to_target + to_client)

    def change_allowance(self, allowance: Charged | None) -> None:
        """From now on bytes count for this one; those until now for the old one, or for none."""
        if self.allowance is not None:
            self.read_meter(1.0)
            self.allowance.leave()
        self._read = self.bytes_to_target, self.bytes_to_client
        self.allowance = allowance

    def end(self, termination: Termination) -> FlowRecord:
        """The record of this flow, now that it is over."""
        verdict, identity, finding = self.verdict, self.identity, self.finding
        return FlowRecord(
            started_at=self.started_at,
            session=self.session,
            listener=self.listener,
            tenant=self.tenant_of_now,
            user=escaped(identity.user) if identity and identity.user is not None else None,
            client=self.client_text,
            command=self.command.name if self.command else None,
            asked=self.asked,
            target=self.target_text,
            bytes_to_target=self.bytes_to_target,
            bytes_to_client=self.bytes_to_client,
            duration_s=time.monotonic() - self._started_s,
            termination=termination,
            reply=int(self.reply) if self.reply is not None else None,
            scope="" if self.block else verdict.scope if verdict else None,
            rule=self._rule_text(),
            counts=self.counts,
            app=finding.app.value if finding is not None else None,
            sni=finding.sni if finding is not None else None,
            ech=finding is not None and finding.ech,
        )

    @property
    def finding(self) -> Finding | None:
        """What its first bytes were; None: nobody has looked."""
        return self.verdict.request.finding if self.verdict is not None else None

    @property
    def tenant_of_now(self) -> str:
        """The user's, or before the login that of the listener."""
        return self.identity.tenant if self.identity is not None else self.tenant

    @property
    def client_text(self) -> str:
        """`address:port` of the client."""
        return _socket_text(self.client_address, self.client_port)

    def _rule_text(self) -> str | None:
        verdict = self.verdict
        if self.block or verdict is None:
            return self.block or None
        return verdict.rule or verdict.reason.value if isinstance(verdict, Refusal) else verdict.rule

    @property
    def target_text(self) -> str | None:
        """`address:port` of what was judged last."""
        if self.verdict is None:
            return None
        request = self.verdict.request
        if self._asked_for is not None and request.address is self._asked_for[0] and request.port == self._asked_for[1]:
            return self.asked  # an address that was asked for as such, which is the usual case
        return _socket_text(request.address, request.port)
