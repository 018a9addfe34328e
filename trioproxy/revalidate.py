"""Users with live sessions are looked up again from time to time: a directory tells nobody of its changes by itself.

sessions -> by tenant, backend and user -> those who are due -> asked, four at once for each backend
    -> no longer allowed: every session of the user ends
    -> something else than before: every session is judged again
    -> the answer has no clear meaning, three times in a row: every session of the user ends
    -> could not tell: nothing ends, and a backend that is down is left alone for a moment
"""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol, TypeAlias

import attrs
import trio

from auth import Cause, Identity, Rejected, Unavailable
from trioproxy.accounting import escaped
from trioproxy.authenticate import Authenticator
from trioproxy.judge import judge_in_turns
from trioproxy.log import get_log
from trioproxy.services import Services

__all__ = ["LiveSession", "Revalidator"]

TICK_S: Final = 1.0  # a fraction of any time in which a change of a directory must be noticed
WORKERS: Final = 4  # as many as `Authenticator.find` asks one backend at once
UNCLEAR_MAX: Final = 3  # in a row: one may fall into a change of the directory, three minutes do not
RETRY_S: Final = 5.0  # after an answer that did not come; a server that starts again needs some seconds
# What a server that is down, or on the way down, answers about everybody.
OUTAGES: Final = frozenset({Cause.CONNECT, Cause.TLS, Cause.TIMEOUT, Cause.BUSY, Cause.SERVICE_LOGIN})
FAILURES_MAX: Final = 20  # users in a row about whom it fails otherwise: then it is not they
AT_ONCE: Final = 1_000  # sessions looked through before others get their turn: 1 ms

Source: TypeAlias = tuple[str, str]  # tenant and backend
User: TypeAlias = tuple[str, str, str]  # tenant, backend and name: the same name elsewhere is somebody else


class LiveSession(Protocol):
    """What is asked of a session."""

    @property
    def identity(self) -> Identity | None:
        """Whose it is, as was last known; None before the login, and when the user may not go on."""
        ...

    def revoke(self) -> None:
        """The user may not go on."""
        ...

    def identity_changed(self, identity: Identity) -> Iterable[None]:
        """The user was looked up: end what is forbidden now. Returns steps that are not urgent."""
        ...


@attrs.define(eq=False)
class _Backend:
    """What is remembered of one backend of one tenant.

    Attributes:
        interval_s: how often its users are looked up.
        due: the users whose turn it is. Who is due for longest comes first, so one about whom the backend can never
            tell holds nobody up.
        under_way: those about whom it is being asked.
        workers: tasks that ask, one user after the other.
        failures: about how many users in a row it failed.
        failing: it could not tell the last time.
        rest_until_s: when it may be asked again.
        unclear: how many answers in a row had no clear meaning, by user.
        later_s: users about whom it could not tell, and when they are due again.
    """

    interval_s: float
    due: deque[User] = attrs.field(factory=deque)
    under_way: set[User] = attrs.field(factory=set)
    workers: int = 0
    failures: int = 0
    failing: bool = False
    rest_until_s: float = -math.inf
    later_s: dict[User, float] = attrs.field(factory=dict)
    unclear: Counter[User] = attrs.field(factory=Counter)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Revalidator:
    """Keeps live sessions in step with directories. Where no backend asks for that it only looks at the clock.

    Args:
        services: of the server.
        sessions: those that live now.
        now: the aware time of day, for accounts that end.
    """

    def __init__(
        self, services: Services, sessions: Callable[[], Iterable[LiveSession]], now: Callable[[], datetime] = _utc_now
    ) -> None:
        self._services = services
        self._sessions = sessions
        self._now = now
        self._authenticator: Authenticator | None = None
        self._backends: dict[Source, _Backend] = {}
        self._live: Mapping[User, list[LiveSession]] = {}

    async def run(self) -> None:
        """Look users up until cancelled."""
        async with trio.open_nursery() as workers:
            while True:
                await trio.sleep(TICK_S)
                authenticator = self._follow_reload()
                if self._backends:
                    await self._look_through()
                    self._set_out(authenticator, workers)

    # ---- who is due

    def _follow_reload(self) -> Authenticator:
        """After a reload there are other backends: what was remembered of the old ones says nothing about them."""
        authenticator = self._services.authenticator
        if authenticator is not self._authenticator:
            self._authenticator = authenticator
            self._backends = {source: _Backend(every_s) for source, every_s in authenticator.revalidate_s.items()}
            self._live = {}
        return authenticator

    async def _look_through(self) -> None:
        """Sort the sessions by user, and end those of accounts whose end was known before and has come."""
        live, now = defaultdict(list), self._now()
        for count, session in enumerate(list(self._sessions()), start=1):
            if count % AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            identity = session.identity
            if identity is None or identity.user is None or (identity.tenant, identity.backend) not in self._backends:
                continue
            if identity.valid_until is not None and now >= identity.valid_until:
                session.revoke()
            else:
                live[identity.tenant, identity.backend, identity.user].append(session)
        self._live = live

    def _set_out(self, authenticator: Authenticator, workers: trio.Nursery) -> None:
        """Find out who is due, and ask each backend by itself: none waits for another."""
        now_s = trio.current_time()
        # Where nobody can set out the queue stays as it is: those in it are due for longer than who would join them.
        ready = {s: b for s, b in self._backends.items() if b.workers < WORKERS and b.rest_until_s <= now_s}
        due_s: dict[Source, dict[User, float]] = {source: {} for source in ready}
        for user in self._live:
            backend = ready.get(user[:2])
            if backend is not None and user not in backend.under_way and (at_s := self._due_s(backend, user)) <= now_s:
                due_s[user[:2]][user] = at_s
        for source, backend in ready.items():
            backend.later_s = {user: at_s for user, at_s in backend.later_s.items() if user in self._live}
            backend.unclear = Counter({user: n for user, n in backend.unclear.items() if user in self._live})
            users = due_s[source]
            backend.due = deque(sorted(users, key=users.__getitem__))
            for _ in range(min(WORKERS - backend.workers, len(users))):
                backend.workers += 1
                workers.start_soon(self._work, authenticator, backend)

    def _due_s(self, backend: _Backend, user: User) -> float:
        oldest_s = min((s.identity.verified_s for s in self._live[user] if s.identity is not None), default=math.inf)
        return max(oldest_s + backend.interval_s, backend.later_s.get(user, oldest_s))

    # ---- asking

    async def _work(self, authenticator: Authenticator, backend: _Backend) -> None:
        """Look up one user after the other, until all are done, the backend fails or it is not ours any more."""
        while backend.due and backend.rest_until_s <= trio.current_time() and self._is_in_force(authenticator):
            user = backend.due.popleft()
            backend.under_way.add(user)
            await self._look_up(authenticator, backend, user)
            backend.under_way.remove(user)
        backend.workers -= 1

    def _is_in_force(self, authenticator: Authenticator) -> bool:
        return authenticator is self._services.authenticator

    async def _look_up(self, authenticator: Authenticator, backend: _Backend, user: User) -> None:
        asked_s = trio.current_time()
        identity = next((s.identity for s in self._live.get(user, ()) if s.identity is not None), None)
        if identity is None or self._due_s(backend, user) > asked_s:
            return  # logged out, or out and in again, since the sessions were looked through
        answer = await authenticator.find(identity)
        if not self._is_in_force(authenticator):
            return  # nobody believes this directory any more
        self._services.counters["revalidations"] += 1
        if isinstance(answer, Unavailable):
            if self._failed(backend, user, answer):
                await self._end(user, f"{UNCLEAR_MAX} times in a row: {answer.problem}", asked_s)
        else:
            self._recovered(backend, user)
            await self._take_over(user, answer, asked_s)

    def _failed(self, backend: _Backend, user: User, answer: Unavailable) -> bool:
        """Nothing ends because a directory is down: who is in stays in, and who is out stays out.

        An answer without a clear meaning is one about this user. It may hide a no, and others can bring it about, with
        a second entry of the same name say: so it holds nobody in for long. Returns whether it was the last one.
        """
        self._services.counters["revalidation_unavailable"] += 1
        now_s = trio.current_time()
        backend.failures += answer.cause is not Cause.AMBIGUOUS
        if answer.cause in OUTAGES or backend.failures >= FAILURES_MAX:
            if not backend.failing:
                _warn("a backend cannot tell who may go on, so the running sessions do", user, answer)
            backend.failing, backend.failures = True, 0
            backend.later_s[user] = backend.rest_until_s = now_s + RETRY_S
            return False
        # It may be the entry of this user alone: others do not wait for that.
        if user not in backend.later_s:
            what = "a user cannot be looked up, the running sessions go on for a while"
            _warn(what, user, answer, user=escaped(user[2]))
        backend.later_s[user] = now_s + backend.interval_s
        backend.unclear[user] += answer.cause is Cause.AMBIGUOUS
        return backend.unclear[user] >= UNCLEAR_MAX

    def _recovered(self, backend: _Backend, user: User) -> None:
        backend.later_s.pop(user, None)
        del backend.unclear[user]
        if backend.failing:
            get_log().info("a backend tells again who may go on", tenant=user[0], backend=user[1])
        backend.failing = False
        backend.failures = 0

    # ---- what came of it

    async def _take_over(self, user: User, answer: Identity | Rejected, asked_s: float) -> None:
        """Let every session of the user hear the answer, but those about whose login was asked later."""
        authenticator = self._services.authenticator
        older = _older(self._live.get(user, ()), asked_s)
        if isinstance(answer, Identity) and all(session.identity == answer for session in older):
            authenticator.user_confirmed(answer)
        elif isinstance(answer, Rejected):
            await self._end(user, answer.reason.value, asked_s)
            return
        else:
            older = self._forget(user, asked_s)
            authenticator.report_rules(answer)
            over = sum(_is_over(session, answer) for session in older)
            self._tell(user, "the account or its password is another than before", over)
        await judge_in_turns(_hear(session, answer) for session in older)

    async def _end(self, user: User, why: str, asked_s: float) -> None:
        """End every session of the user, but those about whose login was asked later."""
        older = self._forget(user, asked_s)
        self._tell(user, why, len(older))
        await judge_in_turns(_revoke(session) for session in older)

    def _forget(self, user: User, asked_s: float) -> list[LiveSession]:
        """What is remembered of the user no longer holds. Returns the sessions that began on it."""
        # First the cache and the logins under way, so that no session begins on what no longer holds; then all that
        # have begun, some of them since the sessions were looked through. Nothing waits in between.
        self._services.authenticator.user_changed(user[0], user[2])
        return _older((session for session in self._sessions() if _user_of(session) == user), asked_s)

    def _tell(self, user: User, why: str, over: int) -> None:
        tenant, backend, name = user
        if over:
            self._services.counters["revalidation_revoked"] += 1
            get_log().info("user revoked", tenant=tenant, user=escaped(name), backend=backend, sessions=over, why=why)


def _warn(what: str, who: User, answer: Unavailable, **more: str) -> None:
    get_log().warning(what, tenant=who[0], backend=who[1], problem=answer.problem, **more)


def _user_of(session: LiveSession) -> User | None:
    identity = session.identity
    return None if identity is None or identity.user is None else (identity.tenant, identity.backend, identity.user)


def _older(sessions: Iterable[LiveSession], asked_s: float) -> list[LiveSession]:
    """Those whose backend was not asked later than this."""
    return [s for s in sessions if s.identity is not None and s.identity.verified_s <= asked_s]


def _is_over(session: LiveSession, answer: Identity) -> bool:
    return session.identity is not None and session.identity.epoch != answer.epoch


def _revoke(session: LiveSession) -> Iterable[None]:
    session.revoke()
    return ()


def _hear(session: LiveSession, answer: Identity) -> Iterable[None]:
    return _revoke(session) if _is_over(session, answer) else session.identity_changed(answer)
