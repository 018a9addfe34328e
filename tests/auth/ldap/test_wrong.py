"""Passwords that were wrong a moment ago."""

import pickle
import threading
from types import SimpleNamespace

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth import Credentials
from auth.ldap import wrong
from auth.ldap.wrong import WrongPasswords
from tests.auth.doubles import credentials

SAID = credentials(password="PW-CANARY")
texts = st.text(st.characters(codec="utf-8"), max_size=4)


@attrs.define
class Clock:
    """Stands until somebody moves it."""

    now_s: float = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Instead of the monotonic clock."""
    made = Clock()
    monkeypatch.setattr(wrong, "time", SimpleNamespace(monotonic=lambda: made.now_s))
    return made


def test_remembered(clock: Clock) -> None:
    """For as long as it was asked for, and not a moment longer."""
    passwords = WrongPasswords(5.0)
    assert SAID not in passwords
    passwords.add(SAID)
    for now_s in (1000.0, 1002.0, 1004.999):
        clock.now_s = now_s
        assert SAID in passwords
    clock.now_s = 1005.0
    assert SAID not in passwords
    assert not passwords._until_s
    clock.now_s = 1001.0
    assert SAID not in passwords


def test_asking_does_not_prolong(clock: Clock) -> None:
    """A program that tries again and again is heard after a while; the directory's own answer prolongs."""
    passwords = WrongPasswords(5.0)
    passwords.add(SAID)
    clock.now_s = 1004.0
    assert SAID in passwords
    passwords.add(SAID)
    clock.now_s = 1008.0
    assert SAID in passwords
    clock.now_s = 1009.0
    assert SAID not in passwords


def test_not_remembered(clock: Clock) -> None:
    """0 s is never."""
    passwords = WrongPasswords(0.0)
    passwords.add(SAID)
    assert SAID not in passwords


@pytest.mark.parametrize(
    "other",
    [
        credentials(password="PW-CANARy"),
        credentials(password="PW-CANARY "),
        credentials(password=""),
        credentials("bob", "PW-CANARY"),
        credentials(password="PW-CANARY", tenant="physics"),
        credentials("alic", "ePW-CANARY"),
        credentials("ealice", "PW-CANARY", tenant="mai"),
    ],
)
def test_another_one(other: Credentials) -> None:
    """Another password, user or tenant has nothing to do with it, wherever the one ends and the next begins."""
    passwords = WrongPasswords(60.0)
    passwords.add(SAID)
    assert other not in passwords


def test_from_anywhere() -> None:
    """The client's address is no part of it: the account is locked no matter where the tries come from."""
    passwords = WrongPasswords(60.0)
    passwords.add(SAID)
    assert attrs.evolve(SAID, source="10.0.0.1") in passwords


@given(st.tuples(texts, texts, texts), st.tuples(texts, texts, texts))
def test_equal_or_not(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    """Only the very same three match."""
    passwords = WrongPasswords(60.0)
    passwords.add(Credentials(*one))
    assert (Credentials(*other) in passwords) is (one == other)


def test_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries a million passwords fills no memory; the oldest is forgotten first."""
    monkeypatch.setattr(wrong, "_ENTRIES_MAX", 100)
    passwords = WrongPasswords(60.0)
    for number in range(250):
        passwords.add(credentials(password=str(number)))
        assert len(passwords._until_s) == min(number + 1, 100)
    remembered = [number for number in range(250) if credentials(password=str(number)) in passwords]
    assert remembered == list(range(150, 250))
    passwords.add(credentials(password="150"))
    passwords.add(credentials(password="new"))
    assert credentials(password="150") in passwords
    assert credentials(password="151") not in passwords


def test_limit() -> None:
    """As the documentation has it."""
    assert wrong._ENTRIES_MAX == 10_000


def test_unreadable() -> None:
    """Nothing in it gives a password, a name or a digest that could be computed elsewhere (case 36)."""
    first, second = WrongPasswords(60.0), WrongPasswords(60.0)
    first.add(SAID)
    second.add(SAID)
    kept = pickle.dumps(first._until_s)
    assert b"CANARY" not in kept
    assert b"alice" not in kept
    assert "CANARY" not in repr(vars(first))
    assert first._until_s.keys().isdisjoint(second._until_s)


def test_threads() -> None:
    """Many threads at once lose nothing and break nothing."""
    passwords = WrongPasswords(60.0)
    missing: list[Credentials] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for turn in range(300):
            said = credentials(f"user{turn % 7}", f"{number}-{turn}")
            passwords.add(said)
            if said not in passwords:
                missing.append(said)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not missing
    assert len(passwords._until_s) == 8 * 300


def test_threads_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where every one pushes another out, and all are over at once."""
    monkeypatch.setattr(wrong, "_ENTRIES_MAX", 3)
    passwords = WrongPasswords(0.0)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(500):
                passwords.add(credentials(password=str(turn % 5)))
                assert credentials(password=str((turn + number) % 5)) not in passwords
        except BaseException as error:  # noqa: BLE001 - told by the thread that asserts
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(passwords._until_s) <= 3
