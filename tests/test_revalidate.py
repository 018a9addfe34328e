"""Who is looked up when, and what comes of it: with sessions and backends of paper, on a clock that jumps.

Real sessions are in `test_revalidate_sessions.py`.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from auth import Answer, Cause, Identity, Rejected, Rejection, Unavailable
from tests.auth.doubles import NOW
from tests.harness import Records
from trioproxy.judge import judge_in_turns
from trioproxy.log import configure_log
from trioproxy.revalidate import Revalidator

DOWN = Unavailable("down", Cause.CONNECT)
OUT = Rejected(Rejection.NOT_A_MEMBER)


@attrs.define(eq=False)
class Session:
    """A live session, as far as it is asked anything."""

    identity: Identity | None
    revoked: bool = False
    heard: list[Identity] = attrs.field(factory=list)
    tidied: int = 0

    def revoke(self) -> None:
        """Note it."""
        self.revoked, self.identity = True, None

    def identity_changed(self, identity: Identity) -> Iterable[None]:
        """Take it over."""
        self.heard.append(identity)
        self.identity = identity
        return self._tidy_up()

    def _tidy_up(self) -> Iterator[None]:
        self.tidied += 1
        yield


class Backends:
    """What the authenticator is for whoever looks up users: a question, and what it remembers.

    Attributes:
        asked: who, at what time.
        at_once: how many questions were under way at most.
        changed: users it was told to forget.
        confirmed: what it was told to remember.
    """

    def __init__(self, answer: Callable[[Identity], Answer], **interval_s: float) -> None:
        self.answer = answer
        self.takes_s: Callable[[Identity], float] = lambda _: 0.0
        self.revalidate_s = {(key.partition("_")[0], key.partition("_")[2]): s for key, s in interval_s.items()}
        self.asked: list[tuple[str | None, float]] = []
        self.under_way = self.at_once = 0
        self.changed: list[tuple[str, str]] = []
        self.confirmed: list[Identity] = []
        self.reported: list[Identity] = []

    async def find(self, identity: Identity) -> Answer:
        """Answer after a time."""
        asked_s = trio.current_time()
        self.asked.append((identity.user, asked_s))
        self.under_way += 1
        self.at_once = max(self.at_once, self.under_way)
        await trio.sleep(self.takes_s(identity))
        self.under_way -= 1
        answer = self.answer(identity)
        return attrs.evolve(answer, verified_s=asked_s) if isinstance(answer, Identity) else answer

    def user_changed(self, tenant: str, name: str) -> None:
        """Note it."""
        self.changed.append((tenant, name))

    def user_confirmed(self, identity: Identity) -> None:
        """Note it."""
        self.confirmed.append(identity)

    def report_rules(self, identity: Identity) -> None:
        """Note it."""
        self.reported.append(identity)

    @property
    def names(self) -> list[str | None]:
        """Who was asked about."""
        return [name for name, _ in self.asked]


@attrs.define(eq=False)
class World:
    """What a revalidator sees."""

    services: Any
    sessions: list[Session]
    log: Records
    looked: int = 0

    def all_sessions(self) -> list[Session]:
        """Count who asks."""
        self.looked += 1
        return self.sessions

    @property
    def counters(self) -> dict[str, int]:
        """What was counted."""
        return dict(self.services.counters)


@asynccontextmanager
async def world(backends: Backends, *sessions: Session) -> AsyncIterator[World]:
    """Revalidate these until the block ends."""
    log = Records()
    configure_log("info", sink=log)
    seen = World(SimpleNamespace(authenticator=backends, counters=Counter()), list(sessions), log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Revalidator(seen.services, seen.all_sessions, now=lambda: NOW).run)
        yield seen
        nursery.cancel_scope.cancel()


def user(name: str = "alice", tenant: str = "main", backend: str = "campus", **more: Any) -> Identity:
    """Somebody, verified now unless it is said otherwise."""
    more.setdefault("verified_s", trio.current_time())
    return Identity(tenant, name, frozenset({"system-proxy"}), backend, **more)


def unchanged(identity: Identity) -> Answer:
    """The directory says what it said before."""
    return identity


# ---- when


async def test_no_directory_costs_nothing(autojump_clock: MockClock) -> None:
    """Where no backend asks for it, sessions are not even looked at."""
    async with world(Backends(unchanged), Session(user(backend="local"))) as seen:
        await trio.sleep(1_000)
    assert seen.looked == 0


async def test_asked_when_due_and_once_for_all_sessions(autojump_clock: MockClock) -> None:
    """Every 60 s, by the oldest of the user's sessions; others, and those that have not logged in, are none of ours."""
    backends = Backends(unchanged, main_campus=60.0)
    now_s = trio.current_time()
    others = [Session(None), Session(user("bob", backend="local")), Session(Identity("main", None, backend="campus"))]
    old, young = Session(user()), Session(user(verified_s=now_s + 30))
    async with world(backends, old, young, *others) as seen:
        await trio.sleep(59)
        assert backends.asked == []
        await trio.sleep(180)
    assert backends.names == ["alice"] * 3
    intervals = [later - earlier for (_, earlier), (_, later) in zip(backends.asked, backends.asked[1:], strict=False)]
    assert all(60 <= interval <= 62 for interval in intervals)
    assert (len(old.heard), len(young.heard)) == (3, 3)
    assert len(backends.confirmed) == seen.counters["revalidations"] == 3
    assert (backends.changed, others[1].heard) == ([], [])


async def test_four_at_once(autojump_clock: MockClock) -> None:
    """A backend has other things to do; the users wait for their turn, and the oldest comes first."""
    backends = Backends(unchanged, main_campus=60.0)
    backends.takes_s = lambda _: 1.0
    now_s = trio.current_time()
    sessions = [Session(user(f"user{number}", verified_s=now_s - 100 - number)) for number in range(40)]
    async with world(backends, *sessions):
        await trio.sleep(30)
    assert backends.at_once == 4
    assert backends.names == [f"user{number}" for number in range(39, -1, -1)]


async def test_four_at_once_beside_a_slow_one(autojump_clock: MockClock) -> None:
    """Who is still being asked about counts, when others become due later."""
    backends = Backends(unchanged, main_campus=60.0)
    backends.takes_s = lambda identity: 1e6 if identity.user == "slow" else 3.0
    now_s = trio.current_time()
    slow = Session(user("slow", verified_s=now_s - 100))
    others = [Session(user(f"user{number}", verified_s=now_s - 55)) for number in range(20)]
    async with world(backends, slow, *others):
        await trio.sleep(30)
    assert backends.at_once == 4
    assert Counter(backends.names) == {"slow": 1} | {f"user{number}": 1 for number in range(20)}


async def test_one_slow_answer_holds_up_nobody(autojump_clock: MockClock) -> None:
    """While one user is waited for, those who become due are asked about, and nobody is asked about twice."""
    backends = Backends(unchanged, main_campus=60.0)
    backends.takes_s = lambda identity: 500.0 if identity.user == "slow" else 0.0
    sessions = [Session(user("slow")), Session(user())]
    async with world(backends, *sessions):
        await trio.sleep(400)
    assert Counter(backends.names) == {"slow": 1, "alice": 6}


async def test_backends_do_not_wait_for_each_other(autojump_clock: MockClock) -> None:
    """One that never answers holds up neither another of its tenant nor its namesake in another tenant."""
    backends = Backends(unchanged, main_campus=60.0, main_library=60.0, physics_campus=60.0)
    backends.takes_s = lambda identity: 1e6 if (identity.tenant, identity.backend) == ("main", "campus") else 0.0
    stuck = [Session(user(f"user{number}")) for number in range(10)]
    others = [Session(user("bob", backend="library")), Session(user("carol", tenant="physics"))]
    async with world(backends, *stuck, *others):
        await trio.sleep(200)
    assert Counter(backends.names) == {"bob": 3, "carol": 3} | {f"user{number}": 1 for number in range(4)}


# ---- a backend that cannot tell


async def test_dead_backend_is_not_asked_for_everybody(autojump_clock: MockClock) -> None:
    """5,000 users, nobody answers: nothing ends, four questions every 5 s, said once; once it is back all goes on."""
    backends = Backends(lambda _: DOWN, main_campus=10.0)
    sessions = [Session(user(f"user{number}")) for number in range(5_000)]
    async with world(backends, *sessions) as seen:
        await trio.sleep(10 + 50)
        assert 10 <= len(backends.asked) <= 4 * 11
        assert len(set(backends.names)) == len(backends.asked)  # each time others: one of them may be the reason
        assert len(backends.asked) == seen.counters["revalidation_unavailable"]
        assert seen.log.text().count("cannot tell who may go on") == 1
        assert not any(session.revoked or session.heard for session in sessions)
        assert (backends.changed, backends.confirmed) == ([], [])
        backends.answer, backends.asked = unchanged, []
        await trio.sleep(8)
        assert sorted(backends.names, key=str) == sorted(f"user{number}" for number in range(5_000))
        assert seen.log.text().count("tells again") == 1
        assert all(len(session.heard) == 1 for session in sessions)


async def test_slow_failures_are_not_repeated_for_everybody(autojump_clock: MockClock) -> None:
    """A server behind a firewall that swallows everything: each question costs 5 s, and few are asked."""
    backends = Backends(lambda _: Unavailable("no answer within 5 s", Cause.TIMEOUT), main_campus=10.0)
    backends.takes_s = lambda _: 5.0
    async with world(backends, *(Session(user(f"user{number}")) for number in range(5_000))):
        await trio.sleep(10 + 50)
    assert 4 * 4 <= len(backends.asked) <= 4 * 6


@pytest.mark.parametrize("cause", [Cause.PROTOCOL, Cause.REFUSED, Cause.OTHER])
async def test_many_about_whom_it_fails_hold_up_nobody(autojump_clock: MockClock, cause: Cause) -> None:
    """Half of all users: whoever else is removed is noticed in time all the same."""
    gone: set[str] = set()

    def answer(who: Identity) -> Answer:
        if str(who.user).startswith("bad"):
            return Unavailable("an entry of its own kind", cause)
        return OUT if who.user in gone else who

    backends = Backends(answer, main_campus=60.0)
    backends.takes_s = lambda _: 0.005
    bad = [Session(user(f"bad{number}")) for number in range(200)]
    good = [Session(user(f"user{number}")) for number in range(200)]
    async with world(backends, *bad, *good):
        await trio.sleep(600)
        gone.add("user100")
        await trio.sleep(60 + 60)
    assert [session.revoked for session in good] == [number == 100 for number in range(200)]
    assert not any(session.revoked for session in bad)


@pytest.mark.parametrize("cause", [Cause.PROTOCOL, Cause.OTHER])
async def test_a_backend_that_fails_about_everybody_rests(autojump_clock: MockClock, cause: Cause) -> None:
    """Twenty in a row, then it is left alone for a moment."""
    backends = Backends(lambda _: Unavailable("nonsense", cause), main_campus=10.0)
    async with world(backends, *(Session(user(f"user{number}")) for number in range(5_000))) as seen:
        await trio.sleep(10 + 50)
    assert 20 * 9 <= len(backends.asked) <= 24 * 11
    assert seen.log.text().count("cannot tell who may go on") == 1


@pytest.mark.parametrize(("cause", "asked_max"), [(Cause.AMBIGUOUS, 3), (Cause.OTHER, 60)])
async def test_one_user_about_whom_it_can_never_tell(autojump_clock: MockClock, cause: Cause, asked_max: int) -> None:
    """Two entries with one name, say: the others are looked up as always."""
    backends = Backends(lambda who: Unavailable("two", cause) if who.user == "twin" else who, main_campus=60.0)
    now_s = trio.current_time()
    twin = Session(user("twin", verified_s=now_s - 1))  # the first to be due
    others = [Session(user(f"user{number}")) for number in range(100)]
    async with world(backends, twin, *others) as seen:
        await trio.sleep(310)
    asked = Counter(backends.names)
    assert [4 <= asked[f"user{number}"] <= 5 for number in range(100)] == [True] * 100
    assert 3 <= asked["twin"] <= asked_max
    assert (twin.revoked, twin.heard) == (cause is Cause.AMBIGUOUS, [])
    if cause is Cause.AMBIGUOUS:
        assert seen.log.text().count("cannot be looked up") == 1


async def test_answers_without_meaning_hold_nobody_in_for_long(autojump_clock: MockClock) -> None:
    """A second entry beside one that was locked: after three of them the sessions end, as for any other no."""
    backends = Backends(lambda who: Unavailable("two entries", Cause.AMBIGUOUS), main_campus=60.0)
    sessions = [Session(user()), Session(user())]
    async with world(backends, *sessions) as seen:
        await trio.sleep(130)
        assert not any(session.revoked for session in sessions)
        await trio.sleep(60)
    assert all(session.revoked for session in sessions)
    assert len(backends.asked) == 3
    assert backends.changed == [("main", "alice")]
    assert seen.counters["revalidation_revoked"] == 1
    assert "3 times in a row: two entries" in seen.log.text()


async def test_an_answer_between_those_without_meaning(autojump_clock: MockClock) -> None:
    """Only in a row do they count; an outage in between is no answer, neither this nor that."""
    answers: list[Answer | None] = [
        *(unclear := [Unavailable("two", Cause.AMBIGUOUS)] * 2),
        None,
        *unclear,
        DOWN,
        unclear[0],
    ]
    left = iter(answers)
    backends = Backends(lambda who: next(left) or who, main_campus=60.0)
    session = Session(user())
    async with world(backends, session):
        while len(backends.asked) < len(answers):
            assert not session.revoked
            await trio.sleep(1)
        await trio.sleep(1)
    assert session.revoked


# ---- what comes of it


async def test_revoked(autojump_clock: MockClock) -> None:
    """Out of the group: every session of the user ends, nothing is remembered, and it is said (case 43)."""
    backends = Backends(lambda who: OUT if who.user == "alice" else who, main_campus=60.0)
    alices, bob = [Session(user()), Session(user())], Session(user("bob"))
    async with world(backends, *alices, bob) as seen:
        await trio.sleep(62)
    assert [session.revoked for session in (*alices, bob)] == [True, True, False]
    assert (backends.changed, backends.reported) == ([("main", "alice")], [])
    assert seen.counters["revalidation_revoked"] == 1
    assert "not a member" in seen.log.text()


async def test_another_epoch(autojump_clock: MockClock) -> None:
    """Deleted and made anew, or a new password: the same name, but not who logged in (case 43)."""
    backends = Backends(lambda who: attrs.evolve(who, epoch="2"), main_campus=60.0)
    session = Session(user(epoch="1"))
    async with world(backends, session) as seen:
        await trio.sleep(62)
    assert (session.revoked, session.heard) == (True, [])
    assert backends.changed == [("main", "alice")]
    assert seen.counters["revalidation_revoked"] == 1


async def test_changed(autojump_clock: MockClock) -> None:
    """Other groups: each session hears of it and tidies up, the cache forgets, and wrong rules are reported."""
    backends = Backends(lambda who: attrs.evolve(who, groups=frozenset({"staff"})), main_campus=60.0)
    sessions = [Session(user()) for _ in range(3)]
    async with world(backends, *sessions) as seen:
        await trio.sleep(62)
    assert [session.tidied for session in sessions] == [1, 1, 1]
    assert [session.heard[0].groups for session in sessions] == [{"staff"}] * 3
    assert (backends.changed, backends.confirmed) == ([("main", "alice")], [])
    assert len(backends.reported) == 1
    assert "revalidation_revoked" not in seen.counters


async def test_a_user_with_many_sessions(autojump_clock: MockClock) -> None:
    """All of them hear of it and tidy up."""
    backends = Backends(lambda who: attrs.evolve(who, groups=frozenset({"staff"})), main_campus=60.0)
    sessions = [Session(user()) for _ in range(250)]
    async with world(backends, *sessions):
        await trio.sleep(62)
    assert [(len(session.heard), session.tidied) for session in sessions] == [(1, 1)] * 250


async def test_judging_takes_turns(autojump_clock: MockClock) -> None:
    """First every session, then what is not urgent; whoever else has something to do does it in between."""
    judged: list[str] = []
    turns: list[int] = []

    def steps() -> Iterator[None]:
        judged.append("later")
        yield

    def sessions() -> Iterator[Iterator[None]]:
        for _ in range(250):
            judged.append("now")
            yield steps()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(judge_in_turns, sessions())
        while len(judged) < 500:
            turns.append(len(judged))
            await trio.lowlevel.checkpoint()
    assert judged == ["now"] * 250 + ["later"] * 250
    assert len(set(turns)) >= 3  # of five: which task of a round comes first is random, so two may fall together


async def test_the_same_name_elsewhere_is_somebody_else(autojump_clock: MockClock) -> None:
    """Revoked in one tenant, in one of two backends of it: the others live (item 11)."""
    backends = Backends(
        lambda who: OUT if (who.tenant, who.backend) == ("main", "campus") else who,
        main_campus=60.0,
        main_library=60.0,
        physics_campus=60.0,
    )
    gone, library, physics = Session(user()), Session(user(backend="library")), Session(user(tenant="physics"))
    async with world(backends, gone, library, physics):
        await trio.sleep(62)
    assert [session.revoked for session in (gone, library, physics)] == [True, False, False]
    assert [len(session.heard) for session in (gone, library, physics)] == [0, 1, 1]


@pytest.mark.parametrize("takes_s", [0.5, 10.0])
@pytest.mark.parametrize("answer", [OUT, None], ids=["revoked", "changed"])
async def test_sessions_that_began_while_it_was_asked(
    autojump_clock: MockClock, answer: Answer | None, takes_s: float
) -> None:
    """Who was accepted later than the question knows better; who came out of the cache does not (item 11)."""
    backends = Backends(lambda who: answer or attrs.evolve(who, groups=frozenset({"staff"})), main_campus=60.0)
    backends.takes_s = lambda _: takes_s
    old = Session(user())
    async with world(backends, old) as seen:
        await trio.sleep(60.2)
        assert backends.under_way == 1
        newer, cached = Session(user()), Session(user(verified_s=trio.current_time() - 50))
        seen.sessions += [newer, cached]
        await trio.sleep(takes_s)
    assert [session.revoked for session in (old, cached, newer)] == [answer is OUT, answer is OUT, False]
    assert [len(session.heard) for session in (old, cached, newer)] == [answer is None, answer is None, 0]


async def test_a_user_who_logs_out_meanwhile(autojump_clock: MockClock) -> None:
    """While the question is under way, or before its turn: nothing to be done; what was learnt is not remembered."""
    backends = Backends(lambda _: OUT, main_campus=60.0)
    backends.takes_s = lambda _: 10.0
    now_s = trio.current_time()
    sessions = [Session(user(f"user{number}", verified_s=now_s - 100 + number)) for number in range(5)]
    async with world(backends, *sessions) as seen:
        await trio.sleep(5)
        assert backends.under_way == 4
        seen.sessions.clear()
        await trio.sleep(100)
        assert "revalidation_revoked" not in seen.counters
    assert backends.names == ["user0", "user1", "user2", "user3"]
    assert len(backends.changed) == 4


async def test_a_login_before_its_turn_saves_the_question(autojump_clock: MockClock) -> None:
    """Whoever logged out and in again while others were asked is not due any more."""
    backends = Backends(unchanged, main_campus=60.0)
    backends.takes_s = lambda _: 10.0
    now_s = trio.current_time()
    sessions = [Session(user(f"user{number}", verified_s=now_s - 100 + number)) for number in range(5)]
    async with world(backends, *sessions) as seen:
        await trio.sleep(5)
        seen.sessions[-1] = Session(user("user4"))
        await trio.sleep(30)
    assert backends.names == ["user0", "user1", "user2", "user3"]


async def test_sessions_that_end_while_they_are_looked_through(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have their turn meanwhile: whose last session they end is not due."""
    monkeypatch.setattr("trioproxy.revalidate.AT_ONCE", 1)
    backends = Backends(unchanged, main_campus=60.0)
    ends, lives = Session(user(verified_s=-1e3)), Session(user("bob", verified_s=-1e3))

    class Change(Session):
        """Somebody's session, and what ends another one when it is looked at."""

        def __getattribute__(self, name: str) -> Any:
            if name == "identity":
                ends.revoke()
            return super().__getattribute__(name)

    async with world(backends, ends, Change(None), lives):
        await trio.sleep(2)
    assert backends.names == ["bob"]


async def test_an_end_that_is_known_needs_no_directory(autojump_clock: MockClock) -> None:
    """An account that ends today ends its sessions today, whether the directory can be asked or not (case 41)."""
    backends = Backends(lambda _: DOWN, main_campus=60.0)
    ended = Session(user(valid_until=NOW))
    lives = Session(user("bob", valid_until=NOW + timedelta(seconds=1)))
    async with world(backends, ended, lives):
        await trio.sleep(2)
    assert (ended.revoked, lives.revoked, backends.asked) == (True, False, [])


# ---- reload


async def test_reload_while_a_question_is_under_way(autojump_clock: MockClock) -> None:
    """What a directory says that is not in the configuration any more ends nothing; the new one is asked."""
    before, after = Backends(lambda _: OUT, main_campus=60.0), Backends(lambda _: DOWN, main_campus=60.0)
    before.takes_s = lambda _: 10.0
    session = Session(user())
    async with world(before, session) as seen:
        await trio.sleep(65)
        assert before.under_way == 1
        seen.services.authenticator = after
        await trio.sleep(20)
        assert (session.revoked, before.changed) == (False, [])
        assert set(after.names) == {"alice"}
        seen.services.authenticator = Backends(unchanged)
        looked = seen.looked
        await trio.sleep(200)
        assert seen.looked <= looked + 1
