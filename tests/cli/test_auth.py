"""`trioproxy auth test`: each step of one login, what to do about a failure, and which rules would hold."""

import json
import re
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Final

import attrs
import pytest

from auth import Answer, Cause, Credentials, EntryRules, Identity, Rejected, Rejection, Step, Unavailable, registry
from auth.local import BackendContext
from tests.cli.conftest import CONFIG, Command
from trioproxy.cli import login_report

CANARY: Final = "PW-CANARY"
UNKNOWN: Final = Rejected(Rejection.UNKNOWN_USER)


def try_login(cli: Command, name: str, password: str, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines, with the times cut out."""
    result = cli("auth", "test", name, "--password-stdin", *arguments, stdin=password.encode())
    assert password not in result.out + result.err
    assert result.err == ""
    return result.code, plain(result.lines)


def plain(lines: Sequence[str]) -> list[str]:
    """The lines without times: `N ms`."""
    return [re.sub(r" +\d+ ms\b", " N ms", line) for line in lines]


@pytest.fixture
def alice(cli: Command) -> Command:
    """An installation with the user alice, whose password is `PW-right`."""
    cli("user", "add", "alice", "--password-stdin", stdin=b"PW-right")
    return cli


# ---- the local users


def test_accepted(alice: Command) -> None:
    """Issue item 9: each step with its time, the groups, the decision, the layers that would apply."""
    alice("rule", "add", "user:alice", "tcp:*(*)->*(443)")
    alice("rule", "add", "global", "deny any:*(*)->*(25)")
    alice("rule", "add", "global", "deny any:*(*)->*(26)")
    assert try_login(alice, "alice", "PW-right") == (
        0,
        [
            "alice from 127.0.0.1; tenant main asks local",
            "",
            "local (local)",
            "  =     answer N ms  accepted",
            "",
            "ACCEPTED by local",
            "  a member of the proxy group system-proxy",
            "  groups: system-proxy",
            "  4 layers of rules would apply:",
            "",
            "LAYER               STORED  FROM THE DIRECTORY",
            "global              2       -",
            "tenant:main         0       -",
            "group:system-proxy  0       -",
            "user:alice          1       -",
        ],
    )


@pytest.mark.parametrize(
    ("name", "reason", "advice"),
    [
        ("alice", "wrong password", "`trioproxy user passwd alice` sets a new password"),
        ("nobody", "unknown user", "`trioproxy user add nobody` adds a local user"),
        ("physics/alice", "unknown user", "`trioproxy user add physics/alice` adds a local user"),
    ],
)
def test_refused(alice: Command, name: str, reason: str, advice: str) -> None:
    """Each failure comes with what to do about it; exit code 1 for scripts."""
    code, lines = try_login(alice, name, CANARY)
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


def test_every_refusal_has_advice() -> None:
    """A reason without advice would be a traceback at the help desk."""
    assert set(login_report.LOCAL_ADVICE) == set(login_report.DIRECTORY_ADVICE) == set(Rejection)
    assert set(login_report.CAUSE_ADVICE) == set(Cause)


def test_from_an_address(alice: Command) -> None:
    """Users who may come from some networks only are tried from there."""
    alice("user", "change", "alice", "--source", "10.0.0.0/8")
    assert try_login(alice, "alice", "PW-right", "--source", "10.1.2.3")[0] == 0
    result = alice("auth", "test", "alice", "--password-stdin", "--source", "here", stdin=b"PW-right")
    assert (result.code, result.err) == (2, "trioproxy: --source: 'here' is no IP address\n")


def test_without_a_password(alice: Command) -> None:
    """What a server asks about users with live sessions: a user who may not come from here is known all the same."""
    alice("user", "change", "alice", "--source", "10.0.0.0/8")
    result = alice("auth", "test", "alice", "--no-password")
    assert result.code == 0
    assert plain(result.lines)[:6] == [
        "alice, without a password; tenant main asks local",
        "",
        "local (local)",
        "  =     answer N ms  accepted",
        "",
        "ACCEPTED by local, without a password",
    ]
    alice("user", "disable", "alice")
    result = alice("auth", "test", "alice", "--no-password")
    assert (result.code, result.lines[-2]) == (1, "REFUSED: user is disabled")


def test_with_and_without_a_password(alice: Command) -> None:
    """Exit code 2 for a command line that makes no sense."""
    result = alice("auth", "test", "alice", "--no-password", "--password-stdin", stdin=b"PW-right")
    assert (result.code, result.out) == (2, "")
    assert result.err == "trioproxy: --no-password and --password-stdin exclude each other\n"


def test_a_layer_that_cannot_be_read(alice: Command, data_dir: Path) -> None:
    """It denies everything, so whoever wonders why is told here."""
    alice("rule", "add", "user:alice", "tcp:*(*)->*(443)")
    with closing(sqlite3.connect(data_dir / "trioproxy.db", isolation_level=None)) as hand:
        hand.execute("UPDATE rule SET content = 'tcp:nonsense'")
    _, lines = try_login(alice, "alice", "PW-right")
    assert lines[-1].startswith("warning: rule 1 of user:alice cannot be read, so this layer denies everything: ")


# ---- other backends


@attrs.frozen
class Script:
    """What a backend does with a login.

    Attributes:
        answer: what it answers, makes its answer, or fails with.
        steps: what it says on the way.
    """

    answer: Answer | Exception | Callable[[], Answer] = UNKNOWN
    steps: tuple[Step, ...] = ()


@attrs.frozen
class Settings:
    """The table of a `Directory`."""

    script: str


class Directory:
    """A backend that does what the test wants."""

    settings_type: ClassVar[type] = Settings
    in_flight_max: int | None = 8
    revalidate_s: float | None = 60.0
    scripts: ClassVar[dict[str, Script]] = {}
    log: ClassVar[list[str]] = []
    contexts: ClassVar[list[BackendContext]] = []

    def __init__(self, settings: Settings, context: BackendContext) -> None:
        self.name = settings.script
        self.context = context

    def open(self) -> None:
        """Say that one comes to life: nobody's login yet."""
        self.log.append(f"open {self.name}")
        self.contexts.append(self.context)
        self.context.observe(Step("open", 0.0, "not part of a login"))

    def authenticate(self, credentials: Credentials) -> Answer:
        """Follow the script."""
        self.log.append(f"authenticate {self.name} {credentials.username}")
        return self._follow()

    def find(self, tenant: str, username: str) -> Answer:
        """The same."""
        self.log.append(f"find {self.name} {tenant}/{username}")
        return self._follow()

    def close(self) -> None:
        """Note it."""
        self.log.append(f"close {self.name}")

    def _follow(self) -> Answer:
        script = self.scripts[self.name]
        for step in script.steps:
            self.context.observe(step)
        if isinstance(script.answer, Exception):
            raise script.answer
        return script.answer() if callable(script.answer) else script.answer


DIRECTORIES: Final = """
[auth]
backends = ["campus", "annex", "local"]
[auth.campus]
type = "fake"
script = "campus"
[auth.annex]
type = "fake"
script = "annex"
[tenant.far]
backends = ["campus"]
[tenant.guests]
backends = ["campus"]
nonmembers = "global-rules"
[tenant.brave]
backends = ["campus", "annex"]
fall_through = true
"""


@pytest.fixture
def scripts(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Script]:
    """Two backends, asked before the local one; what they do may be changed."""
    module = ModuleType("fake_directory")
    module.Directory = Directory  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_directory", module)
    installed = [EntryPoint("fake", "fake_directory:Directory", registry.ENTRY_POINT_GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda *, group: installed)
    (tmp_path / "trioproxy.toml").write_text(DIRECTORIES + CONFIG, encoding="utf-8")
    scripts = {"campus": Script(), "annex": Script()}
    monkeypatch.setattr(Directory, "scripts", scripts)
    monkeypatch.setattr(Directory, "log", [])
    monkeypatch.setattr(Directory, "contexts", [])
    return scripts


def somebody(tenant: str = "main", **more: Any) -> Identity:
    """What a backend answers for alice, a member of the proxy group and of staff."""
    return Identity(tenant, "alice", **({"groups": frozenset({"system-proxy", "staff"})} | more))


RESOLVE: Final = Step("resolve", 0.0014, "192.0.2.5")
TLS: Final = Step("TLS", 0.2, "TLSv1.3, certificate for ldap.example.org, valid until Jan  1 00:00:00 2027 GMT")
REFUSED: Final = Step("connect", 3.0004, "no answer in time", "is the directory running?", failed=True)


def test_the_steps_of_each_backend(alice: Command, scripts: dict[str, Script]) -> None:
    """Issue item 9: under the backend that made them, with times; unknown users are asked about further on."""
    scripts["campus"] = Script(UNKNOWN, (RESOLVE, TLS, Step("search", 0.01, "(uid=alice): no entry", failed=True)))
    code, lines = try_login(alice, "alice", "PW-right")
    result = alice("auth", "test", "alice", "--password-stdin", stdin=b"PW-right")
    assert code == 0
    assert lines[:14] == [
        "alice from 127.0.0.1; tenant main asks campus, annex, local",
        "",
        "campus (fake)",
        "  ok    resolve N ms  192.0.2.5",
        "  ok    TLS N ms  TLSv1.3, certificate for ldap.example.org, valid until Jan  1 00:00:00 2027 GMT",
        "  FAIL  search N ms  (uid=alice): no entry",
        "  =     answer N ms  unknown user",
        "",
        "annex (fake)",
        "  =     answer N ms  unknown user",
        "",
        "local (local)",
        "  =     answer N ms  accepted",
        "",
    ]
    assert lines[14] == "ACCEPTED by local"
    assert "  ok    TLS              200 ms  TLSv1.3" in result.out
    assert "not part of a login" not in result.out
    assert Directory.log[:6] == [
        "open campus",
        "open annex",
        "authenticate campus alice",
        "authenticate annex alice",
        "close annex",
        "close campus",
    ]


def test_a_step_is_shown_while_the_next_is_waited_for(
    alice: Command, scripts: dict[str, Script], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever waits for a dead directory sees what it waits for."""
    shown: list[str] = []

    def answer() -> Answer:
        shown.extend(plain(capsys.readouterr().out.splitlines()))
        return somebody()

    scripts["campus"] = Script(answer, (RESOLVE,))
    alice("auth", "test", "alice", "--password-stdin", stdin=b"PW-right")
    assert shown[-2:] == ["campus (fake)", "  ok    resolve N ms  192.0.2.5"]


def test_a_step_that_failed(alice: Command, scripts: dict[str, Script]) -> None:
    """Its advice stands below it, once also where the step around it failed for the same reason, and at the end."""
    around = attrs.evolve(REFUSED, name="search")
    other = attrs.evolve(REFUSED, advice="does a firewall let us through?")
    scripts["campus"] = Script(Unavailable("ldap2: no answer", Cause.CONNECT), (REFUSED, around, RESOLVE, other))
    code, lines = try_login(alice, "alice", "PW-right")
    assert code == 1
    assert lines[2:] == [
        "campus (fake)",
        "  FAIL  connect N ms  no answer in time",
        "        is the directory running?",
        "  FAIL  search N ms  no answer in time",
        "  ok    resolve N ms  192.0.2.5",
        "  FAIL  connect N ms  no answer in time",
        "        does a firewall let us through?",
        "  =     answer N ms  could not tell: ldap2: no answer",
        "",
        "REFUSED, because nobody could tell: ldap2: no answer",
        "  this is no mistake of the user; with campus, it cannot be reached",
        "  does a firewall let us through?",
    ]


@pytest.mark.parametrize("cause", Cause)
def test_nobody_could_tell(alice: Command, scripts: dict[str, Script], cause: Cause) -> None:
    """A dead directory stops the search, no password travels on; the cause says what to look at."""
    scripts["campus"] = Script(Unavailable("a problem", cause))
    code, lines = try_login(alice, "alice", CANARY)
    assert code == 1
    assert lines[3:] == [
        "  =     answer N ms  could not tell: a problem",
        "",
        "REFUSED, because nobody could tell: a problem",
        f"  this is no mistake of the user; with campus, {cause.value}",
        f"  {login_report.CAUSE_ADVICE[cause]}",
    ]
    assert Directory.log == ["open campus", "open annex", "authenticate campus alice", "close annex", "close campus"]


def test_the_search_goes_on_where_that_is_wanted(alice: Command, scripts: dict[str, Script]) -> None:
    """`fall_through`: the next is asked; if that does not know the user either, it is the first one's problem."""
    scripts["campus"] = Script(Unavailable("no route", Cause.CONNECT))
    code, lines = try_login(alice, "brave/alice", CANARY)
    assert code == 1
    assert lines[2:-2] == [
        "campus (fake)",
        "  =     answer N ms  could not tell: no route",
        "",
        "annex (fake)",
        "  =     answer N ms  unknown user",
        "",
        "REFUSED, because nobody could tell: no route",
    ]
    scripts["annex"] = Script(somebody("brave"))
    code, lines = try_login(alice, "brave/alice", CANARY)
    assert (code, lines[8]) == (0, "ACCEPTED by annex")


def test_unknown_everywhere(alice: Command, scripts: dict[str, Script]) -> None:
    """What to look at in the directories, and how to make a local user."""
    code, lines = try_login(alice, "nobody", CANARY)
    assert code == 1
    assert lines[-3] == "REFUSED: unknown user"
    assert "look at user_base and user_filter of annex" in lines[-2]
    assert "`trioproxy user add nobody`" in lines[-1]


def test_refused_by_a_directory(alice: Command, scripts: dict[str, Script]) -> None:
    """The advice is about the directory, and not about local users."""
    scripts["campus"] = Script(somebody(groups=frozenset({"staff"})))
    code, lines = try_login(alice, "alice", CANARY)
    assert code == 1
    assert lines[3:6] == [
        "  =     answer N ms  user is not a member of the proxy group",
        "",
        "REFUSED: user is not a member of the proxy group",
    ]
    assert lines[6].startswith("  add the user to system-proxy in campus; if the user is in it, look at proxy_group_dn")
    assert len(lines) == 7


def test_without_a_password_backends_find(alice: Command, scripts: dict[str, Script]) -> None:
    """No password is asked for, none travels; the first that knows the user decides, as for live sessions."""
    scripts["annex"] = Script(somebody(), (RESOLVE,))
    result = alice("auth", "test", "alice", "--no-password")
    assert result.code == 0
    assert plain(result.lines)[2:10] == [
        "campus (fake)",
        "  =     answer N ms  unknown user",
        "",
        "annex (fake)",
        "  ok    resolve N ms  192.0.2.5",
        "  =     answer N ms  accepted",
        "",
        "ACCEPTED by annex, without a password",
    ]
    assert Directory.log[2:4] == ["find campus main/alice", "find annex main/alice"]
    scripts["annex"] = Script()
    result = alice("auth", "test", "nobody", "--no-password")
    assert (result.code, result.lines[-3]) == (1, "REFUSED: unknown user")


def test_outside_the_proxy_group(alice: Command, scripts: dict[str, Script]) -> None:
    """Where others are let in too, they have the global layer alone."""
    scripts["campus"] = Script(somebody("guests", groups=frozenset({"staff"})))
    code, lines = try_login(alice, "guests/alice", CANARY)
    assert code == 0
    assert lines[5:] == [
        "ACCEPTED by campus",
        '  no member of the proxy group system-proxy; nonmembers = "global-rules" lets everybody in',
        "  groups: staff",
        "  1 layer of rules would apply:",
        "",
        "LAYER   STORED  FROM THE DIRECTORY",
        "global  0       -",
    ]


STAFF_RULES: Final = EntryRules("staff", "cn=staff,ou=groups", ("tcp:*(*)->*(443)", "tcp:*(*)->*(80)"))
OWN_RULES: Final = EntryRules(None, "uid=alice,ou=people", ("deny any:*(*)->*(25)", "allow all", "udp:*(*)->*(53)"))


def test_rules_of_the_directory(alice: Command, scripts: dict[str, Script]) -> None:
    """The number in each layer with the entry they come from; each wrong one is named."""
    alice("rule", "add", "group:staff", "tcp:*(*)->*(22)")
    scripts["campus"] = Script(
        somebody(rules=(STAFF_RULES, OWN_RULES), valid_until=datetime(2030, 1, 1, 12, tzinfo=UTC))
    )
    code, lines = try_login(alice, "alice", CANARY)
    assert code == 0
    assert lines[7] == "  groups: staff, system-proxy"
    assert lines[8].startswith("  until 20")
    assert lines[11:17] == [
        "LAYER               STORED  FROM THE DIRECTORY",
        "global              0       -",
        "tenant:main         0       -",
        "group:staff         1       2 in cn=staff,ou=groups",
        "group:system-proxy  0       -",
        "user:alice          0       2 in uid=alice,ou=people",
    ]
    assert lines[17].startswith('warning: uid=alice,ou=people: the rule "allow all" is left out')
    assert len(lines) == 18


def test_what_strangers_wrote_moves_no_cursor(alice: Command, scripts: dict[str, Script]) -> None:
    """Names, certificates and rules of a directory belong to whoever may write there (case 106)."""
    evil = "\x1b[2J\r\n\u202eroot"
    scripts["campus"] = Script(
        somebody(rules=(EntryRules(None, evil, ("tcp:*(*)->*(443)", evil)),)),
        (Step(evil, 0.0, evil, evil, failed=True),),
    )
    code, lines = try_login(alice, "alice", CANARY)
    assert code == 0
    assert sum("\\x1b[2J\\r\\n\\u202eroot" in line for line in lines) == 4  # step, advice, table, warning
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "script",
    [
        Script(RuntimeError(f"cannot log in with {CANARY}")),
        Script(Unavailable(f"refused: {CANARY}", Cause.REFUSED)),
        Script(
            Unavailable("refused"),
            (Step("bind", 0.1, f"with {CANARY}", f"try another one than {CANARY}", failed=True),),
        ),
        Script(somebody(), (Step(f"bind {CANARY}", 0.1),)),
    ],
    ids=["exception", "problem", "detail and advice", "name"],
)
def test_no_password_is_ever_shown(alice: Command, scripts: dict[str, Script], script: Script, as_json: bool) -> None:
    """Issue item 9: whatever a backend says, of whoever made it."""
    scripts["campus"] = script
    arguments = ["--json"] if as_json else []
    result = alice("auth", "test", "alice", "--password-stdin", *arguments, stdin=CANARY.encode())
    assert CANARY not in result.out + result.err
    assert (result.code == 0) == isinstance(script.answer, Identity)
    assert isinstance(script.answer, Exception) != ("(not shown: the password stands in it)" in result.out)
    assert isinstance(script.answer, Identity) or login_report.CAUSE_ADVICE[_cause(script.answer)] in result.out


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("password", ["PW-Canary", "PW\u00a0Canary"])
def test_no_password_is_shown_among_groups_and_rules(
    alice: Command, scripts: dict[str, Script], password: str, as_json: bool
) -> None:
    """Lower case in the name of a group, escaped in the name of an entry, in a rule and in what is wrong with one."""
    group = password.lower().replace("\u00a0", "")
    texts = (f"tcp:*(*)->*(443) note=x{password}".replace("\u00a0", ""), f"no rule {password}")
    who = somebody(groups=frozenset({"system-proxy", group}), rules=(EntryRules(None, f"uid={password}", texts),))
    scripts["campus"] = Script(who)
    arguments = ["--json"] if as_json else []
    result = alice("auth", "test", "alice", "--password-stdin", *arguments, stdin=password.encode())
    assert result.code == 0
    shown = (result.out + result.err).lower()
    leaks = {password.lower(), password.lower().replace("\u00a0", "\\xa0"), password.lower().replace("\u00a0", "?")}
    assert not any(leak in shown for leak in leaks)
    assert shown.count("(not shown: the password stands in it)") >= 2


def _cause(answer: object) -> Cause:
    return answer.cause if isinstance(answer, Unavailable) else Cause.OTHER


def test_a_tenant_without_local_users_needs_no_store(cli: Command, scripts: dict[str, Script], data_dir: Path) -> None:
    """A site with a directory alone can try it before the first start."""
    scripts["campus"] = Script(somebody("far"))
    code, lines = try_login(cli, "far/alice", "PW-right")
    assert (code, lines[5]) == (0, "ACCEPTED by campus")
    assert lines[11:13] == ["global                  -       -", "tenant:far              -       -"]
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            registry.BackendError("auth.campus.urls: expected a list"),
            "trioproxy: auth.campus.urls: expected a list\n",
        ),
        (OSError("no such certificate"), "trioproxy: a backend of tenant main cannot be opened: no such certificate\n"),
    ],
)
def test_a_backend_that_cannot_be_opened(
    alice: Command, scripts: dict[str, Script], error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear line, as at the start of the server."""

    def fail(_self: object) -> None:
        raise error

    monkeypatch.setattr(Directory, "open", fail)
    result = alice("auth", "test", "alice", "--password-stdin", stdin=b"PW-right")
    assert (result.code, result.out, result.err) == (1, "", message)


# ---- for programs


def as_json(cli: Command, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and the object, with the times cut out."""
    result = cli("auth", "test", *arguments, "--json", stdin=CANARY.encode())
    assert result.err == ""
    shown: dict[str, Any] = json.loads(result.out)
    assert all(asked.pop("duration_s") >= 0 for asked in shown["asked"])
    return result.code, shown


def test_accepted_as_json(alice: Command, scripts: dict[str, Script]) -> None:
    """One object with everything that people are shown, and nothing else on stdout."""
    alice("rule", "add", "user:alice", "tcp:*(*)->*(443)")
    scripts["annex"] = Script(
        somebody(groups=frozenset({"system-proxy"}), rules=(OWN_RULES,), valid_until=datetime(2030, 1, 1, tzinfo=UTC)),
        (RESOLVE,),
    )
    code, shown = as_json(alice, "alice", "--password-stdin", "--source", "10.1.2.3")
    [warning] = shown.pop("warnings")
    assert '"allow all"' in warning
    assert (code, shown) == (
        0,
        {
            "tenant": "main",
            "user": "alice",
            "source": "10.1.2.3",
            "password": True,
            "asked": [
                {"backend": "campus", "type": "fake", "answer": "unknown user", "steps": []},
                {
                    "backend": "annex",
                    "type": "fake",
                    "answer": "accepted",
                    "steps": [
                        {"name": "resolve", "duration_s": 0.0014, "detail": "192.0.2.5", "advice": "", "failed": False}
                    ],
                },
            ],
            "decision": "accepted",
            "backend": "annex",
            "reason": None,
            "cause": None,
            "advice": [],
            "proxy_group": "system-proxy",
            "member": True,
            "groups": ["system-proxy"],
            "valid_until": "2030-01-01T00:00:00+00:00",
            "block": None,
            "layers": [
                {"scope": "global", "stored": 0, "directory": []},
                {"scope": "tenant:main", "stored": 0, "directory": []},
                {"scope": "group:system-proxy", "stored": 0, "directory": []},
                {
                    "scope": "user:alice",
                    "stored": 1,
                    "directory": [
                        {"entry": "uid=alice,ou=people", "rules": ["deny any:*(*)->*(25)", "udp:*(*)->*(53)"]}
                    ],
                },
            ],
        },
    )


@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        (Rejected(Rejection.WRONG_PASSWORD), ("refused", "wrong password", None)),
        (Unavailable("no route", Cause.CONNECT), ("unavailable", "no route", "connect")),
    ],
)
def test_refused_as_json(
    alice: Command, scripts: dict[str, Script], answer: Answer, decision: tuple[str | None, ...]
) -> None:
    """A monitoring script tells a dead directory from a wrong password."""
    scripts["campus"] = Script(answer)
    code, shown = as_json(alice, "alice", "--no-password")
    assert code == 1
    assert (shown["decision"], shown["reason"], shown["cause"]) == decision
    assert (shown["source"], shown["password"], shown["backend"], shown["member"]) == (None, False, None, False)
    assert shown["layers"] == shown["groups"] == shown["warnings"] == []
    assert shown["advice"]
