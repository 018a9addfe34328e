"""All hours that rules have: whom they may concern, and when the next of them begin or end."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Final

from auth import Identity
from trioproxy.policy.directory import directory_layers
from trioproxy.policy.hours import WEEK, Hours, TimeZones, next_change
from trioproxy.policy.ruleset import RuleSet
from trioproxy.policy.scope import Scope, ScopeKind

__all__ = ["Timetable"]

_REMEMBERED_MAX: Final = 256  # combinations of layers, each some KiB


class Timetable:
    """The hours of the rules of the store, by whom they are about. Immutable."""

    def __init__(self, rule_sets: Mapping[Scope, RuleSet], zones: TimeZones) -> None:
        hours: defaultdict[Scope, set[Hours]] = defaultdict(set)
        for scope, rules in rule_sets.items():
            for rule in rules:
                if rule.hours is not None:
                    hours[rule.user or rule.group or scope].add(rule.hours)
        self._hours = {scope: frozenset(some) for scope, some in hours.items()}
        self._zones = zones
        # Which choices there are is asked for each refusal, and 50 hours take 3 ms to find out.
        self._choices = lru_cache(_REMEMBERED_MAX)(self._find_choices)

    def __bool__(self) -> bool:
        return bool(self._hours)

    def other_times(self, identity: Identity, minute: int) -> list[int]:
        """Minutes of the week at which other rules about somebody speak than do now: one for each choice of them.

        Those of a moment ago come first: what has just ended is what is asked for most.
        """
        scopes = tuple(scope for scope in Scope.around(identity) if scope in self._hours)
        own = frozenset(some for layer in directory_layers(identity) for some in layer.hours)
        hours, times = self._choices(scopes, own)
        now = tuple(some.cover(minute) for some in hours)
        others = [time for choice, time in times.items() if choice != now]
        return sorted(others, key=lambda time: (minute - time) % WEEK)

    def _find_choices(
        self, scopes: tuple[Scope, ...], own: frozenset[Hours]
    ) -> tuple[tuple[Hours, ...], dict[tuple[bool, ...], int]]:
        """All hours in some order, and for each choice of those that speak together the first minute of the week."""
        hours = tuple(own.union(*(self._hours[scope] for scope in scopes)))
        borders = sorted(frozenset().union(*(some.borders for some in hours)))
        return hours, {tuple(some.cover(border) for some in hours): border for border in reversed(borders)}

    def next_border(self, now: datetime, identities: Iterable[Identity]) -> datetime | None:
        """The next moment at which hours of the store's rules, or of rules that come with these identities, change."""
        by_zone: defaultdict[tzinfo, set[Hours]] = defaultdict(set)
        for scope, some in self._hours.items():
            # A rule for everybody is read by the clock of each tenant.
            everywhere = scope.kind is ScopeKind.GLOBAL
            for zone in self._zones.all() if everywhere else (self._zones.of(scope.tenant),):
                by_zone[zone] |= some
        for identity in identities:
            for layer in directory_layers(identity):
                by_zone[self._zones.of(identity.tenant)] |= layer.hours
        changes = [next_change(some, now, zone) for zone, some in by_zone.items()]
        return min((change for change in changes if change is not None), default=None)
