"""What differs between the directories of the field. Each flavour is a set of defaults, every one of them a setting."""

from collections.abc import Mapping
from typing import Final

import attrs

__all__ = ["FLAVOURS", "Flavour"]


@attrs.frozen
class Flavour:
    """Defaults for the settings of the same names."""

    user_filter: str
    username_attribute: str
    unique_id_attribute: str
    membership: str
    group_filter: str
    nested_groups: str
    status_attributes: tuple[str, ...]
    password_changed_attribute: str
    search_references: str


FLAVOURS: Final[Mapping[str, Flavour]] = {
    "openldap": Flavour(
        user_filter="(uid={username})",
        username_attribute="uid",
        unique_id_attribute="entryUUID",
        membership="member",  # needs no overlay
        group_filter="(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames))",
        nested_groups="no",
        status_attributes=("pwdAccountLockedTime", "pwdReset", "pwdStartTime", "pwdEndTime", "shadowExpire"),
        password_changed_attribute="pwdChangedTime",  # noqa: S106 - an attribute
        search_references="refuse",
    ),
    "active-directory": Flavour(
        user_filter="(&(objectCategory=person)(objectClass=user)(sAMAccountName={username}))",
        username_attribute="sAMAccountName",
        unique_id_attribute="objectGUID",
        membership="member",
        group_filter="(objectClass=group)",
        nested_groups="matching-rule",
        status_attributes=(
            "userAccountControl",
            "msDS-User-Account-Control-Computed",
            "accountExpires",
            "pwdLastSet",
        ),
        password_changed_attribute="pwdLastSet",  # noqa: S106 - as above
        search_references="ignore",  # it adds three of them to whatever is found below the domain
    ),
    "rfc2307": Flavour(
        user_filter="(&(objectClass=posixAccount)(uid={username}))",
        username_attribute="uid",
        unique_id_attribute="entryUUID",
        membership="memberuid",
        group_filter="(objectClass=posixGroup)",
        nested_groups="no",
        status_attributes=("shadowExpire", "nsAccountLock", "krbPrincipalExpiration", "krbPasswordExpiration"),
        password_changed_attribute="shadowLastChange",  # noqa: S106 - as above
        search_references="refuse",
    ),
}
