"""`trioproxy auth test`: each step of one login, and what to do about a failure."""

import re
from pathlib import Path

import pytest

from auth import Credentials, Identity, Rejected, Rejection, Unavailable, registry
from auth.local import BackendContext
from auth.registry import BackendError
from tests.cli.conftest import Command
from trioproxy.cli import auth


def try_login(cli: Command, name: str, password: str, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines, with the times cut out."""
    result = cli("auth", "test", name, "--password-stdin", *arguments, stdin=password.encode())
    assert password not in result.out + result.err
    return result.code, [re.sub(r" *\d+ ms$", " N ms", line) for line in result.lines]


@pytest.fixture
def alice(cli: Command) -> Command:
    """An installation with the user alice, whose password is `PW-right`."""
    cli("user", "add", "alice", "--password-stdin", stdin=b"PW-right")
    return cli


def test_accepted(alice: Command) -> None:
    """DESIGN section 5: each step through each backend, timed."""
    assert try_login(alice, "alice", "PW-right") == (
        0,
        [
            "alice from 127.0.0.1; backends of tenant main, in this order:",
            "BACKEND  ANSWER                 TIME",
            "local    the password is right N ms",
            "ACCEPTED by local; groups: system-proxy",
        ],
    )


@pytest.mark.parametrize(
    ("name", "prepare", "reason", "advice"),
    [
        ("alice", [], "wrong password", "`trioproxy user passwd alice` sets a new password"),
        ("nobody", [], "unknown user", "`trioproxy user add nobody` adds a local user"),
        ("physics/alice", [], "unknown user", "`trioproxy user add physics/alice` adds a local user"),
    ],
)
def test_refused(alice: Command, name: str, prepare: list[str], reason: str, advice: str) -> None:
    """Each failure comes with what to do about it; exit code 1 for scripts."""
    assert prepare == []
    code, lines = try_login(alice, name, "PW-CANARY")
    assert code == 1
    assert lines[-2] == f"REFUSED: {reason}"
    assert advice in lines[-1]


@pytest.mark.parametrize(
    ("prepare", "reason", "advice"),
    [
        (["disable", "alice"], "user is disabled", "`trioproxy user enable alice`"),
        (
            ["change", "alice", "--valid-until", "2020-01-01"],
            "user is expired or not yet valid",
            "`trioproxy user change alice --valid-until",
        ),
        (
            ["change", "alice", "--source", "10.0.0.0/8"],
            "user may not log in from this address",
            "`trioproxy user change alice --source",
        ),
        (
            ["group", "alice", "--remove", "system-proxy"],
            "user is not a member of the proxy group",
            "`trioproxy user group alice --add system-proxy`",
        ),
    ],
)
def test_a_right_password_that_is_refused(alice: Command, prepare: list[str], reason: str, advice: str) -> None:
    """Case 32: the account, not the password, is the problem."""
    assert alice("user", *prepare).code == 0
    code, lines = try_login(alice, "alice", "PW-right")
    assert (code, lines[-2]) == (1, f"REFUSED: {reason}")
    assert advice in lines[-1]


def test_every_rejection_has_advice() -> None:
    """A reason without advice would be a traceback at the help desk."""
    assert set(auth._ADVICE) == set(Rejection)


def test_from_an_address(alice: Command) -> None:
    """Users who may come from some networks only are tried from there."""
    alice("user", "change", "alice", "--source", "10.0.0.0/8")
    assert try_login(alice, "alice", "PW-right", "--source", "10.1.2.3")[0] == 0
    result = alice("auth", "test", "alice", "--password-stdin", "--source", "here", stdin=b"PW-right")
    assert (result.code, result.err) == (2, "trioproxy: --source: 'here' is no IP address\n")


class _Directory:
    """A backend that answers what the test wants."""

    answer: object = Rejected(Rejection.UNKNOWN_USER)
    log: tuple[str, ...] = ()

    def open(self) -> None:
        """Open."""
        type(self).log += ("open",)

    def authenticate(self, credentials: Credentials) -> object:
        """Answer, or fail."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        """Close."""
        type(self).log += ("close",)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[_Directory]:
    """A second backend, asked before the local one."""

    class Directory(_Directory):
        """One for each test."""

    def build(name: str, type_name: str, table: object, context: BackendContext) -> object:
        if type_name == "fake":
            return Directory()
        return real(name, type_name, table, context)  # type: ignore[arg-type]  # passed on as it came

    real = registry.build
    monkeypatch.setattr(auth, "build", build)
    monkeypatch.setattr("trioproxy.config.checks.build", build)
    (tmp_path / "trioproxy.toml").write_text(
        '[auth]\nbackends = ["campus", "local"]\n[auth.campus]\ntype = "fake"\n[tenant.far]\nbackends = ["campus"]\n',
        encoding="utf-8",
    )
    return Directory


def test_the_chain_goes_on_for_unknown_users(alice: Command, directory: type[_Directory]) -> None:
    """DESIGN section 6: asked in this order, the first that knows the user decides; all are closed again."""
    _, lines = try_login(alice, "alice", "PW-right")
    assert lines[2:] == [
        "campus   unknown user N ms",
        "local    the password is right N ms",
        "ACCEPTED by local; groups: system-proxy",
    ]
    assert directory.log == ("open", "close")


@pytest.mark.parametrize(
    ("answer", "described", "concluded"),
    [
        (Unavailable("no route to host"), "could not tell: no route to host", "no route to host"),
        (
            RuntimeError("PW-CANARY in a stranger's text"),
            "could not tell: it failed",
            "backend campus failed: RuntimeError",
        ),
    ],
)
def test_a_backend_that_could_not_tell(
    alice: Command, directory: type[_Directory], answer: object, described: str, concluded: str
) -> None:
    """A dead directory stops the search: no password travels on, and it is not the user's fault."""
    directory.answer = answer
    code, lines = try_login(alice, "alice", "PW-CANARY")
    assert code == 1
    assert lines[2:] == [
        f"campus   {described} N ms",
        f"REFUSED, because nobody could tell: {concluded}",
        "  this is no mistake of the user; look at the backend, its address, its certificate and its log",
    ]


def test_a_tenant_without_local_users_needs_no_store(cli: Command, directory: type[_Directory], data_dir: Path) -> None:
    """A site with a directory alone can try it before the first start."""
    directory.answer = Identity("far", "alice", frozenset({"system-proxy", "staff"}))
    code, lines = try_login(cli, "far/alice", "PW-right")
    assert (code, lines[-1]) == (0, "ACCEPTED by campus; groups: staff, system-proxy")
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (BackendError("auth.campus.urls: expected a list"), "trioproxy: auth.campus.urls: expected a list\n"),
        (OSError("no such certificate"), "trioproxy: a backend of tenant main cannot be opened: no such certificate\n"),
    ],
)
def test_a_backend_that_cannot_be_opened(
    alice: Command, directory: type[_Directory], error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear line, as at the start of the server."""

    def fail(_self: object) -> None:
        raise error

    monkeypatch.setattr(directory, "open", fail)
    result = alice("auth", "test", "alice", "--password-stdin", stdin=b"PW-right")
    assert (result.code, result.out, result.err) == (1, "", message)
