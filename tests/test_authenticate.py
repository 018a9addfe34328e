"""The asynchronous side of logins: what reaches a backend, and what is remembered."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from ipaddress import IPv6Address
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from auth import Answer, Cause, Credentials, Identity, Rejected, Rejection, Unavailable
from auth.local import LocalBackend, LocalSettings, LocalUser
from tests.auth.doubles import CHEAP, NOW, FakeBackend, accepted, context_of, local_user
from tests.auth.logins import PENALTY, SOURCE, UNKNOWN, WRONG, GatedBackend, local, log_in, only
from trioproxy.authenticate import Authenticator, select_tenant

# ---- what reaches a backend


@pytest.mark.parametrize(
    ("password", "passes"),
    [
        (b"right", True),
        (b"wrong", False),
        (b"", False),
        (b"righ", False),
        (b"right!", False),
        (b"right\0", False),
        (b"RIGHT", False),
        (b"bobs", False),
        (b"r" * 255, False),
    ],
)
async def test_only_the_right_password(password: bytes, passes: bool) -> None:
    """Right, wrong, empty, prefix, suffix, case, another user's: one passes, also a second time (cases 27, 30)."""
    authenticator = Authenticator(local([local_user(), local_user("bob", "bobs")]))
    for _ in range(2):
        assert isinstance(await log_in(authenticator), Identity)
        assert passes is isinstance(await log_in(authenticator, password), Identity)


async def test_identity() -> None:
    """Who it is: the canonical name, the tenant, the backend that said so (case 39)."""
    authenticator = Authenticator(local([local_user()]))
    expected = Identity("main", "alice", frozenset({"system-proxy"}), "local")
    assert expected == await log_in(authenticator, user=b"Alice")
    assert authenticator.counters == {"login_accepted": 1}


@pytest.mark.parametrize(
    ("username", "password"),
    [
        (b"alice\0", b"right"),
        (b"alice", b"right\0"),
        (b"\0", b"\0"),
        (b"", b"right"),
        (b"\xff" * 255, b"right"),
        (b"alice", b"\xff" * 255),
        (b"\x80\x81", b"right"),
        (b"alice", b"\x80\x81\xfe"),
        (b" alice", b"right"),
        (b"a/b", b"right"),
        (b"alice\n", b"right"),
        (b"a" * 256, b"right"),
        (b"alice", b"p" * 256),
    ],
)
async def test_malformed(username: bytes, password: bytes) -> None:
    """NUL, text in no encoding, too long, no name: refused, no exception, no backend asked, no penalty (case 37)."""
    backend = FakeBackend(accepted)
    authenticator = Authenticator(only(backend))
    for _ in range(30):
        assert Rejected(Rejection.MALFORMED) == await log_in(authenticator, password, username)
    assert backend.asked == []
    assert authenticator.counters == {"login_rejected_malformed": 30}


async def test_empty_password() -> None:
    """Never reaches a backend, where it would be an anonymous bind, and brings nobody a penalty (law 6, CASES 5a)."""
    backend = FakeBackend(accepted)
    authenticator = Authenticator(only(backend))
    for _ in range(30):
        assert Rejected(Rejection.EMPTY_PASSWORD) == await log_in(authenticator, b"")
    assert backend.asked == []
    assert isinstance(await log_in(authenticator), Identity)


@pytest.mark.parametrize(
    ("username", "password", "expected"),
    [
        (b"zo\xc3\xab", b"p\xc3\xa4ss", Credentials("main", "zo\u00eb", "p\u00e4ss", "10.1.2.3")),
        (b"zo\xeb", b"p\xe4ss", Credentials("main", "zo\u00eb", "p\u00e4ss", "10.1.2.3")),
        (b"ZO\xc3\x8b", b"P\xc3\x84SS", Credentials("main", "zo\u00eb", "P\u00c4SS", "10.1.2.3")),
        (b"zoe\xcc\x88", b"a\xcc\x88", Credentials("main", "zo\u00eb", "a\u0308", "10.1.2.3")),
    ],
    ids=["utf-8 (curl)", "latin-1 (OpenJDK)", "only names lose their case", "only names are composed"],
)
async def test_what_the_backend_is_asked(username: bytes, password: bytes, expected: Credentials) -> None:
    """Text as clients send it; the name canonical, the password as it is; asked exactly once (CASES 5a)."""
    backend = FakeBackend(accepted)
    assert isinstance(await log_in(Authenticator(only(backend)), password, username), Identity)
    assert [expected] == backend.asked


async def test_longest_login() -> None:
    """255 bytes of name and of password are a login (RFC 1929 section 2)."""
    backend = FakeBackend(accepted)
    assert isinstance(await log_in(Authenticator(only(backend)), b"p" * 255, b"u" * 255), Identity)


async def test_unknown_tenant() -> None:
    """A listener whose tenant has no backends lets nobody in: our mistake, not a wrong password."""
    authenticator = Authenticator({})
    assert Unavailable("tenant main has no backends") == await log_in(authenticator)
    assert authenticator.counters == {"login_unavailable": 1, "login_unavailable_other": 1}


@pytest.mark.parametrize(
    ("answer", "counters"),
    [(Rejected(reason), [f"login_rejected_{reason.name.lower()}"]) for reason in Rejection]
    + [
        (Unavailable("down", cause), ["login_unavailable", f"login_unavailable_{cause.name.lower()}"])
        for cause in Cause
    ],
)
async def test_no_is_never_cached(answer: Answer, counters: list[str]) -> None:
    """A rejection or "could not tell" is asked again each time, and counted, the latter by its cause (P6)."""
    backend = FakeBackend(answer)
    authenticator = Authenticator(only(backend))
    assert [answer] * 3 == [await log_in(authenticator) for _ in range(3)]
    assert len(backend.asked) == 3
    assert dict.fromkeys(counters, 3) == authenticator.counters


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_is_in_the_manual(cause: Cause) -> None:
    """Whoever reads a counter finds what it means and where to look."""
    page = (Path(__file__).parent.parent / "docs/operation.md").read_text(encoding="utf-8")
    assert f"| `login_unavailable_{cause.name.lower()}` |" in page


# ---- tenants and realms


REALMS = {"physics.example.org": "physics", "example.org": "main"}


@pytest.mark.parametrize(
    ("username", "realms", "expected"),
    [
        ("alice", REALMS, ("main", "alice")),
        ("alice@physics.example.org", REALMS, ("physics", "alice")),
        ("alice@example.org", REALMS, ("main", "alice")),
        ("alice@home@physics.example.org", REALMS, ("physics", "alice@home")),
        ("alice@physics.example.org@home", REALMS, ("main", "alice@physics.example.org@home")),
        ("alice@elsewhere.org", REALMS, ("main", "alice@elsewhere.org")),
        ("alice@", REALMS, ("main", "alice@")),
        ("physics.example.org", REALMS, ("main", "physics.example.org")),
        ("@physics.example.org", REALMS, ("physics", "")),
        ("alice@physics.example.org", None, ("main", "alice@physics.example.org")),
        ("alice@physics.example.org", {}, ("main", "alice@physics.example.org")),
    ],
)
def test_select_tenant(username: str, realms: Mapping[str, str] | None, expected: tuple[str, str]) -> None:
    """What stands behind the last @ selects a tenant if it is a realm and the listener looks for one (DESIGN 3)."""
    assert expected == select_tenant(username, "main", realms)


async def test_realm_selects_whose_user_it_is() -> None:
    """alice@physics... is alice of physics, in any case of letters; without realms it is a name like any other."""
    authenticator = Authenticator(local([local_user(password="of main"), local_user("alice", "of physics", "physics")]))
    name = b"Alice@Physics.Example.ORG"
    answer = await authenticator.authenticate("main", name, b"of physics", SOURCE, REALMS)
    assert isinstance(answer, Identity)
    assert (answer.tenant, answer.user) == ("physics", "alice")
    assert await authenticator.authenticate("main", name, b"of main", SOURCE, REALMS) == WRONG
    assert await authenticator.authenticate("main", name, b"of physics", SOURCE) == UNKNOWN


@pytest.mark.parametrize("username", [b"@physics.example.org", b" @physics.example.org", b"alice @physics.example.org"])
async def test_realm_without_a_name(username: bytes) -> None:
    """What is left before the realm must be a name of its own (case 37)."""
    backend = FakeBackend(accepted)
    authenticator = Authenticator({"main": only(backend)["main"], "physics": only(backend)["main"]})
    answer = await authenticator.authenticate("main", username, b"right", SOURCE, REALMS)
    assert Rejected(Rejection.MALFORMED) == answer
    assert backend.asked == []


async def test_one_name_in_two_tenants() -> None:
    """Two passwords, two cached answers, two penalties: nothing of one tenant shows in the other."""
    users = [local_user(password="of main"), local_user("alice", "of physics", "physics")]
    authenticator = Authenticator(local(users))
    passwords = {"main": b"of main", "physics": b"of physics"}
    for _ in range(2):  # the second time from the cache
        for tenant, password in passwords.items():
            answer = await log_in(authenticator, password, tenant=tenant)
            assert isinstance(answer, Identity)
            assert tenant == answer.tenant
    assert await log_in(authenticator, passwords["physics"]) == WRONG
    authenticator.user_changed("main", "alice")
    assert authenticator.counters["login_cached"] == 2
    await log_in(authenticator, passwords["physics"], tenant="physics")
    assert authenticator.counters["login_cached"] == 3
    for number in range(6):
        await log_in(authenticator, b"guess %d" % number)
    assert await log_in(authenticator, passwords["main"]) == PENALTY
    assert isinstance(await log_in(authenticator, passwords["physics"], tenant="physics"), Identity)


# ---- the cache


async def test_second_login_asks_nobody(mock_clock: MockClock) -> None:
    """An acceptance holds for 60 s, then the backend is asked again (cases 42, 43)."""
    backend = FakeBackend(accepted)
    authenticator = Authenticator(only(backend))
    first = await log_in(authenticator)
    assert first == await log_in(authenticator)
    mock_clock.jump(59.9)
    assert first == await log_in(authenticator)
    assert len(backend.asked) == 1
    mock_clock.jump(0.1)
    assert first == await log_in(authenticator)
    assert len(backend.asked) == 2
    assert authenticator.counters == {"login_accepted": 4, "login_cached": 2}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"disabled": True}, Rejected(Rejection.DISABLED)),
        ({"password_hash": CHEAP.hash("new")}, WRONG),
        ({"password_hash": "!"}, WRONG),
        ({"groups": frozenset({"staff"})}, Rejected(Rejection.NOT_A_MEMBER)),
        ({"sources": ("192.0.2.0/24",)}, Rejected(Rejection.WRONG_SOURCE)),
        ({"valid_until": NOW}, Rejected(Rejection.EXPIRED)),
        (None, UNKNOWN),
    ],
    ids=["disabled", "password", "locked", "group", "source", "expired", "removed"],
)
async def test_revocation(mock_clock: MockClock, change: dict[str, object] | None, expected: Answer) -> None:
    """A change to the user holds at once where it is announced, after 60 s where it is not (cases 38, 41, 43)."""
    users = {("main", "alice"): local_user()}
    announced, other_node = Authenticator(local(users)), Authenticator(local(users))
    before = await log_in(announced)
    assert before == await log_in(other_node)
    if change is None:
        del users["main", "alice"]
    else:
        users["main", "alice"] = LocalUser(**(attrs.asdict(users["main", "alice"], recurse=False) | change))
    announced.user_changed("main", "alice")
    assert expected == await log_in(announced)
    assert before == await log_in(other_node)
    mock_clock.jump(60.0)
    assert expected == await log_in(other_node)


async def test_all_changed() -> None:
    """After a reload every login is asked again."""
    backend = FakeBackend(accepted)
    authenticator = Authenticator(only(backend))
    for user in (b"alice", b"bob"):
        await log_in(authenticator, user=user)
    authenticator.all_changed()
    for user in (b"alice", b"bob"):
        await log_in(authenticator, user=user)
    assert len(backend.asked) == 4


async def test_an_account_that_ends_ends_in_the_cache(mock_clock: MockClock) -> None:
    """An account that ends in 10 s is not accepted in 10 s, cached or not (case 41)."""
    today = [NOW]
    user = attrs.evolve(local_user(), valid_until=NOW + timedelta(seconds=10))
    context = attrs.evolve(context_of([user]), now=lambda: today[0])
    chains = only(LocalBackend(LocalSettings(), context))
    authenticator = Authenticator(chains, now=lambda: today[0])

    def time_passes(seconds: float) -> None:
        mock_clock.jump(seconds)
        today[0] += timedelta(seconds=seconds)

    assert isinstance(await log_in(authenticator), Identity)
    time_passes(9.0)
    assert isinstance(await log_in(authenticator), Identity)
    assert authenticator.counters["login_cached"] == 1
    time_passes(1.0)
    assert Rejected(Rejection.EXPIRED) == await log_in(authenticator)


async def test_account_end_without_a_clock_of_ours() -> None:
    """Left alone, the end of an account is measured against the time of day."""
    end = datetime.fromisoformat("2000-01-01T00:00:00+00:00")
    authenticator = Authenticator(only(FakeBackend(lambda said: attrs.evolve(accepted(said), valid_until=end))))
    await log_in(authenticator)
    await log_in(authenticator)
    assert authenticator.counters["login_cached"] == 0


async def test_allowed_source_holds_in_the_cache() -> None:
    """A login from the office opens nothing from elsewhere, while it is cached (case 41)."""
    authenticator = Authenticator(local([attrs.evolve(local_user(), sources=("10.0.0.0/8",))]))
    assert isinstance(await log_in(authenticator), Identity)
    assert Rejected(Rejection.WRONG_SOURCE) == await log_in(authenticator, source="192.0.2.1")
    assert isinstance(await log_in(authenticator), Identity)
    assert authenticator.counters["login_cached"] == 1


# ---- life


async def test_life() -> None:
    """Opened and closed with the backends; afterwards nobody gets in, not even from the cache."""
    backend = FakeBackend(accepted)
    authenticator = Authenticator(only(backend))
    await authenticator.open()
    assert isinstance(await log_in(authenticator), Identity)
    await authenticator.close()
    assert (backend.opened, backend.closed) == (1, 1)
    assert isinstance(await log_in(authenticator), Unavailable)
    await authenticator.close()


async def test_open_is_all_or_nothing() -> None:
    """If one tenant's directory is missing, the others' connections are closed again, and the error goes up."""

    class Unreachable(FakeBackend):
        def open(self) -> None:
            raise ConnectionRefusedError("no directory here")

    first = FakeBackend()
    authenticator = Authenticator({"main": only(first)["main"], "physics": only(Unreachable())["main"]})
    with pytest.raises(ConnectionRefusedError, match="no directory"):
        await authenticator.open()
    assert (first.opened, first.closed) == (1, 1)


async def test_backends_run_beside_the_loop() -> None:
    """A backend blocks a thread of ours, never the loop, and never takes a thread from others (CASES 2.4)."""
    gated = GatedBackend()
    authenticator = Authenticator(only(gated))
    default = trio.to_thread.current_default_thread_limiter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log_in, authenticator)
        await gated.entered()
        assert default.borrowed_tokens == 0
        gated.let()


# ---- secrets


async def test_canary() -> None:
    """Whatever goes wrong during a login, the password is in no answer, counter, state or exception (case 36)."""
    canary = b"PW-CANARY"

    def broken(said: Credentials) -> Answer:
        raise RuntimeError(f"cannot bind with {said.password}")

    seen: list[object] = []
    for backend in (FakeBackend(broken), FakeBackend(accepted), FakeBackend(WRONG), FakeBackend(Unavailable("down"))):
        authenticator = Authenticator(only(backend))
        seen.append(await log_in(authenticator, canary))
        seen.append(await log_in(authenticator, canary + b"\0"))
        seen += [vars(authenticator), vars(authenticator._cache), authenticator.counters, authenticator.throttle]
        seen.append(backend.asked)
    gated = GatedBackend()
    authenticator = Authenticator(only(gated))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log_in, authenticator, canary)
        await gated.entered()
        seen.append(repr(vars(authenticator)))
        gated.let()
    assert "CANARY" not in repr(seen)


async def test_ipv6_source_reaches_the_backend() -> None:
    """The backend sees the client's address in its canonical text form."""
    backend = FakeBackend(accepted)
    await Authenticator(only(backend)).authenticate("main", b"alice", b"right", IPv6Address("2001:DB8:0:0::1"))
    assert [said.source for said in backend.asked] == ["2001:db8::1"]
