"""Local users: whoever owns the store hands in a look-up, this backend decides."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import ClassVar

import attrs

from auth.backend import Answer, Credentials, Identity, Rejected, Rejection, Step, Unavailable
from auth.passwords import DEFAULT_PASSWORDS, Passwords

__all__ = ["BackendContext", "LocalBackend", "LocalSettings", "LocalUser"]


@attrs.frozen
class LocalUser:
    """One user as the store keeps it.

    Attributes:
        tenant: canonical.
        name: canonical.
        password_hash: empty, `*` or `!...` for nobody can log in; hidden in `repr`.
        groups: canonical, inside the tenant.
        disabled: no login, whatever the password.
        valid_from: aware; before it the account is not valid yet. None: always was.
        valid_until: aware; from then on it is expired. None: never.
        sources: networks (`10.0.0.0/8`) the user may log in from; None is everywhere, `()` is nowhere.
        epoch: becomes `Identity.epoch`; the store changes it when live sessions must end.
    """

    tenant: str
    name: str
    password_hash: str | None = attrs.field(repr=False)
    groups: frozenset[str] = frozenset()
    disabled: bool = False
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    sources: tuple[str, ...] | None = None
    epoch: str = ""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _keep_hash(_user: LocalUser, _new_hash: str) -> None:
    """For a store that cannot be written to: the old hash goes on working."""


def _ignore(_step: Step) -> None:
    """Nobody watches."""


@attrs.frozen
class BackendContext:
    """What the server lends to every backend. All of it may be called from several threads at once.

    Attributes:
        find_user: tenant and name to user, or None; `OSError` if the store cannot tell.
        now: the aware time of day.
        rehashed: a right password came with an outdated hash, this is the new one. `OSError` if it cannot be kept.
        passwords: makes and checks hashes.
        proxy_group: the group whose members may use the proxy, in the tenant that the backend is built for.
        admits_nonmembers: whether others may log in, too.
        observe: told of every step of a login, for whoever looks for a mistake.
    """

    find_user: Callable[[str, str], LocalUser | None]
    now: Callable[[], datetime] = _utc_now
    rehashed: Callable[[LocalUser, str], None] = _keep_hash
    passwords: Passwords = DEFAULT_PASSWORDS
    proxy_group: str = "system-proxy"
    admits_nonmembers: bool = False
    observe: Callable[[Step], None] = _ignore


@attrs.frozen
class LocalSettings:
    """There is nothing to set: the store holds the users, and the command line changes them."""


class LocalBackend:
    """Answers from the users of the tenant that the credentials name."""

    settings_type: ClassVar[type] = LocalSettings
    in_flight_max: int | None = None  # it hashes
    revalidate_s: float | None = None  # every change of the store is seen within a second

    def __init__(self, _settings: LocalSettings, context: BackendContext) -> None:
        self._context = context

    def open(self) -> None:
        """Nothing to do: the look-up belongs to the store."""

    def close(self) -> None:
        """Nothing to do."""

    def authenticate(self, credentials: Credentials) -> Answer:
        """The password first; only its owner learns (from the log) that the account is disabled, say.

        An unknown user costs nothing here: the chain pays for one, once, after all its backends.
        """
        user = self._look_up(credentials.tenant, credentials.username)
        if not isinstance(user, LocalUser):
            return user
        verification = self._context.passwords.verify(credentials.password, user.password_hash)
        if not verification.ok:
            return Rejected(Rejection.WRONG_PASSWORD)
        refusal = self._refusal(user)
        if refusal is None and user.sources is not None and not _is_inside(credentials.source, user.sources):
            refusal = Rejection.WRONG_SOURCE
        if refusal is not None:
            return Rejected(refusal)
        if verification.replacement is not None:
            # The login is right even if the store is full or read-only; the next login tries again.
            with contextlib.suppress(OSError):
                self._context.rehashed(user, verification.replacement)
        return _identity_of(user)

    def find(self, tenant: str, username: str) -> Answer:
        """Who this is now; from where they log in does not matter here."""
        user = self._look_up(tenant, username)
        if not isinstance(user, LocalUser):
            return user
        refusal = self._refusal(user)
        return _identity_of(user) if refusal is None else Rejected(refusal)

    def _look_up(self, tenant: str, username: str) -> LocalUser | Rejected | Unavailable:
        try:
            user = self._context.find_user(tenant, username)
        except OSError as error:
            return Unavailable(f"the users cannot be looked up: {type(error).__name__}")
        return Rejected(Rejection.UNKNOWN_USER) if user is None else user

    def _refusal(self, user: LocalUser) -> Rejection | None:
        now = self._context.now()
        if user.disabled:
            return Rejection.DISABLED
        if user.valid_from is not None and now < user.valid_from:
            return Rejection.EXPIRED
        if user.valid_until is not None and now >= user.valid_until:
            return Rejection.EXPIRED
        return None


def _identity_of(user: LocalUser) -> Identity:
    return Identity(
        tenant=user.tenant, user=user.name, groups=user.groups, epoch=user.epoch, valid_until=user.valid_until
    )


def _is_inside(source: str, networks: tuple[str, ...]) -> bool:
    try:
        address = ip_address(source)
    except ValueError:
        return False  # a client whose address nobody knows is in no network
    return any(address in ip_network(network) for network in networks)
