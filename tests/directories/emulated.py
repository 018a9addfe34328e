"""Directories in memory, as scripts for the scripted server: a plain one, Active Directory's ways, FreeIPA's ways.

What is emulated is what a proxy meets: entries, filters, results, references, diagnostics. Access control is not.
Several connections may ask at once; a test that changes entries meanwhile replaces them whole.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final
from uuid import uuid4

from tests.directories.filters import Attributes, Matcher
from tests.directories.messages import (
    Kind,
    Message,
    Request,
    bind_result,
    entry,
    extended_result,
    reference,
    search_done,
)
from tests.directories.scripted import Reply

__all__ = ["AD_BASE", "IPA_BASE", "ActiveDirectory", "FreeIPA", "MemoryDirectory", "filetime"]

AD_BASE: Final = "DC=ad,DC=campus,DC=example"
IPA_BASE: Final = "dc=ipa,dc=campus,dc=example"

_INVALID_CREDENTIALS, _UNWILLING_TO_PERFORM, _NO_SUCH_OBJECT, _OPERATIONS_ERROR, _SIZE_LIMIT = 49, 53, 32, 1, 4

_RANGE: Final = re.compile(r"(.+);range=(\d+)-\*", re.IGNORECASE)  # [MS-ADTS] 3.1.1.3.1.3.3

_FILETIME_EPOCH: Final = datetime(1601, 1, 1, tzinfo=UTC)
NEVER: Final = 0x7FFF_FFFF_FFFF_FFFF


class MemoryDirectory:
    """A directory of a few entries.

    Attributes:
        base: the DN above everything.
        on_bind: called with the DN before a bind is answered: something happens between a search and its bind.
        on_bound: the same with the answer on its way: something happens between a bind and what follows.
    """

    operational: ClassVar[frozenset[str]] = frozenset({"entryuuid", "memberof"})

    def __init__(self, base: str) -> None:
        self.base = base
        self.on_bind: Callable[[str], None] = lambda _dn: None
        self.on_bound: Callable[[str], None] = lambda _dn: None
        self._entries: dict[str, tuple[str, dict[str, list[bytes]]]] = {}
        self._passwords: dict[str, bytes] = {}
        self._bound: dict[int, str] = {}  # by connection
        self.add(base, {"objectClass": ["domain"]})

    # ---- what is in it

    def add(self, dn: str, attributes: Mapping[str, Iterable[str | bytes]], password: str | None = None) -> str:
        """Add an entry, or put another one in its place; its DN."""
        values = {name: [value.encode() if isinstance(value, str) else value for value in listed]
                  for name, listed in attributes.items()}  # fmt: skip
        self._entries[dn.lower()] = (dn, values)
        if password is not None:
            self._passwords[dn.lower()] = password.encode()
        return dn

    def set(self, dn: str, attribute: str, *values: str | bytes) -> None:
        """Give an attribute these values and no others; without values it is gone."""
        name, attributes = self._entries[dn.lower()]
        kept: dict[str, Iterable[str | bytes]] = {key: listed for key, listed in attributes.items() if key != attribute}
        self.add(name, {**kept, **({attribute: values} if values else {})})

    def get(self, dn: str, attribute: str) -> list[bytes]:
        """The values of an attribute."""
        return list(self._entries[dn.lower()][1].get(attribute, ()))

    def remove(self, dn: str) -> None:
        """Take an entry away."""
        del self._entries[dn.lower()]
        self._passwords.pop(dn.lower(), None)

    def join(self, group: str, *members: str) -> None:
        """Make somebody a member; memberOf follows."""
        for member in members:
            self.set(group, "member", *self.get(group, "member"), member)
            self.set(member, "memberOf", *self.get(member, "memberOf"), group)

    def leave(self, group: str, *members: str) -> None:
        """Make somebody a member no more."""
        for member in members:
            self.set(group, "member", *(value for value in self.get(group, "member") if value != member.encode()))
            self.set(member, "memberOf", *(value for value in self.get(member, "memberOf") if value != group.encode()))

    # ---- what it answers

    def __call__(self, request: Request) -> Reply:
        """The answer, as the script of a server."""
        match request.kind:
            case Kind.BIND:
                return self._answer_bind(request)
            case Kind.SEARCH:
                return self._answer_search(request)
            case _:
                return [extended_result(2, "unsupported")]

    def _answer_bind(self, request: Request) -> Reply:
        self.on_bind(request.dn)
        result = self._bind(request)
        self._bound[request.connection] = request.dn if result is None else ""
        self.on_bound(request.dn)
        return [result or bind_result()]

    def _bind(self, request: Request) -> Message | None:
        """Why not; None: yes. Without a password it is an anonymous bind (RFC 4513 section 5.1.2)."""
        if request.password and self._passwords.get(request.dn.lower()) != request.password:
            return bind_result(_INVALID_CREDENTIALS)
        return None

    def _bound_as(self, request: Request) -> str:
        return self._bound.get(request.connection, "")

    def _answer_search(self, request: Request) -> Reply:
        if request.base.lower() not in self._entries:
            return [search_done(_NO_SUCH_OBJECT, matched=self.base)]
        matcher = self._matcher()
        found = [
            entry(dn, self._answered(attributes, request.attributes))
            for dn, attributes in list(self._entries.values())
            if _within(dn, request) and request.parsed and request.parsed.matches(_lower(attributes), matcher)
        ]
        if 0 < request.size_limit < len(found):
            return [*found[: request.size_limit], search_done(_SIZE_LIMIT)]
        return [*found, *self._references(request), search_done()]

    def _references(self, request: Request) -> Sequence[Message]:
        return ()

    def _answered(self, attributes: Mapping[str, Sequence[bytes]], wanted: Sequence[str]) -> dict[str, Sequence[bytes]]:
        """The attributes that were asked for: RFC 4511 section 4.5.1.8, and `+` of RFC 3673."""
        named = {name.lower() for name in wanted}
        return {
            name: values
            for name, values in attributes.items()
            if name.lower() in named
            or ("+" if name.lower() in self.operational else "*") in named
            or (not named and name.lower() not in self.operational)
        }

    def _matcher(self) -> Matcher:
        return Matcher()


class ActiveDirectory(MemoryDirectory):
    """Active Directory's ways.

    Names are compared without accents, an anonymous client may bind and not search, a search of the whole domain ends
    in three references, more than 1,500 values come as a range, the rule 1.2.840.113556.1.4.1941 is known, and a
    refused bind says why in the diagnostic.

    Attributes:
        users: the DN above users and groups.

    Args:
        base: the domain.
        careless: binds succeed although the account is disabled, locked or expired, so that only its flags tell.
    """

    operational = frozenset({"msds-user-account-control-computed"})
    values_max: ClassVar[int] = 1500  # MaxValRange of the default LDAP policies

    def __init__(self, base: str = AD_BASE, *, careless: bool = False) -> None:
        super().__init__(base)
        self.users = self.add(f"CN=Users,{base}", {"objectClass": ["top", "container"]})
        self._careless = careless

    def add_user(
        self,
        name: str,
        password: str,
        *,
        disabled: bool = False,
        locked: bool = False,
        password_expired: bool = False,
        must_change: bool = False,
        expires_at: datetime | None = None,
    ) -> str:
        """Add a user; the DN, which has not the login name in it."""
        dn = f"CN={name.title()} Surname,{self.users}"
        control = 0x200 | (0x2 if disabled else 0)  # NORMAL_ACCOUNT, ACCOUNTDISABLE
        computed = (0x10 if locked else 0) | (0x80_0000 if password_expired else 0)
        attributes: dict[str, list[str | bytes]] = {
            "objectClass": ["top", "person", "organizationalPerson", "user"],
            "objectCategory": ["person"],  # AD answers to this short name of CN=Person,CN=Schema,...
            "cn": [f"{name.title()} Surname"],
            "sAMAccountName": [name],
            "userPrincipalName": [f"{name}@{_dns(self.base)}"],
            "objectGUID": [uuid4().bytes_le],
            "userAccountControl": [str(control)],
            "msDS-User-Account-Control-Computed": [str(computed)],
            "pwdLastSet": ["0" if must_change else str(filetime(datetime.now(UTC) - timedelta(days=10)))],
            "accountExpires": [str(filetime(expires_at) if expires_at else NEVER)],
        }
        return self.add(dn, attributes, password)

    def add_group(self, name: str, *members: str) -> str:
        """Add a group; its DN."""
        dn = f"CN={name},{self.users}"
        classes = {"objectClass": ["top", "group"], "cn": [name], "sAMAccountName": [name]}
        self.add(dn, {**classes, "objectGUID": [uuid4().bytes_le]})
        self.join(dn, *members)
        return dn

    def _bind(self, request: Request) -> Message | None:
        if not request.password:
            return None
        known = self._passwords.get(request.dn.lower())
        if known is None:
            return _accept_security_context_error("525")
        if known != request.password:
            return _accept_security_context_error("52e")
        trouble = "" if self._careless else self._trouble(request.dn)
        return _accept_security_context_error(trouble) if trouble else None

    def _trouble(self, dn: str) -> str:
        def number(attribute: str) -> int:
            return int((self.get(dn, attribute) or [b"1"])[0])

        computed = number("msDS-User-Account-Control-Computed")
        reasons = {
            "775": computed & 0x10,
            "533": number("userAccountControl") & 0x2,
            "701": 1 < number("accountExpires") < filetime(datetime.now(UTC)),
            "532": computed & 0x80_0000,
            "773": number("pwdLastSet") == 0,
        }
        return next((code for code, holds in reasons.items() if holds), "")

    def _answer_search(self, request: Request) -> Reply:
        if not self._bound_as(request):
            return [
                search_done(
                    _OPERATIONS_ERROR,
                    "000004DC: LdapErr: DSID-0C090A5C, comment: In order to perform this operation a successful bind "
                    "must be completed on the connection., data 0, v4563",
                )
            ]
        return super()._answer_search(request)

    def _references(self, request: Request) -> Sequence[Message]:
        if request.base.lower() != self.base.lower() or request.scope != 2:
            return ()
        domain = _dns(self.base)
        return (
            reference(f"ldap://ForestDnsZones.{domain}/DC=ForestDnsZones,{self.base}"),
            reference(f"ldap://DomainDnsZones.{domain}/DC=DomainDnsZones,{self.base}"),
            reference(f"ldap://{domain}/CN=Configuration,{self.base}"),
        )

    def _answered(self, attributes: Mapping[str, Sequence[bytes]], wanted: Sequence[str]) -> dict[str, Sequence[bytes]]:
        asked = [_RANGE.fullmatch(name) for name in wanted]
        starts = {found[1].lower(): int(found[2]) for found in asked if found}
        answered = super()._answered(attributes, [*wanted, *starts])
        return dict(self._ranged(name, values, starts.get(name.lower())) for name, values in answered.items())

    def _ranged(self, name: str, values: Sequence[bytes], start: int | None) -> tuple[str, Sequence[bytes]]:
        """All values if they are few and nobody asked for a part, else those from `start` on."""
        if start is None and len(values) <= self.values_max:
            return name, values
        first = start or 0
        behind = first + self.values_max
        last = behind - 1 if behind < len(values) else "*"
        return f"{name};range={first}-{last}", values[first:behind]

    def _matcher(self) -> Matcher:
        return Matcher(fold=_without_accents, in_chain=self._in_chain)

    def _in_chain(self, attributes: Attributes, attribute: str, wanted: bytes) -> bool:
        seen: set[bytes] = set()
        ahead = list(attributes.get(attribute, ()))
        while ahead:
            dn = ahead.pop().lower()
            if dn == wanted.lower():
                return True
            if dn not in seen and dn.decode() in self._entries:
                seen.add(dn)
                ahead += _lower(self._entries[dn.decode()][1]).get(attribute, ())
        return False


class FreeIPA(MemoryDirectory):
    """FreeIPA's ways: 389 Directory Server with Kerberos' attributes.

    A locked account is refused with 53; an expired password or principal is not: the bind succeeds.

    Attributes:
        users, groups: the DNs above them.
    """

    operational = frozenset({"nsaccountlock", "memberof", "entryuuid", "nsuniqueid"})

    def __init__(self, base: str = IPA_BASE) -> None:
        super().__init__(base)
        accounts = self.add(f"cn=accounts,{base}", {"objectClass": ["nsContainer"]})
        self.users = self.add(f"cn=users,{accounts}", {"objectClass": ["nsContainer"]})
        self.groups = self.add(f"cn=groups,{accounts}", {"objectClass": ["nsContainer"]})

    def add_user(
        self,
        name: str,
        password: str,
        *,
        locked: bool = False,
        password_expires_at: datetime | None = None,
        principal_expires_at: datetime | None = None,
    ) -> str:
        """Add a user; the DN."""
        expires_at = password_expires_at or datetime.now(UTC) + timedelta(days=90)
        attributes: dict[str, list[str | bytes]] = {
            "objectClass": ["person", "inetorgperson", "posixaccount", "krbprincipalaux", "ipaobject"],
            "uid": [name],
            "cn": [name],
            "ipaUniqueID": [str(uuid4())],
            "krbPrincipalName": [f"{name}@{_dns(self.base).upper()}"],
            "krbPasswordExpiration": [_generalized(expires_at)],
            "krbLastPwdChange": [_generalized(datetime.now(UTC) - timedelta(days=10))],
        }
        if principal_expires_at:
            attributes["krbPrincipalExpiration"] = [_generalized(principal_expires_at)]
        if locked:
            attributes["nsAccountLock"] = ["TRUE"]
        return self.add(f"uid={name},{self.users}", attributes, password)

    def add_group(self, name: str, *members: str) -> str:
        """Add a group; its DN."""
        classes = ["groupofnames", "nestedgroup", "ipausergroup", "ipaobject", "posixgroup"]
        dn = f"cn={name},{self.groups}"
        self.add(dn, {"objectClass": classes, "cn": [name], "ipaUniqueID": [str(uuid4())]})
        self.join(dn, *members)
        return dn

    def _bind(self, request: Request) -> Message | None:
        refusal = super()._bind(request)
        if refusal is None and request.password and b"TRUE" in self.get(request.dn, "nsAccountLock"):
            return bind_result(_UNWILLING_TO_PERFORM, "Account inactivated. Contact system administrator.")
        return refusal


def filetime(moment: datetime) -> int:
    """Windows' time: units of 100 ns since 1601."""
    return int((moment - _FILETIME_EPOCH) / timedelta(microseconds=1)) * 10


def _generalized(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y%m%d%H%M%SZ")


def _accept_security_context_error(data: str) -> Message:
    return bind_result(
        _INVALID_CREDENTIALS,
        f"80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data {data}, v4563",
    )


def _dns(base: str) -> str:
    return ".".join(part.partition("=")[2] for part in base.split(","))


def _lower(attributes: Mapping[str, Sequence[bytes]]) -> Attributes:
    return {name.lower(): values for name, values in attributes.items()}


def _within(dn: str, request: Request) -> bool:
    name, base = dn.lower(), request.base.lower()
    if request.scope == 0:
        return name == base
    if request.scope == 1:
        return name.partition(",")[2] == base
    return name == base or name.endswith(f",{base}")


def _without_accents(value: bytes) -> bytes:
    """As Active Directory compares: j\u00fcrgen is jurgen. Octets that are no text are left as they are."""
    try:
        text = unicodedata.normalize("NFKD", value.decode())
    except UnicodeDecodeError:
        return value
    return "".join(letter for letter in text if not unicodedata.combining(letter)).casefold().encode()
