"""Local users: the password first, then everything else that may keep somebody out."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from auth import Answer, Backend, Credentials, Identity, Rejected, Rejection, Unavailable
from auth.local import BackendContext, LocalBackend, LocalSettings, LocalUser
from tests.auth.doubles import CHEAP, NOW, CountingPasswords, context_of, credentials, local_user

DAY = timedelta(days=1)


def backend_of(*users: LocalUser) -> LocalBackend:
    """A backend with these users."""
    return LocalBackend(LocalSettings(), context_of(list(users)))


def answer_to(user: LocalUser, said: Credentials) -> Answer:
    """What the backend answers if this is the only user."""
    return backend_of(user).authenticate(said)


def test_is_a_backend() -> None:
    """It has the interface and the life of every backend; closing twice is fine."""
    backend = backend_of()
    assert isinstance(backend, Backend)
    backend.open()
    backend.close()
    backend.close()


def test_right_password() -> None:
    """The identity is the user's own: tenant, name, groups, epoch, end (cases 27, 39)."""
    user = attrs.evolve(
        local_user(), groups=frozenset({"system-proxy", "staff"}), epoch="7", valid_until=NOW + DAY, tenant="physics"
    )
    expected = Identity("physics", "alice", frozenset({"system-proxy", "staff"}), epoch="7", valid_until=NOW + DAY)
    assert expected == answer_to(user, credentials(tenant="physics"))


@pytest.mark.parametrize(
    "password",
    ["wrong", "", "righ", "right!", "bobs", "RIGHT", "Right", "r", "right ", "right\0", "right\0x"],
    ids=["wrong", "empty", "prefix", "suffix", "bob's", "upper", "flipped", "letter", "space", "nul", "nul+"],
)
def test_only_the_right_password(password: str) -> None:
    """Wrong, empty, a prefix, right and more, another user's, another case: none passes (case 30)."""
    backend = backend_of(local_user(), local_user("bob", "bobs"))
    assert Rejected(Rejection.WRONG_PASSWORD) == backend.authenticate(credentials(password=password))
    assert isinstance(backend.authenticate(credentials()), Identity)
    assert isinstance(backend.authenticate(credentials("bob", "bobs")), Identity)


@pytest.mark.parametrize("name", ["nobody", "root", "admin", "anonymous", "alic", "alice2", "ALICE", "*"])
def test_unknown_user(name: str) -> None:
    """An unknown name is nobody: no default, no guest, no service account, whatever the password (case 39)."""
    assert Rejected(Rejection.UNKNOWN_USER) == backend_of(local_user()).authenticate(credentials(name))


def test_one_name_in_two_tenants() -> None:
    """The same name in two tenants has two passwords, and neither opens the other."""
    backend = backend_of(local_user(password="of main"), local_user(password="of physics", tenant="physics"))
    passes = {
        (tenant, password): isinstance(backend.authenticate(credentials(password=password, tenant=tenant)), Identity)
        for tenant in ("main", "physics", "chemistry")
        for password in ("of main", "of physics")
    }
    assert [key for key, passed in passes.items() if passed] == [("main", "of main"), ("physics", "of physics")]


@pytest.mark.parametrize("stored", [None, "", "*", "!", "right", "{PLAIN}right", "!$argon2id$x"])
@pytest.mark.parametrize("password", ["right", "", "*", "!"])
def test_unusable_hash(stored: str | None, password: str) -> None:
    """A user without a usable hash is known, and cannot log in (case 38)."""
    user = attrs.evolve(local_user(), password_hash=stored)
    assert Rejected(Rejection.WRONG_PASSWORD) == answer_to(user, credentials(password=password))


CHANGES: Mapping[str, tuple[dict[str, Any], Rejection | None]] = {
    "disabled": ({"disabled": True}, Rejection.DISABLED),
    "ended yesterday": ({"valid_until": NOW - DAY}, Rejection.EXPIRED),
    "ends now": ({"valid_until": NOW}, Rejection.EXPIRED),
    "ends now, elsewhere": ({"valid_until": datetime.fromisoformat("2026-06-01T14:00:00+02:00")}, Rejection.EXPIRED),
    "ends soon": ({"valid_until": NOW + timedelta(seconds=1)}, None),
    "begins tomorrow": ({"valid_from": NOW + DAY}, Rejection.EXPIRED),
    "begins now": ({"valid_from": NOW}, None),
    "from nowhere": ({"sources": ()}, Rejection.WRONG_SOURCE),
    "from another network": ({"sources": ("10.2.0.0/16", "2001:db8::/32")}, Rejection.WRONG_SOURCE),
    "from this network": ({"sources": ("10.2.0.0/16", "10.1.0.0/16")}, None),
    "from this address": ({"sources": ("10.1.2.3",)}, None),
}


@pytest.mark.parametrize("case", CHANGES)
def test_state_of_the_account(case: str) -> None:
    """Disabled, expired, not valid yet, no allowed source: refused though the password is right (cases 32, 41)."""
    changes, rejection = CHANGES[case]
    user = attrs.evolve(local_user(), **changes)
    answer = answer_to(user, credentials(source="10.1.2.3"))
    if rejection is None:
        assert isinstance(answer, Identity)
    else:
        assert Rejected(rejection) == answer
    # Who does not know the password learns nothing of the account.
    assert Rejected(Rejection.WRONG_PASSWORD) == answer_to(user, credentials(password="wrong", source="10.1.2.3"))


@pytest.mark.parametrize("source", ["", "somewhere", "10.1.2.3%eth0", "::ffff:10.1.2.3"])
def test_unreadable_source(source: str) -> None:
    """An address that cannot be read, or is not canonical, is inside no network (case 32)."""
    user = attrs.evolve(local_user(), sources=("0.0.0.0/0",))
    assert Rejected(Rejection.WRONG_SOURCE) == answer_to(user, credentials(source=source))


def test_source_in_an_ipv6_network() -> None:
    """Networks of both families may stand side by side."""
    user = attrs.evolve(local_user(), sources=("10.0.0.0/8", "2001:db8:1::/48"))
    assert isinstance(answer_to(user, credentials(source="2001:db8:1:2::3")), Identity)
    assert Rejected(Rejection.WRONG_SOURCE) == answer_to(user, credentials(source="2001:db8:2::3"))


def test_store_that_cannot_tell() -> None:
    """A broken store is "could not tell": not a wrong password, not an unknown user (CASES 2.3)."""

    def broken(_tenant: str, _name: str) -> LocalUser | None:
        raise PermissionError(13, "PW-CANARY")

    backend = LocalBackend(LocalSettings(), BackendContext(find_user=broken, passwords=CHEAP))
    assert Unavailable("the users cannot be looked up: PermissionError") == backend.authenticate(credentials())


def test_outdated_hash_is_replaced_once_it_was_right() -> None:
    """A right password brings a new hash, a wrong one does not, nor does a disabled account."""
    kept: list[tuple[str, str]] = []
    old = attrs.evolve(local_user(), password_hash="$apr1$abcdefgh$ckT15POyCRlen.h6XtGAZ1")
    context = attrs.evolve(context_of([old]), rehashed=lambda user, new_hash: kept.append((user.name, new_hash)))
    backend = LocalBackend(LocalSettings(), context)
    backend.authenticate(credentials(password="wrong"))
    blocked = attrs.evolve(context, find_user=lambda *_: attrs.evolve(old, disabled=True))
    LocalBackend(LocalSettings(), blocked).authenticate(credentials(password="hunter2"))
    assert kept == []
    assert isinstance(backend.authenticate(credentials(password="hunter2")), Identity)
    ((name, new_hash),) = kept
    assert name == "alice"
    assert CHEAP.verify("hunter2", new_hash).ok


def test_new_hash_that_cannot_be_kept() -> None:
    """A full or read-only store does not keep a right password out."""

    def full(_user: LocalUser, _new_hash: str) -> None:
        raise OSError(28, "No space left on device")

    old = attrs.evolve(local_user(), password_hash="$apr1$abcdefgh$ckT15POyCRlen.h6XtGAZ1")
    for context in (context_of([old]), attrs.evolve(context_of([old]), rehashed=full)):
        answer = LocalBackend(LocalSettings(), context).authenticate(credentials(password="hunter2"))
        assert isinstance(answer, Identity)


def test_unknown_user_is_left_to_the_chain() -> None:
    """The backend itself hashes nothing for an unknown name: the chain does it once for all backends (case 28)."""
    counting = CountingPasswords()
    LocalBackend(LocalSettings(), context_of([], counting)).authenticate(credentials())
    assert counting.work == []


def test_today_without_a_clock_of_ours() -> None:
    """Left alone, the backend goes by the aware time of day."""
    now = BackendContext(find_user=lambda *_: None).now()
    assert now.tzinfo is UTC
    assert now > NOW - timedelta(days=3650)


def test_secrets_do_not_print() -> None:
    """Neither the user's hash nor the password is in any `repr` (case 36)."""
    user = attrs.evolve(local_user(), password_hash="HASH-CANARY")
    context = context_of([user])
    shown = repr((user, credentials(password="PW-CANARY"), LocalBackend(LocalSettings(), context), context))
    assert "CANARY" not in shown
