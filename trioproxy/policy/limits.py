"""Limits: how fast, how much and how many, as templates for each user of a scope or for all of them together.

    rate=10Mbit/2Mbit burst=2MB quota=20GB/month sessions=200

What is written for a user outweighs, key by key, what is written for the groups, that the tenant, and that everybody;
of several groups the smallest counts. What users share holds in addition.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Self

import attrs

from auth import Identity
from trioproxy.policy.scope import Scope, ScopeKind
from trioproxy.policy.units import (
    Period,
    Quota,
    Rates,
    parse_quota,
    parse_rates,
    parse_size,
    size_text,
)

__all__ = ["COUNT_MAX", "KEYS", "TOGETHER_KEYS", "EachLimits", "Limit", "LimitBook", "Party", "check_limit"]

COUNT_MAX: Final = 1_000_000  # more than one machine has ports and descriptors for: whoever writes more means no limit

_REMEMBERED_MAX: Final = 10_000  # users whose limits are looked up once only: some MiB, and more than are online

_LIFTED: Final = "none"

_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_PER_MINUTE: Final = re.compile(r"([0-9]{1,9})/min", re.ASCII)
_DAYS: Final = {Period.DAY: 1, Period.WEEK: 7, Period.MONTH: 30}  # to tell which of two quotas is the smaller


@attrs.frozen
class Limit:
    """Some or all limits. Equal limits have the same text; `parse` reads it back.

    Attributes:
        rate: how fast bytes may flow, all flows together.
        burst: bytes that may flow at once before the rate holds; None: a quarter of a second of the rate.
        quota: how many bytes may flow in a period, both directions together.
        over_quota_rate: how fast they may flow on when the quota is used up; None: not at all.
        sessions: connections of clients at the same time, all commands together.
        associations: UDP associations at the same time.
        binds: listening BINDs at the same time.
        new_sessions: sessions begun within a minute.
        targets: distinct targets within a minute.
    """

    rate: Rates | None = None
    burst: int | None = None
    quota: Quota | None = None
    over_quota_rate: Rates | None = None
    sessions: int | None = None
    associations: int | None = None
    binds: int | None = None
    new_sessions: int | None = None
    targets: int | None = None

    def __str__(self) -> str:
        return " ".join(f"{key}={text}" for key, text in self.texts().items())

    def texts(self) -> dict[str, str]:
        """What is limited, and to what: each value as `parse` reads it."""
        return {key: text_of(value) for key, text_of in _TEXTS.items() if (value := getattr(self, key)) is not None}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read words such as `rate=20Mbit`, with spaces between them.

        Raises:
            ValueError: names the key and what was expected.
        """
        limit = cls().changed(filter(None, text.split(" ")))
        if not limit.texts():
            raise ValueError("expected at least one limit such as rate=20Mbit or sessions=200")
        return limit

    def changed(self, words: Iterable[str]) -> Self:
        """The same limit with other values for some keys; `rate=none` lifts one.

        Raises:
            ValueError: names the key and what was expected.
        """
        values: dict[str, Any] = {}
        for word in words:
            key, value = _read_word(word)
            if key in values:
                raise ValueError(f"{key}: expected only once")
            values[key] = value
        limit = attrs.evolve(self, **values)
        if limit.rate is not None and limit.burst is not None and limit.burst < limit.rate.least_burst:
            least = size_text(limit.rate.least_burst)
            raise ValueError(f"burst: expected {least} or more at this rate, a hundredth of a second of it")
        return limit


@attrs.frozen
class Party:
    """Whom a limit is for.

    Attributes:
        scope: everybody, a tenant, a group or a user.
        together: they share it; otherwise each of them has it for himself.
    """

    scope: Scope
    together: bool = False

    def __str__(self) -> str:
        return f"{self.scope} together" if self.together else str(self.scope)


@attrs.frozen
class EachLimits:
    """What holds for one user alone.

    Attributes:
        limit: the values in force.
        origins: for each of its keys the scope that says so; two groups where each limits one direction of a rate more.
    """

    limit: Limit
    origins: Mapping[str, tuple[Scope, ...]] = attrs.field(hash=False)


_NOTHING: Final = EachLimits(Limit(), MappingProxyType({}))


class LimitBook:
    """All limits. Immutable; what one user has is looked up once.

    Limits hold for people outside the proxy group as well: whoever is let in by the global rules is in the tenant even
    so, and must not be the only one without a limit. Of a client without login, each address counts as a user.
    """

    def __init__(self, limits: Mapping[Party, Limit] = MappingProxyType({})) -> None:
        """Take them over.

        Raises:
            ValueError: one of them cannot be for whom it is (`check_limit`).
        """
        for party, limit in limits.items():
            check_limit(party, limit)
        self.limits: Mapping[Party, Limit] = MappingProxyType(dict(limits))
        self._each = lru_cache(_REMEMBERED_MAX)(self._find_each)
        self._together = lru_cache(_REMEMBERED_MAX)(self._find_together)

    def each(self, identity: Identity) -> EachLimits:
        """What this user has alone."""
        if not self.limits:  # most sites begin without, and each session asks several times
            return _NOTHING
        return self._each(identity.tenant, identity.user, identity.groups)

    def together(self, identity: Identity) -> tuple[tuple[Scope, Limit], ...]:
        """What this user shares with others, from the wide to the narrow. All of it holds."""
        if not self.limits:
            return ()
        return self._together(identity.tenant, identity.user, identity.groups)

    def _find_each(self, tenant: str, user: str | None, groups: frozenset[str]) -> EachLimits:
        values: dict[str, Any] = {}
        origins: dict[str, tuple[Scope, ...]] = {}
        around = Scope.around(Identity(tenant, user, groups))
        for kind in _NARROW_FIRST:
            written = [(scope, self.limits[Party(scope)]) for scope in around if self._has(scope, kind)]
            has_rate = "rate" in values
            for key in KEYS:
                found = [(scope, value) for scope, limit in written if (value := getattr(limit, key)) is not None]
                if key == "burst" and has_rate:
                    continue  # it belongs to a wider rate, which does not hold
                if found and key not in values:
                    values[key], origins[key] = _smallest(found)
        return EachLimits(Limit(**values), MappingProxyType(origins))

    def _has(self, scope: Scope, kind: ScopeKind) -> bool:
        return scope.kind is kind and Party(scope) in self.limits

    def _find_together(self, tenant: str, user: str | None, groups: frozenset[str]) -> tuple[tuple[Scope, Limit], ...]:
        parties = (Party(scope, together=True) for scope in Scope.around(Identity(tenant, user, groups)))
        return tuple((party.scope, self.limits[party]) for party in parties if party in self.limits)


def check_limit(party: Party, limit: Limit) -> None:
    """Can this limit be for whom it is?

    Raises:
        ValueError: says why not.
    """
    if not party.together:
        return
    if party.scope.kind is ScopeKind.USER:
        raise ValueError(f"{party.scope} is one user, who shares with nobody: expected a limit without together")
    for key in limit.texts():
        if key not in TOGETHER_KEYS:
            raise ValueError(f"{key}: expected for each user; what users share is {', '.join(TOGETHER_KEYS)}")
    if limit.burst is not None and limit.rate is None:
        raise ValueError("burst: expected beside a rate")


def _read_word(word: str) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if key not in _READERS or not equals:
        raise ValueError(f"{word}: expected one of {', '.join(f'{name}=' for name in KEYS)}")
    if text == _LIFTED:
        return key, None
    try:
        return key, _READERS[key](text)
    except ValueError as error:
        raise ValueError(f"{key}: expected {error}") from error


def _smallest(found: Sequence[tuple[Scope, Any]]) -> tuple[Any, tuple[Scope, ...]]:
    """The smallest of several values, and who says so."""
    if isinstance(found[0][1], Rates):
        return _smallest_rates(found)
    scope, value = min(found, key=lambda pair: _size(pair[1]))
    return value, (scope,)


def _smallest_rates(found: Sequence[tuple[Scope, Rates]]) -> tuple[Rates, tuple[Scope, ...]]:
    """Each direction by itself."""
    smallest = Rates(min(rates.down for _, rates in found), min(rates.up for _, rates in found))
    alone = [scope for scope, rates in found if rates == smallest]
    return smallest, tuple(alone[:1]) or tuple(
        scope for scope, rates in found if rates.down == smallest.down or rates.up == smallest.up
    )


def _size(value: int | Quota) -> tuple[Fraction | int, int]:
    if isinstance(value, Quota):
        return Fraction(value.size, _DAYS[value.period]), _DAYS[value.period]
    return value, 0


def _parse_count(text: str) -> int:
    return _counted(_NUMBER.fullmatch(text), "a whole number")


def _parse_per_minute(text: str) -> int:
    return _counted(_PER_MINUTE.fullmatch(text), "a number within a minute such as 60/min,")


def _counted(found: re.Match[str] | None, expected: str) -> int:
    number = 0 if found is None else int(found[found.re.groups])
    if not 1 <= number <= COUNT_MAX:
        raise ValueError(f"{expected} from 1 to {COUNT_MAX:,}")
    return number


def _per_minute_text(number: int) -> str:
    return f"{number}/min"


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "rate": parse_rates,
    "burst": parse_size,
    "quota": parse_quota,
    "over_quota_rate": parse_rates,
    "sessions": _parse_count,
    "associations": _parse_count,
    "binds": _parse_count,
    "new_sessions": _parse_per_minute,
    "targets": _parse_per_minute,
}
_TEXTS: Final[Mapping[str, Callable[[Any], str]]] = {
    **dict.fromkeys(_READERS, str),
    "burst": size_text,
    "new_sessions": _per_minute_text,
    "targets": _per_minute_text,
}

KEYS: Final = tuple(_READERS)
TOGETHER_KEYS: Final = ("rate", "burst", "quota", "sessions")

_NARROW_FIRST: Final = tuple(reversed(ScopeKind))
