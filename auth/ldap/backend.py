"""Users of a directory: THE STORY of a login.

    refuse what needs no directory
    -> search as our own account: exactly one entry
    -> bind as that entry, on a connection of its own
    -> read the entry again: the same one, and not disabled, locked or expired
    -> its groups -> identity

The groups come last, so that who was removed while the password was on its way does not get in.
"""

from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Final

from auth.backend import Answer, Cause, Credentials, Identity, Rejected, Rejection, Unavailable
from auth.ldap.ber import Allowance
from auth.ldap.connection import Connection
from auth.ldap.deadline import Deadline
from auth.ldap.failure import DirectoryError
from auth.ldap.groups import GroupFinder
from auth.ldap.messages import BUSY_CODES, Entry, Result, ResultCode, Search, escaped
from auth.ldap.person import Person, person_of
from auth.ldap.rules import rules_of
from auth.ldap.servers import Server, Servers
from auth.ldap.settings import LdapSettings
from auth.ldap.status import Status, status_of
from auth.ldap.watch import Watch
from auth.ldap.wrong import WrongPasswords
from auth.local import BackendContext
from auth.names import NAME_BYTES_MAX
from auth.passwords import PASSWORD_BYTES_MAX

__all__ = ["LdapBackend"]

_AMBIGUOUS: Final = 2  # two entries are enough to know that it is not one

# Active Directory gives its reason inside the text of "invalid credentials".
_AD_REASONS: Final = {
    "data 525": Rejection.UNKNOWN_USER,
    "data 530": Rejection.DISABLED,  # not at this hour
    "data 531": Rejection.DISABLED,  # not from this machine
    "data 532": Rejection.EXPIRED,
    "data 533": Rejection.DISABLED,
    "data 701": Rejection.EXPIRED,
    "data 773": Rejection.EXPIRED,  # must change the password
    "data 775": Rejection.DISABLED,  # locked
}


class LdapBackend:
    """A directory. Each tenant that uses one has its own, with connections and memory of its own.

    Raises:
        ValueError: settings do not go together.
    """

    settings_type: ClassVar[type] = LdapSettings

    def __init__(self, settings: LdapSettings, context: BackendContext) -> None:
        self._settings = settings
        self._profile = settings.profile()
        self._context = context
        self._watch = Watch(context.observe)
        self._servers = Servers(settings, self._watch)
        self._groups = GroupFinder(
            settings, self._profile, context.proxy_group, admits_nonmembers=context.admits_nonmembers
        )
        self._wrong = WrongPasswords(settings.wrong_password_s)
        rules = (settings.rules_attribute,) if settings.rules_attribute else ()
        changed = (self._profile.password_changed_attribute,) if self._profile.password_changed_attribute else ()
        wanted = (
            "objectClass",
            self._profile.username_attribute,
            self._profile.unique_id_attribute,
            *self._profile.status_attributes,
            *changed,
            *self._groups.user_attributes,
            *rules,
        )
        self._attributes = tuple({name.lower(): name for name in wanted}.values())

    @property
    def in_flight_max(self) -> int | None:
        """How many may be asked at once."""
        return self._settings.in_flight_max

    @property
    def revalidate_s(self) -> float | None:
        """How often users with live sessions are looked up again."""
        return self._settings.revalidate_s

    @property
    def endpoints(self) -> frozenset[tuple[IPv4Address | IPv6Address, int]]:
        """Addresses and ports of the servers, as far as they are known: nobody's target."""
        return frozenset(endpoint for server in self._servers.all for endpoint in server.host.endpoints())

    def open(self) -> None:
        """Look at the files. A directory that is down now may be up in a minute, so nobody is asked yet.

        Raises:
            OSError: `ca_file` or `bind_password_file` is not what it must be.
        """
        self._servers.check()

    def close(self) -> None:
        """Close the connections."""
        self._servers.close()

    # ---- logging in

    def authenticate(self, credentials: Credentials) -> Answer:
        """One login; at most one bind as the user."""
        if not credentials.password:
            return Rejected(Rejection.EMPTY_PASSWORD)  # a bind without password is an anonymous one, and succeeds
        if not _can_be_asked(credentials):
            return Rejected(Rejection.MALFORMED)
        if credentials in self._wrong:
            return Rejected(Rejection.WRONG_PASSWORD)
        deadline = Deadline.after(self._settings.login_s)
        return self._answer(partial(self._log_in, credentials=credentials, deadline=deadline))

    def find(self, tenant: str, username: str) -> Answer:
        """Who this user is by now."""
        deadline = Deadline.after(self._settings.login_s)
        return self._answer(partial(self._look_up, tenant=tenant, username=username, deadline=deadline))

    def _answer(self, question: Callable[[Server], Answer]) -> Answer:
        try:
            return self._servers.ask(question)
        except DirectoryError as error:
            return Unavailable(error.problem, error.cause)

    def _log_in(self, server: Server, credentials: Credentials, deadline: Deadline) -> Answer:
        person = self._search(server, credentials.username, deadline)
        if isinstance(person, Rejection):
            return Rejected(person)
        refusal = self._bind(server, person, credentials, deadline)
        if refusal is not None:
            return Rejected(refusal)
        try:
            return self._read_again(server, person, credentials, deadline)
        except DirectoryError as error:
            error.final = True  # another server would get the password a second time
            raise

    def _look_up(self, server: Server, tenant: str, username: str, deadline: Deadline) -> Answer:
        person = self._search(server, username, deadline)
        if isinstance(person, Rejection):
            return Rejected(person)
        return self._identity(server, person, tenant, username, deadline)

    # ---- the steps

    def _search(self, server: Server, username: str, deadline: Deadline) -> Person | Rejection:
        """The one entry that has this name.

        One that is found by this name and has another is known here: the password is not for the next backend to see.
        """
        text = self._profile.user_filter.replace("{username}", escaped(username))
        search = Search(self._settings.user_base, text, self._attributes, _AMBIGUOUS)
        with self._servers.service(server, deadline) as connection, self._watch.step("search") as note:
            entries = self._look(search, connection=connection, deadline=deadline)
            where = f"{text} below {self._settings.user_base}"
            if len(entries) > 1:
                raise DirectoryError(
                    f"more than one entry for {where}", Cause.AMBIGUOUS, "narrow user_filter or user_base"
                )
            if not entries:
                note.detail, note.failed = f"{where}: no entry", True
                note.advice = "a typing mistake, or look at user_base and user_filter, and at what bind_dn may see"
                return Rejection.UNKNOWN_USER
            person = person_of(entries[0], self._profile, username)
            note.detail, note.failed = f"{where}: {entries[0].dn}", person is None
            if person is None:
                note.advice = (
                    f"its {self._profile.username_attribute} is another name: log in with that one,"
                    " or set username_attribute to the attribute that user_filter asks for"
                )
        return person or Rejection.OTHER_NAME

    def _bind(self, server: Server, person: Person, credentials: Credentials, deadline: Deadline) -> Rejection | None:
        """Let the directory check the password; None: it is right."""
        connection = self._servers.connect(server, deadline)  # never one of those that are kept
        try:
            with self._watch.step("bind") as note:
                result = self._bind_over(connection, person, credentials, deadline)
                note.detail = f"as {person.entry.dn}: {result}"
                refusal = self._judge_bind(result, person)
                note.failed = refusal is not None
                if refusal is not None:
                    note.advice = f"{refusal.value}: that is for the user or the directory to mend"
        except DirectoryError:
            connection.abandon()
            raise
        connection.close()
        if refusal is Rejection.WRONG_PASSWORD:
            self._wrong.add(credentials)
        return refusal

    def _bind_over(
        self, connection: Connection, person: Person, credentials: Credentials, deadline: Deadline
    ) -> Result:
        try:
            return connection.bind(
                person.entry.dn, credentials.password.encode(), deadline.within(self._settings.answer_s)
            )
        except DirectoryError as error:
            error.final = True  # it may have counted already; a second bind could lock the account
            raise

    def _judge_bind(self, result: Result, person: Person) -> Rejection | None:
        match result.code:
            case ResultCode.SUCCESS:
                return None
            case ResultCode.INVALID_CREDENTIALS:
                reasons = (reason for code, reason in _AD_REASONS.items() if code in result.diagnostic)
                reason = next(reasons, Rejection.WRONG_PASSWORD)
                # Known, or we would not be here; "unknown" would send the password on to the next backend.
                return Rejection.WRONG_PASSWORD if reason is Rejection.UNKNOWN_USER else reason
            case ResultCode.UNWILLING_TO_PERFORM:  # what 389 Directory Server says of a disabled account
                status = self._status(person.entry)
                if status.refusal is not None:
                    return status.refusal
        raise DirectoryError(
            f"the bind is refused: {result}",
            Cause.BUSY if result.code in BUSY_CODES else Cause.REFUSED,
            "look at what the directory's log says about this bind",
            final=True,
        )

    def _read_again(self, server: Server, person: Person, credentials: Credentials, deadline: Deadline) -> Answer:
        """The entry as it is now that the password is known to be right."""
        search = Search(person.entry.dn, "(objectClass=*)", self._attributes, 1, subtree=False)
        with self._servers.service(server, deadline) as connection, self._watch.step("read again") as note:
            entries = self._look(search, connection=connection, deadline=deadline, may_be_missing=True)
            if not entries:
                note.detail, note.failed = "it has gone", True
                return Rejected(Rejection.DISABLED)
            again = person_of(entries[0], self._profile, credentials.username)
            if again is None or again.unique_id != person.unique_id:
                raise DirectoryError("another entry has taken its place", Cause.AMBIGUOUS)
            note.detail = f"the same {self._profile.unique_id_attribute}"
        return self._identity(server, again, credentials.tenant, credentials.username, deadline)

    def _identity(self, server: Server, person: Person, tenant: str, username: str, deadline: Deadline) -> Answer:
        """Who this is, if the account is in order."""
        with self._watch.step("status") as note:
            status = self._status(person.entry)
            note.detail = status.why or "neither disabled nor locked nor expired"
            note.failed = status.refusal is not None
            note.advice = (
                f"{status.refusal.value}: mend the account, or see status_attributes" if status.refusal else ""
            )
        if status.refusal is not None:
            return Rejected(status.refusal)
        with self._servers.service(server, deadline) as connection, self._watch.step("groups") as note:
            look = partial(self._look, connection=connection, deadline=deadline, allowance=Allowance())
            groups = self._groups.find(person.entry, person.username, look)
            member = self._context.proxy_group in groups.names
            # Who is none is none, whatever stands in the entry; people may be able to write their own.
            heard = member or self._context.admits_nonmembers
            own = rules_of(person.entry, self._settings.rules_attribute, None) if heard else None
            note.detail = ", ".join(sorted(groups.names)) or f"not in {self._groups.proxy_group_dn.text}"
            if groups.passed_over:
                note.detail += f"; without a name here: {'; '.join(groups.passed_over)}"
            note.failed = not member
            if note.failed:
                note.advice = (
                    f"make {person.entry.dn} a member of {self._groups.proxy_group_dn.text}; if it is one,"
                    " look at proxy_group_dn, group_base, group_filter, membership and nested_groups"
                )
        changed = b"/".join(person.entry.values(self._profile.password_changed_attribute))
        return Identity(
            tenant=tenant,
            user=username,
            groups=groups.names,
            epoch=f"{person.unique_id.hex()}:{changed.hex()}",
            valid_until=status.valid_until,
            rules=(*groups.rules, *((own,) if own else ())),
        )

    def _status(self, entry: Entry) -> Status:
        return status_of(entry, self._profile.status_attributes, self._context.now())

    def _look(
        self,
        search: Search,
        *,
        connection: Connection,
        deadline: Deadline,
        allowance: Allowance | None = None,
        may_be_missing: bool = False,
    ) -> Sequence[Entry]:
        """Search, and take a plain answer only."""
        found = connection.search(search, deadline.within(self._settings.answer_s), allowance)
        if found.references and self._profile.search_references == "refuse":
            raise DirectoryError(
                "it refers us to another directory, which we do not follow",
                Cause.REFUSED,
                'write the server that has the entries in urls, or set search_references = "ignore"',
            )
        match found.result.code:
            case ResultCode.SUCCESS:
                return found.entries
            case ResultCode.SIZE_LIMIT_EXCEEDED:
                if search.size_limit == _AMBIGUOUS == len(found.entries):
                    return found.entries  # more than one: for the caller to say
                raise DirectoryError(
                    f"more than {search.size_limit} entries", Cause.AMBIGUOUS, "narrow the bases or the filters"
                )
            case ResultCode.NO_SUCH_OBJECT if may_be_missing:
                return ()
        raise _refused(found.result, search)


def _refused(result: Result, search: Search) -> DirectoryError:
    if result.code in BUSY_CODES:
        return DirectoryError(f"the search fails: {result}", Cause.BUSY, "the directory has too much to do")
    match result.code:
        case ResultCode.NO_SUCH_OBJECT:
            advice = f"there is no {search.base}: look at user_base and group_base, and at what bind_dn may see"
        case ResultCode.INSUFFICIENT_ACCESS_RIGHTS:
            advice = "let bind_dn search and read"
        case ResultCode.REFERRAL:
            advice = "this server does not have the entries; write the one that has them in urls"
        case ResultCode.OPERATIONS_ERROR:
            advice = "Active Directory says so before a bind: set bind_dn and bind_password_file"
        case _:
            advice = "look at what the directory's log says about this search"
    return DirectoryError(f"the search is refused: {result}", Cause.REFUSED, advice)


def _can_be_asked(credentials: Credentials) -> bool:
    name, password = credentials.username, credentials.password
    return (
        0 < len(name.encode()) <= NAME_BYTES_MAX
        and len(password.encode()) <= PASSWORD_BYTES_MAX
        and "\0" not in name
        and "\0" not in password
    )
