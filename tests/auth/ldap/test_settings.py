"""The table `[auth.NAME]`: what is wrong with it is said by the name of the setting."""

from typing import Any

import attrs
import pytest

from auth.ldap import LdapSettings
from auth.ldap.flavours import FLAVOURS, Flavour
from auth.ldap.status import KNOWN_STATUS_ATTRIBUTES

LEAST: dict[str, Any] = {
    "urls": ("ldaps://ldap.example.org",),
    "user_base": "ou=people,dc=example,dc=org",
    "group_base": "ou=groups,dc=example,dc=org",
}
# For each setting that can be wrong on its own.
WRONG: dict[str, list[Any]] = {
    "user_base": ["", "people", "ou=people,,dc=x", "ou=people;dc=x", "ou=a+ou=b", 'ou="a"'],
    "group_base": ["", "groups", "ou=groups,"],
    "bind_dn": ["", "admin", "admin@example.org", "EXAMPLE\\admin"],
    "proxy_group_dn": ["", "system-proxy", "system-proxy,ou=groups", "cn=system-proxy,ou=other,dc=example,dc=org"],
    "flavour": ["", "OpenLDAP", "ad", "freeipa"],
    "ca_file": [""],
    "bind_password_file": [""],
    "membership": ["", "Member", "memberOf", "group"],
    "nested_groups": ["", "yes", "true", "Walk"],
    "search_references": ["", "follow", "Refuse"],
    "group_filter": ["", "objectClass=group", "(objectClass=group", "(a=b)(c=d)", "(a=\\zz)", "(a=**)", "(!" * 2000],
    "user_filter": [
        "",
        "(uid=alice)",
        "(uid={user})",
        "(uid=%s)",
        "uid={username}",
        "{username}",
        "(uid={username}",
        "(uid={username}))",
        "(&(uid={username})",
        "(uid=\\{username})",
    ],
    "username_attribute": ["", "u id", "uid=", "*", "+", "uid;x", "1uid", "uid\n", "\u00fcid", "a" * 65],
    "unique_id_attribute": ["", "1.1", "entry_uuid"],
    "group_name_attribute": ["", "c n", "cn,ou"],
    "rules_attribute": ["", "trioproxy rule", "*"],
    "password_changed_attribute": [" ", "pwd changed", "pwdChangedTime,x", "*"],
    "in_flight_max": [0, -1, 257],
    "connect_s": [0, 0.05, -1, 61, float("nan"), float("inf")],
    "answer_s": [0, 0.05, 61, float("nan")],
    "login_s": [0, 0.05, 61, float("nan")],
    "retry_failed_s": [-1, 3601, float("nan")],
    "wrong_password_s": [-0.1, 61, float("nan")],
    "revalidate_s": [0, 0.5, 3601],
    "idle_connections_max": [-1, 65],
}


def settings_with(**changes: Any) -> LdapSettings:
    """The least there must be, and something more."""
    return LdapSettings(**{**LEAST, **changes})


def test_the_least() -> None:
    """Servers and two places are enough; nothing is allowed that was not asked for."""
    settings = settings_with()
    assert (settings.flavour, settings.insecure_plaintext, settings.ca_file, settings.bind_dn) == (
        "openldap",
        False,
        None,
        None,
    )
    assert settings.profile() == FLAVOURS["openldap"]
    assert (settings.connect_s, settings.answer_s, settings.login_s) == (3.0, 3.0, 5.0)
    assert (settings.retry_failed_s, settings.wrong_password_s, settings.revalidate_s) == (30.0, 5.0, 60.0)
    assert (settings.in_flight_max, settings.idle_connections_max) == (128, 8)


@pytest.mark.parametrize("name", LEAST)
def test_what_must_be(name: str) -> None:
    """Where the servers are and where the people are cannot be guessed."""
    with pytest.raises(TypeError, match=name):
        LdapSettings(**{key: value for key, value in LEAST.items() if key != name})


# ---- servers


@pytest.mark.parametrize(
    "url",
    [
        "ldaps://ldap.example.org",
        "ldap://ldap.example.org",
        "ldaps://ldap.example.org:3269",
        "ldaps://ldap.example.org/",
        "ldap://10.0.0.1:389",
        "ldaps://[2001:db8::1]",
        "ldaps://[2001:db8::1]:636/",
        "ldaps://[fe80::1%eth0]:636",
        "ldaps://localhost",
        "ldaps://LDAP.Example.ORG",
        "ldaps://verzeichnis.k\u00f6ln.example",
        "ldaps://h:65535",
        "ldaps://h:",
    ],
)
def test_urls(url: str) -> None:
    """A host by name or by address, with a port or not."""
    assert settings_with(urls=(url,)).urls == (url,)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ldap.example.org",
        "ldap.example.org:636",
        "//ldap.example.org",
        "ldaps:",
        "ldaps://",
        "ldaps:///dc=example",
        "ldaps:ldap.example.org",
        "ldaps:/ldap.example.org",
        "http://ldap.example.org",
        "ldapi://%2fvar%2frun%2fldapi",
        "cldap://ldap.example.org",
        "LDAPS://ldap.example.org",
        "ldaps://user@ldap.example.org",
        "ldaps://user:secret@ldap.example.org",
        "ldaps://@ldap.example.org",
        "ldaps://:@ldap.example.org",
        "ldaps://ldap.example.org/dc=example,dc=org",
        "ldaps://ldap.example.org//",
        "ldaps://ldap.example.org?cn",
        "ldaps://ldap.example.org/?",
        "ldaps://ldap.example.org#",
        "ldaps://ldap.example.org:0",
        "ldaps://ldap.example.org:65536",
        "ldaps://ldap.example.org:-1",
        "ldaps://ldap.example.org:ldaps",
        "ldaps://ldap.example.org:636:636",
        "ldaps://:636",
        "ldaps://[2001:db8::1",
        "ldaps://2001:db8::1",
        "ldaps://[]",
        "ldaps://ldap1.example.org ldaps://ldap2.example.org",
        "ldaps://ldap1 .example.org",
        " ldaps://ldap.example.org",
        "ldaps://ldap.example.org\n",
        "ldaps://ld\tap.example.org",
        "ldaps://ldap\0.example.org",
        "ldaps://ldap\x7f.example.org",
    ],
)
def test_wrong_urls(url: str) -> None:
    """Anything else is refused with its place in the list, and without repeating it: there may be a password in it."""
    with pytest.raises(ValueError, match=r"^urls\[1\]: not the URL of a directory; write \"ldaps://HOST\"") as caught:
        settings_with(urls=("ldaps://ldap.example.org", url))
    assert "secret" not in str(caught.value)


def test_no_urls() -> None:
    """A directory without servers lets nobody in, and would say so at every login."""
    with pytest.raises(ValueError, match=r"^urls: "):
        settings_with(urls=())


# ---- values


@pytest.mark.parametrize(("name", "values"), WRONG.items())
def test_wrong_values(name: str, values: list[Any]) -> None:
    """Every wrong value is found when it is read, and named."""
    for value in values:
        with pytest.raises(ValueError, match=f"^{name}: "):
            settings_with(**{"bind_password_file": "x" if name == "bind_dn" else None, name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("in_flight_max", [1, 256]),
        ("connect_s", [0.1, 60]),
        ("retry_failed_s", [0, 3600]),
        ("wrong_password_s", [0, 60]),
        ("revalidate_s", [1, 3600]),
        ("idle_connections_max", [0, 64]),
        ("user_base", ["dc=x", "OU=People, DC=x", "ou=R\\,D,dc=x"]),
        ("user_filter", ["(|(uid={username})(mail={username}))", "(&(uid={username})(!(loginShell=/bin/false)))"]),
        ("status_attributes", [(), ("pwdReset",), ("PWDRESET", "nsaccountlock"), KNOWN_STATUS_ATTRIBUTES]),
        ("password_changed_attribute", ["", "pwdChangedTime"]),
        ("rules_attribute", ["trioproxyRule", "msDS-cloudExtensionAttribute1"]),
        ("proxy_group_dn", ["cn=Proxy,ou=groups,dc=example,dc=org"]),
    ],
)
def test_right_values(name: str, values: list[Any]) -> None:
    """The edges belong to what is allowed."""
    for value in values:
        assert getattr(settings_with(**{name: value}), name) == value


def test_every_setting_is_tested() -> None:
    """A setting that is added is found wrong here or elsewhere, or has no wrong value."""
    elsewhere = {"urls", "status_attributes", "insecure_plaintext"}
    assert {field.name for field in attrs.fields(LdapSettings)} == {*WRONG, *elsewhere}


@pytest.mark.parametrize("names", [("pwdAccountLockedtim",), ("pwdReset", ""), ("loginShell",)])
def test_unknown_flags(names: tuple[str, ...]) -> None:
    """A flag that nobody can read would let everybody in; the known ones are listed."""
    with pytest.raises(ValueError, match=r"^status_attributes: nobody knows what '.*' means; known are pwdAccount"):
        settings_with(status_attributes=names)


@pytest.mark.parametrize("given", [{"bind_dn": "cn=svc,dc=x"}, {"bind_password_file": "/etc/secret"}])
def test_account_without_password(given: dict[str, str]) -> None:
    """With a name and no password it would be an anonymous bind (case 47)."""
    with pytest.raises(ValueError, match=r"^bind_dn and bind_password_file belong together"):
        settings_with(**given)
    both = {"bind_dn": "cn=svc,dc=x", "bind_password_file": "/etc/secret"}
    assert settings_with(**both).bind_dn == "cn=svc,dc=x"


def test_plaintext_where_there_is_none() -> None:
    """Whoever writes it believes that it does something."""
    with pytest.raises(ValueError, match=r"^insecure_plaintext: "):
        settings_with(insecure_plaintext=True)
    urls = ("ldaps://a", "ldap://b")
    assert settings_with(urls=urls, insecure_plaintext=True).insecure_plaintext


# ---- flavours


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_flavour_is_complete(flavour: str) -> None:
    """A flavour is made of settings, right ones, that go together."""
    profile = settings_with(flavour=flavour).profile()
    assert profile == FLAVOURS[flavour]
    values = attrs.asdict(profile, recurse=False)
    assert None not in values.values()
    assert settings_with(**values).profile() == profile


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user_filter", "(mail={username})"),
        ("username_attribute", "mail"),
        ("unique_id_attribute", "ipaUniqueID"),
        ("group_filter", "(objectClass=*)"),
        ("status_attributes", ()),
        ("password_changed_attribute", ""),
        ("search_references", "ignore"),
        ("search_references", "refuse"),
    ],
)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_setting_wins_over_its_flavour(flavour: str, name: str, value: Any) -> None:
    """What is set counts, also if it is nothing, and changes nothing else."""
    profile = settings_with(flavour=flavour, **{name: value}).profile()
    assert attrs.evolve(FLAVOURS[flavour], **{name: value}) == profile


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("membership", ["member", "memberof", "memberuid"])
@pytest.mark.parametrize("nested", ["no", "walk", "matching-rule"])
def test_what_goes_together(flavour: str, membership: str, nested: str) -> None:
    """Groups that list user names list no groups; Active Directory's rule works on `member`; all else goes."""
    settings = settings_with(flavour=flavour, membership=membership, nested_groups=nested)
    if (nested, membership) in {("matching-rule", "memberof"), ("matching-rule", "memberuid"), ("walk", "memberuid")}:
        with pytest.raises(ValueError, match=r"^nested_groups: "):
            settings.profile()
    else:
        profile = settings.profile()
        assert isinstance(profile, Flavour)
        assert (profile.membership, profile.nested_groups) == (membership, nested)


def test_active_directory_by_memberof() -> None:
    """Its flavour searches with the matching rule, so one setting needs the other, and the message says which."""
    with pytest.raises(ValueError, match='needs membership = "member"'):
        settings_with(flavour="active-directory", membership="memberof").profile()
