"""What the tests of `trioproxy.authenticate` share: chains, a login in one line, and a backend that waits."""

import threading
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address, ip_address

import trio

from auth import Answer, Backend, Credentials, Rejected, Rejection
from auth.chain import Chain
from auth.local import LocalBackend, LocalSettings, LocalUser
from tests.auth.doubles import CHEAP, FakeBackend, accepted, context_of
from trioproxy.authenticate import Authenticator

__all__ = [
    "PENALTY",
    "SOURCE",
    "UNKNOWN",
    "WRONG",
    "GatedBackend",
    "GatedDirectory",
    "append",
    "chain_of",
    "local",
    "log_in",
    "only",
]

SOURCE = IPv4Address("10.1.2.3")
WRONG, UNKNOWN, PENALTY = (
    Rejected(reason) for reason in (Rejection.WRONG_PASSWORD, Rejection.UNKNOWN_USER, Rejection.PENALTY)
)


class GatedBackend(FakeBackend):
    """Answers once it is let; tells when a thread has come in."""

    def __init__(self, answer: Callable[[Credentials], Answer] | Answer = accepted) -> None:
        super().__init__(answer)
        self._entered = threading.Semaphore(0)
        self._gate = threading.Semaphore(0)

    def authenticate(self, credentials: Credentials) -> Answer:
        """Answer as things are when asked, but late."""
        answer = super().authenticate(credentials)
        self._entered.release()
        self._gate.acquire()
        return answer

    async def entered(self) -> None:
        """Wait until one more thread is inside."""
        await trio.to_thread.run_sync(self._entered.acquire)

    def let(self, count: int = 1) -> None:
        """Let some out, now or when they come."""
        self._gate.release(count)


class GatedDirectory(GatedBackend):
    """The same as a directory: it waits in threads of its own."""

    revalidate_s: float | None = 60.0

    def __init__(
        self, answer: Callable[[Credentials], Answer] | Answer = accepted, in_flight_max: int | None = 64
    ) -> None:
        super().__init__(answer)
        self.in_flight_max = in_flight_max


def chain_of(**backends: Backend) -> Chain:
    """A chain of these backends, by name."""
    return Chain(list(backends.items()), "system-proxy", CHEAP)


def only(*backends: Backend) -> Mapping[str, Chain]:
    """The tenant main with these backends."""
    return {"main": Chain([(f"b{number}", backend) for number, backend in enumerate(backends)], "system-proxy", CHEAP)}


def local(users: list[LocalUser] | Mapping[tuple[str, str], LocalUser]) -> Mapping[str, Chain]:
    """Two tenants on one local backend."""
    backend = LocalBackend(LocalSettings(), context_of(users))
    return {tenant: Chain([("local", backend)], "system-proxy", CHEAP) for tenant in ("main", "physics")}


async def log_in(
    authenticator: Authenticator,
    password: bytes = b"right",
    user: bytes = b"alice",
    source: str = "10.1.2.3",
    tenant: str = "main",
) -> Answer:
    """One login."""
    return await authenticator.authenticate(tenant, user, password, ip_address(source))


async def append(answers: list[Answer], login: Callable[[], Awaitable[Answer]]) -> None:
    """Log in, and put the answer into the list."""
    answers.append(await login())
