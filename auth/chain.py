"""Several backends asked as one: the first that knows the user decides, and nobody's password travels further."""

import contextlib
from collections.abc import Sequence

import attrs

from auth.backend import Answer, Backend, Credentials, Identity, Rejected, Rejection, Unavailable
from auth.names import canonical_group
from auth.passwords import DEFAULT_PASSWORDS, Passwords

__all__ = ["Chain"]


class Chain:
    """The backends of one tenant in their order, and the group that may use the proxy.

    It believes no backend blindly: an answer that is not one of the three, that names another user or tenant than was
    asked about, or an exception, is `Unavailable`. (A pooler once let unknown users in as its own service account, and
    another program took `True`, or anything else that was not an exception, for a login.)

    Args:
        backends: each with its name in the configuration.
        proxy_group: whoever is not a member may not log in.
        passwords: pays for the look-up of unknown users.

    Raises:
        ValueError: `proxy_group` is no group name, or two backends have one name.
    """

    def __init__(
        self,
        backends: Sequence[tuple[str, Backend]],
        proxy_group: str,
        passwords: Passwords = DEFAULT_PASSWORDS,
    ) -> None:
        names = [name for name, _ in backends]
        if len(set(names)) != len(names):
            raise ValueError("a backend is named twice in one chain")
        self._backends = tuple(backends)
        self._proxy_group = canonical_group(proxy_group)
        self._passwords = passwords

    @property
    def label(self) -> str:
        """Tells this chain from another of the same tenant, as part of a cache key."""
        return "\0".join((self._proxy_group, *(name for name, _ in self._backends)))

    def open(self) -> None:
        """Open every backend; if one cannot, those already open are closed again.

        Raises:
            OSError: a backend cannot reach what it needs.
            ValueError: a backend cannot work as configured.
        """
        with contextlib.ExitStack() as undo:
            for _, backend in self._backends:
                backend.open()
                undo.callback(backend.close)
            undo.pop_all()

    def close(self) -> None:
        """Close every backend, the last first, also if one of them fails to."""
        with contextlib.ExitStack() as closing:
            for _, backend in self._backends:
                closing.callback(backend.close)

    def authenticate(self, credentials: Credentials) -> Answer:
        """Ask one after the other. Blocks.

        Only `Rejected(UNKNOWN_USER)` goes on to the next backend. A backend that could not tell ends the search: asking
        on would hand a password meant for one directory to another. Unknown everywhere costs as much as a wrong
        password.
        """
        for name, backend in self._backends:
            answer = _ask(name, backend, credentials)
            match answer:
                case Rejected(Rejection.UNKNOWN_USER):
                    continue
                case Identity():
                    return self._admit(name, answer, credentials)
                case _:
                    return answer
        self._passwords.waste(credentials.password)
        return Rejected(Rejection.UNKNOWN_USER)

    def _admit(self, name: str, identity: Identity, credentials: Credentials) -> Answer:
        if (identity.tenant, identity.user) != (credentials.tenant, credentials.username):
            return Unavailable(f"backend {name} answered for another user than it was asked about")
        if self._proxy_group not in identity.groups:
            return Rejected(Rejection.NOT_A_MEMBER)
        return attrs.evolve(identity, backend=name)


def _ask(name: str, backend: Backend, credentials: Credentials) -> Answer:
    try:
        answer: object = backend.authenticate(credentials)
    except Exception as error:  # noqa: BLE001 - a backend may be anybody's code, and its failure must let nobody in
        # The type alone: the text of a stranger's exception may hold the password.
        return Unavailable(f"backend {name} failed: {type(error).__name__}")
    if not isinstance(answer, Identity | Rejected | Unavailable):
        return Unavailable(f"backend {name} gave no answer that means anything")
    return answer
