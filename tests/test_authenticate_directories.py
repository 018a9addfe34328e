"""Logins that wait for a directory: who waits for whom, how often it is asked, and what it says about live sessions."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from auth import Answer, Backend, Cause, Credentials, EntryRules, Identity, Rejected, Rejection, Unavailable
from auth.chain import Chain
from auth.local import LocalBackend, LocalSettings
from tests.auth.doubles import CHEAP, CountingPasswords, FakeBackend, FakeDirectory, accepted, context_of, local_user
from tests.auth.logins import (
    PENALTY,
    SOURCE,
    UNKNOWN,
    WRONG,
    GatedDirectory,
    append,
    chain_of,
    log_in,
)
from tests.harness import Records
from trioproxy import authenticate
from trioproxy.authenticate import AuthenticationLimits, Authenticator
from trioproxy.log import configure_log
from trioproxy.policy import Rule, parse_rule

FULL = Unavailable("too many logins at once", Cause.BUSY)
OVERTAKEN = Unavailable("this user changed during the login")
TOO_LATE = Unavailable("no answer within 5 s", Cause.TIMEOUT)


def hashing(name: str, tenant: str = "main") -> LocalBackend:
    """The store, with one user."""
    return LocalBackend(LocalSettings(), context_of([local_user(name, tenant=tenant)]))


def campus(backend: Backend, **limits: int) -> Authenticator:
    """The tenant main on one directory."""
    return Authenticator({"main": chain_of(campus=backend)}, settings=AuthenticationLimits(**limits))


def alice(tenant: str = "main", backend: str = "campus") -> Identity:
    """Somebody with a live session."""
    return Identity(tenant, "alice", frozenset({"system-proxy"}), backend)


def are_in(answers: list[Answer]) -> list[bool]:
    """Which logins were accepted."""
    return [isinstance(answer, Identity) for answer in answers]


# ---- who waits for whom


async def test_a_stuck_directory_holds_up_no_other_tenant() -> None:
    """All its places are taken and its queue is full: directories of the same name and hashing go on (item 11)."""
    stuck = GatedDirectory(in_flight_max=2)
    chains = {
        "main": chain_of(campus=stuck),
        "physics": chain_of(campus=FakeDirectory("alice")),
        "law": chain_of(local=hashing("alice", "law")),
    }
    authenticator = Authenticator(chains, settings=AuthenticationLimits(hash_threads=1, queue_max=3))
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(append, answers, partial(log_in, authenticator, user=b"user%d" % number))
        for _ in range(2):
            await stuck.entered()
        await wait_all_tasks_blocked()
        assert await log_in(authenticator) == FULL
        assert isinstance(await log_in(authenticator, tenant="physics"), Identity)
        assert isinstance(await log_in(authenticator, tenant="law"), Identity)
        assert (answers, len(stuck.asked)) == ([], 2)
        stuck.let(5)
    assert are_in(answers) == [True] * 5
    assert authenticator.counters["login_queue_full"] == 1


async def test_a_stuck_directory_holds_up_no_local_user() -> None:
    """In one chain, before the directory: a login waits in the queue of what it is about to ask, in no other."""
    stuck = GatedDirectory(in_flight_max=1)
    chain = chain_of(local=hashing("bob"), campus=stuck)
    authenticator = Authenticator({"main": chain}, settings=AuthenticationLimits(hash_threads=1, queue_max=1))
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(append, answers, partial(log_in, authenticator, user=b"user0"))
        await stuck.entered()
        nursery.start_soon(append, answers, partial(log_in, authenticator, user=b"user1"))
        while authenticator._queues["main", "campus"].logins < 2:
            await trio.sleep(0.001)  # its turn in the store is a thread's matter
        assert await log_in(authenticator, user=b"user2") == FULL
        assert isinstance(await log_in(authenticator, user=b"bob"), Identity)
        assert answers == []
        stuck.let(2)
    assert are_in(answers) == [True] * 2


async def test_hashing_holds_up_no_directory() -> None:
    """The other way round: a thousand guesses at local users keep nobody of the directory out (case 46)."""
    slow = GatedDirectory(in_flight_max=None)  # as hashing is
    chains = {"main": chain_of(local=slow), "physics": chain_of(campus=FakeDirectory("alice"))}
    authenticator = Authenticator(chains, settings=AuthenticationLimits(hash_threads=1, queue_max=1))
    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(partial(log_in, authenticator, user=b"user%d" % number))
        await slow.entered()
        await wait_all_tasks_blocked()
        assert await log_in(authenticator) == FULL
        assert isinstance(await log_in(authenticator, tenant="physics"), Identity)
        slow.let(2)


async def test_as_many_at_once_as_the_directory_takes() -> None:
    """`in_flight_max` questions are under way, and not one more: that is how many threads there are."""
    gated = GatedDirectory(in_flight_max=3)
    authenticator = campus(gated, hash_threads=1)
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(append, answers, partial(log_in, authenticator, user=b"user%d" % number))
        for _ in range(3):
            await gated.entered()
        await wait_all_tasks_blocked()
        assert len(gated.asked) == 3
        gated.let(10)
    assert are_in(answers) == [True] * 10


async def test_no_address_fills_the_queue_of_a_directory_alone() -> None:
    """The limit of one address holds in each queue by itself: what it does here does not keep it out there."""
    gated = GatedDirectory(in_flight_max=1)
    chain = chain_of(local=hashing("bob"), campus=gated)
    limits = AuthenticationLimits(queue_per_source_max=1)
    authenticator = Authenticator({"main": chain}, settings=limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log_in, authenticator)
        await gated.entered()
        refused = await log_in(authenticator, user=b"carol")
        assert Unavailable("too many logins at once from this address", Cause.BUSY) == refused
        assert isinstance(await log_in(authenticator, user=b"bob"), Identity)
        gated.let()
    assert authenticator.counters["login_source_queue_full"] == 1


async def test_a_full_queue_ends_the_search_unless_told_otherwise() -> None:
    """Whom nobody could ask may be anybody: the next backend does not see the password (CASES 2.3)."""
    for fall_through, expected in ((False, False), (True, True)):
        gated, library = GatedDirectory(in_flight_max=1), FakeDirectory("alice")
        backends: list[tuple[str, Backend]] = [("campus", gated), ("library", library)]
        chain = Chain(backends, "system-proxy", CHEAP, fall_through=fall_through)
        authenticator = Authenticator({"main": chain}, settings=AuthenticationLimits(queue_max=0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(log_in, authenticator, user=b"bob"))
            await gated.entered()
            answer = await log_in(authenticator)
            gated.let()
        assert (expected, int(expected)) == (isinstance(answer, Identity), len(library.asked))


async def test_who_is_unknown_queues_once() -> None:
    """The hash that makes up for a user who is not there is made in the same turn as the look-up (case 28)."""
    events: list[str] = []

    class Passwords(CountingPasswords):
        def waste(self, password: str) -> None:
            events.append("hash")

    def find_nobody(said: Credentials) -> Answer:
        events.append(said.username)
        return UNKNOWN

    chain = Chain([("local", FakeBackend(find_nobody))], "system-proxy", Passwords())
    authenticator = Authenticator({"main": chain}, settings=AuthenticationLimits(hash_threads=1))
    async with trio.open_nursery() as nursery:
        for user in (b"alice", b"bob"):
            nursery.start_soon(partial(log_in, authenticator, user=user))
    assert sorted([events[:2], events[2:]]) == [["alice", "hash"], ["bob", "hash"]]


# ---- how often a directory is asked


async def test_a_directory_sees_one_bind_for_one_login() -> None:
    """Changed while it was asked: what it said is not believed, and it is not asked again (CASES 2.3, lockout)."""
    gated = GatedDirectory()
    authenticator = campus(gated)
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(append, answers, partial(log_in, authenticator))
        await gated.entered()
        authenticator.user_changed("main", "alice")
        gated.let(3)
    assert answers == [OVERTAKEN]
    assert len(gated.asked) == 1
    assert isinstance(await log_in(authenticator), Identity)
    assert authenticator.counters["login_cached"] == 0


async def test_changes_to_others_overtake_nobody() -> None:
    """A campus where somebody changes every second: alice logs in all the same."""
    gated = GatedDirectory()
    authenticator = campus(gated)
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(append, answers, partial(log_in, authenticator))
        await gated.entered()
        authenticator.user_changed("main", "bob")
        authenticator.user_changed("physics", "alice")
        gated.let()
    assert are_in(answers) == [True]
    assert isinstance(await log_in(authenticator), Identity)
    assert len(gated.asked) == authenticator.counters["login_cached"] == 1


async def test_what_is_asked_again_asks_the_directory_once() -> None:
    """Overtaken in the store, where it costs nobody anything, then found in the directory: one bind."""
    users = {("main", "alice"): local_user()}
    store = GatedDirectory(LocalBackend(LocalSettings(), context_of(users)).authenticate, in_flight_max=None)
    directory = FakeDirectory("alice")
    authenticator = Authenticator({"main": chain_of(local=store, campus=directory)})
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(append, answers, partial(log_in, authenticator))
        await store.entered()
        users.clear()
        authenticator.user_changed("main", "alice")
        store.let(2)
    assert [(len(store.asked), len(directory.asked))] == [(2, 1)]
    (answer,) = answers
    assert isinstance(answer, Identity)
    assert answer.backend == "campus"


async def test_what_was_overtaken_behind_a_directory_is_not_asked_again() -> None:
    """The directory did not know the user, the store did, and then not any more: one bind is one bind."""
    directory, store = FakeDirectory(), GatedDirectory(in_flight_max=None)
    authenticator = Authenticator({"main": chain_of(campus=directory, local=store)})
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(append, answers, partial(log_in, authenticator))
        await store.entered()
        authenticator.user_changed("main", "alice")
        store.let(3)
    assert answers == [OVERTAKEN]
    assert (len(directory.asked), len(store.asked)) == (1, 1)


async def test_who_waited_does_not_take_an_answer_that_was_overtaken_since() -> None:
    """Thirty logins wait for one answer; a change after it and before they wake holds for them (case 43)."""
    gated = GatedDirectory()
    authenticator = campus(gated)
    answers: list[Answer] = []

    async def lead() -> None:
        assert isinstance(await log_in(authenticator), Identity)
        gated._answer = Rejected(Rejection.NOT_A_MEMBER)
        authenticator.user_changed("main", "alice")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lead)
        await gated.entered()
        for _ in range(3):
            nursery.start_soon(append, answers, partial(log_in, authenticator))
        await wait_all_tasks_blocked()
        gated.let(2)
    assert [Rejected(Rejection.NOT_A_MEMBER)] * 3 == answers
    assert len(gated.asked) == 2


async def test_when_the_directory_was_asked(mock_clock: MockClock) -> None:
    """An identity is as old as the question, not as the answer, also when it comes out of the cache."""
    gated = GatedDirectory()
    authenticator = campus(gated)
    answers: list[Answer] = []
    asked_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(append, answers, partial(log_in, authenticator))
        await gated.entered()
        mock_clock.jump(3.0)
        gated.let()
    mock_clock.jump(40.0)
    answers.append(await log_in(authenticator))
    assert authenticator.counters["login_cached"] == 1
    assert [answer.verified_s for answer in answers if isinstance(answer, Identity)] == [asked_s] * 2


# ---- penalties


async def test_unknown_in_one_directory_is_no_failure_yet() -> None:
    """The next one may know the user; who is unknown everywhere has failed once, not once in each (case 35)."""
    backends = {"campus": FakeDirectory("bob"), "library": FakeDirectory("alice")}
    authenticator = Authenticator({"main": chain_of(**backends)})
    for number in range(6):
        authenticator.all_changed()
        assert isinstance(await log_in(authenticator), Identity)
        if number < 5:
            assert await log_in(authenticator, user=b"nobody") == UNKNOWN
    assert await log_in(authenticator, b"guess") == WRONG
    assert await log_in(authenticator, user=b"carol") == PENALTY


async def test_a_guess_at_an_unknown_name_that_nobody_waits_for_counts() -> None:
    """Names tried in a directory without waiting for its answer: the next backend is not asked, the guess counts."""
    gated = GatedDirectory(UNKNOWN)
    authenticator = Authenticator({"main": chain_of(campus=gated, library=FakeDirectory())})
    for number in range(6):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(log_in, authenticator, user=b"user%d" % number))
            await gated.entered()
            nursery.cancel_scope.cancel()
        gated.let()
        while authenticator.throttle.counters["users_remembered"] <= number:
            await trio.sleep(0.001)
    assert await log_in(authenticator) == PENALTY


async def test_failures_in_one_tenant_are_none_in_another() -> None:
    """The same name, the same directory by name, another tenant: no penalty, nothing remembered (item 11)."""
    chains = {tenant: chain_of(campus=FakeDirectory("alice", password=tenant)) for tenant in ("main", "physics")}
    authenticator = Authenticator(chains)
    assert isinstance(await log_in(authenticator, b"main"), Identity)
    for number in range(6):
        assert await log_in(authenticator, b"guess %d" % number) == WRONG
    assert await log_in(authenticator, b"physics") == PENALTY
    assert await log_in(authenticator, b"main", tenant="physics") == WRONG
    there = await log_in(authenticator, b"physics", tenant="physics")
    assert isinstance(there, Identity)
    assert there.tenant == "physics"
    authenticator.user_changed("physics", "alice")
    assert isinstance(await log_in(authenticator, b"main"), Identity)
    assert authenticator.counters["login_cached"] == 1
    assert authenticator.throttle.source_delay("physics", SOURCE, trio.current_time()) == 0.0


# ---- looking up who has a live session


async def test_find() -> None:
    """It asks the backend that accepted the user, without a password, and says when."""
    first, second = FakeDirectory("alice"), FakeDirectory("alice")
    second.change("alice", groups=frozenset({"system-proxy", "staff"}))
    authenticator = Authenticator({"main": chain_of(campus=first, library=second)})
    asked_s = trio.current_time()
    answer = await authenticator.find(alice(backend="library"))
    assert isinstance(answer, Identity)
    assert (answer.backend, answer.groups) == ("library", frozenset({"system-proxy", "staff"}))
    assert asked_s <= answer.verified_s <= trio.current_time()
    assert (first.found, second.found, second.asked) == ([], ["alice"], [])
    assert await authenticator.find(attrs.evolve(alice(), user="bob")) == UNKNOWN
    assert authenticator.counters == {}  # nobody logs in


async def test_find_where_nobody_can_be_asked() -> None:
    """A backend that is gone knows nobody; of a tenant that is gone, or closed, nobody can tell."""
    authenticator = Authenticator({"main": chain_of(campus=FakeDirectory("alice"))})
    assert await authenticator.find(alice(backend="library")) == UNKNOWN
    assert await authenticator.find(Identity("main", None)) == UNKNOWN
    assert isinstance(await authenticator.find(alice("physics")), Unavailable)
    assert [authenticator.has_backend(alice(*who)) for who in (("main",), ("main", "library"), ("physics",))] == [
        True,
        False,
        False,
    ]
    await authenticator.close()
    assert isinstance(await authenticator.find(alice()), Unavailable)


async def test_how_often_users_are_looked_up() -> None:
    """Only those of backends that ask for it."""
    directory = FakeDirectory()
    directory.revalidate_s = 7.0
    chains = {"main": chain_of(local=hashing("alice"), campus=directory), "physics": chain_of(fake=FakeBackend())}
    assert Authenticator(chains).revalidate_s == {("main", "campus"): 7.0}


@pytest.mark.parametrize(("in_flight_max", "at_once"), [(64, 4), (8, 4), (5, 2), (2, 1)])
async def test_look_ups_leave_room_for_logins(in_flight_max: int, at_once: int) -> None:
    """Four at once, and half of the places at most, so that a login finds one beside any number of them."""
    gated = GatedDirectory(in_flight_max=in_flight_max)
    authenticator = campus(gated)
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(append, answers, partial(authenticator.find, alice()))
        for _ in range(at_once):
            await gated.entered()
        await wait_all_tasks_blocked()
        assert len(gated.asked) == at_once
        nursery.start_soon(append, answers, partial(log_in, authenticator))
        await gated.entered()
        assert [said.password for said in gated.asked] == [""] * at_once + ["right"]
        gated.let(11)
    assert are_in(answers) == [True] * 11


async def test_look_ups_take_places_of_their_backend() -> None:
    """`in_flight_max` is what the directory can bear, whoever asks."""
    gated = GatedDirectory(in_flight_max=2)
    authenticator = campus(gated)
    answers: list[Answer] = []
    async with trio.open_nursery() as nursery:
        for user in (b"bob", b"carol"):
            nursery.start_soon(append, answers, partial(log_in, authenticator, user=user))
        for _ in range(2):
            await gated.entered()
        nursery.start_soon(append, answers, partial(authenticator.find, alice()))
        await wait_all_tasks_blocked()
        assert len(gated.asked) == 2
        gated.let(3)
    assert are_in(answers) == [True] * 3


async def test_look_ups_that_hang_are_not_replaced_by_others(mock_clock: MockClock) -> None:
    """After 5 s nobody waits for an answer any more; the thread does, and counts until it ends."""
    gated = GatedDirectory(in_flight_max=8)
    authenticator = campus(gated)
    answers: list[Answer] = []
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(append, answers, partial(authenticator.find, alice()))
            while len(gated.asked) < 4:
                await gated.entered()
            await wait_all_tasks_blocked()
            mock_clock.jump(5.0)
    assert answers == [TOO_LATE] * 8
    assert len(gated.asked) == 4
    gated.let(5)
    assert isinstance(await authenticator.find(alice()), Identity)


async def test_what_was_looked_up_is_remembered() -> None:
    """A login from the cache is as young as the last look-up; another answer than before empties it."""
    directory = FakeDirectory("alice")
    authenticator = campus(directory)
    await log_in(authenticator)
    found = await authenticator.find(alice())
    assert isinstance(found, Identity)
    authenticator.user_confirmed(found)
    cached = await log_in(authenticator)
    assert isinstance(cached, Identity)
    assert (cached.verified_s, authenticator.counters["login_cached"]) == (found.verified_s, 1)
    authenticator.user_confirmed(attrs.evolve(found, epoch="another"))
    await log_in(authenticator)
    assert len(directory.asked) == 2


# ---- rules in the directory


@contextmanager
def logged() -> Iterator[Records]:
    """What goes to the log."""
    log = Records()
    configure_log("warning", sink=log)
    yield log


def with_rules(*texts: str) -> Identity:
    """Somebody whose entry holds these."""
    entry = "uid=alice,ou=people,dc=example"
    return attrs.evolve(alice(), rules=(EntryRules(None, entry, texts),))


async def test_wrong_rules_are_reported(mock_clock: MockClock) -> None:
    """Each with the entry it is in, at a login; not again for each login from the cache, nor within an hour."""
    rules = with_rules("allow tcp:*(*)->*(443)", "alow everything", "deny tcp:*").rules
    authenticator = campus(FakeBackend(lambda said: attrs.evolve(accepted(said), rules=rules)))
    with logged() as log:
        for _ in range(2):
            assert isinstance(await log_in(authenticator), Identity)
        assert authenticator.counters["directory_rules_wrong"] == len(log.lines) == 2
        assert log.text().count("uid=alice,ou=people,dc=example") == 2
        authenticator.all_changed()
        await log_in(authenticator)
        assert (authenticator.counters["directory_rules_wrong"], len(log.lines)) == (4, 2)
        mock_clock.jump(3600.0)
        await log_in(authenticator)
        assert len(log.lines) == 4


async def test_what_was_said_is_bounded(monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock) -> None:
    """A directory full of nonsense fills neither the memory nor, at each login again, the log."""
    monkeypatch.setattr(authenticate, "_SAID_MAX", 3)
    authenticator = campus(FakeDirectory())
    with logged() as log:
        for number in (0, 1, 2, 3, 3, 0):
            authenticator.report_rules(with_rules(f"nonsense {number}"))
        assert len(log.lines) == len(authenticator._said_until_s) == 3
        assert authenticator.counters["directory_rules_wrong"] == 6
        mock_clock.jump(3600.0)
        authenticator.report_rules(with_rules("nonsense 3"))
        assert (len(log.lines), len(authenticator._said_until_s)) == (4, 1)


async def test_of_one_user_the_first_problems_are_reported() -> None:
    """Ten lines, though a thousand groups have a wrong rule each."""
    groups = [f"g{number}" for number in range(1_000)]
    rules = tuple(EntryRules(group, f"cn={group}", ("nonsense",)) for group in groups)
    authenticator = campus(FakeDirectory())
    with logged() as log:
        authenticator.report_rules(attrs.evolve(alice(), groups=frozenset(groups), rules=rules))
        assert len(log.lines) == 10
    assert authenticator.counters["directory_rules_wrong"] == 1_000


async def test_rules_are_read_in_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand take 25 ms, in which nobody else would be served."""
    read_by: list[threading.Thread] = []

    def parse(text: str) -> Rule:
        read_by.append(threading.current_thread())
        return parse_rule(text)

    monkeypatch.setattr("trioproxy.policy.directory.parse_rule", parse)
    count = itertools.count()

    def answer(said: Credentials) -> Answer:
        return attrs.evolve(accepted(said), rules=with_rules(f"tcp:*(*)->*({next(count)})").rules)

    authenticator = campus(FakeBackend(answer))
    who = await log_in(authenticator)
    assert isinstance(who, Identity)
    assert len(read_by) == 1
    await authenticator.find(who)
    assert threading.main_thread() not in read_by
