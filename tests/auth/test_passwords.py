"""Hashes: only the right password passes, and asking about nobody costs as much."""

import base64
import hashlib
from typing import Final

import pytest
from passlib.context import CryptContext
from passlib.hash import bcrypt

from auth import passwords
from auth.passwords import DEFAULT_PASSWORDS, Passwords, Verification, hash_password, verify_password
from tests.auth.doubles import CHEAP, CountingPasswords

# Hashes of "s\u00e9cret" in UTF-8 made by other programs: `openssl passwd -apr1`, `-5` and `-6`, and hashlib.
IMPORTED: Final = {
    "apr1": "$apr1$abcdefgh$Op2c1t7diw85a4MmRcc4y/",
    "sha1": "{SHA}" + base64.b64encode(hashlib.sha1("s\u00e9cret".encode()).digest()).decode(),  # noqa: S324 - htpasswd -s
    "sha256-crypt": "$5$abcdefgh$fpk0AsFH03MwqYpcKmCW6SVtFNjOxBiyw5hY3RUNSV4",
    "sha512-crypt": "$6$abcdefgh$"
    "k1WX/aYmkv0bffxNylxFuSDb7D7SYwMcbi6PEH2FywNvmrFZ6/snuSUqOmOvTsRg4w6jz4AenkbXXgxvif7/t/",
}
# A vector of crypt_blowfish's own tests; 2y is how Apache writes 2a.
BCRYPT: Final = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
UNUSABLE: Final = [
    None,
    "",
    "*",
    "!",
    "!!",
    "!$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
    "x",
    "secret",
    "{PLAIN}secret",
    "$1$abcdefgh$irWbblnpmw.5z7wgBnprh0",
    "$argon2id$",
    "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0",
    "$2y$05$short",
    "$apr1$abcdefgh$",
    "{SHA}",
    "$5$abcdefgh$",
    "$6$abcdefgh",
]
SALT_AND_DIGEST: Final = "$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA"
# The dearest hash of each kind that is still checked, and the next one.
LIMITS: Final = [
    (f"$argon2id$v=19$m=262144,t=2,p=1{SALT_AND_DIGEST}", f"$argon2id$v=19$m=262145,t=2,p=1{SALT_AND_DIGEST}"),
    (f"$argon2id$v=19$m=256,t=10,p=1{SALT_AND_DIGEST}", f"$argon2id$v=19$m=256,t=11,p=1{SALT_AND_DIGEST}"),
    (f"$argon2id$v=19$m=256,t=2,p=16{SALT_AND_DIGEST}", f"$argon2id$v=19$m=256,t=2,p=17{SALT_AND_DIGEST}"),
    (BCRYPT.replace("$05$", "$14$"), BCRYPT.replace("$05$", "$15$")),
    (f"$5$rounds=1000000$abcdefgh${'a' * 43}", f"$5$rounds=1000001$abcdefgh${'a' * 43}"),
    (f"$6$rounds=1000000$abcdefgh${'a' * 86}", f"$6$rounds=1000001$abcdefgh${'a' * 86}"),
]
EXPENSIVE: Final = [
    f"$argon2id$v=19$m=4194304,t=2,p=1{SALT_AND_DIGEST}",
    f"$argon2id$v=19$m=262144,t=2,p=32768{SALT_AND_DIGEST}",
    f"$6$rounds=999999999$abcdefgh${'a' * 86}",
]
ARGON2ID: Final = "$argon2id$v=19$m=8,t=1,p=1"


@pytest.mark.parametrize(
    ("password", "right"),
    [
        ("Right one 1", True),
        ("Wrong one 1", False),
        ("", False),
        ("Right one ", False),
        ("Right one 12", False),
        ("right one 1", False),
        ("RIGHT ONE 1", False),
        (" Right one 1", False),
        ("Right one 1\0", False),
        ("\ud800", False),
        ("x" * 255, False),
        ("x" * 100_000, False),
    ],
)
def test_only_the_right_password(password: str, right: bool) -> None:
    """Wrong, empty, a prefix, more behind it, another case, no text, too long: none passes (case 30)."""
    assert Verification(ok=right) == CHEAP.verify(password, CHEAP.hash("Right one 1"))


@pytest.mark.parametrize("stored", [*UNUSABLE, *EXPENSIVE], ids=repr)
@pytest.mark.parametrize("password", ["secret", "", "*", "!", "x"])
def test_unusable_hash_never_verifies(stored: str | None, password: str) -> None:
    """An empty, locked, unknown, malformed or absurdly expensive hash matches nothing, ever (case 38)."""
    assert Verification(ok=False) == CHEAP.verify(password, stored)


@pytest.mark.parametrize("stored", UNUSABLE)
def test_problem_of_unusable_hash(stored: str | None) -> None:
    """What can never verify can be reported, without repeating what may be a password in the wrong column (case 38)."""
    problem = CHEAP.problem(stored)
    assert problem is not None
    assert "secret" not in problem


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        ("", "no password is set"),
        ("!secret", "the password is locked"),
        ("*", "the password is locked"),
        ("secret", "the hash is of an unknown kind"),
        ("$apr1$abcdefgh$", "the apr_md5_crypt hash is malformed"),
        ("$2y$05$short", "the bcrypt hash is malformed"),
        (EXPENSIVE[0], "the argon2 hash asks for 4,194,304 KiB of memory, more than the 262,144 allowed"),
        (EXPENSIVE[1], "the argon2 hash asks for 32,768 lanes, more than the 16 allowed"),
        (EXPENSIVE[2], "the sha512_crypt hash asks for 999,999,999 rounds, more than the 1,000,000 allowed"),
    ],
)
def test_problem_says_what_is_wrong(stored: str, problem: str) -> None:
    """An administrator reads which of the five it is (case 38)."""
    assert problem == CHEAP.problem(stored)


@pytest.mark.parametrize(("fine", "too_much"), LIMITS)
def test_limits_of_cost(fine: str, too_much: str) -> None:
    """A hash that would hold a thread for a second, or eat the memory, is unusable; what libraries make is not."""
    assert CHEAP.problem(fine) is None
    assert "allowed" in (CHEAP.problem(too_much) or "")


@pytest.mark.parametrize("kind", IMPORTED)
@pytest.mark.parametrize(("password", "right"), [("s\u00e9cret", True), ("s\u00e9cre", False), ("S\u00c9CRET", False)])
def test_imported_hash(kind: str, password: str, right: bool) -> None:
    """Hashes of htpasswd files verify, and the right password brings an argon2id hash in their place."""
    verification = CHEAP.verify(password, IMPORTED[kind])
    assert right is verification.ok
    assert right is (verification.replacement is not None)
    if verification.replacement is not None:
        assert verification.replacement.startswith(ARGON2ID)
        assert Verification(ok=True) == CHEAP.verify(password, verification.replacement)


@pytest.mark.parametrize(
    ("password", "right"), [("U*U", True), ("U*", False), ("u*u", False), ("U*U" + "x" * 80, False)]
)
def test_imported_bcrypt(password: str, right: bool) -> None:
    """The same for bcrypt, which reads no more than 72 bytes: a longer password is wrong and raises nothing."""
    verification = CHEAP.verify(password, BCRYPT)
    assert right is verification.ok
    assert right is (verification.replacement is not None)


@pytest.mark.parametrize("kind", ["sha256-crypt", "sha512-crypt"])
def test_shacrypt_does_not_hold_the_interpreter(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """These go through the system's library, not through code that stops every other session."""
    asked: list[str] = []

    def verify(_password: str, stored: str) -> bool:
        asked.append(stored)
        return True

    monkeypatch.setattr(passwords, "verify_shacrypt", verify)
    assert CHEAP.verify("s\u00e9cret", IMPORTED[kind]).ok
    assert [IMPORTED[kind]] == asked


def test_bcrypt_does_not_match_by_the_beginning() -> None:
    """72 right bytes and one more are not the right password (case 30, Okta 2024)."""
    stored = bcrypt.using(rounds=4).hash("p" * 72)
    assert CHEAP.verify("p" * 72, stored).ok
    assert not CHEAP.verify("p" * 73, stored).ok


def test_argon2id_of_another_cost() -> None:
    """A hash made at another cost verifies and is replaced by one of today's."""
    verification = CHEAP.verify("right", Passwords(memory_kib=16, time_cost=1).hash("right"))
    assert verification.ok
    assert verification.replacement is not None
    assert verification.replacement.startswith(ARGON2ID)


@pytest.mark.parametrize("stored", [None, "", "*", "!x", "nonsense"])
@pytest.mark.parametrize("password", ["wrong", "", "\0", "x" * 300])
def test_nobody_costs_what_a_wrong_password_costs(stored: str | None, password: str) -> None:
    """No user, a locked one and a wrong password: one verification, of the same kind and cost (cases 28, 38, 40)."""
    real, nobody = CountingPasswords(), CountingPasswords()
    real.verify("wrong", real.hash("right"))
    nobody.verify(password, stored)
    assert real.work == [ARGON2ID]
    assert nobody.work == [ARGON2ID]


@pytest.mark.parametrize("stored", [*IMPORTED.values(), BCRYPT])
def test_wrong_password_for_imported_hash_costs_no_less(stored: str) -> None:
    """{SHA} takes a microsecond: it would show who has not logged in since the import (case 28, CVE-2016-6210)."""
    counting = CountingPasswords()
    assert not counting.verify("wrong", stored).ok
    assert counting.work[-1] == ARGON2ID
    assert counting.work.count(ARGON2ID) == 1


def test_nobodys_hash_is_of_full_cost() -> None:
    """What a login of an unknown user verifies has the parameters of a new hash, and is no fixed string (case 40)."""
    made, nobodys = hash_password("x"), DEFAULT_PASSWORDS._nobodys_hash
    assert made.rsplit("$", 2)[0] == nobodys.rsplit("$", 2)[0] == "$argon2id$v=19$m=19456,t=2,p=1"
    assert [len(part) for part in made.split("$")] == [len(part) for part in nobodys.split("$")]
    assert nobodys != Passwords()._nobodys_hash


def test_default_cost() -> None:
    """New hashes are argon2id at 19 MiB, t=2, p=1, salted, and verify by the functions of the module."""
    one, other = hash_password("right"), hash_password("right")
    assert one != other
    assert Verification(ok=True) == verify_password("right", one)
    assert Verification(ok=False) == verify_password("wrong", one)


@pytest.mark.parametrize("password", ["x", "p" * 255, "\u00e9" * 127, "\u20ac", "a b\tc"])
def test_hash_what_a_client_can_send(password: str) -> None:
    """1 to 255 bytes (RFC 1929 section 2), any character but NUL."""
    assert CHEAP.verify(password, CHEAP.hash(password)).ok


@pytest.mark.parametrize("password", ["", "\0", "a\0b", "p" * 256, "\u00e9" * 128, "\ud800"])
def test_hash_refuses_what_no_client_can_send(password: str) -> None:
    """An empty or over-long password, NUL or half a character would lock the account, so it is not set (case 38)."""
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        CHEAP.hash(password)


def test_our_failure_is_no_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory is not "wrong": it goes up, to be answered as "could not tell"."""

    def out_of_memory(*_: object) -> bool:
        raise MemoryError

    stored = CHEAP.hash("right")
    monkeypatch.setattr(CryptContext, "verify", out_of_memory)
    with pytest.raises(MemoryError):
        CHEAP.verify("right", stored)


def test_replacement_is_not_printed() -> None:
    """A hash is a secret too (case 36)."""
    assert "argon2" not in repr(CHEAP.verify("s\u00e9cret", IMPORTED["apr1"]))
