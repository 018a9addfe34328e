"""Whether an entry is the person that logs in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.backend import Cause
from auth.ldap.failure import DirectoryError
from auth.ldap.flavours import FLAVOURS
from auth.ldap.messages import Entry
from auth.ldap.person import Person, person_of
from auth.names import canonical_username

OPENLDAP = FLAVOURS["openldap"]
ID = b"0f3c7b9e-0000-4000-8000-000000000001"


def entry_with(dn: str = "uid=alice,ou=people,dc=a", **attributes: Any) -> Entry:
    """An entry of alice, but for what is said here."""
    values = {"uid": (b"alice",), "entryuuid": (ID,), "objectclass": (b"top", b"inetOrgPerson"), **attributes}
    return Entry(dn, {name: found for name, found in values.items() if found})


def test_person() -> None:
    """The entry, its identifier, and the name as the entry spells it."""
    entry = entry_with(uid=(b"Alice",))
    assert person_of(entry, OPENLDAP, "alice") == Person(entry, ID, b"Alice")


@pytest.mark.parametrize(
    ("stored", "username"),
    [
        ("alice", "alice"),
        ("ALICE", "alice"),
        ("Jos\u00e9", "jos\u00e9"),
        ("JOSE\u0301", "jos\u00e9"),
        ("mary ann", "mary ann"),
        ("\u212aelvin", "kelvin"),
    ],
)
def test_same_name(stored: str, username: str) -> None:
    """Names are compared as ours are everywhere."""
    person = person_of(entry_with(uid=(stored.encode(),)), OPENLDAP, username)
    assert person is not None
    assert person.username == stored.encode()


@pytest.mark.parametrize(
    ("stored", "username"),
    [
        (b"jose", "jos\u00e9"),
        (b"jos\xc3\xa9", "jose"),
        (b"alice2", "alice"),
        (b"alice ", "alice"),
        (b" alice", "alice"),
        (b"mary  ann", "mary ann"),
        (b"alice@example.org", "alice"),
        (b"alice", "alice@example.org"),
        (b"stra\xc3\x9fe", "strasse"),
        (b"\xff", "\u00ff"),
        (b"\xef\xbd\x81lice", "alice"),
        (b"ali\0ce", "alice"),
        (b"ali\xe2\x80\x8bce", "alice"),
        (b"", "alice"),
        (b"a/lice", "alice"),
    ],
)
def test_another_name(stored: bytes, username: str) -> None:
    """A directory finds names by looser rules: accents, width, spaces, mail addresses. They are nobody's second."""
    assert person_of(entry_with(uid=(stored,)), OPENLDAP, username) is None


def test_no_name() -> None:
    """An entry found by something else."""
    assert person_of(entry_with(uid=()), OPENLDAP, "alice") is None


@pytest.mark.parametrize(
    ("dn", "names", "found"),
    [
        ("uid=alice,dc=a", [b"alice", b"al"], b"alice"),
        ("uid=alice,dc=a", [b"al", b"Alice"], b"Alice"),
        ("UID=Alice,dc=a", [b"al", b"alice"], b"alice"),
        ("cn=x+uid=alice,dc=a", [b"al", b"alice"], b"alice"),
        ("uid=al,dc=a", [b"al", b"alice"], None),
        ("cn=alice,dc=a", [b"al", b"alice"], None),
        ("cn=x,uid=alice,dc=a", [b"al", b"alice"], None),
        ("uid=#0c05616c696365,dc=a", [b"al", b"alice"], None),
        ("cn=x,dc=a", [b"alice"], b"alice"),
        ("uid=al,dc=a", [b"alice"], b"alice"),
    ],
)
def test_several_names(dn: str, names: list[bytes], found: bytes | None) -> None:
    """Of several names only the one in the DN counts, or one person would be several users here."""
    person = person_of(entry_with(dn, uid=tuple(names)), OPENLDAP, "alice")
    assert (person and person.username) == found


@given(st.lists(st.sampled_from([b"alice", b"Alice", b"al", b"ALICE ", b"bob"]), min_size=1, max_size=4), st.data())
def test_one_name_each(names: list[bytes], data: st.DataObject) -> None:
    """Whatever names an entry has and in whatever order, at most one of them is a user."""
    entry = entry_with(f"uid={data.draw(st.sampled_from(['alice', 'al', 'bob']))},dc=a", uid=tuple(names))
    users = {name for name in ("alice", "al", "bob") if person_of(entry, OPENLDAP, name) is not None}
    assert len(users) <= 1
    shuffled = entry_with(entry.dn, uid=tuple(data.draw(st.permutations(names))))
    assert users == {name for name in ("alice", "al", "bob") if person_of(shuffled, OPENLDAP, name) is not None}


@given(st.lists(st.binary(max_size=8), max_size=3), st.text(min_size=1, max_size=8))
def test_any_names(names: list[bytes], username: str) -> None:
    """Any bytes: the person of that very name, or none."""
    try:
        canonical = canonical_username(username)
    except ValueError:
        return
    person = person_of(entry_with(uid=(*names, username.encode())), OPENLDAP, canonical)
    assert person is None or canonical_username(person.username.decode()) == canonical


@pytest.mark.parametrize("kind", [b"alias", b"referral", b"Alias", b"REFERRAL"])
def test_no_people(kind: bytes) -> None:
    """An alias or a referral stands for an entry that is elsewhere (case 51)."""
    with pytest.raises(DirectoryError, match="is an alias or a referral") as caught:
        person_of(entry_with(objectclass=(b"top", kind)), OPENLDAP, "alice")
    assert caught.value.cause is Cause.AMBIGUOUS


@pytest.mark.parametrize("ids", [(), (b"",), (b"1", b"2"), (b"1", b"1")])
def test_no_identifier(ids: tuple[bytes, ...]) -> None:
    """Without exactly one nothing tells this person from who has the name tomorrow."""
    with pytest.raises(DirectoryError, match=f"has {len(ids)} values of entryUUID") as caught:
        person_of(entry_with(entryuuid=ids), OPENLDAP, "alice")
    assert caught.value.cause is Cause.AMBIGUOUS
    assert "unique_id_attribute" in caught.value.advice


@pytest.mark.parametrize("dn", ["", "alice", "uid=a,b"])
def test_no_dn(dn: str) -> None:
    """An empty name would make the bind an anonymous one (case 47)."""
    with pytest.raises(DirectoryError, match="can be none"):
        person_of(entry_with(dn), OPENLDAP, "alice")


def test_active_directory() -> None:
    """Its identifier is bytes, and its DN has another name than the one to log in with."""
    entry = Entry(
        "CN=Alice Example,OU=People,DC=a",
        {"samaccountname": (b"Alice",), "objectguid": (bytes(16),), "objectclass": (b"user",)},
    )
    assert person_of(entry, FLAVOURS["active-directory"], "alice") == Person(entry, bytes(16), b"Alice")
    assert person_of(entry, FLAVOURS["active-directory"], "alice example") is None
