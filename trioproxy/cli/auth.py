"""`trioproxy auth test`: one login, step by step, with what to do about a failure."""

import time
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Final, assert_never

import attrs
from cyclopts import App

from auth import Answer, Backend, Credentials, Identity, Rejected, Rejection, Unavailable
from auth.chain import Chain
from auth.local import BackendContext, LocalUser
from auth.registry import BackendError, build
from trioproxy.cli.output import Failure, say, show_table, usage
from trioproxy.cli.passwords import read_password
from trioproxy.cli.place import HERE, Place, parse_user
from trioproxy.config import BackendTable, Config
from trioproxy.policy.scope import Scope
from trioproxy.store import Store

__all__ = ["app"]

app = App(
    name="auth",
    help="Where logins are checked.",
    help_epilogue="Example: `trioproxy auth test alice`",
)

_LOCAL: Final = BackendTable("local")

_ADVICE: Final[dict[Rejection, str]] = {
    Rejection.EMPTY_PASSWORD: "no client gets in with an empty password",
    Rejection.MALFORMED: "look for characters that are no text",
    Rejection.UNKNOWN_USER: "a typing mistake, or another tenant? `trioproxy user add {name}` adds a local user",
    Rejection.WRONG_PASSWORD: "`trioproxy user passwd {name}` sets a new password for a local user",
    Rejection.DISABLED: "`trioproxy user enable {name}` lets a local user in again",
    Rejection.EXPIRED: "`trioproxy user change {name} --valid-until 2026-12-31` prolongs a local user",
    Rejection.WRONG_SOURCE: "`trioproxy user change {name} --source NETWORK` says from where a local user may log in",
    Rejection.NOT_A_MEMBER: "`trioproxy user group {name} --add {proxy_group}` makes a local user a member",
    Rejection.PENALTY: "wait, or look who else tries this name",
}


@attrs.frozen
class _Step:
    """What one backend said, and how long it took."""

    backend: str
    answer: Answer
    duration_s: float


@attrs.frozen
class _Timed:
    """A backend that keeps what it said."""

    name: str
    inner: Backend
    steps: list[_Step]
    in_flight_max: int | None = None  # one login at a time is asked here
    revalidate_s: float | None = None

    def open(self) -> None:
        """Open the backend."""
        self.inner.open()

    def authenticate(self, credentials: Credentials) -> Answer:
        """Ask the backend."""
        begun_s = time.perf_counter()
        answer: Answer = Unavailable("it failed")
        try:
            answer = self.inner.authenticate(credentials)
        finally:
            self.steps.append(_Step(self.name, answer, time.perf_counter() - begun_s))
        return answer

    def find(self, tenant: str, username: str) -> Answer:
        """Ask the backend without a password."""
        return self.inner.find(tenant, username)

    def close(self) -> None:
        """Close the backend."""
        self.inner.close()


@app.command(name="test", help_epilogue="Example: `trioproxy auth test physics/alice --source 10.1.2.3`")
def try_login(name: str, /, *, source: str = "127.0.0.1", password_stdin: bool = False, place: Place = HERE) -> int:
    """Try a login: ask for the password and show what each backend says, and how long it takes.

    Args:
        name: alice, or physics/alice.
        source: the client's address, for users that may log in from some networks only.
        password_stdin: read the password from one line of standard input.
        place: which installation.
    """
    config = place.load()
    wanted = parse_user(name, config)
    try:
        client = str(ip_address(source))
    except ValueError as error:
        raise usage(f"--source: {source!r} is no IP address") from error
    password = read_password(stdin=password_stdin, repeat=False)
    steps: list[_Step] = []
    with ExitStack() as stack:
        chain = _build_chain(config, place, wanted.tenant, steps, stack)
        answer = chain.authenticate(Credentials(wanted.tenant, wanted.name, password, client))
    say(f"{wanted.owner} from {client}; backends of tenant {wanted.tenant}, in this order:", tone="strong")
    show_table(
        ["BACKEND", "ANSWER", "TIME"],
        [[step.backend, _describe(step.answer), f"{step.duration_s * 1000:.0f} ms"] for step in steps],
    )
    return _conclude(answer, wanted, config)


def _build_chain(config: Config, place: Place, tenant: str, steps: list[_Step], stack: ExitStack) -> Chain:
    settings = config.tenants()[tenant]
    tables = {name: config.auth.tables.get(name, _LOCAL) for name in settings.backends}
    store = None
    if any(table.type == "local" for table in tables.values()):
        store = stack.enter_context(place.open_store(config))
    context = BackendContext(find_user=lambda tenant, name: _find(store, tenant, name))
    try:
        backends = [
            (name, _Timed(name, build(name, table.type, table.settings, context), steps))
            for name, table in tables.items()
        ]
        chain = Chain(backends, settings.proxy_group)
        chain.open()
    except BackendError as error:
        raise Failure(*error.problems) from error
    except (OSError, ValueError) as error:
        raise Failure(f"a backend of tenant {tenant} cannot be opened: {error}") from error
    stack.callback(chain.close)
    return chain


def _find(store: Store | None, tenant: str, name: str) -> LocalUser | None:
    return store.users.find(tenant, name) if store is not None else None


def _describe(answer: Answer) -> str:
    match answer:
        case Identity():
            return "the password is right"
        case Rejected(reason):
            return reason.value
        case Unavailable(problem):
            return f"could not tell: {problem}"
        case _:
            assert_never(answer)


def _conclude(answer: Answer, wanted: Scope, config: Config) -> int:
    proxy_group = config.tenants()[wanted.tenant].proxy_group
    match answer:
        case Identity():
            say(f"ACCEPTED by {answer.backend}; groups: {', '.join(sorted(answer.groups))}", tone="good")
            return 0
        case Rejected(reason):
            say(f"REFUSED: {reason.value}", tone="bad")
            say(f"  {_ADVICE[reason].format(name=wanted.owner, proxy_group=proxy_group)}")
        case Unavailable(problem):
            say(f"REFUSED, because nobody could tell: {problem}", tone="bad")
            say("  this is no mistake of the user; look at the backend, its address, its certificate and its log")
        case _:
            assert_never(answer)
    return 1
