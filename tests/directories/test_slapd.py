"""The directory of the tests is one: what tests rely on is so, with OpenLDAP's own programs and with plain ldap3."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ldap3.core.exceptions import LDAPStartTLSError

from tests.directories.authority import Authority
from tests.directories.clients import OF_LDAP3, client
from tests.directories.slapd import Slapd
from tests.directories.tree import (
    BASE,
    GROUPS,
    LOCKED_AFTER,
    PEOPLE,
    PROXY_GROUP,
    REFERRAL,
    SERVICE,
    SERVICE_PASSWORD,
    chain_of_groups,
    dn_of,
    group,
    password_of,
    person,
)
from tests.system.waiting import until

SIZE_LIMIT_EXCEEDED, CONFIDENTIALITY_REQUIRED, NO_SUCH_OBJECT, INVALID_CREDENTIALS, UNWILLING = 4, 13, 32, 49, 53


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One for all."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Slapd]:
    """One for all tests that leave it as it is."""
    with Slapd(tmp_path_factory.mktemp("slapd") / "one", authority) as running:
        yield running


def _search(slapd: Slapd, dn: str, password: str, *what: str, tls: bool = True) -> tuple[int, str]:
    """Exit code and output of ldapsearch: by StartTLS, or without TLS."""
    url = f"ldap://127.0.0.1:{slapd.port}"
    how = ["-LLL", "-o", "ldif-wrap=no", "-H", url, "-x", *(["-ZZ"] if tls else [])]
    done = slapd.program("ldapsearch", *how, *(["-D", dn, "-w", password] if dn else []), *what)
    return done.returncode, done.stdout


def _whoami(slapd: Slapd, dn: str, password: str) -> tuple[int, str]:
    """Exit code and output of ldapwhoami, by TLS from the start."""
    done = slapd.program("ldapwhoami", "-H", f"ldaps://127.0.0.1:{slapd.tls_port}", "-x", "-D", dn, "-w", password)
    return done.returncode, done.stdout


# ---- what stands in it


def test_member_of_follows_the_groups(tmp_path: Path, authority: Authority) -> None:
    """The overlay keeps it, online: a member that joins, one that leaves, one that is deleted."""
    with Slapd(tmp_path / "slapd", authority) as slapd:
        slapd.modify(f"dn: {PROXY_GROUP}\nchangetype: modify\nadd: member\nmember: {dn_of('bob')}\n")
        assert PROXY_GROUP in slapd.read(dn_of("bob"), "memberOf")["memberOf"]
        slapd.modify(f"dn: {PROXY_GROUP}\nchangetype: modify\ndelete: member\nmember: {dn_of('alice')}\n")
        assert [f"cn=students,{GROUPS}"] == slapd.read(dn_of("alice"), "memberOf")["memberOf"]
        slapd.delete(dn_of("heidi"))
        assert dn_of("heidi") not in slapd.read(PROXY_GROUP, "member")["member"]


def test_every_trap_of_the_tree_is_there(slapd: Slapd) -> None:
    """Who is a member of what, as the tree's description says."""
    assert [f"cn=system-proxy2,{GROUPS}"] == slapd.read(dn_of("carol"), "memberOf")["memberOf"]
    assert [f"cn=system-proxy,ou=other,{BASE}"] == slapd.read(dn_of("dave"), "memberOf")["memberOf"]
    assert [f"cn=staff,{GROUPS}"] == slapd.read(dn_of("erin"), "memberOf")["memberOf"]
    assert slapd.read(f"cn=staff,{GROUPS}", "memberOf")["memberOf"] == [PROXY_GROUP]
    assert {f"cn=loop-{letter},{GROUPS}" for letter in "abc"} == {
        name for letter in "abc" for name in slapd.read(f"cn=loop-{letter},{GROUPS}", "memberOf")["memberOf"]
    }
    assert slapd.read(dn_of("heidi"), "uid")["uid"] == ["heidi", "heidi.alias"]
    assert slapd.read(dn_of("j\u00fcrgen"), "uid")["uid"] == ["j\u00fcrgen"]
    assert slapd.read(f"cn=system-proxy,ou=unix,{BASE}", "memberUid")["memberUid"] == ["frank"]
    assert [dn_of("ursula")] == slapd.read(f"cn=unique-proxy,{GROUPS}", "uniqueMember")["uniqueMember"]
    assert slapd.read(dn_of("lena"), "pwdAccountLockedTime")["pwdAccountLockedTime"] == ["000001010000Z"]
    assert slapd.read(dn_of("xaver"), "shadowExpire")["shadowExpire"] == ["1"]
    assert "entryUUID" in slapd.read(dn_of("alice"))
    assert "pwdChangedTime" in slapd.read(dn_of("alice"))


@pytest.mark.filterwarnings(OF_LDAP3)
def test_rules_come_back(slapd: Slapd) -> None:
    """By the service account, through ldap3: of users and of groups."""
    with client(slapd.port, SERVICE, SERVICE_PASSWORD, ca=slapd.ca) as connection:
        connection.bind()
        connection.search(BASE, "(trioproxyRule=*)", attributes=["trioproxyRule"])
        found = {entry["dn"]: entry["attributes"]["trioproxyRule"] for entry in connection.response if "dn" in entry}
    assert {dn_of("alice"): 2, f"cn=students,{GROUPS}": 2, f"cn=staff,{GROUPS}": 1} == {
        dn: len(rules) for dn, rules in found.items()
    }
    assert "{1}deny any:*(*)->*(25)" in found[f"cn=students,{GROUPS}"]


def test_a_search_of_everything_ends_in_a_reference(slapd: Slapd) -> None:
    """And one of the people does not; an alias is an entry of its own for who does not follow it."""
    _, everything = _search(slapd, SERVICE, SERVICE_PASSWORD, "-b", BASE, "(uid=alice)", "1.1")
    _, people = _search(slapd, SERVICE, SERVICE_PASSWORD, "-b", PEOPLE, "(uid=alice)", "1.1")
    _, alias = _search(slapd, SERVICE, SERVICE_PASSWORD, "-b", PEOPLE, "(uid=shadow)", "objectClass")
    assert f"# ref{REFERRAL}??sub" in everything
    assert f"dn: {dn_of('alice')}\n\n" == people
    assert "objectClass: alias" in alias


def test_groups_in_groups_as_deep_as_wanted(tmp_path: Path, authority: Authority) -> None:
    """`chain_of_groups` hangs together from the user to the last."""
    with Slapd(tmp_path / "slapd", authority) as slapd:
        slapd.add(chain_of_groups(12, "dora") + group(f"cn=top,{GROUPS}", f"cn=deep-12,{GROUPS}"))
        chain = [dn_of("dora")]
        while above := slapd.read(chain[-1], "memberOf").get("memberOf"):
            chain += above
    assert [dn_of("dora"), *(f"cn=deep-{number},{GROUPS}" for number in range(1, 13)), f"cn=top,{GROUPS}"] == chain


# ---- who may do what


def test_everybody_can_bind_with_the_own_password(slapd: Slapd) -> None:
    """Those whom only a flag keeps out too; the one that ppolicy has locked cannot."""
    for name in ("alice", "bob", "frank", "j\u00fcrgen", "ursula", "rita", "xaver"):
        assert (0, f"dn:{dn_of(name)}\n") == _whoami(slapd, dn_of(name), password_of(name))
    assert _whoami(slapd, dn_of("lena"), password_of("lena"))[0] == INVALID_CREDENTIALS


def test_passwords_are_for_binding_and_entries_for_the_service_account(slapd: Slapd) -> None:
    """Nobody reads a password; a user reads the own entry, and a stranger nothing."""
    who = ["-b", PEOPLE, "(uid=*)", "uid", "userPassword"]
    _, service = _search(slapd, SERVICE, SERVICE_PASSWORD, *who)
    own = _search(slapd, dn_of("bob"), password_of("bob"), "-b", dn_of("bob"), "uid", "userPassword")
    assert "uid: alice" in service
    assert "userPassword" not in service
    assert (0, f"dn: {dn_of('bob')}\nuid: bob\n\n") == own
    assert _search(slapd, dn_of("bob"), password_of("bob"), *who)[0] == NO_SUCH_OBJECT
    assert _search(slapd, "", "", *who)[0] == NO_SUCH_OBJECT


def test_options_open_and_close_it(tmp_path: Path, authority: Authority) -> None:
    """Anonymous reading, binds without a password, nothing without TLS, a size limit: each as asked for."""
    alice = ["-b", dn_of("alice"), "-s", "base", "1.1"]
    with Slapd(tmp_path / "open", authority, anyone_reads=True, size_limit=2) as slapd:
        assert _search(slapd, "", "", *alice)[0] == 0
        code, found = _search(slapd, "", "", "-b", PEOPLE, "(uid=*)", "1.1")
        assert (code, found.count("dn: ")) == (SIZE_LIMIT_EXCEEDED, 2)
    with Slapd(tmp_path / "strict", authority, tls_required=True) as slapd:
        assert _search(slapd, SERVICE, SERVICE_PASSWORD, *alice, tls=False)[0] == CONFIDENTIALITY_REQUIRED
        assert _search(slapd, SERVICE, SERVICE_PASSWORD, *alice)[0] == 0


@pytest.mark.parametrize("welcome", [False, True])
def test_a_bind_without_a_password(tmp_path: Path, authority: Authority, *, welcome: bool) -> None:
    """RFC 4513 section 5.1.2: refused by default, success as nobody where it is welcome (case 47)."""
    with Slapd(tmp_path / "slapd", authority, unauthenticated_binds=welcome) as slapd:
        assert ((0, "anonymous\n") if welcome else (UNWILLING, "")) == _whoami(slapd, dn_of("alice"), "")


# ---- wrong passwords


def test_three_wrong_passwords_lock_a_user_and_never_the_service_account(tmp_path: Path, authority: Authority) -> None:
    """The overlay ppolicy counts; after the third the right password does not help any more."""
    with Slapd(tmp_path / "slapd", authority) as slapd:
        for dn in (dn_of("alice"), SERVICE):
            codes = [_whoami(slapd, dn, "wrong")[0] for _ in range(LOCKED_AFTER)]
            assert codes == [INVALID_CREDENTIALS] * LOCKED_AFTER
        assert _whoami(slapd, dn_of("alice"), password_of("alice"))[0] == INVALID_CREDENTIALS
        assert _whoami(slapd, SERVICE, SERVICE_PASSWORD)[0] == 0
        locked = slapd.read(dn_of("alice"), "pwdAccountLockedTime", "pwdFailureTime")
        assert (len(locked["pwdAccountLockedTime"]), len(locked["pwdFailureTime"])) == (1, LOCKED_AFTER)
        slapd.replace(dn_of("alice"), "pwdAccountLockedTime")
        assert _whoami(slapd, dn_of("alice"), password_of("alice"))[0] == 0


def test_without_overlays_nothing_is_counted_and_nothing_follows(tmp_path: Path, authority: Authority) -> None:
    """A plain OpenLDAP, with the same tree."""
    with Slapd(tmp_path / "slapd", authority, overlays=()) as slapd:
        for _ in range(LOCKED_AFTER + 1):
            assert _whoami(slapd, dn_of("alice"), "wrong")[0] == INVALID_CREDENTIALS
        assert _whoami(slapd, dn_of("alice"), password_of("alice"))[0] == 0
        assert "memberOf" not in slapd.read(dn_of("alice"))


def test_the_moment_of_a_password_can_be_set(tmp_path: Path, authority: Authority) -> None:
    """The attribute pwdChangedTime is the server's own; the administrator may write it with the relax control."""
    with Slapd(tmp_path / "slapd", authority) as slapd:
        slapd.replace(dn_of("bob"), "pwdChangedTime", "20200101000000Z", relaxed=True)
        assert slapd.read(dn_of("bob"), "pwdChangedTime")["pwdChangedTime"] == ["20200101000000Z"]


# ---- TLS


@pytest.mark.filterwarnings(OF_LDAP3)
def test_ldap3_trusts_the_authority_and_no_other(slapd: Slapd, tmp_path: Path) -> None:
    """StartTLS with verification: the right CA is needed, and without it there is no bind."""
    alice = dn_of("alice")
    before = slapd.binds(alice)
    with client(slapd.port, alice, password_of("alice"), ca=slapd.ca) as connection:
        assert connection.bind()
    other = Authority(tmp_path).pem
    with pytest.raises(LDAPStartTLSError, match="certificate verify failed"):
        with client(slapd.port, alice, password_of("alice"), ca=other):
            pass
    assert slapd.binds(alice) == before + 1


def test_it_shows_the_certificate_it_was_given(tmp_path: Path, authority: Authority) -> None:
    """One for another host is refused by libldap."""
    with Slapd(tmp_path / "slapd", authority, certificate=authority.other_host()) as slapd:
        refused = slapd.program("ldapwhoami", "-x", "-ZZ", "-H", f"ldap://127.0.0.1:{slapd.port}")
        assert slapd.binds("") == 0
    assert "ldap_start_tls: Connect error" in refused.stderr


# ---- its life, and what it tells


def test_it_counts_what_came_by_tcp(tmp_path: Path, authority: Authority) -> None:
    """Connections, binds for each DN, searches, in all its lives; what the test does by itself is not counted."""
    with Slapd(tmp_path / "slapd", authority) as slapd:
        assert (slapd.connections(), slapd.binds(SERVICE), slapd.searches()) == (0, 0, [])
        _search(slapd, SERVICE, SERVICE_PASSWORD, "-b", PEOPLE, r"(uid=\2a)", "1.1")
        slapd.stop()
        slapd.start()
        _whoami(slapd, dn_of("j\u00fcrgen"), "wrong")
        with socket.create_connection(("127.0.0.1", slapd.port)):
            until("the connection in the log", lambda: slapd.open_connections() == 1)
        until("its end in the log", lambda: slapd.open_connections() == 0)
        assert slapd.connections() == 3
        assert (slapd.binds(SERVICE.upper()), slapd.binds(dn_of("j\u00fcrgen")), slapd.binds("uid=x")) == (1, 1, 0)
        assert slapd.searches() == [(PEOPLE, r"(uid=\2A)")]


@pytest.mark.parametrize("end", [Slapd.stop, Slapd.kill])
def test_it_comes_back_where_it_was(tmp_path: Path, authority: Authority, end: Callable[[Slapd], None]) -> None:
    """On the same ports, with what was changed; in between nobody listens, and after the end neither."""
    with Slapd(tmp_path / "slapd", authority) as slapd:
        ports = [slapd.port, slapd.tls_port]
        slapd.add(person("new"))
        end(slapd)
        assert [_is_closed(port) for port in ports] == [True, True]
        slapd.start()
        assert ports == [slapd.port, slapd.tls_port]
        assert (0, f"dn:{dn_of('new')}\n") == _whoami(slapd, dn_of("new"), password_of("new"))
    assert [_is_closed(port) for port in ports] == [True, True]


def test_paused_it_is_silent(tmp_path: Path, authority: Authority) -> None:
    """The kernel accepts, nobody answers until it goes on; it can be ended while it is paused."""
    with Slapd(tmp_path / "slapd", authority) as slapd, socket.socket() as sock:
        slapd.pause()
        sock.settimeout(0.2)
        sock.connect(("127.0.0.1", slapd.port))
        sock.sendall(bytes.fromhex("300c02010160070201030400 8000"))  # an anonymous bind
        with pytest.raises(TimeoutError):
            sock.recv(100)
        slapd.resume()
        sock.settimeout(None)
        assert bytes.fromhex("300c02010161070a010004000400") == sock.recv(100)
        slapd.pause()


def test_a_tree_that_is_wrong_is_told_and_nothing_is_left(tmp_path: Path, authority: Authority) -> None:
    """The test hears ldapadd's words, and no server stays behind."""
    slapd = Slapd(tmp_path / "slapd", authority, ldif="dn: dc=elsewhere\nobjectClass: domain\ndc: elsewhere\n")
    with pytest.raises(AssertionError, match="no global superior knowledge"), slapd:
        pass
    assert [_is_closed(port) for port in (slapd.port, slapd.tls_port)] == [True, True]


def test_the_service_password_is_in_a_file_for_its_owner(slapd: Slapd) -> None:
    """As a configuration may name it."""
    assert slapd.service_password_file.stat().st_mode & 0o777 == 0o600
    assert slapd.service_password_file.read_text().rstrip("\n") == SERVICE_PASSWORD


def _is_closed(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0
