"""The first start: one user, two rules, once."""

import getpass
from pathlib import Path

import pytest

from auth.passwords import verify_password
from trioproxy.cli.first_start import prepare
from trioproxy.config import Config, parse_config_untrusted
from trioproxy.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A new store."""
    path = tmp_path / "trioproxy.db"
    Store.open(path, create=True).close()
    return path


def test_a_user_and_two_rules(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue item 2: one local user with a random password and the two rules that let programs call."""
    monkeypatch.setattr(getpass, "getuser", lambda: "Anna")
    first = prepare(path, Config())
    assert first is not None
    with Store.open(path, create=False) as store:
        [user] = store.users.all()
        assert (user.tenant, user.name, sorted(user.groups)) == ("main", "anna", ["system-proxy"])
        assert verify_password(first.password, user.password_hash).ok
        assert {str(scope): [rule.text for rule in rules] for scope, rules in store.rules.all().items()} == {
            "user:anna": ["tcp:*(*)->*(*)", "udp:*(*)->*(*)"]
        }
        assert (first.name, first.revision) == ("anna", store.revision())


def test_the_password_does_not_print(path: Path) -> None:
    """Case 106: it is shown once, where it is meant to be."""
    first = prepare(path, Config())
    assert first is not None
    assert first.password not in repr(first)
    assert first.password.isalnum()


def test_a_second_start_makes_nobody(path: Path) -> None:
    """Issue item 2: a second start finds the same store."""
    assert prepare(path, Config()) is not None
    with Store.open(path, create=False) as store:
        before = store.snapshot()
        assert prepare(path, Config()) is None
        assert store.snapshot() == before


def test_a_store_that_was_emptied_makes_nobody(path: Path) -> None:
    """Whoever removed the first user does not want it back."""
    first = prepare(path, Config())
    assert first is not None
    with Store.open(path, create=False) as store:
        store.users.remove("main", first.name)
        assert prepare(path, Config()) is None
        assert store.users.all() == []


def test_the_group_of_the_configuration(path: Path) -> None:
    """The user can log in, whatever the proxy group is called."""
    assert prepare(path, parse_config_untrusted('[auth]\nproxy_group = "socks"\n', "t")) is not None
    with Store.open(path, create=False) as store:
        [user] = store.users.all()
        assert sorted(user.groups) == ["socks"]


@pytest.mark.parametrize("login", ["DOMAIN\\anna", "anna maria", "ännchen", "", "a:b", "$x"])
def test_a_login_name_that_needs_quoting(path: Path, monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    """The curl line must work when pasted, so only a plain name is taken over."""
    monkeypatch.setattr(getpass, "getuser", lambda: login)
    first = prepare(path, Config())
    assert first is not None
    assert first.name == "user"


def test_nobody_is_logged_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container runs under a number that has no name."""

    def no_name() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", no_name)
    first = prepare(path, Config())
    assert first is not None
    assert first.name == "user"
