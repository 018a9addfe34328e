"""Rules that an entry holds, in an order: the values of an attribute have none (RFC 4512 section 2.2)."""

import re
from typing import Final

from auth.backend import Cause, EntryRules
from auth.ldap.failure import DirectoryError
from auth.ldap.messages import Entry

__all__ = ["RULES_MAX", "rules_of"]

# Each is asked one after the other on every verdict.
RULES_MAX: Final = 256

_NUMBERED: Final = re.compile(r"\{(\d{1,9})\}(.*)", re.ASCII | re.DOTALL)  # as OpenLDAP numbers ordered values
_LAST: Final = 10**9


def rules_of(entry: Entry, attribute: str | None, group: str | None) -> EntryRules | None:
    """What the entry says; None if it says nothing.

    Those that begin with `{N}` come first, by their number. Among equals, denies come before what allows, so that no
    order in which a directory happens to answer widens anything.

    Args:
        entry: of a user or a group.
        attribute: that holds the rules.
        group: whose they are; None: the user's own.

    Raises:
        DirectoryError: there are too many, or only some of them came; one that is left out might be a deny.
    """
    if attribute is None:
        return None
    if any(name.startswith(f"{attribute.lower()};") for name in entry.attributes):
        raise DirectoryError(
            f"{entry.dn} has rules with an option, as `range=`, perhaps a part of them only",
            Cause.AMBIGUOUS,
            f"write rules into {attribute} without options, and not more than {RULES_MAX}",
        )
    values = entry.values(attribute)
    if not values:
        return None
    if len(values) > RULES_MAX:
        raise DirectoryError(
            f"{len(values)} rules in {entry.dn}, at most {RULES_MAX} are asked",
            Cause.AMBIGUOUS,
            "keep long lists with the proxy (trioproxy rule add), where they are indexed",
        )
    numbered = sorted(_numbered(value.decode(errors="backslashreplace").strip()) for value in values)
    return EntryRules(group, entry.dn, tuple(text for _, _, text in numbered))


def _numbered(value: str) -> tuple[int, bool, str]:
    found = _NUMBERED.fullmatch(value)
    number, text = (int(found[1]), found[2].strip()) if found else (_LAST, value)
    return number, not text.startswith("deny"), text
