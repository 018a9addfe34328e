"""What each flow may have: its share of rates, its place in quotas; and how many sessions and targets a user may begin.

Limits come from two sides: the rules that permit a flow (`rate=`, `quota=`), and the templates of `trioproxy limit`.
All of them hold together. What several flows share is kept here, for as long as it can make a difference.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import compress
from typing import Final, TypeAlias

import attrs

from auth import Identity
from trioproxy.accounting import QuotaKey, Usage
from trioproxy.limits import MINUTE_S, Minute
from trioproxy.policy import IPAddress, Limit, LimitBook, Scope, Term
from trioproxy.policy.buckets import Bucket, DatagramGate, Gate, default_burst
from trioproxy.policy.quotas import QuotaAccount
from trioproxy.policy.shapes import DatagramShape, Shape
from trioproxy.policy.units import Quota, Rates

__all__ = ["PERIOD_MAX", "Allowance", "Allowances", "OverQuotaError", "QuotaState"]

PERIOD_MAX: Final = timedelta(days=32)  # the longest period of a quota, and a day for time zones

_EACH: Final = "limit for each user"
_TOGETHER: Final = "limit for all together"
_OVER_QUOTA: Final = "over quota"

_Key: TypeAlias = tuple[str, str, str, str]  # tenant, owner, scope, what the rule is about or which kind of limit


class OverQuotaError(Exception):
    """Nothing may flow: a quota is used up, or what was used of it is not known; the text says which."""


@attrs.frozen
class QuotaState:
    """How a quota stands.

    Attributes:
        scope: the layer of its rule, or whom its template is for; empty: each user.
        rule: its rule, or which kind of template it is.
        quota: how much there is.
        left: bytes.
        ends_at: when its period ends.
        over_quota_rate: how fast bytes flow on when it is used up; None: not at all.
    """

    scope: str
    rule: str
    quota: Quota
    left: int
    ends_at: datetime
    over_quota_rate: Rates | None


@attrs.define(eq=False)
class _Share:
    """A rate that flows share, in both directions."""

    down: Bucket
    up: Bucket
    flows: int = 0

    def set_rates(self, rates: Rates, burst: int | None, now_s: float) -> None:
        for bucket, rate in ((self.down, rates.down), (self.up, rates.up)):
            wanted = burst or default_burst(rate)
            if (bucket.rate, bucket.burst) != (rate, wanted):
                bucket.set_rate(rate, wanted, now_s)

    def is_full(self, now_s: float) -> bool:
        """Whether a new one would be no different."""
        for bucket in (self.down, self.up):
            bucket.refill(now_s)
        return self.down.tokens >= self.down.burst and self.up.tokens >= self.up.burst


@attrs.define(eq=False)
class _Account:
    """A quota that flows share.

    Attributes:
        source: the rule, or which kind of template, that sets the quota now.
        over_quota_rate: how fast they go on together when it is used up; None: they do not.
    """

    key: _Key
    quota: QuotaAccount
    source: str = ""
    over_quota_rate: Rates | None = None
    flows: int = 0


class Allowance:
    """What one flow may have. Whoever asked for it calls `leave` at its end.

    Attributes:
        shares: the rates it has part in.
        accounts: the quotas it counts for.
    """

    __slots__ = ("_owner", "_spent", "accounts", "shares")

    def __init__(
        self, owner: "Allowances", shares: tuple[_Share, ...], accounts: tuple[_Account, ...], spent: tuple[bool, ...]
    ) -> None:
        self._owner = owner
        self._spent = spent
        self.shares = shares
        self.accounts = accounts
        self._count(1)

    def shape(self) -> Shape | None:
        """New gates for a TCP relay; None: it waits for nothing."""
        if not self.shares:
            return None
        return Shape(Gate(share.down for share in self.shares), Gate(share.up for share in self.shares))

    def datagram_shape(self) -> DatagramShape | None:
        """New gates for datagrams."""
        if not self.shares:
            return None
        down, up = (share.down for share in self.shares), (share.up for share in self.shares)
        return DatagramShape(DatagramGate(down), DatagramGate(up))

    def charge(self, count: int) -> None:
        """So many bytes have flowed."""
        self._owner.charge(self.accounts, count)

    def charge_but(self, other: "Allowance | None", count: int) -> None:
        """So many bytes have flowed, which were charged to the quotas of the other one."""
        charged = other.accounts if other is not None else ()
        self._owner.charge([account for account in self.accounts if account not in charged], count)

    def leave(self) -> None:
        """The flow has ended."""
        self._count(-1)

    def _count(self, flows: int) -> None:
        for share in self.shares:
            share.flows += flows
        for account in self.accounts:
            account.flows += flows

    def is_stale(self) -> bool:
        """Whether a quota was used up meanwhile, or its next period has begun."""
        if not self.accounts:
            return False
        now = self._owner.now()
        return any(
            (not account.quota.left(now)) is not spent
            for account, spent in zip(self.accounts, self._spent, strict=True)
        )

    def same_as(self, other: "Allowance | None") -> bool:
        """Whether nothing changes for the flow."""
        return other is not None and (self.shares, self.accounts) == (other.shares, other.accounts)


class Allowances:
    """All rates, quotas and paces of one process.

    Args:
        limits: the templates in force.
        zone_of: the time zone of a tenant.
        usage: is told what was used of quotas.
        now: the time of day, aware.
        clock: monotonic seconds, as the relays have them.
    """

    def __init__(
        self,
        limits: Callable[[], LimitBook],
        zone_of: Callable[[str], tzinfo],
        usage: Usage,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._zone_of = zone_of
        self._usage = usage
        self.now = now
        self._clock = clock
        self._shares: dict[_Key, _Share] = {}
        self._accounts: dict[_Key, _Account] = {}
        self._charged: dict[_Account, None] = {}  # since the last flush
        self._stored: dict[_Key, dict[datetime, int]] | None = None  # and has no account yet; None: not known yet
        self._new_sessions: dict[Hashable, Minute] = {}
        self._targets: dict[Hashable, OrderedDict[tuple[IPAddress, int], float]] = {}

    # ---- rates and quotas

    def of(self, identity: Identity, source: str, terms: Iterable[Term]) -> Allowance | None:
        """What a flow may have; None: whatever it likes.

        Args:
            identity: whose flow.
            source: what counts as the owner where nobody logs in.
            terms: of the rules that permit it.

        Raises:
            OverQuotaError: nothing.
        """
        if not terms and not self._limits().limits:
            return None
        shares, accounts = self._collect(identity, source, terms)
        if not shares and not accounts:
            return None
        spent = self._spent(accounts)
        shares += map(self._over_quota_share, compress(accounts, spent))
        return Allowance(self, tuple(shares), tuple(accounts), spent)

    def quotas(self, identity: Identity, source: str, terms: Iterable[Term]) -> list[QuotaState]:
        """How the quotas stand that count for a flow; see `of`."""
        now = self.now()
        states = []
        for account in self._collect(identity, source, terms)[1]:
            quota, ends_at = account.quota, account.quota.period(now)[1]
            state = QuotaState(
                account.key[2], account.source, quota.quota, quota.left(now), ends_at, account.over_quota_rate
            )
            states.append(state)
        return states

    def _collect(self, identity: Identity, source: str, terms: Iterable[Term]) -> tuple[list[_Share], list[_Account]]:
        """All rates and quotas that count for a flow."""
        book = self._limits()
        tenant, owner = (
            identity.tenant,
            identity.user if identity.user is not None else f"/{source}",
        )  # no name has a slash
        shares: list[_Share] = []
        accounts: list[_Account] = []
        for term in terms:
            rule = term.rule
            if rule.rate is not None:
                shares.append(self._share((tenant, owner, term.scope, term.text), rule.rate, rule.burst))
            if rule.quota is not None:
                account = self._account((tenant, owner, term.scope, rule.counted_as), rule.quota)
                account.source = term.text
                accounts.append(account)
        each = book.each(identity).limit
        self._add(shares, accounts, (tenant, owner, "", _EACH), each)
        for scope, limit in book.together(identity):
            self._add(shares, accounts, _together_key(scope), limit)
        return shares, accounts

    def _add(self, shares: list[_Share], accounts: list[_Account], key: _Key, limit: Limit) -> None:
        """Those of a template."""
        if limit.rate is not None:
            shares.append(self._share(key, limit.rate, limit.burst))
        if limit.quota is not None:
            account = self._account(key, limit.quota)
            account.source, account.over_quota_rate = key[3], limit.over_quota_rate
            accounts.append(account)

    def _share(self, key: _Key, rates: Rates, burst: int | None) -> _Share:
        now_s = self._clock()
        share = self._shares.get(key)
        if share is None:
            down, up = (Bucket(rate, burst or default_burst(rate), now_s) for rate in (rates.down, rates.up))
            share = self._shares[key] = _Share(down, up)
        else:
            share.set_rates(rates, burst, now_s)
        return share

    def _account(self, key: _Key, quota: Quota) -> _Account:
        key = (*key[:3], f"{key[3]}, by the {quota.period.value}")  # what was used in other periods is another sum
        account, zone = self._accounts.get(key), self._zone_of(key[0])
        if account is None:
            account = self._accounts[key] = _Account(key, QuotaAccount(quota, zone))
            if self._stored is not None:
                _restore(account, self._stored.pop(key, {}))
        account.quota.set_zone(zone)
        account.quota.quota = quota
        return account

    def _spent(self, accounts: Iterable[_Account]) -> tuple[bool, ...]:
        """Which of the quotas are used up.

        Raises:
            OverQuotaError: nobody knows.
        """
        if accounts and self._stored is None:
            raise OverQuotaError("what was used of the quotas could not be read")
        now = self.now()
        return tuple(not account.quota.left(now) for account in accounts)

    def _over_quota_share(self, account: _Account) -> _Share:
        """The rate of a quota that is used up.

        Raises:
            OverQuotaError: there is none.
        """
        if account.over_quota_rate is None:
            raise OverQuotaError(f"{account.quota.quota} of {account.key[2] or account.key[3]}")
        tenant, owner, scope, rule = account.key
        return self._share((tenant, owner, scope, f"{_OVER_QUOTA} {rule}"), account.over_quota_rate, None)

    def charge(self, accounts: Iterable[_Account], count: int) -> None:
        """So many bytes have flowed."""
        now = self.now()
        for account in accounts:
            account.quota.charge(count, now)
            self._charged[account] = None

    # ---- what is kept

    def restore(self, used: Mapping[QuotaKey, int]) -> None:
        """What the store knows of quotas; until then nothing that counts for one may flow."""
        stored: dict[_Key, dict[datetime, int]] = {}
        for key, count in used.items():
            stored.setdefault((key.tenant, key.owner, key.scope, key.rule), {})[key.period_start] = count
        for account in self._accounts.values():
            _restore(account, stored.pop(account.key, {}))
        self._stored = stored

    @property
    def over_quota(self) -> int:
        """How many quotas that flows count for are used up now."""
        now = self.now()
        return sum(1 for account in self._accounts.values() if account.flows and not account.quota.left(now))

    @property
    def has_any(self) -> bool:
        """Whether there may be flows with rates or quotas."""
        return bool(self._shares or self._accounts)

    @property
    def is_restored(self) -> bool:
        """Whether `restore` was called."""
        return self._stored is not None

    def flush(self) -> None:
        """Tell the store what was used since the last time."""
        charged, self._charged = self._charged, {}
        self._usage.add_quota_deltas(
            (QuotaKey(*account.key, delta.begins_at), delta.used)
            for account in charged
            for delta in account.quota.take_deltas()
        )

    def tidy(self) -> None:
        """Forget what nobody has part in, where a new one would be no different: what is full again, or unused."""
        now_s, now = self._clock(), self.now()
        for key in [key for key, share in self._shares.items() if not share.flows and share.is_full(now_s)]:
            del self._shares[key]
        idle = [account for account in self._accounts.values() if not account.flows and account not in self._charged]
        for account in idle:
            if not account.quota.used(now):
                del self._accounts[account.key]
        for owner in [o for o, targets in self._targets.items() if not _recent(targets, now_s)]:
            del self._targets[owner]
        for owner in [o for o, begun in self._new_sessions.items() if not begun.total(now_s)]:
            del self._new_sessions[owner]

    # ---- counts

    def new_session(self, identity: Identity, owner: Hashable) -> bool:
        """Whether one more session may begin; if so, it has."""
        most = self._limits().each(identity).limit.new_sessions
        if most is None:
            return True
        return self._new_sessions.setdefault(owner, Minute()).take(most, self._clock())

    def target(
        self, identity: Identity, owner: Hashable, address: IPAddress, port: int, instead_of: IPAddress | None = None
    ) -> bool:
        """Whether this target may be contacted; if so, it counts for a minute.

        Args:
            identity: who wants to.
            owner: whose limit counts.
            address: of the target.
            port: of the target.
            instead_of: the same name's address that was counted before this one answered.
        """
        most = self._limits().each(identity).limit.targets
        if most is None:
            return True
        targets = self._targets.setdefault(owner, OrderedDict())
        now_s = self._clock()
        if instead_of is not None:
            targets.pop((instead_of, port), None)
        if _recent(targets, now_s) >= most and (address, port) not in targets:
            return False
        targets[address, port] = now_s
        targets.move_to_end((address, port))
        return True


def _together_key(scope: Scope) -> _Key:
    return scope.tenant, "", str(scope), _TOGETHER


def _restore(account: _Account, used: Mapping[datetime, int]) -> None:
    """What was used in each period, the latest last: it remembers but a few."""
    for begins_at, count in sorted(used.items()):
        account.quota.restore(begins_at, count)


def _recent(targets: OrderedDict[tuple[IPAddress, int], float], now_s: float) -> int:
    """How many there are, without those of more than a minute ago."""
    while targets and next(iter(targets.values())) < now_s - MINUTE_S:
        targets.popitem(last=False)
    return len(targets)
