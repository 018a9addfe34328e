"""From two byte strings to an identity: the asynchronous side of `auth`.

    decode -> cache -> penalties of the source and the user -> backends, in a thread -> throttle and cache

Backends block (argon2id for 20 ms, a directory for seconds), so they run in threads of their own limiter: a slow
directory must not hold up name resolution, nor the other way round.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, assert_never

import attrs
import trio

from auth import Answer, Credentials, Identity, Rejected, Rejection, Unavailable
from auth.cache import ResultCache
from auth.chain import Chain
from auth.names import canonical_username, decode_untrusted
from auth.passwords import PASSWORD_BYTES_MAX
from auth.throttle import Throttle, source_key
from trioproxy.policy.request import IPAddress

__all__ = ["AuthenticationLimits", "Authenticator", "select_tenant"]

# A verification overtaken by a change to some user is made again, so that nobody gets in on what no longer holds.
# Changes come one at a time from an administrator; only a fault can overtake three 20 ms verifications in a row.
_ATTEMPTS_MAX: Final = 3


@attrs.frozen
class AuthenticationLimits:
    """What logins may use.

    Attributes:
        hash_threads: backends asked at once; each argon2id takes one core and 19 MiB for 20 ms.
        queue_max: logins waiting for a thread. 64 of them are done in a second; what comes on top is turned away.
        queue_per_source_max: of those, from one address (IPv6: /64): half, so that nobody fills the queue alone.
        deadline_s: for one login, waiting included. Programs give up on a proxy after 5 to 10 s.
        cache_ttl_s: how long an acceptance holds without asking again; a revocation nobody announces takes so long.
        cache_entries_max: acceptances remembered; about 0.5 KiB each.
    """

    hash_threads: int = 2
    queue_max: int = 64
    queue_per_source_max: int = 32
    deadline_s: float = 5.0
    cache_ttl_s: float = 60.0
    cache_entries_max: int = 10_000


def select_tenant(username: str, listener_tenant: str, realms: Mapping[str, str] | None) -> tuple[str, str]:
    """Whose user this is, and the name inside that tenant.

    Args:
        username: canonical, as the client sent it.
        listener_tenant: the tenant of the listener.
        realms: lower-case realm to tenant, of every tenant; None where the listener does not look for realms.
    """
    name, at, realm = username.rpartition("@")
    if realms is not None and at and realm in realms:
        return realms[realm], name
    return listener_tenant, username


@attrs.define(eq=False)
class _Running:
    """A verification under way. Logins with the same credentials wait for it instead of starting their own."""

    done: trio.Event = attrs.field(factory=trio.Event)
    answer: Answer | None = None  # None after `done`: whoever asked was cancelled


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Authenticator:
    """Answers who a client is. For one Trio loop.

    On a reload build a new one, with the throttle of the old: penalties outlive a configuration, cached answers do not.

    Args:
        chains: the backends of each tenant.
        settings: limits.
        counters: raised for every answer, `login_accepted`, `login_cached`, `login_rejected_...`, `login_unavailable`,
            and for every limit that was reached, `login_queue_full`, `login_source_queue_full`, `login_deadline`.
        throttle: penalties so far.
        clock: monotonic seconds.
        now: the aware time of day, for accounts that end.
    """

    def __init__(  # noqa: PLR0913 - the seams of a test, all with a default but one
        self,
        chains: Mapping[str, Chain],
        *,
        settings: AuthenticationLimits | None = None,
        counters: Counter[str] | None = None,
        throttle: Throttle | None = None,
        clock: Callable[[], float] = trio.current_time,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._chains = dict(chains)
        self._limits = settings or AuthenticationLimits()
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.throttle = throttle or Throttle()
        self._clock = clock
        self._now = now
        self._cache = ResultCache(self._limits.cache_ttl_s, self._limits.cache_entries_max)
        self._limiter = trio.CapacityLimiter(self._limits.hash_threads)
        self._running: dict[bytes, _Running] = {}
        self._running_from: Counter[tuple[str, str]] = Counter()

    async def open(self) -> None:
        """Open the backends; if one cannot, those already open are closed again.

        Raises:
            OSError: a backend cannot reach what it needs.
            ValueError: a backend cannot work as configured.
        """
        await trio.to_thread.run_sync(self._open)

    async def close(self) -> None:
        """Close the backends. Logins still under way end as their backend says; new ones find no tenant."""
        chains, self._chains = self._chains, {}
        await trio.to_thread.run_sync(_close, chains)

    def user_changed(self, tenant: str, name: str) -> None:
        """Password, groups or state of this user may have changed: ask the backends again."""
        self._cache.drop_user(tenant, name)

    def all_changed(self) -> None:
        """Any user may have changed."""
        self._cache.clear()

    async def authenticate(
        self, tenant: str, username: bytes, password: bytes, source: IPAddress, realms: Mapping[str, str] | None = None
    ) -> Answer:
        """Who is this? Every answer but an `Identity` means no access, and the client is told no more than that.

        Not a checkpoint when the answer is known at once.

        Args:
            tenant: of the listener.
            username: as received.
            password: as received.
            source: canonical address of the client.
            realms: see `select_tenant`.

        **Cancellation** leaves the backend's thread to finish by itself; its answer is thrown away.
        """
        answer = await self._answer(tenant, username, password, source, realms)
        match answer:
            case Identity():
                self.counters["login_accepted"] += 1
            case Rejected(reason):
                self.counters[f"login_rejected_{reason.name.lower()}"] += 1
            case Unavailable():
                self.counters["login_unavailable"] += 1
            case _:
                assert_never(answer)
        return answer

    async def _answer(
        self, tenant: str, username: bytes, password: bytes, source: IPAddress, realms: Mapping[str, str] | None
    ) -> Answer:
        if not password:
            # Refused before any backend: a directory takes a bind without password for an anonymous one (RFC 4513
            # section 5.1.2) and says yes. Costs nothing and tells nothing, so it brings no penalty either.
            return Rejected(Rejection.EMPTY_PASSWORD)
        try:
            credentials = _read_untrusted(tenant, username, password, source, realms)
        except ValueError:
            return Rejected(Rejection.MALFORMED)
        chain = self._chains.get(credentials.tenant)
        if chain is None:
            return Unavailable(f"tenant {credentials.tenant} has no backends")
        return await self._log_in(chain, credentials, source)

    async def _log_in(self, chain: Chain, credentials: Credentials, source: IPAddress) -> Answer:
        now_s = self._clock()
        key = self._cache.key(credentials, chain.label)
        identity = self._cache.get(key, now_s)
        if identity is not None:
            self.counters["login_cached"] += 1
            return identity
        # Behind the cache: neither guessing at a name nor a neighbour's wrong password behind the same NAT keeps out
        # who logged in a moment ago with this very password.
        if self.throttle.delay(credentials.tenant, source, credentials.username, now_s) > 0:
            return Rejected(Rejection.PENALTY)
        return await self._verify(key, chain, credentials, source)

    async def _verify(self, key: bytes, chain: Chain, credentials: Credentials, source: IPAddress) -> Answer:
        """Ask the backends, or wait for another login that asks them the very same right now."""
        with trio.move_on_after(self._limits.deadline_s):
            while (running := self._running.get(key)) is not None:
                await running.done.wait()
                if running.answer is not None:
                    return running.answer
            return await self._lead(key, chain, credentials, source)
        self.counters["login_deadline"] += 1
        return Unavailable(f"no answer within {self._limits.deadline_s:g} s")

    async def _lead(self, key: bytes, chain: Chain, credentials: Credentials, source: IPAddress) -> Answer:
        origin = (credentials.tenant, source_key(source))
        if len(self._running) >= self._limits.hash_threads + self._limits.queue_max:
            self.counters["login_queue_full"] += 1
            return Unavailable("too many logins at once")
        if self._running_from[origin] >= self._limits.queue_per_source_max:
            self.counters["login_source_queue_full"] += 1
            return Unavailable("too many logins at once from this address")
        running = self._running[key] = _Running()
        self._running_from[origin] += 1
        try:
            running.answer = await self._ask(key, chain, credentials, source)
        finally:
            del self._running[key]
            self._running_from[origin] -= 1
            if not self._running_from[origin]:
                del self._running_from[origin]
            running.done.set()
        return running.answer

    async def _ask(self, key: bytes, chain: Chain, credentials: Credentials, source: IPAddress) -> Answer:
        loop = trio.lowlevel.current_trio_token()

        def ask() -> tuple[int, Answer]:
            generation, answer = self._cache.generation(), chain.authenticate(credentials)
            if isinstance(answer, Rejected):
                # From here and not where the answer is awaited: who hangs up before it has guessed all the same. In the
                # order of the loop this comes before the answer itself.
                with contextlib.suppress(trio.RunFinishedError):
                    loop.run_sync_soon(self._count_failure, credentials, source)
            return generation, answer

        for _ in range(_ATTEMPTS_MAX):
            generation, answer = await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=self._limiter)
            now_s = self._clock()
            match answer:
                case Rejected() | Unavailable():
                    return answer
                case Identity() if generation == self._cache.generation():
                    self._cache.put(key, answer, generation, now_s, self._lifetime_s(answer))
                    self.throttle.succeeded(credentials.tenant, credentials.username)
                    return answer
        return Unavailable("users changed while this one logged in")

    def _count_failure(self, credentials: Credentials, source: IPAddress) -> None:
        self.throttle.failed(credentials.tenant, source, credentials.username, self._clock())

    def _lifetime_s(self, identity: Identity) -> float:
        if identity.valid_until is None:
            return float("inf")
        return (identity.valid_until - self._now()).total_seconds()

    def _open(self) -> None:
        with contextlib.ExitStack() as undo:
            for chain in self._chains.values():
                chain.open()
                undo.callback(chain.close)
            undo.pop_all()


def _close(chains: Mapping[str, Chain]) -> None:
    with contextlib.ExitStack() as closing:
        for chain in chains.values():
            closing.callback(chain.close)


def _read_untrusted(
    tenant: str, username: bytes, password: bytes, source: IPAddress, realms: Mapping[str, str] | None
) -> Credentials:
    """Make text of what the client sent.

    Raises:
        ValueError: it can be nobody's name or password.
    """
    full_name = canonical_username(decode_untrusted(username))
    tenant, name = select_tenant(full_name, tenant, realms)
    text = decode_untrusted(password)
    if len(text.encode()) > PASSWORD_BYTES_MAX:  # a Latin-1 reading grows; no such password can be set
        raise ValueError("too long")
    # Once more, as what stands before a realm need not be a name: "@example.org", "alice @example.org".
    return Credentials(tenant=tenant, username=canonical_username(name), password=text, source=str(source))
