"""`trioproxy auth test`: one login, step by step, with what to do about a failure."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from typing import Annotated, Final

import attrs
from cyclopts import App, Parameter

from auth import Answer, Credentials, Identity, Rejected, Rejection
from auth.chain import Chain
from auth.local import BackendContext, LocalUser
from auth.registry import BackendError
from trioproxy.backends import build_chain
from trioproxy.cli.accounts import blocks_of
from trioproxy.cli.login_report import Layer, Report
from trioproxy.cli.login_trace import Trace
from trioproxy.cli.output import Failure, say, show_json, usage
from trioproxy.cli.passwords import read_password
from trioproxy.cli.place import HERE, Place, parse_user
from trioproxy.config import BackendTable, Config
from trioproxy.policy import Block, Blocks, Scope, canonical_address, directory_layers, rule_problems
from trioproxy.store import Store, read_rule_set

__all__ = ["app"]

app = App(
    name="auth",
    help="Where logins are checked.",
    help_epilogue="Example: `trioproxy auth test alice`",
)

_LOCAL: Final = BackendTable("local")
_UNKNOWN: Final = Rejected(Rejection.UNKNOWN_USER)


@app.command(name="test", help_epilogue="Example: `trioproxy auth test physics/alice --source 10.1.2.3`")
def try_login(  # noqa: PLR0913 - the options of a command
    name: str,
    /,
    *,
    source: str = "127.0.0.1",
    password_stdin: bool = False,
    no_password: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    place: Place = HERE,
) -> int:
    """Try a login: ask for the password, show what each backend does and says, and which rules would hold.

    Args:
        name: alice, or physics/alice.
        source: the client's address, for users that may log in from some networks only.
        password_stdin: read the password from one line of standard input.
        no_password: ask who this is by now, as a running server does about users with live sessions.
        as_json: print JSON.
        place: which installation.
    """
    config = place.load()
    wanted = parse_user(name, config)
    try:
        client = str(ip_address(source))
    except ValueError as error:
        raise usage(f"--source: {source!r} is no IP address") from error
    if no_password and password_stdin:
        raise usage("--no-password and --password-stdin exclude each other")
    password = None if no_password else read_password(stdin=password_stdin, repeat=False)
    trace = Trace(password, live=not as_json)
    settings = config.tenants()[wanted.tenant]
    with ExitStack() as stack:
        store = _open_store(config, place, settings.backends, stack)
        chain = _open_chain(config, wanted.tenant, store, trace, stack)
        if not as_json:
            asker = f"{wanted.owner}, without a password" if password is None else f"{wanted.owner} from {client}"
            say(f"{asker}; tenant {wanted.tenant} asks {', '.join(settings.backends)}", tone="strong")
        trial = _Trial(chain, config, trace)
        if password is None:
            answer = trial.find(wanted.tenant, wanted.name)
        else:
            answer = trial.authenticate(Credentials(wanted.tenant, wanted.name, password, client))
        report = Report(
            wanted, None if password is None else client, settings.proxy_group, trace.asked, answer, clean=trace.clean
        )
        if isinstance(answer, Identity):
            report = attrs.evolve(_with_rules(report, answer, store), block=_block(wanted, client, password, store))
    if as_json:
        show_json(report.as_json())
    else:
        report.show()
    return 0 if isinstance(answer, Identity) else 1


@attrs.frozen
class _Trial:
    """Asks a chain as the server does, one backend after the other."""

    chain: Chain
    config: Config
    trace: Trace

    def authenticate(self, credentials: Credentials) -> Answer:
        """A login."""
        questions = self.chain.questions(credentials)
        question = next(questions)
        while True:
            # Without a name it is work of our own: what unknown users cost.
            answer = self._ask(question.backend, question.ask) if question.backend else question.ask()
            try:
                question = questions.send(answer)
            except StopIteration as done:
                answer = done.value
                return self.trace.cleaned(answer)

    def find(self, tenant: str, username: str) -> Answer:
        """What is asked about live sessions."""
        answer: Answer = _UNKNOWN
        for backend in self.chain.backends:
            answer = self._ask(backend, partial(self.chain.find, tenant, username, backend))
            if answer != _UNKNOWN:
                break
        return self.trace.cleaned(answer)

    def _ask(self, backend: str, ask: Callable[[], Answer]) -> Answer:
        self.trace.begin(backend, _table(self.config, backend).type)
        begun_s = time.perf_counter()
        answer = ask()
        self.trace.end(answer, time.perf_counter() - begun_s)
        return answer


def _table(config: Config, backend: str) -> BackendTable:
    return config.auth.tables.get(backend, _LOCAL)


def _open_store(config: Config, place: Place, backends: tuple[str, ...], stack: ExitStack) -> Store | None:
    """The store; None if there is none yet and nobody needs one: a directory can be tried before the first start."""
    needed = any(_table(config, name).type == "local" for name in backends)
    if not needed and not place.store_path(config).exists():
        return None
    return stack.enter_context(place.open_store(config))


def _open_chain(config: Config, tenant: str, store: Store | None, trace: Trace, stack: ExitStack) -> Chain:
    def find_user(tenant: str, name: str) -> LocalUser | None:
        return store.users.find(tenant, name) if store is not None else None

    try:
        chain = build_chain(config, tenant, BackendContext(find_user=find_user, observe=trace.observe))
        chain.open()
    except BackendError as error:
        raise Failure(*error.problems) from error
    except (OSError, ValueError) as error:
        raise Failure(f"a backend of tenant {tenant} cannot be opened: {trace.clean(str(error))}") from error
    stack.callback(chain.close)
    return chain


def _block(user: Scope, client: str, password: str | None, store: Store | None) -> Block | None:
    """What refuses every request of this user; without a password nobody says from where."""
    blocks = store.blocks.all() if store is not None else ()
    in_force = Blocks(blocks).in_force(datetime.now(UTC))
    by_source = in_force.of_source(canonical_address(ip_address(client)), user.tenant) if password is not None else None
    found = [*blocks_of(user, in_force), *([by_source] if by_source is not None else [])]
    return min(found, key=lambda block: block.id, default=None)


def _with_rules(report: Report, identity: Identity, store: Store | None) -> Report:
    written = directory_layers(identity)
    layers, problems = [], []
    for scope in Scope.layers_of(identity):
        stored = store.rules.of(scope) if store is not None else ()
        problems.append(read_rule_set(scope, stored)[1])
        layers.append(
            Layer(scope, None if store is None else len(stored), tuple(one for one in written if one.scope == scope))
        )
    warnings = (*(problem for problem in problems if problem), *rule_problems(identity))
    return attrs.evolve(report, layers=tuple(layers), warnings=warnings)
