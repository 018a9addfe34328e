"""Which groups somebody is in, and by which name a group goes here."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from auth.backend import Cause, EntryRules
from auth.ldap.dn import DN, answered_dn, escaped_in_dn
from auth.ldap.failure import DirectoryError
from auth.ldap.flavours import Flavour
from auth.ldap.messages import Entry, Search, escaped
from auth.ldap.rules import rules_of
from auth.ldap.settings import LdapSettings
from auth.names import canonical_group

__all__ = ["GroupFinder", "Groups"]

GROUPS_MAX: Final = 1_000  # as many as Active Directory gives in one answer
DEPTH_MAX: Final = 10
_AT_ONCE: Final = 50  # names in one filter: some 10 KB
_IN_CHAIN: Final = "1.2.840.113556.1.4.1941"  # Active Directory's matching rule for groups in groups

Look = Callable[[Search], Sequence[Entry]]


@attrs.frozen
class Groups:
    """What was found.

    Attributes:
        names: canonical.
        rules: of those groups that have any.
        passed_over: groups that have no name here, each with the reason.
    """

    names: frozenset[str]
    rules: tuple[EntryRules, ...]
    passed_over: tuple[str, ...]


class GroupFinder:
    """Finds groups as the settings say.

    Args:
        settings: of the backend.
        profile: the flavour, completed.
        proxy_group: the canonical name of the group that `proxy_group_dn` is.

    Raises:
        ValueError: the proxy group's name can be in no distinguished name.
    """

    def __init__(self, settings: LdapSettings, profile: Flavour, proxy_group: str) -> None:
        self._profile = profile
        self._base = DN.parse(settings.group_base)
        self._name_attribute = settings.group_name_attribute
        self._rules_attribute = settings.rules_attribute
        self._proxy_group = canonical_group(proxy_group)
        self.proxy_group_dn = DN.parse(
            settings.proxy_group_dn or f"{self._name_attribute}={escaped_in_dn(proxy_group)},{settings.group_base}"
        )

    @property
    def user_attributes(self) -> tuple[str, ...]:
        """What the user's entry has to bring."""
        return ("memberOf",) if self._profile.membership == "memberof" else ()

    def find(self, user: Entry, username: bytes, look: Look) -> Groups:
        """All groups of a user.

        Args:
            user: the entry, with `user_attributes`.
            username: as the entry spells it.
            look: searches, and refuses what is no plain answer.

        Raises:
            DirectoryError: there is no answer, or there are too many groups.
        """
        match self._profile.membership:
            case "memberof":
                entries = self._listed_by(user, look)
            case "memberuid":
                entries = look(self._search([f"(memberUid={escaped(username)})"]))
            case _:
                entries = look(self._search(self._with_member(user.dn)))
        found = {answered_dn(entry.dn): entry for entry in entries}
        if self._profile.nested_groups == "walk":
            self._walk(found, look)
        if len(found) > GROUPS_MAX:
            raise DirectoryError(f"more than {GROUPS_MAX} groups", Cause.AMBIGUOUS, "narrow group_base or group_filter")
        return self._named(found.items())

    def _listed_by(self, user: Entry, look: Look) -> Sequence[Entry]:
        """The groups that the user's entry lists."""
        if any(name.startswith("memberof;") for name in user.attributes):
            raise DirectoryError(
                "the entry lists a part of its groups only", Cause.AMBIGUOUS, 'set membership = "member"'
            )
        names = [answered_dn(value) for value in user.values("memberOf")]
        below = [name for name in names if name.is_below(self._base)]
        if self._rules_attribute is None:
            return [Entry(name.text, {}) for name in below]
        entries: list[Entry] = []
        for some in _portions(below):
            kinds = [(self._name_attribute, name.value_of(self._name_attribute) or "") for name in some]
            entries += look(self._search([f"({kind}={escaped(value)})" for kind, value in kinds]))
        wanted = set(below)
        return [entry for entry in entries if answered_dn(entry.dn) in wanted]

    def _walk(self, found: dict[DN, Entry], look: Look) -> None:
        """Add the groups of the groups, level by level; whoever was seen is not asked again, so a ring ends."""
        level = list(found)
        for _ in range(DEPTH_MAX):
            above: dict[DN, Entry] = {}
            for some in _portions(level):
                members = [term for name in some for term in self._with_member(name.text)]
                above |= {answered_dn(entry.dn): entry for entry in look(self._search(members))}
            level = [name for name in above if name not in found]
            if not level or len(found) > GROUPS_MAX:
                return
            found |= {name: above[name] for name in level}

    def _with_member(self, dn: str) -> list[str]:
        value = escaped(dn)
        if self._profile.nested_groups == "matching-rule":
            return [f"(member:{_IN_CHAIN}:={value})"]
        return [f"(member={value})", f"(uniqueMember={value})"]

    def _search(self, terms: Sequence[str]) -> Search:
        attributes = [self._name_attribute] + ([self._rules_attribute] if self._rules_attribute else [])
        return Search(
            self._base.text, f"(&{self._profile.group_filter}(|{''.join(terms)}))", tuple(attributes), GROUPS_MAX
        )

    def _named(self, found: Iterable[tuple[DN, Entry]]) -> Groups:
        names: set[str] = set()
        rules: list[EntryRules] = []
        passed_over: list[str] = []
        for dn, entry in sorted(found, key=lambda item: item[1].dn):
            try:
                name = self._name(dn, entry)
            except ValueError as error:
                passed_over.append(f"{entry.dn} ({error})")
                continue
            names.add(name)
            own = rules_of(entry, self._rules_attribute, name)
            if own is not None:
                rules.append(own)
        return Groups(frozenset(names), tuple(rules), tuple(passed_over))

    def _name(self, dn: DN, entry: Entry) -> str:
        """The canonical name of a group.

        Raises:
            ValueError: it has none.
        """
        if dn == self.proxy_group_dn:
            return self._proxy_group
        value = dn.value_of(self._name_attribute)
        if value is None:
            values = entry.values(self._name_attribute)
            if len(values) != 1:
                raise ValueError(f"it has {len(values)} values of {self._name_attribute}")
            value = values[0].decode(errors="backslashreplace")
        name = canonical_group(value)
        if name == self._proxy_group:
            raise ValueError(f"it is called {name}, but the proxy group is {self.proxy_group_dn.text}")
        return name


def _portions(names: Sequence[DN]) -> Iterable[Sequence[DN]]:
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))
