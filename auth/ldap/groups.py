"""Which groups somebody is in, and by which name a group goes here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

import attrs

from auth.backend import Cause, EntryRules
from auth.ldap.dn import DN, answered_dn, escaped_in_dn
from auth.ldap.failure import DirectoryError
from auth.ldap.flavours import Flavour
from auth.ldap.messages import Entry, Search, escaped
from auth.ldap.rules import rules_of
from auth.ldap.settings import LdapSettings
from auth.names import canonical_group

__all__ = ["GroupFinder", "Groups", "Look"]

GROUPS_MAX: Final = 1_000  # as many as Active Directory gives in one answer
DEPTH_MAX: Final = 10
_AT_ONCE: Final = 50  # names in one filter: some 10 KB
_NAME_ADVICE: Final = 'none of / : , " \\, one value, and not that of the proxy group'
_SHOWN_MAX: Final = 100  # characters of a name that is none
_IN_CHAIN: Final = "1.2.840.113556.1.4.1941"  # Active Directory's matching rule for groups in groups


class Look(Protocol):
    """Searches, and refuses what is no plain answer."""

    def __call__(self, search: Search, /, *, may_be_missing: bool = False) -> Sequence[Entry]:
        """What was found; if the base may be missing, nothing for one that is."""
        ...


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
        admits_nonmembers: the groups of somebody who is not in it matter, too.

    Raises:
        ValueError: the proxy group's name can be in no distinguished name.
    """

    def __init__(
        self, settings: LdapSettings, profile: Flavour, proxy_group: str, *, admits_nonmembers: bool = False
    ) -> None:
        self._profile = profile
        self._admits_nonmembers = admits_nonmembers
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
        """All groups of a user; fewer, or none, of one who may not use the proxy.

        Whether somebody is in the proxy group is settled before anything else: what is wrong with another group, which
        others may write, keeps nobody in who was removed.

        Args:
            user: the entry, with `user_attributes`.
            username: as the entry spells it.
            look: searches, and refuses what is no plain answer.

        Raises:
            DirectoryError: there is no answer, or there are too many groups.
        """
        if not (self._admits_nonmembers or self._may_be_member(user, username, look)):
            look(self._base_itself())  # a base that is gone is a mistake of ours, and throws nobody out
            return Groups(frozenset(), (), ())
        passed_over: list[str] = []
        match self._profile.membership:
            case "memberof":
                found = self._listed_by(user, look, passed_over)
            case "memberuid":
                found = self._readable(look(self._search([f"(memberUid={escaped(username)})"])), passed_over)
            case _:
                found = self._readable(look(self._search(self._with_member(user.dn))), passed_over)
        if self._profile.nested_groups == "walk":
            self._walk(found, look, passed_over)
        if len(found) > GROUPS_MAX:
            raise _too_many_groups()
        return self._named(found, passed_over)

    def _may_be_member(self, user: Entry, username: bytes, look: Look) -> bool:
        """False if nothing but the proxy group itself says that the user is not in it; True where more must be asked.

        Groups of groups are looked for from the user upwards, so there nothing less than all of them can tell.
        """
        if self._profile.nested_groups == "walk":
            return True
        match self._profile.membership:
            case "memberof":
                names = (_parsed(value) for value in user.values("memberOf"))
                return _lists_a_part(user) or self.proxy_group_dn in names
            case "memberuid":
                terms = [f"(memberUid={escaped(username)})"]
            case _:
                terms = self._with_member(user.dn)
        search = attrs.evolve(self._search(terms), base=self.proxy_group_dn.text, subtree=False, size_limit=1)
        return bool(look(search, may_be_missing=True))

    def _listed_by(self, user: Entry, look: Look, passed_over: list[str]) -> dict[DN, Entry]:
        """The groups that the user's entry lists."""
        if _lists_a_part(user):
            raise DirectoryError(
                "the entry lists a part of its groups only", Cause.AMBIGUOUS, 'set membership = "member"'
            )
        values = user.values("memberOf")
        below = [name for name in map(_parsed, values) if name is not None and name.is_below(self._base)]
        unreadable = [_shown(value) for value in values if _parsed(value) is None]
        passed_over += [f"{name} (it is no distinguished name)" for name in unreadable]
        if self._rules_attribute is None:
            return {name: Entry(name.text, {}) for name in below}
        if unreadable:
            raise DirectoryError(
                f"the entry lists a group whose rules cannot be read: {unreadable[0]} is no distinguished name",
                Cause.AMBIGUOUS,
                "look at the groups of this user",
            )
        wanted = dict.fromkeys(below)
        if len(wanted) > GROUPS_MAX:
            raise _too_many_groups()
        found: dict[DN, Entry] = {}
        values_of = {name: name.value_of(self._name_attribute) for name in wanted}
        for some in _portions([name for name, value in values_of.items() if value is not None]):
            terms = [f"({self._name_attribute}={escaped(values_of[name] or '')})" for name in some]
            named = ((_parsed(entry.dn), entry) for entry in look(self._search(terms)))  # namesakes among them
            found |= {name: entry for name, entry in named if name is not None and name in wanted}
        for name in wanted:
            if name not in found:  # its DN begins with another attribute, or spells it in its own way
                itself = look(self._itself(name), may_be_missing=True)
                if itself:
                    found[name] = itself[0]
                else:
                    passed_over.append(f"{name.text} (group_filter does not find it)")
        return found

    def _itself(self, name: DN) -> Search:
        return attrs.evolve(self._search([self._profile.group_filter]), base=name.text, subtree=False, size_limit=1)

    def _readable(self, entries: Iterable[Entry], passed_over: list[str]) -> dict[DN, Entry]:
        """Entries by their names. One whose name cannot be read is passed over.

        Raises:
            DirectoryError: it holds a deny.
        """
        found: dict[DN, Entry] = {}
        for entry in entries:
            name = _parsed(entry.dn)
            if name is not None:
                found[name] = entry
                continue
            self._refuse_unheard(entry)
            passed_over.append(f"{_shown(entry.dn)} (it is no distinguished name)")
        return found

    def _refuse_unheard(self, entry: Entry) -> None:
        """A group that has no name here has no layer either, so what it denies would be allowed.

        Raises:
            DirectoryError: it denies something.
        """
        own = rules_of(entry, self._rules_attribute, None)
        if own is not None and any(text.startswith("deny") for text in own.texts):
            raise DirectoryError(
                f"the group {_shown(entry.dn)} denies something, but has no name here",
                Cause.AMBIGUOUS,
                f"give it another name: {_NAME_ADVICE}",
            )

    def _walk(self, found: dict[DN, Entry], look: Look, passed_over: list[str]) -> None:
        """Add the groups of the groups, level by level; whoever was seen is not asked again, so a ring ends."""
        level = list(found)
        for _ in range(DEPTH_MAX):
            above: dict[DN, Entry] = {}
            for some in _portions(level):
                members = [term for name in some for term in self._with_member(name.text)]
                entries = self._readable(look(self._search(members)), passed_over)
                above |= {name: entry for name, entry in entries.items() if name not in found}
                if len(found) + len(above) > GROUPS_MAX:
                    raise _too_many_groups()
            if not above:
                return
            found |= above
            level = list(above)

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

    def _base_itself(self) -> Search:
        return Search(self._base.text, "(objectClass=*)", ("objectClass",), 1, subtree=False)

    def _named(self, found: Mapping[DN, Entry], passed_over: list[str]) -> Groups:
        with_rules = self._admits_nonmembers or self.proxy_group_dn in found
        names: set[str] = set()
        rules: list[EntryRules] = []
        for dn, entry in sorted(found.items(), key=lambda item: item[1].dn):
            try:
                name = self._name(dn, entry)
            except ValueError as error:
                if with_rules:
                    self._refuse_unheard(entry)
                passed_over.append(f"{entry.dn} ({error})")
                continue
            names.add(name)
            own = rules_of(entry, self._rules_attribute, name) if with_rules else None
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


def _parsed(name: str | bytes) -> DN | None:
    try:
        return answered_dn(name)
    except DirectoryError:
        return None


def _shown(name: str | bytes) -> str:
    text = name if isinstance(name, str) else name.decode(errors="backslashreplace")
    return repr(text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}...")


def _lists_a_part(user: Entry) -> bool:
    return any(name.startswith("memberof;") for name in user.attributes)


def _too_many_groups() -> DirectoryError:
    return DirectoryError(f"more than {GROUPS_MAX} groups", Cause.AMBIGUOUS, "narrow group_base or group_filter")


def _portions(names: Sequence[DN]) -> Iterable[Sequence[DN]]:
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))
