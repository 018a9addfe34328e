"""Logins at a real slapd: who gets in, with which groups and rules, and what goes over the wire (CASES group D)."""

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import pytest

from auth import Cause, EntryRules, Identity, Rejected, Rejection, Unavailable
from auth.ldap import LdapSettings
from tests.auth.ldap.trying import NOT_A_MEMBER, OTHER_NAME, UNKNOWN, WRONG, Trying, of_slapd, trying
from tests.directories.authority import Authority
from tests.directories.slapd import Slapd
from tests.directories.tree import (
    BASE,
    GROUPS,
    LOCKED_AFTER,
    PEOPLE,
    UNIX_GROUPS,
    chain_of_groups,
    dn_of,
    group,
    person,
)

RULES = "trioproxyRule"


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """One server for all tests here; what a test changes belongs to that test alone."""
    folder = tmp_path_factory.mktemp("slapd")
    with Slapd(folder / "server", Authority(folder), unauthenticated_binds=True) as server:
        yield server


@pytest.fixture(params=["ldaps", "starttls"])
def campus(slapd: Slapd, request: pytest.FixtureRequest) -> Iterator[Trying]:
    """A backend with the flavour openldap, over either kind of TLS."""
    url = slapd.tls_url if request.param == "ldaps" else slapd.url
    with trying(of_slapd(slapd, url)) as backend:
        yield backend


@pytest.fixture
def settings(slapd: Slapd) -> LdapSettings:
    """Settings for that server."""
    return of_slapd(slapd)


_NUMBERS = count()


def newcomer(slapd: Slapd) -> str:
    """A member of the proxy group whom no other test can lock out."""
    name = f"user{next(_NUMBERS)}"
    slapd.add(person(name))
    slapd.modify(f"dn: cn=system-proxy,{GROUPS}\nchangetype: modify\nadd: member\nmember: {dn_of(name)}\n")
    return name


# ---- who gets in


def test_member(campus: Trying) -> None:
    """A member with the right password, and nobody's groups but their own (case 48)."""
    answer = campus.log_in("alice")
    assert isinstance(answer, Identity)
    assert (answer.tenant, answer.user, answer.backend) == ("main", "alice", "campus")
    assert answer.groups == {"system-proxy", "students"}
    assert answer.valid_until is None
    assert [step.name for step in campus.steps if step.name not in ("resolve", "connect", "TLS", "StartTLS")] == [
        "secret",
        "service bind",
        "search",
        "bind",
        "read again",
        "status",
        "groups",
    ]


@pytest.mark.parametrize("name", ["bob", "carol", "dave"])
def test_not_a_member(campus: Trying, name: str) -> None:
    """In no group, in system-proxy2, and in a group of the same name in another place (case 48)."""
    assert campus.log_in(name) == NOT_A_MEMBER
    assert campus.log_in(name, "wrong") == WRONG


def test_the_place_of_the_group_counts(settings: LdapSettings) -> None:
    """Even where both groups lie below group_base: the DN decides, and the other one lends its name to nothing."""
    wide = attrs.evolve(
        settings, group_base=BASE, proxy_group_dn=f"cn=system-proxy,{GROUPS}", search_references="ignore"
    )
    with trying(wide) as campus:
        assert campus.groups_of("alice") == {"system-proxy", "students"}
        assert campus.log_in("dave") == NOT_A_MEMBER
        assert campus.step("groups").detail == f"not in cn=system-proxy,{GROUPS}"


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        ("{name}-secret", None),
        ("wrong", WRONG),
        ("", Rejected(Rejection.EMPTY_PASSWORD)),
        ("{name}-secre", WRONG),
        ("{name}-secretx", WRONG),
        ("bob-secret", WRONG),
        ("{name}-SECRET", WRONG),
        ("service-secret", WRONG),
        ("admin-secret", WRONG),
        ("*", WRONG),
    ],
)
def test_only_the_right_password(slapd: Slapd, campus: Trying, password: str, expected: Rejected | None) -> None:
    """Right, wrong, empty, a prefix, with a suffix, another's, in another case (case 30)."""
    name = newcomer(slapd)
    answer = campus.log_in(name, password.format(name=name))
    if expected is None:
        assert isinstance(answer, Identity)
    else:
        assert answer == expected


@pytest.mark.parametrize("password", ["", "\0", "x\0y", "x" * 1000])
def test_refused_before_the_wire(slapd: Slapd, settings: LdapSettings, password: str) -> None:
    """No password, NUL, too long: this server would say yes to a bind without one (case 47; RFC 4513 section 5.1.2)."""
    before = slapd.connections()
    with trying(settings) as campus:
        assert isinstance(campus.log_in("alice", password), Rejected)
        assert campus.steps == []
    assert slapd.connections() == before


@pytest.mark.parametrize(
    "name", ["*", "a*", "*)(uid=*", "a)(|(cn=*", "\\2a", "a\0b", "alice)(objectclass=*", "alice\\00", "(", ")"]
)
def test_filter_injection(campus: Trying, name: str) -> None:
    """Whatever the name, the filter has the shape it was given: such names find nobody (case 49)."""
    answer = campus.log_in(name, "alice-secret")
    assert answer in (UNKNOWN, Rejected(Rejection.MALFORMED))
    if answer == UNKNOWN:
        sent = campus.step("search").detail.partition(" below ")[0]
        assert sent.startswith("(uid=")
        assert not set(sent[5:-1]) & set("*()\0")


def test_names_are_compared_as_ours(slapd: Slapd, settings: LdapSettings) -> None:
    """The directory finds more names than are meant: a second uid, a mail address. Each person has one name here."""
    with trying(settings) as campus:
        assert isinstance(campus.log_in("heidi"), Identity)
        assert campus.log_in("heidi.alias", "heidi-secret") == OTHER_NAME
        assert "another name" in campus.step("search").advice
    loose = attrs.evolve(settings, user_filter="(|(uid={username})(cn={username}))")
    slapd.modify(f"dn: {dn_of('bob')}\nchangetype: modify\nadd: cn\ncn: robert\n")
    with trying(loose) as campus:
        assert campus.log_in("robert", "bob-secret") == OTHER_NAME


def test_name_beyond_ascii(campus: Trying) -> None:
    """The filter carries UTF-8, as octets."""
    assert isinstance(campus.log_in("j\u00fcrgen"), Identity)
    assert "(uid=j\\c3\\bcrgen)" in campus.step("search").detail
    assert campus.log_in("jurgen", "x") == UNKNOWN


def test_alias_entry(campus: Trying) -> None:
    """An alias is followed nowhere, and is nobody (case 51)."""
    answer = campus.log_in("shadow", "alice-secret")
    assert isinstance(answer, Unavailable | Rejected)
    assert not any(step.name == "bind" for step in campus.steps)


@pytest.mark.parametrize("others", ["(uid=bob)", "(uid=*)"])
def test_several_entries(settings: LdapSettings, others: str) -> None:
    """A filter that finds two people, or more than the server was asked for, finds nobody (case 51)."""
    with trying(attrs.evolve(settings, user_filter=f"(|(uid={{username}}){others})")) as campus:
        answer = campus.log_in("alice")
        assert isinstance(answer, Unavailable)
        assert answer.cause is Cause.AMBIGUOUS
        assert "narrow user_filter" in campus.failures[-1].advice


def test_reference(settings: LdapSettings) -> None:
    """Entries that may be elsewhere: refused, unless the setting says that this is known (case 51)."""
    with trying(attrs.evolve(settings, user_base=BASE)) as campus:
        answer = campus.log_in("alice")
        assert isinstance(answer, Unavailable)
        assert answer.cause is Cause.REFUSED
    with trying(attrs.evolve(settings, user_base=BASE, search_references="ignore")) as campus:
        assert isinstance(campus.log_in("alice"), Identity)


def test_referral_of_the_base(settings: LdapSettings) -> None:
    """A base that lies in another directory (case 51)."""
    with trying(attrs.evolve(settings, user_base=f"ou=elsewhere,{BASE}")) as campus:
        answer = campus.log_in("alice")
        assert isinstance(answer, Unavailable)
        assert "referral" in answer.problem


@pytest.mark.parametrize(
    ("name", "why"),
    [("lena", Rejection.DISABLED), ("rita", Rejection.EXPIRED), ("xaver", Rejection.EXPIRED)],
)
def test_account_is_over(campus: Trying, name: str, why: Rejection) -> None:
    """Locked, must change the password, expired: refused though the password is right (cases 41 and 56)."""
    answer = campus.log_in(name)
    # slapd refuses a locked account itself, with the answer of a wrong password; the others it lets bind.
    assert answer in (Rejected(why), WRONG)
    assert campus.find(name) == Rejected(why)


def test_lockout(slapd: Slapd, settings: LdapSettings) -> None:
    """A login is one bind; the same wrong password again is none: a program that repeats it locks nobody out."""
    name = newcomer(slapd)
    with trying(settings) as campus:
        for _ in range(5 * LOCKED_AFTER):
            assert campus.log_in(name, "wrong") == WRONG
        assert slapd.binds(dn_of(name)) == 1
        assert isinstance(campus.log_in(name), Identity)
        assert slapd.binds(dn_of(name)) == 2
        for attempt in range(LOCKED_AFTER):
            assert campus.log_in(name, f"wrong {attempt}") == WRONG
        assert campus.log_in(name) == WRONG  # now slapd has locked it
        assert campus.find(name) == Rejected(Rejection.DISABLED)


def test_pool_is_never_bound_as_a_user(slapd: Slapd, settings: LdapSettings) -> None:
    """A login makes one connection for its bind and closes it; the searches go over one that is kept."""
    with trying(settings) as campus:
        campus.log_in("alice")
        before = slapd.connections()
        for _ in range(5):
            assert isinstance(campus.log_in("alice"), Identity)
        assert slapd.connections() == before + 5
        campus.log_in(newcomer(slapd), "wrong")
        assert isinstance(campus.find("bob"), Rejected)  # by our own account still


# ---- groups


def test_member_of(settings: LdapSettings) -> None:
    """The user's own list, where the overlay keeps one; groups beyond group_base are none of ours."""
    with trying(attrs.evolve(settings, membership="memberof")) as campus:
        assert campus.groups_of("alice") == {"system-proxy", "students"}
        assert campus.log_in("dave") == NOT_A_MEMBER


def test_unique_member(settings: LdapSettings) -> None:
    """GroupOfUniqueNames."""
    with trying(settings, proxy_group="unique-proxy") as campus:
        assert campus.groups_of("ursula") == {"unique-proxy"}


def test_member_uid(settings: LdapSettings) -> None:
    """PosixGroups list user names (flavour rfc2307)."""
    unix = attrs.evolve(settings, flavour="rfc2307", group_base=UNIX_GROUPS)
    with trying(unix) as campus:
        assert campus.groups_of("frank") == {"system-proxy"}
        assert campus.log_in("grace") == NOT_A_MEMBER
        assert campus.log_in("alice") == UNKNOWN  # no posixAccount


def test_nested(settings: LdapSettings) -> None:
    """Groups in groups count only if that is set; rings end."""
    with trying(settings) as campus:
        assert campus.log_in("erin") == NOT_A_MEMBER
    for membership in ("member", "memberof"):
        with trying(attrs.evolve(settings, nested_groups="walk", membership=membership)) as campus:
            assert campus.groups_of("erin") == {"staff", "system-proxy"}
            assert campus.groups_of("mia") == {"ring-a", "ring-b", "system-proxy"}
            assert campus.log_in("leo") == NOT_A_MEMBER


@pytest.mark.parametrize(("length", "inside"), [(10, True), (11, False)])
def test_depth(slapd: Slapd, settings: LdapSettings, length: int, inside: bool) -> None:
    """Ten levels above the groups that list the user, and no more."""
    base = f"ou=deep{length},{BASE}"
    slapd.add(f"dn: {base}\nobjectClass: organizationalUnit\n\n")
    uid = f"deep{length}"
    ldif = chain_of_groups(length, uid).replace(f",{GROUPS}", f",{base}")
    slapd.add(ldif + group(f"cn=system-proxy,{base}", f"cn=deep-{length},{base}"))
    with trying(attrs.evolve(settings, nested_groups="walk", group_base=base)) as campus:
        assert isinstance(campus.log_in(uid), Identity) is inside


def test_too_many_groups(slapd: Slapd, settings: LdapSettings) -> None:
    """A server that gives fewer than there are: nobody can tell which are missing, so nobody is let in.

    Whoever is no member is none, however many groups others make.
    """
    slapd.add("".join(group(f"cn=many-{number},{GROUPS}", dn_of("ursula")) for number in range(1_001)))
    with trying(settings) as campus:
        assert campus.log_in("ursula") == campus.find("ursula") == NOT_A_MEMBER
        slapd.modify(f"dn: cn=system-proxy,{GROUPS}\nchangetype: modify\nadd: member\nmember: {dn_of('ursula')}\n")
        answer = campus.log_in("ursula")
        assert isinstance(answer, Unavailable)
        assert answer.cause is Cause.AMBIGUOUS


def test_rules(settings: LdapSettings) -> None:
    """Rules of the user and of the groups, in their order, with where they are written."""
    with trying(attrs.evolve(settings, rules_attribute=RULES)) as campus:
        answer = campus.log_in("alice")
        assert isinstance(answer, Identity)
        assert set(answer.rules) == {
            EntryRules(None, dn_of("alice"), ("deny tcp:*(*)->secret.campus.example(443)", "tcp:*(*)->*(443)")),
            EntryRules(
                "students", f"cn=students,{GROUPS}", ("deny any:*(*)->*(25)", "tcp:*(*)->*.campus.example(80,443)")
            ),
        }
        assert campus.find("alice") == answer
    with trying(attrs.evolve(settings, rules_attribute=RULES, membership="memberof")) as campus:
        found = campus.find("alice")
        assert isinstance(found, Identity)
        assert set(found.rules) == set(answer.rules)
    with trying(settings) as campus:
        plain = campus.log_in("alice")
        assert isinstance(plain, Identity)
        assert plain.rules == ()


# ---- who it is, again


def test_found_without_password(campus: Trying) -> None:
    """What revalidation asks: the same person as the login's."""
    assert campus.find("alice") == campus.log_in("alice")
    assert campus.find("bob") == NOT_A_MEMBER
    assert campus.find("nobody") == UNKNOWN
    assert campus.find("*") == UNKNOWN


def test_epoch(slapd: Slapd, settings: LdapSettings) -> None:
    """Who was deleted and made anew is another person, and a new password ends what the old one began (case 43)."""
    with trying(settings) as campus:
        slapd.add(person("nora"))
        slapd.modify(f"dn: cn=system-proxy,{GROUPS}\nchangetype: modify\nadd: member\nmember: {dn_of('nora')}\n")
        first = campus.find("nora")
        time.sleep(1.1)  # pwdChangedTime counts seconds
        assert campus.find("nora") == first
        slapd.modify(f"dn: {dn_of('nora')}\nchangetype: modify\nreplace: userPassword\nuserPassword: new\n")
        assert campus.find("nora") == Rejected(Rejection.EXPIRED)  # whose password somebody else set must change it
        slapd.modify(f"dn: {dn_of('nora')}\nchangetype: modify\ndelete: pwdReset\n")
        second = campus.find("nora")
        slapd.modify(f"dn: {dn_of('nora')}\nchangetype: delete\n")
        slapd.add(person("nora"))
        slapd.modify(f"dn: cn=system-proxy,{GROUPS}\nchangetype: modify\nadd: member\nmember: {dn_of('nora')}\n")
        third = campus.find("nora")
    identities = [first, second, third]
    assert all(isinstance(identity, Identity) for identity in identities), identities
    assert len({identity.epoch for identity in identities if isinstance(identity, Identity)}) == 3


def test_removed_from_the_group(slapd: Slapd, settings: LdapSettings) -> None:
    """The directory is asked each time (case 43)."""
    slapd.add(person("paul"))
    change = f"dn: cn=system-proxy,{GROUPS}\nchangetype: modify\n%s: member\nmember: {dn_of('paul')}\n"
    with trying(settings) as campus:
        assert campus.log_in("paul") == NOT_A_MEMBER
        slapd.modify(change % "add")
        assert isinstance(campus.log_in("paul"), Identity)
        slapd.modify(change % "delete")
        assert campus.log_in("paul") == NOT_A_MEMBER
        slapd.modify(f"dn: {dn_of('paul')}\nchangetype: delete\n")
        assert campus.log_in("paul") == UNKNOWN


# ---- our own account


def test_service_account(slapd: Slapd, settings: LdapSettings, tmp_path: Path) -> None:
    """A wrong password of our own: nobody's mistake but ours, said so, and not tried again with each login."""
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    secret.chmod(0o600)
    before = slapd.binds(settings.bind_dn or "")
    with trying(attrs.evolve(settings, bind_password_file=str(secret))) as campus:
        for _ in range(10):
            answer = campus.log_in("alice")
            assert isinstance(answer, Unavailable)
            assert answer.cause is Cause.SERVICE_LOGIN
        assert "bind_password_file" in campus.failures[0].advice
    assert slapd.binds(settings.bind_dn or "") == before + 1


def test_secret_is_read_anew(settings: LdapSettings, tmp_path: Path) -> None:
    """A rotated password needs no restart; one line break at the end belongs to the file."""
    secret = tmp_path / "secret"
    secret.write_text("wrong")
    secret.chmod(0o600)
    changed = attrs.evolve(settings, bind_password_file=str(secret), wrong_password_s=0)
    with trying(changed) as campus:
        assert isinstance(campus.log_in("alice"), Unavailable)
        secret.write_text("service-secret\r\nnot this\n")
        assert isinstance(campus.log_in("alice"), Identity)


@pytest.mark.parametrize(("mode", "content"), [(0o604, "x"), (0o644, "x"), (0o602, "x"), (0o600, ""), (0o600, "\n")])
def test_secret_that_others_read(settings: LdapSettings, tmp_path: Path, mode: int, content: str) -> None:
    """A secret that is none, or no password at all, is refused at the start."""
    secret = tmp_path / "secret"
    secret.write_text(content)
    secret.chmod(mode)
    with (
        pytest.raises(OSError, match="bind_password_file"),
        trying(attrs.evolve(settings, bind_password_file=str(secret))),
    ):
        pass


def test_files_that_are_missing(settings: LdapSettings, tmp_path: Path) -> None:
    """Said at the start, by the name of the setting."""
    for name in ("ca_file", "bind_password_file"):
        missing: dict[str, Any] = {name: str(tmp_path / "missing")}
        with pytest.raises(OSError, match=rf"{name}: .*missing"), trying(attrs.evolve(settings, **missing)):
            pass


def test_what_it_may_not_see(settings: LdapSettings) -> None:
    """Without an account this server shows nothing: a user is unknown, and the step says what to look at."""
    with trying(attrs.evolve(settings, bind_dn=None, bind_password_file=None)) as campus:
        assert not isinstance(campus.log_in("alice"), Identity)
        assert "bind_dn may see" in campus.failures[0].advice


def test_bases_that_are_not_there(settings: LdapSettings) -> None:
    """A typing mistake in the configuration is unavailable, not an unknown user."""
    changes: list[dict[str, Any]] = [{"user_base": f"ou=nowhere,{BASE}"}, {"group_base": f"ou=nowhere,{BASE}"}]
    for change in changes:
        with trying(attrs.evolve(settings, **change)) as campus:
            answer = campus.log_in("alice")
            assert isinstance(answer, Unavailable)
            assert answer.cause is Cause.REFUSED
            assert "user_base and group_base" in campus.failures[-1].advice


def test_unique_id_is_needed(settings: LdapSettings) -> None:
    """An attribute that nobody has tells nobody from anybody."""
    with trying(attrs.evolve(settings, unique_id_attribute="ipaUniqueID")) as campus:
        answer = campus.log_in("alice")
        assert isinstance(answer, Unavailable)
        assert answer.cause is Cause.AMBIGUOUS
        assert "unique_id_attribute" in campus.failures[-1].advice


def test_base_of_people(settings: LdapSettings) -> None:
    """The service account is no person: it lies beyond user_base."""
    with trying(attrs.evolve(settings, user_filter="(cn={username})", username_attribute="cn")) as campus:
        assert campus.log_in("proxy", "service-secret") == UNKNOWN
    assert settings.user_base == PEOPLE
