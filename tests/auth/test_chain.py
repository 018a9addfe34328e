"""Several backends as one: who decides, who is never asked, and what is never believed."""

from ipaddress import ip_address
from typing import Any

import attrs
import pytest

from auth import Answer, Backend, Cause, Credentials, EntryRules, Identity, Rejected, Rejection, Unavailable
from auth.chain import Chain
from auth.local import LocalBackend, LocalSettings
from auth.passwords import Passwords
from tests.auth.doubles import (
    CHEAP,
    UNKNOWN,
    CountingPasswords,
    FakeBackend,
    accepted,
    context_of,
    credentials,
    local_user,
)

ARGON2ID = "$argon2id$v=19$m=8,t=1,p=1"


def chain_of(*backends: Backend, passwords: Passwords = CHEAP) -> Chain:
    """A chain whose backends are called b0, b1, ..."""
    return Chain([(f"b{number}", backend) for number, backend in enumerate(backends)], "system-proxy", passwords)


def local(*users: Any, passwords: Passwords = CHEAP) -> LocalBackend:
    """The local backend with these users."""
    return LocalBackend(LocalSettings(), context_of(list(users), passwords))


def test_the_first_that_knows_the_user_decides() -> None:
    """Unknown goes on to the next; the answer carries the name of the backend that gave it (DESIGN section 6)."""
    first, second, third = FakeBackend(), FakeBackend(accepted), FakeBackend(accepted)
    expected = attrs.evolve(accepted(credentials()), backend="b1")
    assert expected == chain_of(first, second, third).authenticate(credentials())
    assert [len(backend.asked) for backend in (first, second, third)] == [1, 1, 0]


@pytest.mark.parametrize("reason", [reason for reason in Rejection if reason is not Rejection.UNKNOWN_USER])
def test_a_rejection_is_final(reason: Rejection) -> None:
    """A backend that knows the user and says no is not overruled by the next, which has its own alice (case 30)."""
    second = FakeBackend(accepted)
    assert Rejected(reason) == chain_of(FakeBackend(Rejected(reason)), second).authenticate(credentials())
    assert second.asked == []


def test_unavailable_stops() -> None:
    """A password meant for a directory that is down does not travel to the next one (CASES 2.3)."""
    second = FakeBackend(accepted)
    assert Unavailable("down") == chain_of(FakeBackend(Unavailable("down")), second).authenticate(credentials())
    assert second.asked == []


def test_fall_through() -> None:
    """Where that is set a backend that could not tell is passed over; if nobody knows the user, its problem is said."""
    down = Unavailable("down")
    for after, expected in (
        (FakeBackend(accepted), attrs.evolve(accepted(credentials()), backend="b1")),
        (FakeBackend(Rejected(Rejection.WRONG_PASSWORD)), Rejected(Rejection.WRONG_PASSWORD)),
        (FakeBackend(), down),
        (FakeBackend(Unavailable("down too")), down),
    ):
        chain = Chain([("b0", FakeBackend(down)), ("b1", after)], "system-proxy", CHEAP, fall_through=True)
        assert chain.authenticate(credentials()) == expected
        assert len(after.asked) == 1


def test_found_without_password() -> None:
    """The first that knows the user, or the one that is named; a member or not as with a login."""
    first, second = FakeBackend(), FakeBackend(accepted)
    chain = chain_of(first, second)
    expected = attrs.evolve(accepted(credentials()), backend="b1")
    assert chain.find("main", "alice") == chain.find("main", "alice", "b1") == expected
    assert chain.find("main", "alice", "b0") == chain.find("main", "alice", "gone") == UNKNOWN
    assert chain_of(FakeBackend(Unavailable("down")), second).find("main", "alice") == Unavailable("down")
    assert chain_of().find("main", "alice") == UNKNOWN
    stranger = FakeBackend(Identity("main", "alice", frozenset({"staff"})))
    assert chain_of(stranger).find("main", "alice") == Rejected(Rejection.NOT_A_MEMBER)


def test_endpoints() -> None:
    """Those of all backends that say where their servers are; a plug-in need not."""

    class Far(FakeBackend):
        endpoints = frozenset({(ip_address("192.0.2.1"), 636)})

    assert chain_of(FakeBackend()).endpoints == frozenset()
    assert chain_of(FakeBackend(), Far()).endpoints == Far.endpoints


@pytest.mark.parametrize("count", [0, 1, 3])
def test_unknown_everywhere(count: int) -> None:
    """Nobody knows the name: rejected, for the price of exactly one verification, however many were asked (case 28)."""
    counting = CountingPasswords()
    chain = chain_of(*(local(passwords=counting) for _ in range(count)), passwords=counting)
    assert Rejected(Rejection.UNKNOWN_USER) == chain.authenticate(credentials())
    assert counting.work == [ARGON2ID]


@pytest.mark.parametrize("name", ["alice", "nobody"])
@pytest.mark.parametrize("password", ["wrong", "x" * 255, "righ"])
def test_unknown_and_wrong_cost_the_same(name: str, password: str) -> None:
    """A user who exists and one who does not: the same work on a login that fails (case 28)."""
    counting = CountingPasswords()
    chain = chain_of(local(local_user(), passwords=counting), passwords=counting)
    assert isinstance(chain.authenticate(credentials(name, password)), Rejected)
    assert counting.work == [ARGON2ID]


@pytest.mark.parametrize("groups", [set(), {"system-proxy2"}, {"system"}, {"staff", "proxy-users"}])
def test_not_a_member(groups: set[str]) -> None:
    """Who is not in the proxy group may not log in, by whatever backend; a name that looks alike is another group."""
    backend = FakeBackend(lambda said: attrs.evolve(accepted(said), groups=frozenset(groups)))
    assert Rejected(Rejection.NOT_A_MEMBER) == chain_of(backend).authenticate(credentials())


def test_membership_comes_after_the_password() -> None:
    """A wrong password of a non-member is a wrong password: nobody probes for memberships."""
    user = attrs.evolve(local_user(), groups=frozenset())
    chain = chain_of(local(user))
    assert Rejected(Rejection.WRONG_PASSWORD) == chain.authenticate(credentials(password="wrong"))
    assert Rejected(Rejection.NOT_A_MEMBER) == chain.authenticate(credentials())


@pytest.mark.parametrize(
    ("tenant", "user"), [("physics", "alice"), ("main", "bob"), ("main", None), ("main", ""), ("main", "Alice")]
)
def test_another_identity_is_not_believed(tenant: str, user: str | None) -> None:
    """A login never becomes a default, anonymous or service identity, nor one of another tenant (case 39)."""
    backend = FakeBackend(Identity(tenant, user, frozenset({"system-proxy"})))
    answer = chain_of(backend).authenticate(credentials())
    assert Unavailable("backend b0 answered for another user than it was asked about") == answer


@pytest.mark.parametrize("nonsense", [None, True, 1, "alice", {}, Identity, Rejection.DISABLED])
def test_nonsense_is_no_login(nonsense: Any) -> None:
    """A plug-in that returns True, None or a string lets nobody in (case 39)."""
    answer = chain_of(FakeBackend(lambda _: nonsense), FakeBackend(accepted)).authenticate(credentials())
    assert Unavailable("backend b0 gave no answer that means anything") == answer


def test_exception_is_unavailable_and_keeps_the_secret() -> None:
    """A backend that raises could not tell; its text, which holds the password, goes nowhere (cases 36, 37)."""

    def broken(said: Credentials) -> Answer:
        raise RuntimeError(said.password)

    second = FakeBackend(accepted)
    answer = chain_of(FakeBackend(broken), second).authenticate(credentials(password="PW-CANARY"))
    assert Unavailable("backend b0 failed: RuntimeError") == answer
    assert "CANARY" not in repr(answer)
    assert second.asked == []


@pytest.mark.parametrize("proxy_group", ["", " ", "a/b"])
def test_there_is_always_a_proxy_group(proxy_group: str) -> None:
    """A chain without a group to check would let everybody in, so there is none."""
    with pytest.raises(ValueError, match="a group name"):
        Chain([], proxy_group)


def test_proxy_group_is_canonical() -> None:
    """Written in capitals it is the same group."""
    chain = Chain([("fake", FakeBackend(accepted))], "System-Proxy")
    assert isinstance(chain.authenticate(credentials()), Identity)


def test_names_of_backends_differ() -> None:
    """Two backends of one name could not be told apart in a record."""
    with pytest.raises(ValueError, match="named twice"):
        Chain([("a", FakeBackend()), ("a", FakeBackend())], "system-proxy")


def test_labels_differ() -> None:
    """Chains that may answer differently have different labels, as a cache key needs (case 42)."""
    a, b = ("a", FakeBackend()), ("b", FakeBackend())
    chains = [Chain(backends, group) for group in ("x", "y") for backends in ([], [a], [b], [a, b], [b, a])]
    assert len({chain.label for chain in chains}) == len(chains)


def test_life() -> None:
    """All backends are opened in their order and closed in reverse, also when one of them fails to close."""
    events: list[str] = []

    class Noted(FakeBackend):
        def __init__(self, name: str) -> None:
            super().__init__(UNKNOWN)
            self.name = name

        def open(self) -> None:
            events.append(f"open {self.name}")

        def close(self) -> None:
            events.append(f"close {self.name}")
            if self.name == "b":
                raise OSError("cannot close")

    chain = Chain([(name, Noted(name)) for name in "abc"], "system-proxy")
    chain.open()
    with pytest.raises(OSError, match="cannot close"):
        chain.close()
    assert events == ["open a", "open b", "open c", "close c", "close b", "close a"]


def test_open_is_all_or_nothing() -> None:
    """If one backend cannot be opened, those before it are closed again."""

    class Unreachable(FakeBackend):
        def open(self) -> None:
            raise ConnectionRefusedError("no directory here")

    first, last = FakeBackend(), FakeBackend()
    with pytest.raises(ConnectionRefusedError, match="no directory"):
        chain_of(first, Unreachable(), last).open()
    assert [(backend.opened, backend.closed) for backend in (first, last)] == [(1, 1), (0, 0)]


@pytest.mark.parametrize(
    ("texts", "taken"),
    [
        ([("x",) * 256] * 3 + [("x",) * 232], True),
        ([("x",) * 256] * 3 + [("x",) * 233], False),
        ([("é" * 1_024,) * 64] * 2, True),
        ([("é" * 1_024,) * 64] * 2 + [("x",)], False),
    ],
)
def test_rules_of_one_identity_are_bounded(texts: list[tuple[str, ...]], taken: bool) -> None:
    """A thousand of 256 KiB, all its groups together; not some of them, as the one left out may be a deny."""
    rules = tuple(EntryRules("system-proxy", f"cn={number}", entry) for number, entry in enumerate(texts))
    backend = FakeBackend(lambda said: attrs.evolve(accepted(said), rules=rules))
    answer = Chain([("campus", backend)], "system-proxy").authenticate(Credentials("main", "alice", "pw"))
    assert isinstance(answer, Identity if taken else Unavailable)
    if isinstance(answer, Unavailable):
        assert answer.cause is Cause.AMBIGUOUS
