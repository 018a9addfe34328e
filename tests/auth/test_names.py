"""One spelling for each name."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth import names
from auth.names import canonical_group, canonical_tenant, canonical_username, decode_untrusted


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"alice", "alice"),
        (b"p\xc3\xa4ss:w/o", "p\u00e4ss:w/o"),
        (b"p\xe4\xdf", "p\u00e4\u00df"),
        (b"\xff" * 3, "\u00ff\u00ff\u00ff"),
        (b"", ""),
    ],
    ids=["ascii", "utf-8 (curl)", "latin-1 (OpenJDK)", "latin-1, all ones", "empty"],
)
def test_decode(raw: bytes, text: str) -> None:
    """Names and passwords are UTF-8, else Latin-1 (CASES 5a: what curl and OpenJDK were seen to send)."""
    assert text == decode_untrusted(raw)


@pytest.mark.parametrize("raw", [b"a\0b", b"\0", b"\xe4\0", b"\x80\x81\xff", b"\xed\xa0\x80"])
def test_decode_refuses(raw: bytes) -> None:
    """NUL, and bytes that are text in neither encoding, are nobody's name or password (case 37)."""
    with pytest.raises(ValueError, match=r"NUL|neither"):
        decode_untrusted(raw)


@given(st.binary(max_size=300))
def test_decode_raises_nothing_else(raw: bytes) -> None:
    """Any bytes are text or a ValueError, and text that was read has no NUL (case 37)."""
    try:
        text = decode_untrusted(raw)
    except ValueError:
        return
    assert "\0" not in text
    assert raw in (text.encode(), text.encode("latin-1", "ignore"))


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("alice", "alice"),
        ("a", "a"),
        ("Alice", "alice"),
        ("ALICE@Example.ORG", "alice@example.org"),
        ("mary ann", "mary ann"),
        ("o'neil-smith_2", "o'neil-smith_2"),
        ("Zo\u00eb", "zo\u00eb"),
        ("Zoe\u0308", "zo\u00eb"),
        ("\u212aelvin", "kelvin"),
        ("stra\u00dfe", "stra\u00dfe"),
        ("a" * 255, "a" * 255),
    ],
)
def test_canonical_username(raw: str, name: str) -> None:
    """Lower case and NFC (RFC 8265 section 3.3): two spellings of one name are one user; sharp s stays (case 44)."""
    assert name == canonical_username(raw)
    assert name == canonical_group(raw)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        " ",
        " alice",
        "alice ",
        "a\0b",
        "a\nb",
        "a\x7f",
        "a\x85b",
        "a\u00a0b",
        "a\u200bb",
        "a\u202eb",
        "a\u2028b",
        "\ud800",
        "\ue000",
        "\u0378",
        "a/b",
        "a:b",
        "a,b",
        'a"b',
        "a\\b",
        "a" * 256,
        "u\u0308\u0304" * 86,  # composes to 172 bytes, and must not be cut to fit
        "\u00ff" * 128,
        "\u00ff" * 255,
    ],
)
def test_no_username(raw: str) -> None:
    """Controls, invisible characters, separators, outer spaces and over-long names are refused (cases 37, 44)."""
    with pytest.raises(ValueError, match="a user name "):
        canonical_username(raw)
    with pytest.raises(ValueError, match="a group name "):
        canonical_group(raw)


@given(st.text(max_size=40))
def test_canonical_is_idempotent(raw: str) -> None:
    """canon(canon(x)) == canon(x) (case 44, P6): a mapping that is not once handed accounts to strangers."""
    try:
        name = canonical_username(raw)
    except ValueError:
        return
    assert name == canonical_username(name)
    assert name == canonical_username(unicodedata.normalize("NFD", raw))
    assert 1 <= len(name.encode()) <= 255


def test_unstable_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the mapping changes a second time is refused (case 44), whatever a later Unicode brings."""
    monkeypatch.setattr(names, "_map", lambda text: text + "'")
    with pytest.raises(ValueError, match="no stable lower-case form"):
        canonical_username("alice")


def test_error_does_not_repeat_the_name() -> None:
    """What was typed into the name field may be a password (case 36)."""
    with pytest.raises(ValueError, match="user name") as caught:
        canonical_username("PW-CANARY/")
    assert "canary" not in str(caught.value).lower()


@pytest.mark.parametrize(
    ("raw", "name"),
    [("main", "main"), ("Physics", "physics"), ("a", "a"), ("0.a_b-c", "0.a_b-c"), ("a" * 63, "a" * 63)],
)
def test_canonical_tenant(raw: str, name: str) -> None:
    """A tenant has a plain lower-case name (DESIGN section 3)."""
    assert name == canonical_tenant(raw)


@pytest.mark.parametrize("raw", ["", "-a", ".a", "a/b", "a b", "a\n", "\u212a", "caf\u00e9", "a" * 64])
def test_no_tenant(raw: str) -> None:
    """Anything else is no tenant; the Kelvin sign does not become a k."""
    with pytest.raises(ValueError, match="a tenant name is"):
        canonical_tenant(raw)
