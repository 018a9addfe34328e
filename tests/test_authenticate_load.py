"""Logins that come late, many at once, and too often."""

from functools import partial

import attrs
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from auth import Answer, Cause, Credentials, Identity, Rejected, Rejection, Unavailable
from auth.local import LocalBackend, LocalSettings
from tests.auth.doubles import FakeBackend, accepted, context_of, local_user
from tests.auth.logins import PENALTY, SOURCE, WRONG, GatedBackend, append, local, log_in, only
from trioproxy.authenticate import AuthenticationLimits, Authenticator

# ---- answers that come late


async def test_answer_overtaken_by_a_change_is_not_believed() -> None:
    """Disabled while the password was being checked: asked again, and refused (case 43, P6)."""
    users = {("main", "alice"): local_user()}
    gated = GatedBackend(lambda said: LocalBackend(LocalSettings(), context_of(users)).authenticate(said))
    authenticator = Authenticator(only(gated))
    async with trio.open_nursery() as nursery:
        answers: list[Answer] = []
        nursery.start_soon(append, answers, partial(log_in, authenticator))
        await gated.entered()
        users["main", "alice"] = attrs.evolve(local_user(), disabled=True)
        authenticator.user_changed("main", "alice")
        gated.let(2)
    assert [Rejected(Rejection.DISABLED)] == answers
    assert len(gated.asked) == 2


async def test_changes_without_end() -> None:
    """If something changes under every attempt, the login is refused rather than tried for ever."""
    authenticator: Authenticator

    def accept_after_a_change(said: Credentials) -> Answer:
        trio.from_thread.run_sync(authenticator.all_changed)
        return accepted(said)

    backend = FakeBackend(accept_after_a_change)
    authenticator = Authenticator(only(backend))
    assert Unavailable("this user changed during the login") == await log_in(authenticator)
    assert len(backend.asked) == 3


async def test_deadline(mock_clock: MockClock) -> None:
    """A backend that is silent for 5 s could not tell; its late yes opens nothing and is not remembered (P6)."""
    gated = GatedBackend()
    authenticator = Authenticator(only(gated))
    async with trio.open_nursery() as nursery:
        answers: list[Answer] = []
        nursery.start_soon(append, answers, partial(log_in, authenticator))
        await gated.entered()
        mock_clock.jump(5.0)
    assert [Unavailable("no answer within 5 s", Cause.TIMEOUT)] == answers
    assert authenticator.counters == {"login_deadline": 1, "login_unavailable": 1, "login_unavailable_timeout": 1}
    gated.let(2)
    assert isinstance(await log_in(authenticator), Identity)
    assert len(gated.asked) == 2
    assert authenticator.counters["login_cached"] == 0


async def test_deadline_includes_the_queue(mock_clock: MockClock) -> None:
    """Waiting for a thread counts: nobody waits longer than 5 s in all, nor asks the backend afterwards (case 46)."""
    gated = GatedBackend()
    authenticator = Authenticator(only(gated), settings=AuthenticationLimits(hash_threads=1))
    async with trio.open_nursery() as nursery:
        answers: list[Answer] = []
        for user in (b"alice", b"bob"):
            nursery.start_soon(append, answers, partial(log_in, authenticator, user=user))
        await gated.entered()
        await wait_all_tasks_blocked()
        mock_clock.jump(5.0)
    assert [Unavailable("no answer within 5 s", Cause.TIMEOUT)] * 2 == answers
    assert len(gated.asked) == 1
    gated.let()


async def test_cancelled_login(mock_clock: MockClock) -> None:
    """A client that leaves takes its login along; the backend's answer goes nowhere."""
    gated = GatedBackend()
    authenticator = Authenticator(only(gated))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log_in, authenticator)
        await gated.entered()
        nursery.cancel_scope.cancel()
    gated.let(2)
    assert authenticator.counters == {}
    assert isinstance(await log_in(authenticator), Identity)
    assert len(gated.asked) == 2


# ---- many at once


async def test_the_same_login_at_once_is_verified_once() -> None:
    """A browser opens thirty connections with one password: one verification, thirty identities."""
    gated = GatedBackend()
    authenticator = Authenticator(only(gated))
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(append, answers, partial(log_in, authenticator))
        await gated.entered()
        await wait_all_tasks_blocked()
        gated.let()
    assert len(gated.asked) == 1
    assert [isinstance(answer, Identity) for answer in answers] == [True] * 30
    assert authenticator.counters["login_accepted"] == 30


async def test_the_same_mistake_at_once_is_one_failure() -> None:
    """Apt opens sixteen connections with one wrong password: that is one guess, not a storm (CASES 5a)."""
    gated = GatedBackend(WRONG)
    authenticator = Authenticator(only(gated))
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(append, answers, partial(log_in, authenticator))
        await gated.entered()
        await wait_all_tasks_blocked()
        gated.let()
    assert answers == [WRONG] * 16
    assert authenticator.throttle.source_delay("main", SOURCE, trio.current_time()) == 0.0


async def test_waiting_for_a_login_that_is_cancelled() -> None:
    """If the one that asked leaves, the next asks itself; nobody is left waiting."""
    gated = GatedBackend()
    authenticator = Authenticator(only(gated))
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        leaving = trio.CancelScope()

        async def leave() -> None:
            with leaving:
                await log_in(authenticator)

        nursery.start_soon(leave)
        await gated.entered()
        for _ in range(3):
            nursery.start_soon(append, answers, partial(log_in, authenticator))
        await wait_all_tasks_blocked()
        leaving.cancel()
        await gated.entered()
        gated.let(2)
    assert [isinstance(answer, Identity) for answer in answers] == [True] * 3
    assert len(gated.asked) == 2


async def test_the_queue_is_bounded() -> None:
    """Two at once, two waiting, the fifth is turned away: "could not tell", no penalty, counted (case 46)."""
    gated = GatedBackend()
    authenticator = Authenticator(only(gated), settings=AuthenticationLimits(hash_threads=2, queue_max=2))
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(append, answers, partial(log_in, authenticator, user=b"user%d" % number))
        await gated.entered()
        await gated.entered()
        await wait_all_tasks_blocked()
        assert len(gated.asked) == 2
        assert Unavailable("too many logins at once", Cause.BUSY) == await log_in(authenticator)
        gated.let(4)
    assert [isinstance(answer, Identity) for answer in answers] == [True] * 4
    assert authenticator.counters["login_queue_full"] == 1
    queue = authenticator._hashing
    assert (authenticator._running, queue.logins, queue.logins_from) == ({}, 0, {})  # nothing grows with the clients
    gated.let()
    assert isinstance(await log_in(authenticator), Identity)


def test_default_limits() -> None:
    """Two hashes at once, a bounded queue of which one address has half, 5 s, 60 s, 10,000 (cases 43, 46)."""
    assert AuthenticationLimits(2, 64, 32, 5.0, 60.0, 10_000) == AuthenticationLimits()


async def test_no_address_fills_the_queue_alone() -> None:
    """One address has its part of the queue, another's logins still find room; IPv6 counts by the /64 (case 35)."""
    gated = GatedBackend()
    limits = AuthenticationLimits(hash_threads=1, queue_max=10, queue_per_source_max=2)
    authenticator = Authenticator(only(gated), settings=limits)
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        for number in range(2):
            login = partial(log_in, authenticator, user=b"user%d" % number, source=f"2001:db8::{number}")
            nursery.start_soon(append, answers, login)
        await gated.entered()
        await wait_all_tasks_blocked()
        refused = await log_in(authenticator, source="2001:db8::ffff")
        assert Unavailable("too many logins at once from this address", Cause.BUSY) == refused
        for source in ("2001:db8:0:1::1", "10.1.2.3"):
            nursery.start_soon(append, answers, partial(log_in, authenticator, source=source))
        await wait_all_tasks_blocked()
        gated.let(4)
    assert [isinstance(answer, Identity) for answer in answers] == [True] * 4
    assert authenticator.counters["login_source_queue_full"] == 1
    gated.let()
    assert isinstance(await log_in(authenticator, source="2001:db8::ffff"), Identity)


# ---- penalties


async def test_penalty(mock_clock: MockClock) -> None:
    """Six wrong passwords from one address: 5 s without a look at the seventh; others go on (case 35)."""
    backend = LocalBackend(LocalSettings(), context_of([local_user(), local_user("bob", "bobs")]))
    authenticator = Authenticator(only(backend))
    for number in range(6):
        assert await log_in(authenticator, b"guess %d" % number) == WRONG
    assert await log_in(authenticator) == PENALTY
    assert await log_in(authenticator, b"bobs", b"bob") == PENALTY
    assert isinstance(await log_in(authenticator, source="10.1.2.4"), Identity)
    assert authenticator.counters["login_rejected_penalty"] == 2
    mock_clock.jump(5.0)
    assert isinstance(await log_in(authenticator), Identity)


async def test_unavailable_brings_no_penalty() -> None:
    """A directory that is down is nobody's wrong password (CASES 2.3)."""
    authenticator = Authenticator(only(FakeBackend(Unavailable("down"))))
    for _ in range(50):
        assert Unavailable("down") == await log_in(authenticator)


async def test_guessing_at_a_name_does_not_lock_its_owner_out(mock_clock: MockClock) -> None:
    """A cached login passes the penalty of the name; a new one waits, whoever it is, a minute at most (case 35)."""
    authenticator = Authenticator(local([local_user()]))
    assert isinstance(await log_in(authenticator), Identity)
    for number in range(20):
        await log_in(authenticator, b"guess", source=f"192.0.2.{number}")
    assert await log_in(authenticator, source="198.51.100.1") == PENALTY
    assert isinstance(await log_in(authenticator), Identity)
    mock_clock.jump(5.0)
    assert isinstance(await log_in(authenticator, source="198.51.100.1"), Identity)


async def test_penalty_of_the_address_leaves_remembered_logins_alone() -> None:
    """A neighbour's wrong passwords behind one NAT keep nobody out who has just logged in; others wait (case 35)."""
    authenticator = Authenticator(local([local_user(), local_user("bob", "bobs")]))
    assert isinstance(await log_in(authenticator), Identity)
    for number in range(6):
        await log_in(authenticator, b"guess %d" % number, b"bob")
    assert isinstance(await log_in(authenticator), Identity)
    assert await log_in(authenticator, b"bobs", b"bob") == PENALTY


async def test_guess_that_nobody_waits_for_counts() -> None:
    """Whoever hangs up before the answer has guessed all the same (case 35)."""
    gated = GatedBackend(WRONG)
    authenticator = Authenticator(only(gated))
    for number in range(6):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log_in, authenticator, b"guess %d" % number)
            await gated.entered()
            nursery.cancel_scope.cancel()
        gated.let()
    while not authenticator.throttle.counters["source_penalties"]:
        await trio.sleep(0.001)
    assert await log_in(authenticator) == PENALTY


async def test_unknown_names_are_penalised_like_known_ones() -> None:
    """Otherwise a penalty would tell which names exist (case 28)."""
    answers = []
    for user in (b"alice", b"nobody"):
        authenticator = Authenticator(local([local_user()]))
        for number in range(20):
            await log_in(authenticator, b"guess", user, source=f"192.0.2.{number}")
        answers.append(await log_in(authenticator, b"guess", user, source="198.51.100.1"))
    assert answers == [PENALTY, PENALTY]


async def test_success_ends_the_doubt_about_a_user() -> None:
    """Nineteen failures, a right login, one failure: no penalty for the name (case 35)."""
    authenticator = Authenticator(local([local_user()]))
    for number in range(19):
        await log_in(authenticator, b"guess", source=f"192.0.2.{number}")
    assert isinstance(await log_in(authenticator), Identity)
    await log_in(authenticator, b"guess")
    assert isinstance(await log_in(authenticator, source="198.51.100.1"), Identity)


async def test_penalties_outlive_a_reload() -> None:
    """A new authenticator with the old throttle goes on where the old one stopped."""
    old = Authenticator(local([local_user()]))
    for number in range(6):
        await log_in(old, b"guess %d" % number)
    assert await log_in(Authenticator(local([local_user()]), throttle=old.throttle)) == PENALTY
