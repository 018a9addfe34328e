"""The order of an entry's rules, which the directory does not keep."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.backend import Cause, EntryRules
from auth.ldap.failure import DirectoryError
from auth.ldap.messages import Entry
from auth.ldap.rules import RULES_MAX, rules_of

DN = "cn=staff,ou=groups,dc=a"

words = st.sampled_from(
    ["deny tcp:*(*) -> *(*)", "allow tcp:*(*) -> *(*)", "tcp:*(*) -> *(*)", "deny", "denying", "x", ""]
)
prefixes = st.sampled_from(
    ["", "{0}", "{1}", "{2}", "{10}", "{010}", "{1} ", "{999999999}", "{-1}", "{}", "{1000000000}"]
)


def texts_of(*values: str | bytes) -> tuple[str, ...]:
    """What becomes of the values of an entry."""
    raw = tuple(value if isinstance(value, bytes) else value.encode() for value in values)
    found = rules_of(Entry(DN, {"trioproxyrule": raw}), "trioproxyRule", "staff")
    assert found is not None
    assert (found.group, found.entry) == ("staff", DN)
    return found.texts


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (("allow b", "allow a"), ("allow a", "allow b")),
        (("allow a", "deny b"), ("deny b", "allow a")),
        (("tcp:a", "deny b", "allow c"), ("deny b", "allow c", "tcp:a")),
        (("{2}deny b", "{1}allow a"), ("allow a", "deny b")),
        (("{10}b", "{9}a"), ("a", "b")),
        (("{010}b", "{9}a", "{11}c"), ("a", "b", "c")),
        (("deny b", "{5}allow a"), ("allow a", "deny b")),
        (("{1}allow a", "{1}deny b", "{0}allow c"), ("allow c", "deny b", "allow a")),
        (("{1}  allow a  ", " {2} deny b "), ("allow a", "deny b")),
        (("{1}{2}allow a",), ("{2}allow a",)),
        (("{999999999}allow a", "deny b"), ("allow a", "deny b")),
        (("{1000000000}allow a", "deny b"), ("deny b", "{1000000000}allow a")),
        (("{-1}allow a", "{\u0661}allow a", "{ 1}a", "{1"), ("{ 1}a", "{-1}allow a", "{1", "{\u0661}allow a")),
        (("{1}deny a\n deny b",), ("deny a\n deny b",)),
        ((b"allow \xff\xfe", b""), ("", "allow \\xff\\xfe")),
    ],
)
def test_order(values: tuple[str | bytes, ...], texts: tuple[str, ...]) -> None:
    """By number, those without a number last; among equals what denies comes first. No text is lost or mended."""
    assert texts == texts_of(*values)


@given(
    st.data(),
    st.lists(st.tuples(prefixes, words), min_size=1, max_size=6).map(lambda found: ["".join(v) for v in found]),
)
def test_the_answer_has_no_order(data: st.DataObject, values: list[str]) -> None:
    """However the directory happens to order the values, the rules are the same (RFC 4512 section 2.2)."""
    texts = texts_of(*values)
    assert texts == texts_of(*data.draw(st.permutations(values)))
    assert len(values) == len(texts)


@given(st.lists(words, min_size=1, max_size=8))
def test_denies_first(values: list[str]) -> None:
    """Where nobody gave an order, nothing that allows stands before anything that denies."""
    texts = texts_of(*values)
    denies = [text.startswith("deny") for text in texts]
    assert sorted(denies, reverse=True) == denies


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5, unique=True))
def test_any_bytes(values: list[bytes]) -> None:
    """Bytes that are no text become a text that is no rule, and still one each: whoever reads it refuses it."""
    assert len(texts_of(*values)) == len(values)


@pytest.mark.parametrize("attribute", [None, "trioproxyRule", "description"])
def test_none(attribute: str | None) -> None:
    """No attribute for rules, or an entry without any."""
    assert rules_of(Entry(DN, {"trioproxyrule": ()}), attribute, None) is None


def test_of_the_user() -> None:
    """A user's own belong to no group; the attribute is found in any case."""
    entry = Entry("uid=a", {"trioproxyrule": (b"deny x",), "description": (b"allow y",)})
    assert rules_of(entry, "TRIOPROXYRULE", None) == EntryRules(None, "uid=a", ("deny x",))


def test_limit() -> None:
    """256 are asked, of 257 none: whichever was left out might be the one that denies."""
    values = [f"allow {number}" for number in range(RULES_MAX)]
    assert len(texts_of(*values)) == 256
    with pytest.raises(DirectoryError, match=f"257 rules in {DN}") as caught:
        texts_of(*values, "deny x")
    assert caught.value.cause is Cause.AMBIGUOUS
    assert "trioproxy rule add" in caught.value.advice


@pytest.mark.parametrize("name", ["trioproxyrule;range=0-1499", "trioproxyrule;lang-en", "trioproxyrule;x-a;x-b"])
def test_options(name: str) -> None:
    """Active Directory gives the first 1,500 values under such a name, and none under the plain one."""
    for plain in ((), (b"allow x",)):
        entry = Entry(DN, {"trioproxyrule": plain, name: (b"deny x",)})
        with pytest.raises(DirectoryError, match="a part of them only") as caught:
            rules_of(entry, "trioproxyRule", "staff")
        assert caught.value.cause is Cause.AMBIGUOUS
        assert rules_of(entry, None, "staff") is None


def test_another_attribute() -> None:
    """One whose name only begins like it is another one."""
    assert rules_of(Entry(DN, {"trioproxyrules": (b"x",), "trioproxyrule2;x": (b"x",)}), "trioproxyRule", None) is None
