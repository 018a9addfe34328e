"""Penalties for failed logins, by source address and by user name.

A source that fails often waits longer and longer, as with sshd's PerSourcePenalties. A user name that fails often, from
wherever, waits too, but briefly and after more failures: otherwise anybody could lock anybody out.
"""

import math
from collections import Counter
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final, TypeAlias

import attrs

__all__ = ["SOURCE_PENALTIES", "USER_PENALTIES", "PenaltyRule", "PenaltyTable", "Throttle", "source_key"]

IPAddress: TypeAlias = IPv4Address | IPv6Address
Key: TypeAlias = tuple[str, str]  # tenant, and a source or a user


@attrs.frozen
class PenaltyRule:
    """When a penalty begins and how it grows.

    Attributes:
        failures_max: this many failures ...
        window_s: ... in this time bring a penalty.
        first_s: how long the first one is; each further one lasts twice as long ...
        longest_s: ... up to this. It is also how long after its end a penalty is remembered.
        entries_max: size of the table.
    """

    failures_max: int
    window_s: float
    first_s: float
    longest_s: float
    entries_max: int = 65_536  # as sshd's PerSourceMaxPenalties; about 25 MB if ever full


# Times of sshd's PerSourcePenalties: 5 s for a failed login, at most 10 minutes.
SOURCE_PENALTIES: Final = PenaltyRule(failures_max=6, window_s=60.0, first_s=5.0, longest_s=600.0)

# A minute at most: a stranger who guesses at a name must not keep its owner out, and the owner's cached login goes on.
USER_PENALTIES: Final = PenaltyRule(failures_max=20, window_s=60.0, first_s=5.0, longest_s=60.0)


@attrs.define
class _Offender:
    recent_s: tuple[float, ...] = ()
    penalty_s: float = 0.0  # the last one
    blocked_until_s: float = -math.inf
    forgotten_at_s: float = 0.0


class PenaltyTable:
    """Who failed, how often, and until when they wait.

    When the table is full the offender who failed longest ago goes first. A flood of new ones could wash a penalty out
    that way, but each of them costs a verification: 65,536 take longer than the longest penalty.
    """

    def __init__(self, rule: PenaltyRule) -> None:
        self._rule = rule
        self._offenders: dict[Key, _Offender] = {}  # ordered by the last failure
        self.evicted = 0
        self.imposed = 0

    def __len__(self) -> int:
        return len(self._offenders)

    def delay(self, key: Key, now_s: float) -> float:
        """Seconds left to wait; 0 is free."""
        offender = self._offenders.get(key)
        return 0.0 if offender is None else max(0.0, offender.blocked_until_s - now_s)

    def failed(self, key: Key, now_s: float) -> None:
        """One more failure. One that was already under way when the penalty began does not prolong it."""
        rule = self._rule
        offender = self._offenders.pop(key, None) or _Offender()
        if now_s >= offender.blocked_until_s:
            if now_s >= offender.blocked_until_s + rule.longest_s:
                offender.penalty_s = 0.0
            offender.recent_s = (*(at_s for at_s in offender.recent_s if now_s - at_s < rule.window_s), now_s)
            if len(offender.recent_s) >= rule.failures_max:
                offender.recent_s = ()
                offender.penalty_s = min(2 * offender.penalty_s or rule.first_s, rule.longest_s)
                offender.blocked_until_s = now_s + offender.penalty_s
                self.imposed += 1
        remembered_s = rule.longest_s if offender.penalty_s else 0.0
        offender.forgotten_at_s = max(now_s + rule.window_s, offender.blocked_until_s + remembered_s)
        self._make_room(now_s)
        self._offenders[key] = offender

    def forget(self, key: Key) -> None:
        """Nothing is held against this one any more."""
        self._offenders.pop(key, None)

    def _make_room(self, now_s: float) -> None:
        # Expired ones go first, two for each that comes: so the table shrinks by itself and no call takes long.
        for _ in range(2):
            oldest = next(iter(self._offenders), None)
            if oldest is None or now_s < self._offenders[oldest].forgotten_at_s:
                break
            del self._offenders[oldest]
        if len(self._offenders) >= self._rule.entries_max:
            del self._offenders[next(iter(self._offenders))]
            self.evicted += 1


class Throttle:
    """The penalties of all tenants; one tenant's failures never count in another. For one thread.

    Args:
        sources: the rule for source addresses; an IPv6 source is its /64, which is what one household or attacker has.
        users: the rule for user names, whether they exist or not.
    """

    def __init__(self, sources: PenaltyRule = SOURCE_PENALTIES, users: PenaltyRule = USER_PENALTIES) -> None:
        self._sources = PenaltyTable(sources)
        self._users = PenaltyTable(users)

    def source_delay(self, tenant: str, source: IPAddress, now_s: float) -> float:
        """Seconds that this source still has to wait; 0 is free."""
        return self._sources.delay((tenant, source_key(source)), now_s)

    def user_delay(self, tenant: str, user: str, now_s: float) -> float:
        """Seconds until this user's password is looked at again; 0 is free."""
        return self._users.delay((tenant, user), now_s)

    def delay(self, tenant: str, source: IPAddress, user: str, now_s: float) -> float:
        """The longer of the two."""
        return max(self.source_delay(tenant, source, now_s), self.user_delay(tenant, user, now_s))

    def failed(self, tenant: str, source: IPAddress, user: str, now_s: float) -> None:
        """A backend rejected this login; one that could not tell is nobody's failure."""
        self._sources.failed((tenant, source_key(source)), now_s)
        self._users.failed((tenant, user), now_s)

    def succeeded(self, tenant: str, user: str) -> None:
        """A backend accepted this login: the user starts anew.

        The source does not. Whoever has one account would otherwise log in to it after every fifth guess at another.
        """
        self._users.forget((tenant, user))

    @property
    def counters(self) -> Counter[str]:
        """Penalties begun, offenders pushed out of a full table, and the tables' sizes now."""
        return Counter(
            source_penalties=self._sources.imposed,
            user_penalties=self._users.imposed,
            source_penalties_evicted=self._sources.evicted,
            user_penalties_evicted=self._users.evicted,
            sources_remembered=len(self._sources),
            users_remembered=len(self._users),
        )


@lru_cache(maxsize=8_192)  # the same sources come again and again, and writing an address costs 1.5 us
def source_key(source: IPAddress) -> str:
    """What counts as one source: an IPv4 address, mapped into IPv6 or not, or the /64 of an IPv6 address."""
    if isinstance(source, IPv4Address):
        return str(source)
    if source.ipv4_mapped is not None:
        return str(source.ipv4_mapped)
    return str(IPv6Network((source, 64), strict=False))
