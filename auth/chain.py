"""Several backends asked as one: the first that knows the user decides, and nobody's password travels further."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import attrs

from auth.backend import Answer, Backend, Cause, Credentials, Identity, Rejected, Rejection, Unavailable
from auth.membership import Membership
from auth.passwords import DEFAULT_PASSWORDS, Passwords

__all__ = ["RULES_MAX", "RULE_BYTES_MAX", "Chain", "Question"]

# Of one identity, its groups' included. Reading them takes 25 ms; and each is asked on every verdict.
RULES_MAX: Final = 1_000
RULE_BYTES_MAX: Final = 256 << 10


@attrs.frozen
class Question:
    """What has to be asked next; it blocks, so whoever owns the threads asks it.

    Attributes:
        backend: the name of the backend; empty for work of our own.
        in_flight_max: how many of the backend's questions may be under way at once; None: it hashes.
        ask: asks it.
    """

    backend: str
    in_flight_max: int | None
    ask: Callable[[], Answer]


class Chain:
    """The backends of one tenant in their order, and who of their users may use the proxy.

    It believes no backend blindly: an answer that is not one of the three, that names another user or tenant than was
    asked about, or an exception, is `Unavailable`. (A pooler once let unknown users in as its own service account, and
    another program took `True`, or anything else that was not an exception, for a login.)

    Args:
        backends: each with its name in the configuration.
        membership: who may use the proxy; a plain name is that of the group.
        passwords: pays for the look-up of unknown users.
        fall_through: a backend that could not tell does not end the search. The password then travels to the next.

    Raises:
        ValueError: the proxy group is no group name, or two backends have one name.
    """

    def __init__(
        self,
        backends: Sequence[tuple[str, Backend]],
        membership: Membership | str,
        passwords: Passwords = DEFAULT_PASSWORDS,
        *,
        fall_through: bool = False,
    ) -> None:
        names = [name for name, _ in backends]
        if len(set(names)) != len(names):
            raise ValueError("a backend is named twice in one chain")
        self.backends = dict(backends)
        self.membership = Membership(membership) if isinstance(membership, str) else membership
        self._passwords = passwords
        self._fall_through = fall_through

    @property
    def label(self) -> str:
        """Tells this chain from another of the same tenant, as part of a cache key."""
        return "\0".join((self.membership.proxy_group, *self.backends))

    @property
    def endpoints(self) -> frozenset[tuple[IPv4Address | IPv6Address, int]]:
        """Address and port of each server that the backends rely on, as far as they say so."""
        found: set[tuple[IPv4Address | IPv6Address, int]] = set()
        for backend in self.backends.values():
            found |= getattr(backend, "endpoints", frozenset())
        return frozenset(found)

    def open(self) -> None:
        """Open every backend; if one cannot, those already open are closed again.

        Raises:
            OSError: a backend cannot reach what it needs.
            ValueError: a backend cannot work as configured.
        """
        with contextlib.ExitStack() as undo:
            for backend in self.backends.values():
                backend.open()
                undo.callback(backend.close)
            undo.pop_all()

    def close(self) -> None:
        """Close every backend, the last first, also if one of them fails to."""
        with contextlib.ExitStack() as closing:
            for backend in self.backends.values():
                closing.callback(backend.close)

    def questions(self, credentials: Credentials) -> Generator[Question, Answer, Answer]:
        """What to ask one after the other; send each answer back in. Returns the answer of the chain.

        Only `Rejected(UNKNOWN_USER)` goes on to the next backend. A backend that could not tell ends the search, unless
        `fall_through` says otherwise: asking on would hand a password meant for one directory to another. Unknown
        everywhere costs as much as a wrong password.
        """
        problem: Unavailable | None = None
        for name, backend in self.backends.items():
            answer = yield Question(name, backend.in_flight_max, partial(self._authenticate, name, credentials))
            match answer:
                case Rejected(Rejection.UNKNOWN_USER):
                    continue
                case Unavailable() if self._fall_through:
                    problem = problem or answer
                case _:
                    return answer
        return (yield Question("", None, partial(self._waste, credentials, problem)))

    def authenticate(self, credentials: Credentials) -> Answer:
        """Ask one after the other, here and now. Blocks."""
        questions = self.questions(credentials)
        question = next(questions)
        while True:
            try:
                question = questions.send(question.ask())
            except StopIteration as done:
                answer: Answer = done.value
                return answer

    def find(self, tenant: str, username: str, backend: str | None = None) -> Answer:
        """Who this user is by now, without a password. Blocks.

        Args:
            tenant: whose chain this is.
            username: canonical.
            backend: ask this one alone; None: the first that knows the user.
        """
        names = self.backends if backend is None else (backend,)
        for name in names:
            answer = self._find(name, tenant, username)
            if answer != Rejected(Rejection.UNKNOWN_USER):
                return answer
        return Rejected(Rejection.UNKNOWN_USER)

    def _authenticate(self, name: str, credentials: Credentials) -> Answer:
        answer = _ask(name, partial(self.backends[name].authenticate, credentials))
        return self._admit(name, answer, credentials.tenant, credentials.username)

    def _find(self, name: str, tenant: str, username: str) -> Answer:
        if name not in self.backends:
            return Rejected(Rejection.UNKNOWN_USER)  # of a backend that this tenant has no more
        return self._admit(name, _ask(name, partial(self.backends[name].find, tenant, username)), tenant, username)

    def _waste(self, credentials: Credentials, problem: Unavailable | None) -> Answer:
        self._passwords.waste(credentials.password)
        return problem or Rejected(Rejection.UNKNOWN_USER)

    def _admit(self, name: str, answer: Answer, tenant: str, username: str) -> Answer:
        if not isinstance(answer, Identity):
            return answer
        if (answer.tenant, answer.user) != (tenant, username):
            return Unavailable(f"backend {name} answered for another user than it was asked about")
        admitted = self.membership.admit(answer)
        if admitted is None:
            return Rejected(Rejection.NOT_A_MEMBER)
        return _too_many_rules(name, admitted) or attrs.evolve(admitted, backend=name)


def _too_many_rules(name: str, identity: Identity) -> Unavailable | None:
    """Not some of them: one that is left out may be a deny."""
    count = sum(len(entry.texts) for entry in identity.rules)
    size = sum(len(text.encode(errors="replace")) for entry in identity.rules for text in entry.texts)
    if count <= RULES_MAX and size <= RULE_BYTES_MAX:
        return None
    return Unavailable(
        f"backend {name} brings {count} rules of {size} bytes with one user,"
        f" at most {RULES_MAX} of {RULE_BYTES_MAX} bytes are taken",
        Cause.AMBIGUOUS,
    )


def _ask(name: str, ask: Callable[[], object]) -> Answer:
    try:
        answer = ask()
    except Exception as error:  # noqa: BLE001 - a backend may be anybody's code, and its failure must let nobody in
        # The type alone: the text of a stranger's exception may hold the password.
        return Unavailable(f"backend {name} failed: {type(error).__name__}")
    if not isinstance(answer, Identity | Rejected | Unavailable):
        return Unavailable(f"backend {name} gave no answer that means anything")
    return answer
