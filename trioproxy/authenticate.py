"""From two byte strings to an identity: the asynchronous side of `auth`.

    decode -> cache -> penalties of the source and the user -> backends, in threads -> throttle and cache

Backends block (argon2id for 20 ms, a directory for seconds), so they run in threads, and each kind of waiting has a
queue of its own: hashing has one, and so has each directory of each tenant. A slow directory holds up neither name
resolution nor hashing nor the directory of a neighbour.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Final, TypeAlias, assert_never

import attrs
import trio

from auth import Answer, Cause, Credentials, Identity, Rejected, Rejection, Unavailable
from auth.cache import Generation, ResultCache
from auth.chain import Chain, Question
from auth.names import canonical_username, decode_untrusted
from auth.passwords import PASSWORD_BYTES_MAX
from auth.throttle import Throttle, source_key
from trioproxy.log import get_log
from trioproxy.login_queue import LoginQueue
from trioproxy.policy import directory_layers
from trioproxy.policy.request import IPAddress

__all__ = ["AuthenticationLimits", "Authenticator", "select_tenant"]

# A verification overtaken by a change to its user is made again, so that nobody gets in on what no longer holds.
# Changes come one at a time from an administrator; only a fault can overtake three 20 ms verifications in a row.
_ATTEMPTS_MAX: Final = 3

# Look-ups for live sessions that one backend is asked at once, and never more than half of what it takes at once: the
# other places are for logins. Four that take 10 ms each get through 5,000 users in a quarter of a minute.
_FINDS_MAX: Final = 4

# A group with a wrong rule has a thousand members, who log in every minute: what was said is not said again so soon.
_SAID_AGAIN_S: Final = 3600.0
_SAID_MAX: Final = 1_000
_SAID_AT_ONCE: Final = 10  # about one user; whoever mends these sees the next

_UNKNOWN: Final = Rejected(Rejection.UNKNOWN_USER)

_Questions: TypeAlias = Generator[Question, Answer, Answer]


@attrs.frozen
class AuthenticationLimits:
    """What logins may use.

    Attributes:
        hash_threads: passwords hashed at once; each argon2id takes one core and 19 MiB for 20 ms.
        queue_max: logins waiting in one queue: for a thread that hashes, or for one directory. 64 of the former are
            done in a second; what comes on top is turned away.
        queue_per_source_max: of those, from one address (IPv6: /64): half, so that nobody fills a queue alone.
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
class _Login:
    """A verification under way. Others with the same credentials wait for it instead of starting their own."""

    key: bytes
    chain: Chain
    credentials: Credentials
    source: IPAddress
    done: trio.Event = attrs.field(factory=trio.Event)
    generation: Generation = attrs.field(factory=Generation)  # that of its user when the backends were asked
    answer: Answer | None = None  # None after `done`: whoever asked was cancelled
    abandoned: bool = False  # nobody waits for what its thread still finds out

    def shared(self) -> Answer | None:
        """The answer for those who waited. They come a moment later: the user may have changed since."""
        return None if isinstance(self.answer, Identity) and self.generation.over else self.answer


@attrs.frozen
class _Found:
    """What a thread comes back with: the answer, or what somebody else has to be asked."""

    step: Question | Answer


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Authenticator:
    """Answers who a client is. For one Trio loop.

    On a reload build a new one, with the throttle of the old: penalties outlive a configuration, cached answers do not.

    Args:
        chains: the backends of each tenant.
        settings: limits.
        counters: raised for every answer, `login_accepted`, `login_cached`, `login_rejected_...`, `login_unavailable`
            and `login_unavailable_...` for its cause, and for every limit that was reached, `login_queue_full`,
            `login_source_queue_full`, `login_deadline`.
        throttle: penalties so far.
        clock: monotonic seconds.
        now: the aware time of day, for accounts that end.

    Attributes:
        revalidate_s: how often users of a backend are looked up again, by tenant and backend; others never are.
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
        self._running: dict[bytes, _Login] = {}
        backends = {(tenant, name): b for tenant, chain in chains.items() for name, b in chain.backends.items()}
        self.revalidate_s = {key: b.revalidate_s for key, b in backends.items() if b.revalidate_s is not None}
        self._hashing = self._queue(self._limits.hash_threads)
        # All there will ever be: the number of threads is bounded by the sum of theirs.
        self._queues = {key: self._queue(b.in_flight_max) for key, b in backends.items() if b.in_flight_max is not None}
        self._said_until_s: dict[str, float] = {}

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

    def endpoints(self) -> frozenset[tuple[IPAddress, int]]:
        """Address and port of each server that the backends rely on, as far as they know by now."""
        return frozenset(endpoint for chain in self._chains.values() for endpoint in chain.endpoints)

    def user_changed(self, tenant: str, name: str) -> None:
        """Password, groups or state of this user may have changed: ask the backends again."""
        self._cache.drop_user(tenant, name)

    def user_confirmed(self, identity: Identity) -> None:
        """This user was just looked up, see `find`; what is remembered need not be doubted before that."""
        self._cache.confirm(identity)

    def all_changed(self) -> None:
        """Any user may have changed."""
        self._cache.clear()

    def has_backend(self, identity: Identity) -> bool:
        """Whether the backend that accepted this user still decides for the tenant."""
        chain = self._chains.get(identity.tenant)
        return chain is not None and identity.backend in chain.backends

    async def authenticate(
        self, tenant: str, username: bytes, password: bytes, source: IPAddress, realms: Mapping[str, str] | None = None
    ) -> Answer:
        """Who is this? Every answer but an `Identity` means no access, and the client is told no more than that.

        Not a checkpoint when the answer is known at once. Nothing waits between the last look at changes of the user
        and the return: whoever keeps the identity before it waits itself misses none.

        Args:
            tenant: of the listener.
            username: as received.
            password: as received.
            source: canonical address of the client.
            realms: see `select_tenant`.

        **Cancellation** leaves the backend's thread to finish by itself; its answer is thrown away.
        """
        answer = self._look(tenant, username, password, source, realms)
        if isinstance(answer, _Login):
            answer = await self._verify(answer)
        return self._counted(answer)

    def answer_at_once(
        self, tenant: str, username: bytes, password: bytes, source: IPAddress, realms: Mapping[str, str] | None = None
    ) -> Answer | None:
        """The same, where nobody has to be asked: remembered, not to be tried now, nonsense. None: `authenticate`."""
        answer = self._look(tenant, username, password, source, realms)
        return None if isinstance(answer, _Login) else self._counted(answer)

    def _counted(self, answer: Answer) -> Answer:
        match answer:
            case Identity():
                self.counters["login_accepted"] += 1
            case Rejected(reason):
                self.counters[f"login_rejected_{reason.name.lower()}"] += 1
            case Unavailable(cause=cause):
                self.counters["login_unavailable"] += 1
                self.counters[f"login_unavailable_{cause.name.lower()}"] += 1
            case _:
                assert_never(answer)
        return answer

    async def find(self, identity: Identity) -> Answer:
        """Who this user is by now; asks the backend that accepted it, without a password, at most four at once.

        **Cancellation** leaves the backend's thread to finish by itself; its answer is thrown away.
        """
        chain = self._chains.get(identity.tenant)
        if chain is None:
            return Unavailable(f"tenant {identity.tenant} has no backends")
        if identity.user is None or identity.backend not in chain.backends:
            return _UNKNOWN
        tenant, user, backend = identity.tenant, identity.user, identity.backend

        def ask() -> Answer:
            return _with_rules_read(chain.find(tenant, user, backend))

        queue = self._queues.get((identity.tenant, identity.backend), self._hashing)
        asked_s = self._clock()
        with trio.move_on_after(self._limits.deadline_s):
            answer = await queue.find(ask)
            return attrs.evolve(answer, verified_s=asked_s) if isinstance(answer, Identity) else answer
        return Unavailable(f"no answer within {self._limits.deadline_s:g} s", Cause.TIMEOUT)

    def report_rules(self, identity: Identity) -> None:
        """Say in the log what is wrong with the rules that a directory keeps for this user."""
        layers = directory_layers(identity)
        if wrong := sum(layer.wrong for layer in layers):
            self.counters["directory_rules_wrong"] += wrong
        for problem in islice((problem for layer in layers for problem in layer.problems), _SAID_AT_ONCE):
            if self._may_say(problem):
                get_log().warning("a rule in a directory is wrong", tenant=identity.tenant, problem=problem)

    def _may_say(self, problem: str) -> bool:
        """Not again within the hour, and not what exceeds the memory for that: it would be said at each login."""
        now_s, said = self._clock(), self._said_until_s
        while said and said[oldest := next(iter(said))] <= now_s:
            del said[oldest]
        if problem in said or len(said) >= _SAID_MAX:
            return False
        said[problem] = now_s + _SAID_AGAIN_S
        return True

    def _look(
        self, tenant: str, username: bytes, password: bytes, source: IPAddress, realms: Mapping[str, str] | None
    ) -> Answer | _Login:
        """The answer, as far as nobody has to be asked; otherwise what is to be asked."""
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
        return _Login(key, chain, credentials, source)

    async def _verify(self, login: _Login) -> Answer:
        """Ask the backends, or wait for another login that asks them the very same right now."""
        with trio.move_on_after(self._limits.deadline_s):
            while (running := self._running.get(login.key)) is not None:
                await running.done.wait()
                if (answer := running.shared()) is not None:
                    return answer
            return await self._lead(login)
        self.counters["login_deadline"] += 1
        return Unavailable(f"no answer within {self._limits.deadline_s:g} s", Cause.TIMEOUT)

    async def _lead(self, login: _Login) -> Answer:
        self._running[login.key] = login
        try:
            login.answer = await self._ask(login)
        finally:
            del self._running[login.key]
            login.abandoned = login.answer is None
            login.done.set()
        return login.answer

    async def _ask(self, login: _Login) -> Answer:
        tenant, name = login.credentials.tenant, login.credentials.username
        for _ in range(_ATTEMPTS_MAX):
            login.generation = self._cache.generation(tenant, name)
            answer, again = await self._ask_chain(login)
            if not isinstance(answer, Identity):
                return answer
            if not login.generation.over:
                self._cache.put(login.key, answer, login.generation, self._clock(), self._lifetime_s(answer))
                self.throttle.succeeded(tenant, name)
                self.report_rules(answer)
                return answer
            if not again:
                break
        return Unavailable("this user changed during the login")

    async def _ask_chain(self, login: _Login) -> tuple[Answer, bool]:
        """Ask what the chain wants to know, and say whether the same may be asked once more.

        It may if only we had work with it. A directory sees one bind for one login: a second one with a password that
        has changed meanwhile would be a failure that the client did not make, and some lock an account after three.
        """
        questions = login.chain.questions(login.credentials)
        step: Question | Answer = next(questions)
        again, asked_s = True, self._clock()
        while isinstance(step, Question):
            again, asked_s = again and step.in_flight_max is None, self._clock()
            step = await self._ask_from(login, questions, step)
        return attrs.evolve(step, verified_s=asked_s) if isinstance(step, Identity) else step, again

    async def _ask_from(self, login: _Login, questions: _Questions, first: Question) -> Question | Answer:
        """Ask a question, and all behind it that the same kind of thread is for.

        Those in one go: a user unknown to the store would otherwise queue a second time for the hash that makes up for
        it, and under load the time would tell that there is no such user (case 28).
        """
        queue, loop = self._queue_of(login, first), trio.lowlevel.current_trio_token()

        def search() -> _Found:
            step: Question | Answer = first
            answer: Answer | None = None
            while isinstance(step, Question) and self._queue_of(login, step) is queue:
                answer = _with_rules_read(step.ask())
                step = _go_on(questions, answer)
            if isinstance(answer, Rejected):
                # From here and not where the answer is awaited: who hangs up before it has guessed all the same. In the
                # order of the loop this comes before the answer itself.
                with contextlib.suppress(trio.RunFinishedError):
                    loop.run_sync_soon(self._rejected, login, step)
            return _Found(step)

        found = await queue.ask(search, (login.credentials.tenant, source_key(login.source)))
        return found.step if isinstance(found, _Found) else _go_on(questions, found)

    def _rejected(self, login: _Login, step: Question | Answer) -> None:
        # The next backend may know the user, unless nobody is going to ask it.
        if login.abandoned or not isinstance(step, Question):
            tenant, name = login.credentials.tenant, login.credentials.username
            self.throttle.failed(tenant, login.source, name, self._clock())

    def _queue_of(self, login: _Login, question: Question) -> LoginQueue:
        return self._queues.get((login.credentials.tenant, question.backend), self._hashing)

    def _queue(self, threads: int) -> LoginQueue:
        limits = self._limits
        return LoginQueue(
            threads,
            waiting_max=limits.queue_max,
            each_max=limits.queue_per_source_max,
            finds_max=max(1, min(_FINDS_MAX, threads // 2)),
            counters=self.counters,
        )

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


def _with_rules_read(answer: Answer) -> Answer:
    """The answer; the rules that came with it are read here, in the thread, and not where everybody waits."""
    if isinstance(answer, Identity):
        directory_layers(answer)
    return answer


def _go_on(questions: _Questions, answer: Answer) -> Question | Answer:
    try:
        return questions.send(answer)
    except StopIteration as done:
        result: Answer = done.value
        return result


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
