"""The emulated directories answer as those they stand for; seen through ldap3, which knows both."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import ldap3
import pytest

from tests.directories.clients import client
from tests.directories.emulated import AD_BASE, ActiveDirectory, FreeIPA, MemoryDirectory, filetime
from tests.directories.scripted import ScriptedServer

NOW = datetime.now(UTC)
IN_CHAIN = "1.2.840.113556.1.4.1941"


@contextmanager
def _bound(directory: MemoryDirectory, dn: str, password: str) -> Iterator[ldap3.Connection]:
    with ScriptedServer(directory) as server, client(server.port, dn, password) as connection:
        connection.bind()
        yield connection


def _result(directory: MemoryDirectory, dn: str, password: str) -> tuple[int, str]:
    with _bound(directory, dn, password) as connection:
        return connection.result["result"], connection.result["message"]


def _found(connection: ldap3.Connection, base: str, text: str, *attributes: str) -> list[dict[str, list[bytes]]]:
    connection.search(base, text, attributes=list(attributes))
    return [dict(entry["raw_attributes"]) for entry in connection.response if "dn" in entry]


# ---- any directory


def test_searches_find_what_they_ask_for() -> None:
    """Scopes, attributes, sizes, filters."""
    directory = MemoryDirectory("dc=x")
    directory.add("ou=a,dc=x", {"objectClass": ["organizationalUnit"]})
    for name in ("alice", "bob", "carol"):
        more = {"entryUUID": ["u"], "cn": [name.upper()]}
        directory.add(f"uid={name},ou=a,dc=x", {"uid": [name], **more}, f"{name}-secret")
    with _bound(directory, "uid=alice,ou=a,dc=x", "alice-secret") as connection:
        assert connection.bound
        assert _found(connection, "dc=x", "(uid=ALICE)", "cn") == [{"cn": [b"ALICE"]}]
        assert _found(connection, "dc=x", "(uid=alice)") == [{}]  # ldap3 asks for 1.1
        assert _found(connection, "dc=x", "(uid=alice)", "*") == [{"uid": [b"alice"], "cn": [b"ALICE"]}]
        assert _found(connection, "dc=x", "(uid=alice)", "+") == [{"entryUUID": [b"u"]}]
        assert len(_found(connection, "dc=x", "(|(uid=*o*)(uid=al*e)(cn=*L))", "uid")) == 3
        assert len(_found(connection, "dc=x", "(&(uid=*)(!(uid=bob)))", "uid")) == 2
        connection.search("dc=x", "(objectClass=*)", search_scope=ldap3.LEVEL)
        assert [entry["dn"] for entry in connection.response] == ["ou=a,dc=x"]
        connection.search("uid=bob,ou=a,dc=x", "(objectClass=*)", search_scope=ldap3.BASE)
        assert connection.response == []
        connection.search("dc=x", "(uid=*)", size_limit=2)
        assert (len(connection.response), connection.result["description"]) == (2, "sizeLimitExceeded")
        connection.search("dc=nowhere", "(uid=*)")
        assert connection.result["description"] == "noSuchObject"


def test_binds() -> None:
    """The right password, a wrong one, nobody of that name, and none at all, which is anonymous."""
    directory = MemoryDirectory("dc=x")
    alice = directory.add("uid=alice,dc=x", {"uid": ["alice"]}, "secret")
    tried = [(alice, "secret"), (alice, "wrong"), ("uid=nobody,dc=x", "secret")]
    assert [_result(directory, dn, password)[0] for dn, password in tried] == [0, 49, 49]


def test_an_entry_can_be_another_one_between_search_and_bind() -> None:
    """`on_bind`: the same DN, another person."""
    directory = MemoryDirectory("dc=x")
    alice = directory.add("uid=alice,dc=x", {"uid": ["alice"], "entryUUID": ["1"]}, "secret")
    directory.on_bind = lambda dn: directory.set(dn, "entryUUID", "2")
    with ScriptedServer(directory) as server, client(server.port, alice, "secret") as connection:
        before = _found(connection, "dc=x", "(uid=alice)", "entryUUID")
        connection.bind()
        after = _found(connection, "dc=x", "(uid=alice)", "entryUUID")
    assert (before, after) == ([{"entryUUID": [b"1"]}], [{"entryUUID": [b"2"]}])


def test_a_member_can_leave_between_bind_and_group_check() -> None:
    """`on_bound`, case 57."""
    directory = MemoryDirectory("dc=x")
    alice = directory.add("uid=alice,dc=x", {"uid": ["alice"]}, "secret")
    group = directory.add("cn=g,dc=x", {"cn": ["g"]})
    directory.join(group, alice)
    assert directory.get(alice, "memberOf") == [group.encode()]
    directory.on_bound = lambda dn: directory.leave(group, dn)
    with _bound(directory, alice, "secret") as connection:
        assert connection.bound
        assert _found(connection, "dc=x", f"(member={alice})", "cn") == []
    assert directory.get(alice, "memberOf") == []


# ---- Active Directory


@pytest.mark.parametrize(
    ("how", "data"),
    [
        ({}, None),
        ({"disabled": True}, "533"),
        ({"locked": True}, "775"),
        ({"password_expired": True}, "532"),
        ({"must_change": True}, "773"),
        ({"expires_at": NOW - timedelta(days=1)}, "701"),
        ({"expires_at": NOW + timedelta(days=1)}, None),
    ],
)
def test_active_directory_says_why(how: dict[str, bool | datetime], data: str | None) -> None:
    """Error 49 and the number behind `data`; a careless one lets everybody bind, and the flags are the same."""
    strict, careless = ActiveDirectory(), ActiveDirectory(careless=True)
    alice = strict.add_user("alice", "secret", **how)  # type: ignore[arg-type]  # as add_user says
    careless.add_user("alice", "secret", **how)  # type: ignore[arg-type]  # as add_user says
    code, words = _result(strict, alice, "secret")
    assert (code, f"AcceptSecurityContext error, data {data}, v4563" in words) == ((49, True) if data else (0, False))
    assert _result(careless, alice, "secret") == (0, "")
    assert "data 52e" in _result(careless, alice, "wrong")[1]
    assert "data 525" in _result(careless, f"CN=Nobody,{AD_BASE}", "secret")[1]


def test_active_directory_shows_users_as_it_does() -> None:
    """Names without accents, octets for GUIDs, times since 1601, computed attributes for who asks."""
    directory = ActiveDirectory()
    expires_at = datetime(2030, 1, 1, tzinfo=UTC)
    dn = directory.add_user("j\u00fcrgen", "secret", expires_at=expires_at)
    wanted = ["sAMAccountName", "objectGUID", "accountExpires", "userAccountControl"]
    text = "(&(objectCategory=person)(objectClass=user)(sAMAccountName=JURGEN))"
    with _bound(directory, dn, "secret") as connection:
        [found] = _found(connection, AD_BASE, text, *wanted)
        [usual] = _found(connection, AD_BASE, text, "*")
        [computed] = _found(connection, AD_BASE, text, "msDS-User-Account-Control-Computed")
        by_guid = _found(connection, AD_BASE, f"(objectGUID={_escaped(found['objectGUID'][0])})", "sAMAccountName")
        disabled = _found(connection, AD_BASE, "(userAccountControl:1.2.840.113556.1.4.803:=2)", "sAMAccountName")
    assert found["sAMAccountName"] == ["j\u00fcrgen".encode()]
    assert len(found["objectGUID"][0]) == 16
    assert found["accountExpires"] == [b"135379296000000000"]  # (2030-1601 in days: 156689) * 86400 * 10**7
    assert found["userAccountControl"] == [b"512"]
    assert "msDS-User-Account-Control-Computed" not in usual
    assert computed == {"msDS-User-Account-Control-Computed": [b"0"]}
    assert by_guid == [{"sAMAccountName": ["j\u00fcrgen".encode()]}]
    assert disabled == []


def test_active_directory_refers_to_its_other_partitions() -> None:
    """Three references behind a search of the whole domain; none behind one of a container."""
    directory = ActiveDirectory()
    dn = directory.add_user("alice", "secret")
    with _bound(directory, dn, "secret") as connection:
        connection.search(AD_BASE, "(sAMAccountName=alice)")
        domain = [entry["type"] for entry in connection.response]
        connection.search(directory.users, "(sAMAccountName=alice)")
        container = [entry["type"] for entry in connection.response]
    assert domain == ["searchResEntry"] + ["searchResRef"] * 3
    assert container == ["searchResEntry"]


def test_active_directory_wants_a_bind_before_a_search() -> None:
    """Anonymous: operationsError; a failed bind makes anonymous again."""
    directory = ActiveDirectory()
    dn = directory.add_user("alice", "secret")
    for name, password in ((None, None), (dn, "wrong")):
        with ScriptedServer(directory) as server, client(server.port, name, password) as connection:
            connection.bind()
            connection.search(AD_BASE, "(sAMAccountName=alice)")
            assert connection.result["description"] == "operationsError"
            assert "a successful bind must be completed" in connection.result["message"]


def test_active_directory_walks_groups_and_cuts_long_lists() -> None:
    """The rule of nesting, through a cycle too; more than 1,500 members come as a range."""
    directory = ActiveDirectory()
    directory.values_max = 3  # type: ignore[misc]  # of this one
    alice, bob = directory.add_user("alice", "secret"), directory.add_user("bob", "secret")
    inner = directory.add_group("inner", alice)
    outer = directory.add_group("outer", inner)
    directory.join(inner, outer)
    crowd = directory.add_group("crowd", *(directory.add_user(f"user{number}", "x") for number in range(5)))
    with _bound(directory, alice, "secret") as connection:
        groups = _found(connection, AD_BASE, f"(member:{IN_CHAIN}:={alice})", "cn")
        none = _found(connection, AD_BASE, f"(member:{IN_CHAIN}:={bob})", "cn")
        user = _found(connection, AD_BASE, f"(&(sAMAccountName=alice)(memberOf:{IN_CHAIN}:={outer}))", "sAMAccountName")
        [whole] = _found(connection, crowd, "(cn=crowd)", "member")  # ldap3 asks again for what is missing
        connection.auto_range = False
        [ranged] = _found(connection, crowd, "(cn=crowd)", "member")
        [last] = _found(connection, crowd, "(cn=crowd)", "member;range=3-*")
    assert groups == [{"cn": [b"inner"]}, {"cn": [b"outer"]}]
    assert none == []
    assert len(user) == 1
    assert len(whole["member"]) == 5
    assert [(name, len(values)) for found in (ranged, last) for name, values in found.items()] == [
        ("member;range=0-2", 3),
        ("member;range=3-*", 2),
    ]


def test_filetime() -> None:
    """1970 in Windows' time, a number to be found in many books."""
    assert filetime(datetime(1970, 1, 1, tzinfo=UTC)) == 116_444_736_000_000_000


# ---- FreeIPA


def test_freeipa_refuses_the_locked_and_not_the_expired() -> None:
    """53 with its words for nsAccountLock; an expired password or principal binds, so that only the flags tell."""
    directory = FreeIPA()
    locked = directory.add_user("lena", "secret", locked=True)
    past = datetime(2020, 1, 1, tzinfo=UTC)
    expired = directory.add_user("xaver", "secret", password_expires_at=past, principal_expires_at=past)
    assert _result(directory, locked, "secret") == (53, "Account inactivated. Contact system administrator.")
    assert _result(directory, locked, "wrong")[0] == 49
    group = directory.add_group("system-proxy", expired)
    with _bound(directory, expired, "secret") as connection:
        [found] = _found(connection, directory.users, "(uid=xaver)", "*", "nsAccountLock", "memberOf")
        [flag] = _found(connection, directory.users, "(uid=lena)", "nsAccountLock")
    assert found["krbPasswordExpiration"] == found["krbPrincipalExpiration"] == [b"20200101000000Z"]
    assert found["memberOf"] == [group.encode()]
    assert len(found["ipaUniqueID"][0]) == 36
    assert (flag, "nsAccountLock" in found) == ({"nsAccountLock": [b"TRUE"]}, False)


def _escaped(value: bytes) -> str:
    return "".join(f"\\{octet:02x}" for octet in value)
