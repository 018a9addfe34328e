"""The table `[auth.NAME]` of a directory, and what becomes of it once the flavour has filled the gaps."""

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from auth.ldap.dn import DN
from auth.ldap.flavours import FLAVOURS, Flavour
from auth.ldap.messages import check_filter
from auth.ldap.status import KNOWN_STATUS_ATTRIBUTES

__all__ = ["LdapSettings"]

_USERNAME: Final = "{username}"
_ATTRIBUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}", re.ASCII)
_URL: Final = re.compile(r"ldaps?://[^\s\0-\x20\x7f/?#@]+/?")
_URL_ADVICE: Final = 'write "ldaps://HOST", "ldap://HOST" (with StartTLS), or either with a port'


def _checked(check: Callable[[str], None]) -> Callable[[Any, "attrs.Attribute[Any]", str | None], None]:
    """A validator of attrs that puts the name of the setting before what is wrong; None is not looked at."""

    def validate(_instance: object, attribute: "attrs.Attribute[Any]", value: str | None) -> None:
        if value is None:
            return
        try:
            check(value)
        except ValueError as error:
            raise ValueError(f"{attribute.name}: {error}") from None

    return validate


def _one_of(*words: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        if value not in words:
            raise ValueError(f"{value!r} is none of {', '.join(words)}")

    return check


def _check_attribute(value: str) -> None:
    if not _ATTRIBUTE.fullmatch(value):
        raise ValueError(f"{value!r} is no attribute's name")


def _check_attribute_or_none(value: str) -> None:
    if value:
        _check_attribute(value)


def _check_file(value: str) -> None:
    if not value:  # of ca_file OpenSSL would make: whatever the system trusts
        raise ValueError("it names no file; leave it out if there is none")


def _check_dn(value: str) -> None:
    DN.parse(value)


def _check_user_filter(value: str) -> None:
    if _USERNAME not in value:
        raise ValueError(f"{_USERNAME} must stand where the user name belongs, or everybody would be found")
    check_filter(value.replace(_USERNAME, "alice"))


def _check_between(low: float, high: float) -> Callable[[Any, "attrs.Attribute[Any]", float], None]:
    def validate(_instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
        if not low <= value <= high:
            raise ValueError(f"{attribute.name}: {value:g} is not between {low:g} and {high:g}")

    return validate


def _check_urls(_instance: object, _attribute: "attrs.Attribute[Any]", urls: tuple[str, ...]) -> None:
    if not urls:
        raise ValueError("urls: at least one server is needed")
    for number, url in enumerate(urls):
        try:
            fits = _URL.fullmatch(url) and urlsplit(url).hostname and urlsplit(url).port != 0
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"urls[{number}]: not the URL of a directory; {_URL_ADVICE}")


def _check_status(_instance: object, _attribute: "attrs.Attribute[Any]", names: tuple[str, ...] | None) -> None:
    known = {name.lower() for name in KNOWN_STATUS_ATTRIBUTES}
    for name in names or ():
        if name.lower() not in known:
            raise ValueError(
                f"status_attributes: nobody knows what {name!r} means; known are {', '.join(KNOWN_STATUS_ATTRIBUTES)}"
            )


_DN = attrs.field(default=None, validator=_checked(_check_dn))


@attrs.frozen(kw_only=True)
class LdapSettings:
    """A directory: OpenLDAP, Active Directory, or one with RFC 2307 groups. None: as the flavour has it.

    Attributes:
        urls: the servers in the order they are asked: `ldaps://HOST` or `ldap://HOST` (StartTLS), with a port or not.
        user_base: where the people are, a DN.
        group_base: where the groups are, a DN. Every group below it may lend its name to a layer of rules.
        flavour: "openldap", "active-directory" or "rfc2307".
        ca_file: PEM of the authority that signed the certificates; left out: those that the system trusts.
        insecure_plaintext: let passwords travel readable over `ldap://`.
        bind_dn: our own account, which searches; left out: searches are anonymous.
        bind_password_file: its password in the first line; a file that others cannot read.
        user_filter: RFC 4515, with {username} where the name belongs.
        username_attribute: has the name that is logged in with; other names that the filter finds are refused.
        unique_id_attribute: stays with a person and is never given to another one.
        membership: "member" (search the groups that list the user's DN), "memberof" (the user lists its groups) or
            "memberuid" (the groups list user names).
        group_filter: what is a group.
        group_name_attribute: has the group's name.
        nested_groups: "no", "walk" (look for groups of groups, 10 levels) or "matching-rule" (Active Directory).
        proxy_group_dn: the group whose members may use the proxy; left out: `cn=PROXY_GROUP` directly below group_base.
        rules_attribute: has rules of users and groups, `trioproxyRule` of our schema; left out: there are none.
        status_attributes: which flags shut a user out.
        password_changed_attribute: live sessions end when its value changes; empty: they do not.
        search_references: "refuse" or "ignore" hints that more may be elsewhere; they are never followed.
        in_flight_max: logins asked about at once.
        connect_s: a connection, with TLS, takes no longer.
        answer_s: an answer takes no longer.
        login_s: a login takes no longer, all servers together.
        retry_failed_s: a server that failed is asked last for so long.
        wrong_password_s: a wrong password is not asked about again for so long, so that a program that tries again and
            again does not lock the account.
        revalidate_s: how often users with live sessions are looked up again.
        idle_connections_max: connections of our own account kept open to each server in quiet times.
    """

    urls: tuple[str, ...] = attrs.field(validator=_check_urls)
    user_base: str = attrs.field(validator=_checked(_check_dn))
    group_base: str = attrs.field(validator=_checked(_check_dn))
    flavour: str = attrs.field(default="openldap", validator=_checked(_one_of(*FLAVOURS)))
    ca_file: str | None = attrs.field(default=None, validator=_checked(_check_file))
    insecure_plaintext: bool = False
    bind_dn: str | None = _DN
    bind_password_file: str | None = attrs.field(default=None, validator=_checked(_check_file))
    user_filter: str | None = attrs.field(default=None, validator=_checked(_check_user_filter))
    username_attribute: str | None = attrs.field(default=None, validator=_checked(_check_attribute))
    unique_id_attribute: str | None = attrs.field(default=None, validator=_checked(_check_attribute))
    membership: str | None = attrs.field(default=None, validator=_checked(_one_of("member", "memberof", "memberuid")))
    group_filter: str | None = attrs.field(default=None, validator=_checked(check_filter))
    group_name_attribute: str = attrs.field(default="cn", validator=_checked(_check_attribute))
    nested_groups: str | None = attrs.field(default=None, validator=_checked(_one_of("no", "walk", "matching-rule")))
    proxy_group_dn: str | None = attrs.field(default=None, validator=_checked(_check_dn))
    rules_attribute: str | None = attrs.field(default=None, validator=_checked(_check_attribute))
    status_attributes: tuple[str, ...] | None = attrs.field(default=None, validator=_check_status)
    password_changed_attribute: str | None = attrs.field(default=None, validator=_checked(_check_attribute_or_none))
    search_references: str | None = attrs.field(default=None, validator=_checked(_one_of("refuse", "ignore")))
    # Each holds a thread, mostly waiting. Seven round trips make a login: 200 at once with a directory 200 ms away are
    # done in 3 s this way, before anybody gives up.
    in_flight_max: int = attrs.field(default=128, validator=_check_between(1, 256))
    connect_s: float = attrs.field(default=3.0, validator=_check_between(0.1, 60))
    answer_s: float = attrs.field(default=3.0, validator=_check_between(0.1, 60))
    login_s: float = attrs.field(default=5.0, validator=_check_between(0.1, 60))
    retry_failed_s: float = attrs.field(default=30.0, validator=_check_between(0, 3600))
    wrong_password_s: float = attrs.field(default=5.0, validator=_check_between(0, 60))
    revalidate_s: float = attrs.field(default=60.0, validator=_check_between(1, 3600))
    idle_connections_max: int = attrs.field(default=8, validator=_check_between(0, 64))

    def __attrs_post_init__(self) -> None:
        if (self.bind_dn is None) != (self.bind_password_file is None):
            raise ValueError("bind_dn and bind_password_file belong together: write both, or neither")
        if self.proxy_group_dn is not None and not DN.parse(self.proxy_group_dn).is_below(DN.parse(self.group_base)):
            raise ValueError("proxy_group_dn: it lies outside group_base, where nobody looks, so nobody is a member")
        if not self.insecure_plaintext:
            return
        if all(url.startswith("ldaps://") for url in self.urls):
            raise ValueError("insecure_plaintext: every server in urls is ldaps://, so it would say nothing; remove it")

    def profile(self) -> Flavour:
        """The flavour with what is set here in its place.

        Raises:
            ValueError: settings that are each right do not go together.
        """
        names = [field.name for field in attrs.fields(Flavour)]
        profile = attrs.evolve(
            FLAVOURS[self.flavour], **{name: value for name in names if (value := getattr(self, name)) is not None}
        )
        if profile.nested_groups == "matching-rule" and profile.membership != "member":
            raise ValueError('nested_groups: "matching-rule" needs membership = "member"')
        if profile.nested_groups == "walk" and profile.membership == "memberuid":
            raise ValueError('nested_groups: groups that list user names cannot list groups; write "no"')
        return profile
