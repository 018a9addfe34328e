"""An entry that was found, as the person who logs in: of that name, and of nobody else's."""

from typing import Final

import attrs

from auth.backend import Cause
from auth.ldap.dn import answered_dn
from auth.ldap.failure import DirectoryError
from auth.ldap.flavours import Flavour
from auth.ldap.messages import Entry
from auth.names import canonical_username

__all__ = ["Person", "person_of"]

_NOT_PEOPLE: Final = frozenset({b"alias", b"referral"})


@attrs.frozen
class Person:
    """One entry, and what tells it from any that ever was or will be.

    Attributes:
        entry: as it was found.
        unique_id: the value of `unique_id_attribute`.
        username: as the entry spells it.
    """

    entry: Entry
    unique_id: bytes
    username: bytes


def person_of(entry: Entry, profile: Flavour, username: str) -> Person | None:
    """The entry as a person of that very name; None if it has another.

    A directory finds names by looser rules than ours (Active Directory finds `jose` for `josé`), and a filter may ask
    for a mail address as well. Two names for one person would be two users here, and a rule against the one would not
    hold for the other.

    Args:
        entry: that the filter found.
        profile: of the backend.
        username: canonical.

    Raises:
        DirectoryError: it is no person, or nothing tells it from others.
    """
    dn = answered_dn(entry.dn)
    if any(value.lower() in _NOT_PEOPLE for value in entry.values("objectClass")):
        raise DirectoryError(f"{entry.dn} is an alias or a referral", Cause.AMBIGUOUS, "narrow user_filter")
    ids = entry.values(profile.unique_id_attribute)
    if len(ids) != 1 or not ids[0]:
        raise DirectoryError(
            f"{entry.dn} has {len(ids)} values of {profile.unique_id_attribute}",
            Cause.AMBIGUOUS,
            "let bind_dn read it, or set unique_id_attribute to what this directory has",
        )
    names = entry.values(profile.username_attribute)
    own = next((name for name in names if _canonical(name) == username), None)
    if own is None:
        return None
    if len(names) > 1 and dn.value_of(profile.username_attribute) != username:
        return None  # of several names only the one in the DN counts
    return Person(entry, ids[0], own)


def _canonical(name: bytes) -> str | None:
    try:
        return canonical_username(name.decode())
    except ValueError:
        return None  # nobody can log in with such a name
