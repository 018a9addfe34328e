"""SHA-crypt through the system's library."""

import threading

import pytest

from auth import shacrypt
from auth.shacrypt import is_shacrypt, verify_shacrypt

# Made by `openssl passwd -5 -salt abcdefgh` and `-6`, of "s\u00e9cret" in UTF-8.
SHA256 = "$5$abcdefgh$fpk0AsFH03MwqYpcKmCW6SVtFNjOxBiyw5hY3RUNSV4"
SHA512 = "$6$abcdefgh$k1WX/aYmkv0bffxNylxFuSDb7D7SYwMcbi6PEH2FywNvmrFZ6/snuSUqOmOvTsRg4w6jz4AenkbXXgxvif7/t/"


@pytest.mark.parametrize("stored", [SHA256, SHA512])
@pytest.mark.parametrize("library", ["system", "none"])
@pytest.mark.parametrize(
    ("password", "right"),
    [("s\u00e9cret", True), ("", False), ("s\u00e9cre", False), ("s\u00e9cretx", False), ("S\u00c9CRET", False)],
)
def test_verify(stored: str, library: str, password: str, right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the right password passes (case 30), with the system's library and without."""
    if library == "none":
        monkeypatch.setattr(shacrypt, "_crypt", None)
    assert right is verify_shacrypt(password, stored)


def test_rounds_are_kept() -> None:
    """A hash that names its rounds is checked with those: an example of the SHA-crypt specification."""
    stored = "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"
    assert verify_shacrypt("Hello world!", stored)
    assert not verify_shacrypt("Hello world!", stored.replace("10000", "10001"))


def test_debian_has_the_library() -> None:
    """On the systems we name the quick way is taken, not the fallback."""
    assert shacrypt._load_crypt(shacrypt._LIBRARIES) is not None


@pytest.mark.parametrize("libraries", [(), ("libnothing-of-this-name.so.9",), ("libm.so.6",)])
def test_without_library(libraries: tuple[str, ...]) -> None:
    """No library, a missing one and one without `crypt_r` all mean the fallback, not a crash."""
    assert shacrypt._load_crypt(libraries) is None


def test_library_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """`crypt_r` that answers NULL has verified nothing (case 38)."""
    monkeypatch.setattr(shacrypt, "_crypt", lambda _password, _setting: None)
    assert not verify_shacrypt("s\u00e9cret", SHA512)


def test_threads_share_nothing() -> None:
    """Two threads that verify at once do not disturb each other: each call has its own workspace."""
    results: list[bool] = []

    def work(password: str) -> None:
        results.extend(verify_shacrypt(password, SHA256) is (password == "s\u00e9cret") for _ in range(10))

    threads = [threading.Thread(target=work, args=(password,)) for password in ("s\u00e9cret", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 20


def test_is_shacrypt() -> None:
    """It takes the two kinds it knows, and no other."""
    assert is_shacrypt(SHA256)
    assert is_shacrypt(SHA512)
    assert not is_shacrypt("$2b$05$x")
