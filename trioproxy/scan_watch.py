"""Noticing who scans, and what is done about it: said in the log, slowed down, or blocked for a while."""

import math
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Final, TypeAlias

from auth import Identity
from trioproxy.accounting import Flow
from trioproxy.config import Scans
from trioproxy.log import get_log
from trioproxy.policy import BlockKind, BlockSubject, Permit, Scope, ScopeKind
from trioproxy.policy.scans import Alarm, Outcome, ScanDetector, ScanSettings

__all__ = ["ScanWatch", "SetBlock"]

SET_BY: Final = "scan detector"
SLOWED_PER_S: Final = 5.0  # targets a second of who is slowed down: people do not notice, a thousand ports take minutes
SLOWED_MAX_S: Final = 10.0  # who would have to wait longer is refused: the queue must not grow
HOMES_MAX: Final = 50_000  # sources: 10 MB
_SECRET_BYTES: Final = 32

SetBlock: TypeAlias = Callable[[BlockSubject, str, str, datetime], None]  # what, tenant, reason, until when


class ScanWatch:
    """Watches users and sources.

    Args:
        settings: of the configuration.
        counters: `scans` counts alarms.
        set_block: sets a block; must not wait.
    """

    def __init__(self, settings: Scans, counters: Counter[str], set_block: SetBlock) -> None:
        self._counters = counters
        self._set_block = set_block
        self._slowed: dict[Hashable, tuple[float, float]] = {}  # until when, and when the next target is free
        self._caught: dict[tuple[str, str], float] = {}  # where a user was caught, and when
        self._homes: OrderedDict[tuple[str, str], None] = OrderedDict()  # where users log in, the last of them
        self.apply(settings)

    def apply(self, settings: Scans) -> None:
        """Take over a changed configuration; what was seen so far is forgotten."""
        self.settings = settings
        limits = ScanSettings(
            window_s=settings.window_s,
            targets_max=settings.targets_max,
            refused_max=settings.refused_max,
            ports_of_one_host_max=settings.ports_of_one_host_max,
            hosts_of_one_port_max=settings.hosts_of_one_port_max,
        )
        self._users, self._sources = (ScanDetector(limits, os.urandom(_SECRET_BYTES)) for _ in range(2))

    def saw(self, flow: Flow, outcome: Outcome) -> None:
        """A flow has tried to reach what was judged last, and this came of it."""
        verdict, identity = flow.verdict, flow.identity
        if verdict is None or identity is None or self.settings.action == "off":
            return
        if isinstance(verdict, Permit) and any(term.rule.scan_ignored for term in verdict.terms):
            return
        address, port, now_s = verdict.request.address, verdict.request.port, time.monotonic()
        source = (identity.tenant, flow.source)
        if identity.user is not None:
            self._homes[source] = None
            self._homes.move_to_end(source)
            if len(self._homes) > HOMES_MAX:
                self._homes.popitem(last=False)
            alarm = self._users.saw((identity.tenant, identity.user), address, port, outcome, now_s)
            if alarm is not None:
                self._caught = {
                    key: at_s for key, at_s in self._caught.items() if now_s - at_s <= self.settings.window_s
                }
                self._caught[source] = now_s
                self._raise(alarm, flow, identity)
        alarm = self._sources.saw(source, address, port, outcome, now_s)
        # What one of its users was caught for is not told again of the source.
        if alarm is not None and now_s - self._caught.pop(source, -math.inf) > self.settings.window_s:
            self._raise(alarm, flow, Identity(identity.tenant, None), shared=identity.user is not None)

    def wait_s(self, identity: Identity, source: str, *, may_wait: bool = True) -> float | None:
        """How long the next target of this user or source has to wait; None: too long.

        Args:
            identity: whose target.
            source: where the client is.
            may_wait: False: it will not, as datagrams do not; if it would have to, it takes no turn from others.
        """
        if not self._slowed:
            return 0.0
        now_s = time.monotonic()
        key = _key(identity, source)
        until_s, free_s = self._slowed.get(key, (0.0, 0.0))
        if until_s <= now_s:
            self._slowed.pop(key, None)
            return 0.0
        free_s = max(free_s, now_s)
        if free_s - now_s > (SLOWED_MAX_S if may_wait else 0.0):
            return None
        self._slowed[key] = until_s, free_s + 1 / SLOWED_PER_S
        return free_s - now_s

    def _raise(self, alarm: Alarm, flow: Flow, who: Identity, *, shared: bool = False) -> None:
        """Do what is to be done.

        Args:
            alarm: what was noticed.
            flow: the last one.
            who: the user, or nobody in particular: then it is the source.
            shared: people log in from this source, and one must not suffer for another: it is only said.
        """
        settings, figures = self.settings, alarm.figures
        action = "log" if shared else settings.action
        if action == "block-for" and who.user is None and (who.tenant, flow.source) in self._homes:
            action = "slow"  # a block of the source would be one of the people who log in there
        self._counters["scans"] += 1
        get_log().warning(
            "scan",
            kind=alarm.kind.value,
            tenant=who.tenant,
            user=who.user,
            source=str(flow.client_address),
            last=flow.target_text,
            targets=figures.targets,
            failures=figures.failures,
            action=action,
        )
        if action == "slow":
            now_s = time.monotonic()
            self._slowed = {key: slowed for key, slowed in self._slowed.items() if slowed[0] > now_s}
            self._slowed[_key(who, flow.source)] = now_s + settings.block_s, now_s
        elif action == "block-for":
            reason = f"scan: {alarm.kind.value} within {settings.window_s:g} s, the last one {flow.target_text}"
            until = datetime.now(UTC) + timedelta(seconds=settings.block_s)
            self._set_block(_subject(who, flow), who.tenant, reason, until)


def _key(who: Identity, source: str) -> Hashable:
    """Whose targets wait: a user's, or those of all who do not log in from one source."""
    return (who.tenant, who.user) if who.user is not None else (who.tenant, None, source)


def _subject(who: Identity, flow: Flow) -> BlockSubject:
    if who.user is not None:
        return BlockSubject(BlockKind.USER, user=Scope(ScopeKind.USER, who.tenant, who.user))
    return BlockSubject(BlockKind.SOURCE, host=ip_network(flow.source))
