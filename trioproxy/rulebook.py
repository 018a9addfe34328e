"""Users, rules, limits and blocks as the store had them a moment ago: what every verdict and local login is based on.

The store is asked for its revision several times a second. When it has changed, everything is read and built in a
thread, and the new state takes the place of the old one at once. A store that cannot be read changes nothing for a
stated time; after that nothing new is permitted.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol

import attrs

from auth import Identity
from auth.local import LocalUser
from auth.membership import Membership
from trioproxy.log import get_log
from trioproxy.policy import Blocks, Floor, LimitBook, Policy, RuleSet, Scope, TimeZones
from trioproxy.store import Snapshot, StoredRule, read_rule_set

__all__ = ["Memberships", "Rulebook"]


class Memberships(Protocol):
    """Who of a tenant may use the proxy; None if there is no such tenant any more."""

    def __call__(self, tenant: str, /) -> Membership | None:
        """What the configuration says now."""
        ...


@attrs.frozen
class _State:
    """One consistent state. Replaced as a whole, so that a thread never sees half of two."""

    revision: int
    users: Mapping[tuple[str, str], LocalUser]
    texts: Mapping[Scope, tuple[StoredRule, ...]]
    rule_sets: Mapping[Scope, RuleSet]
    policy: Policy
    limits: LimitBook


def _now() -> datetime:
    return datetime.now(UTC)


def _next_minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0) + timedelta(minutes=1)


class Rulebook:
    """Users, rules, limits and blocks in force.

    Args:
        floor: what no rule can allow.
        membership: tenant to those who may use the proxy.
        local_backends: the backends whose users are in the store.
        stale_max_s: how old the last reading may be.
        clock: monotonic seconds.
        zones: by whose clock hours in rules are read.
        now: the time of day, aware; blocks end by it, and hours.
    """

    def __init__(  # noqa: PLR0913 - what the configuration says, part by part
        self,
        floor: Floor,
        membership: Memberships,
        local_backends: frozenset[str],
        stale_max_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        zones: TimeZones | None = None,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._floor = floor
        self._membership = membership
        self._local_backends = local_backends
        self._stale_max_s = stale_max_s
        self._clock = clock
        self._zones = zones or TimeZones()
        self._now = now
        self._read_s = -float("inf")
        self._hours_seen_at = now()
        self._state = _State(-1, {}, {}, {}, Policy({}, floor, self._zones), LimitBook())

    @property
    def revision(self) -> int:
        """Of the store, as last read; -1 before that."""
        return self._state.revision

    @property
    def policy(self) -> Policy | None:
        """The rules in force; None if the store could not be read for too long."""
        if self._clock() - self._read_s > self._stale_max_s:
            return None
        return self._state.policy

    @property
    def limits(self) -> LimitBook:
        """The limits in force; the last ones known, however old, as without any there would be none."""
        return self._state.limits

    def zone_of(self, tenant: str) -> tzinfo:
        """By whose clock the days of this tenant begin."""
        return self._zones.of(tenant)

    def find_user(self, tenant: str, name: str) -> LocalUser | None:
        """Look a local user up; from any thread.

        Raises:
            OSError: the store could not be read for too long, so nobody can tell.
        """
        if self.policy is None:
            raise OSError("the store cannot be read")
        return self._state.users.get((tenant, name))

    def current_identity(self, identity: Identity) -> Identity | None:
        """Who `identity` is by now: with the groups of now, or None if it may not use the proxy any more.

        Local users are as the store has them; about others no backend is asked here, but another proxy group, or
        another word about who is not in it, holds for them at once.
        """
        membership = self._membership(identity.tenant)
        if membership is None:
            return None
        if identity.user is None or identity.backend not in self._local_backends:
            return membership.admit(identity)
        user = self._state.users.get((identity.tenant, identity.user))
        if user is None or user.disabled or user.epoch != identity.epoch:
            return None
        now = self._now()
        if (user.valid_from and now < user.valid_from) or (user.valid_until and now >= user.valid_until):
            return None
        return membership.admit(
            identity if user.groups == identity.groups else attrs.evolve(identity, groups=user.groups)
        )

    def prepare(self, snapshot: Snapshot) -> Callable[[], frozenset[tuple[str, str]]]:
        """Build the state of `snapshot`; may take long, so do it in a thread.

        Returns:
            What puts it in force, to be called on the event loop; it returns the users that have changed.
        """
        old = self._state
        rule_sets = {
            scope: old.rule_sets[scope] if old.texts.get(scope) == rules else _build(scope, rules)
            for scope, rules in snapshot.rules.items()
        }
        blocks = Blocks(snapshot.blocks).in_force(self._now())
        state = _State(
            revision=snapshot.revision,
            users=snapshot.users,
            texts=snapshot.rules,
            rule_sets=rule_sets,
            # The index of many rules takes a while to build, and a block must not wait for it.
            policy=old.policy.with_blocks(blocks)
            if old.texts == snapshot.rules
            else Policy(rule_sets, self._floor, self._zones, blocks=blocks),
            limits=old.limits if old.limits.limits == snapshot.limits else LimitBook(snapshot.limits),
        )
        changed = frozenset(
            key for key in old.users.keys() | state.users.keys() if old.users.get(key) != state.users.get(key)
        )

        def put_in_force() -> frozenset[tuple[str, str]]:
            self._state = state
            self._read_s = self._clock()
            return changed

        return put_in_force

    def confirm(self) -> None:
        """The store was asked, and nothing has changed."""
        self._read_s = self._clock()

    def end_blocks(self) -> None:
        """Blocks that have ended by now hold no longer; to be called often, as it costs next to nothing."""
        policy = self._state.policy
        left = policy.blocks.in_force(self._now())
        if left is not policy.blocks:
            self._state = attrs.evolve(self._state, policy=policy.with_blocks(left))

    def hours_have_changed(self, identities: Callable[[], Iterable[Identity]]) -> bool:
        """Whether hours of rules have begun or ended since this was asked last; to be asked often.

        Args:
            identities: those with live sessions; looked at once a minute, as hours begin and end with a minute.
        """
        policy, before, now = self.policy, self._hours_seen_at, self._now()
        if policy is None or before.replace(second=0, microsecond=0) <= now < _next_minute(before):
            return False
        self._hours_seen_at = now
        if now < before:
            return True  # the clock was put back, and nobody knows what it shows again
        border = policy.next_border(before, identities())
        return border is not None and border <= now

    def with_floor(self, floor: Floor, zones: TimeZones | None = None) -> Policy:
        """The rules in force above another floor, by other clocks; may take long, so do it in a thread.

        Then `apply` it.
        """
        return Policy(self._state.rule_sets, floor, zones or self._zones, blocks=self._state.policy.blocks)

    def apply(
        self, floor: Floor, policy: Policy, membership: Memberships, local_backends: frozenset[str], stale_max_s: float
    ) -> None:
        """Take over a changed configuration."""
        self._floor = floor
        self._zones = policy.zones
        self._membership = membership
        self._local_backends = local_backends
        self._stale_max_s = stale_max_s
        self._state = attrs.evolve(self._state, policy=policy)


def _build(scope: Scope, rules: tuple[StoredRule, ...]) -> RuleSet:
    rule_set, problem = read_rule_set(scope, rules)
    if problem:
        get_log().error("a stored rule cannot be read", problem=problem)
    return rule_set
