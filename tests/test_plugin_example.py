"""The plug-in of `docs/plugin-example`: built, installed as any other, and used by the real program."""

import contextlib
import json
import os
import re
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

import pytest
import socks

from auth import Backend, Cause, Credentials, Identity, Rejected, Rejection, Step, Unavailable
from auth.local import BackendContext
from auth.registry import BackendError, build
from tests.system.origins import GREETING, tcp_origin
from tests.system.proxy import LOOPBACK_FLOOR, Proxy, command, environment, run
from tests.system.waiting import PATIENCE_S, until

EXAMPLE: Final = Path(__file__).parent.parent / "docs" / "plugin-example"
PASSWORD: Final = "PW-right"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the plug-in, as pip installs it; from a copy, so that nothing is left in the tree."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    target = folder / "target"
    # Nothing is downloaded: what it depends on is here, and what builds it belongs to the tools of the tests.
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    done = run([*pip, "--no-build-isolation", "--quiet", "--target", target, source], within_s=120, env=os.environ)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def beside(installed: Path) -> dict[str, str]:
    """The environment of a trioproxy that has the plug-in."""
    own = environment()
    return {**own, "PYTHONPATH": f"{own['PYTHONPATH']}{os.pathsep}{installed}"}


# ---- the real program


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, beside: dict[str, str]) -> Proxy:
    """The configuration of the example, with the people carol, dora (disabled) and emil (not in the proxy group)."""
    folder = tmp_path_factory.mktemp("site")
    people = folder / "people.json"
    hashed = json.loads(run([sys.executable, EXAMPLE / "people.py", "--hash"], text=f"{PASSWORD}\n").stdout)
    members = {"groups": ["system-proxy", "Staff"]}
    people.write_text(
        json.dumps(
            {
                "carol": hashed | members,
                "dora": hashed | members | {"disabled": True},
                "emil": hashed | {"groups": ["staff"]},
            }
        )
    )
    program = folder / "people.py"
    program.write_text(f"#!{sys.executable}\n{(EXAMPLE / 'people.py').read_text()}")
    program.chmod(0o755)
    config = (
        (EXAMPLE / "trioproxy.toml")
        .read_text()
        .replace("/usr/local/lib/trioproxy/people.py", str(program))
        .replace("/etc/trioproxy/people.json", str(people))
        .replace("answer_s = 2", "answer_s = 5\nrevalidate_s = 1")  # a busy machine starts no Python in 2 s
    )
    listener = f'[[listener]]\naddress = "127.0.0.1:0"\n{LOOPBACK_FLOOR}'
    rules = {"group:staff": ["tcp:*(*)->*(*)"]}
    return Proxy(folder, config + listener, env=beside).seed({"lara": "wonderland"}, rules)


@pytest.fixture(scope="module")
def running(site: Proxy) -> Iterator[Proxy]:
    """The same, serving."""
    with site:
        yield site


def test_check(site: Proxy) -> None:
    """The table of the plug-in is a table as any other."""
    assert "tenant main: backends people, local" in site.command("check").stdout


@pytest.mark.parametrize(
    ("changed", "to", "problem"),
    [
        ("answer_s", "asnwer_s", "auth.people: unknown key 'asnwer_s' (did you mean 'answer_s'?)"),
        ("answer_s = 5", "answer_s = 500", "auth.people: answer_s: 500 is not between 0.01 and 60"),
        ("answer_s = 5", 'answer_s = "5"', "auth.people.answer_s: expected a number"),
        ("revalidate_s = 1", "revalidate_s = 0", "auth.people: revalidate_s: 0 is not between 1 and 3600"),
        ('command = ["/', 'command = ["', "auth.people: command: the first word is the absolute path of the program"),
        ('people.json"', 'people.json\\u0000"', "auth.people: command: no program can be given a NUL"),
        ("command = [", "command = [] # ", "auth.people: command: the first word is the absolute path of the program"),
    ],
)
def test_check_of_wrong_settings(site: Proxy, tmp_path: Path, changed: str, to: str, problem: str) -> None:
    """Each mistake has its path, as everywhere in the file."""
    assert site.config_file.read_text().count(changed) == 1
    config = tmp_path / "trioproxy.toml"
    config.write_text(site.config_file.read_text().replace(changed, to))
    done = run(command("check", "--config", str(config)), env=site._env)
    assert (done.returncode, done.stderr) == (1, f"trioproxy: {config}: {problem}\n")


def test_without_the_plugin(site: Proxy) -> None:
    """A machine where it was forgotten says so."""
    done = run(command("check", *site.options()))
    assert done.returncode == 1
    assert "auth.people.type: there is no backend 'program'; installed are ldap, local" in done.stderr


@pytest.mark.parametrize(
    ("name", "password", "code", "shown"),
    [
        ("carol", PASSWORD, 0, ["ACCEPTED by people", "  groups: staff, system-proxy"]),
        ("carol", "wrong-one", 1, ["  = answer N ms wrong password", "REFUSED: wrong password"]),
        ("dora", PASSWORD, 1, ["REFUSED: user is disabled"]),
        ("emil", PASSWORD, 1, ["REFUSED: user is not a member of the proxy group"]),
        ("nobody", PASSWORD, 1, ["people (program)", "local (local)", "REFUSED: unknown user"]),
        ("lara", "wonderland", 0, ["  = answer N ms unknown user", "ACCEPTED by local"]),
    ],
)
def test_auth_test(site: Proxy, name: str, password: str, code: int, shown: Sequence[str]) -> None:
    """Its step, its answer, and the decision; a name it does not know is asked about further on."""
    done = site.try_command("auth", "test", name, "--password-stdin", text=f"{password}\n")
    lines = [re.sub(r"(?<=\S) +", " ", re.sub(r"\d+ ms", "N ms", line)) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (code, "")
    assert "  ok program N ms it has answered" in lines
    assert [line for line in shown if line not in lines] == []
    assert password not in done.stdout


def test_auth_test_without_a_password(site: Proxy) -> None:
    """What the server asks about live sessions."""
    assert "ACCEPTED by people" in site.command("auth", "test", "carol", "--no-password").stdout
    assert site.try_command("auth", "test", "dora", "--no-password").returncode == 1


def reach(proxy: Proxy, target: tuple[str, int], user: str, password: str) -> bytes:
    """What a client gets to read through the proxy."""
    with closing(proxy.connect(target, user=user, password=password)) as connected:
        received = b""
        while some := connected.recv(100):
            received += some
        return received


@pytest.fixture
def greeter() -> Iterator[tuple[str, int]]:
    """Says hello to everybody, and hangs up."""

    def greet(connected: socket.socket) -> None:
        connected.sendall(GREETING)

    with tcp_origin("127.0.0.1", greet) as address:
        yield address


def test_logins(running: Proxy, greeter: tuple[str, int]) -> None:
    """Right, wrong, unknown, and nobody can tell: the client hears yes or no, the counters know why."""
    assert reach(running, greeter, "carol", PASSWORD) == GREETING
    for name, password in [("carol", "wrong"), ("dora", PASSWORD), ("emil", PASSWORD), ("nobody", PASSWORD)]:
        with pytest.raises(socks.ProxyError, match="authentication failed"):
            reach(running, greeter, name, password)
    people = running.folder / "people.json"
    aside = people.rename(running.folder / "aside.json")
    with pytest.raises(socks.ProxyError, match="authentication failed"):
        reach(running, greeter, "lara", "wonderland")  # nobody knows whether it is the people's lara
    aside.rename(people)
    counters = running.counters()
    wanted = {
        "login_accepted": 1,
        "login_rejected_wrong_password": 1,
        "login_rejected_disabled": 1,
        "login_rejected_not_a_member": 1,
        "login_rejected_unknown_user": 1,
        "login_unavailable": 1,
    }
    assert {name: counters.get(name, 0) for name in wanted} == wanted
    assert "it says: the people cannot be read: FileNotFoundError" in running.log
    assert PASSWORD not in running.log
    assert running.record(user="carol")["scope"] == "group:staff"


def test_whoever_is_disabled_is_out(running: Proxy) -> None:
    """The running session of a user ends when the program says no, and goes on while it cannot tell."""
    people = running.folder / "people.json"
    before = people.read_text()
    with (
        tcp_origin("127.0.0.1") as echo,
        closing(running.connect(echo, user="carol", password=PASSWORD)) as connected,
    ):
        people.write_text("not now")
        until("a look that told nothing", lambda: running.counters().get("revalidation_unavailable", 0))
        connected.sendall(b"still here")
        assert connected.recv(100) == b"still here"
        people.write_text(json.dumps({"carol": json.loads(before)["carol"] | {"disabled": True}}))
        with contextlib.suppress(ConnectionResetError):
            assert connected.recv(100) == b""
    people.write_text(before)
    assert running.record(user="carol", termination="no longer allowed")


# ---- the backend by itself


Make = Callable[..., Backend]


@pytest.fixture
def make(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a backend that asks a little program, and opens it."""
    monkeypatch.syspath_prepend(installed)
    program = tmp_path / "program"
    opened: list[Backend] = []

    def make(text: str, observe: Callable[[Step], None] = lambda _step: None, **settings: object) -> Backend:
        program.write_text(f"#!{sys.executable}\n{dedent(text)}")
        program.chmod(0o700)
        context = BackendContext(find_user=lambda _tenant, _name: None, observe=observe)
        table = {"command": [str(program), "a word"], "answer_s": PATIENCE_S, **settings}
        backend = build("people", "program", table, context)
        backend.open()
        opened.append(backend)
        return backend

    yield make
    for backend in opened:
        backend.close()
    for name in [name for name in sys.modules if name.startswith("trioproxy_example_auth")]:
        del sys.modules[name]


def says(answer: object) -> str:
    """A program that always answers this."""
    return f"print({json.dumps(answer)!r})"


CREDENTIALS: Final = Credentials("main", "carol", PASSWORD, "10.1.2.3")


def test_what_it_asks(make: Make, tmp_path: Path) -> None:
    """One line of JSON; the password is on no command line."""
    backend = make(
        f"""
        import sys
        with open({str(tmp_path / "asked")!r}, "a") as file:
            print(sys.argv[1:], *sys.stdin.readlines(), file=file)
        print('{{"answer": "no", "reason": "unknown user"}}')
        """
    )
    assert backend.authenticate(CREDENTIALS) == Rejected(Rejection.UNKNOWN_USER)
    assert backend.find("main", "carol") == Rejected(Rejection.UNKNOWN_USER)
    login, find = (tmp_path / "asked").read_text().replace("['a word'] ", "").split("\n\n")[:2]
    assert json.loads(login) == {
        "question": "login",
        "tenant": "main",
        "user": "carol",
        "password": PASSWORD,
        "source": "10.1.2.3",
    }
    assert json.loads(find) == {"question": "find", "tenant": "main", "user": "carol"}


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        ({"answer": "yes"}, Identity("main", "carol")),
        (
            {"answer": "yes", "groups": ["Staff"], "epoch": "7", "valid_until": "2030-01-01T00:00:00+00:00"},
            {"groups": frozenset({"staff"}), "epoch": "7", "valid_until": "2030-01-01T00:00:00+00:00"},
        ),
        ({"answer": "no", "reason": "unknown user"}, Rejected(Rejection.UNKNOWN_USER)),
        ({"answer": "no", "reason": "wrong password"}, Rejected(Rejection.WRONG_PASSWORD)),
        ({"answer": "no", "reason": "disabled"}, Rejected(Rejection.DISABLED)),
        ({"answer": "no", "reason": "expired"}, Rejected(Rejection.EXPIRED)),
        ({"answer": "unavailable", "problem": "no disk"}, Unavailable("it says: no disk", Cause.OTHER)),
    ],
    ids=repr,
)
def test_what_it_understands(make: Make, answer: dict[str, Any], meaning: object) -> None:
    """Three kinds of answers, and names of groups in their canonical spelling."""
    said = make(says(answer)).authenticate(CREDENTIALS)
    if isinstance(meaning, dict):
        assert isinstance(said, Identity)
        assert said.valid_until is not None
        assert meaning == {
            "groups": said.groups,
            "epoch": said.epoch,
            "valid_until": said.valid_until.isoformat(),
        }
    else:
        assert said == meaning


@pytest.mark.parametrize(
    "program",
    [
        says({}),
        says([]),
        says("yes"),
        says(True),
        says({"answer": "no"}),
        says({"answer": "no", "reason": "bad hair day"}),
        says({"answer": "YES"}),
        says({"answer": "yes", "groups": "staff"}),
        says({"answer": "yes", "groups": [1]}),
        says({"answer": "yes", "groups": ["a/b"]}),
        says({"answer": "yes", "epoch": 7}),
        says({"answer": "yes", "valid_until": "tomorrow"}),
        says({"answer": "yes", "valid_until": "2030-01-01T00:00:00"}),
        says({"answer": "yes", "valid_until": 7}),
        "print('yes')",
        "pass",
        "import sys; sys.stdout.buffer.write(b'\\xff')",
        'print(\'{"answer": "yes"}\' * 2)',
    ],
)
def test_what_means_nothing(make: Make, program: str) -> None:
    """An answer that is not exactly one lets nobody in, and is not taken for a wrong password either."""
    answer = make(program).authenticate(CREDENTIALS)
    assert answer == Unavailable("it gave no answer that means anything", Cause.PROTOCOL)


def test_a_program_that_fails(make: Make) -> None:
    """What it printed before does not count; the step tells what to do."""
    steps: list[Step] = []
    backend = make(f"{says({'answer': 'yes'})}; raise SystemExit(3)", steps.append)
    assert backend.authenticate(CREDENTIALS) == Unavailable("it ended with 3", Cause.OTHER)
    [step] = steps
    assert (step.name, step.detail, step.failed) == ("program", "it ended with 3", True)
    assert step.advice == "run it by hand and look at what it says"
    assert step.duration_s > 0


def test_a_program_that_talks_too_much(make: Make) -> None:
    """Its answer has a limit (STYLE habit 6)."""
    answer = make("print('x' * 1_000_000)").authenticate(CREDENTIALS)
    assert answer == Unavailable("an answer of more than 65536 bytes", Cause.PROTOCOL)


def test_a_program_that_does_not_read(make: Make) -> None:
    """Its answer is right all the same."""
    backend = make(f"import os; os.close(0); {says({'answer': 'yes'})}")
    assert backend.authenticate(CREDENTIALS) == Identity("main", "carol")


def _is_over(pid: int) -> bool:
    """Whether a process has ended; nobody may have waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("afterwards", ["time.sleep(1000)", "os.close(1); time.sleep(1000)"], ids=["silent", "lingers"])
def test_a_program_that_hangs(make: Make, tmp_path: Path, afterwards: str) -> None:
    """It is killed, with the programs that it has started and that hold its output open."""
    pids = tmp_path / "pids"
    backend = make(
        f"""
        import os, subprocess, time
        child = subprocess.Popen(["sleep", "1000"], stdout={"None" if "close" not in afterwards else "2"})
        with open({str(tmp_path / "writing")!r}, "w") as file:
            print(os.getpid(), child.pid, file=file)
        os.rename({str(tmp_path / "writing")!r}, {str(pids)!r})
        {afterwards}
        """,
        answer_s=2,
    )
    assert backend.authenticate(CREDENTIALS) == Unavailable("no answer in 2 s", Cause.TIMEOUT)
    for pid in map(int, pids.read_text().split()):
        until(f"the end of {pid}", lambda pid=pid: _is_over(pid))  # type: ignore[misc]  # bound now


def test_a_program_that_cannot_be_run(make: Make, tmp_path: Path) -> None:
    """The server does not start without it; if it goes later, nobody can tell."""
    backend = make(says({"answer": "yes"}))
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n")
    answer = backend.authenticate(CREDENTIALS)
    assert answer == Unavailable("it does not start: No such file or directory", Cause.CONNECT)
    program.chmod(stat.S_IRUSR)
    if os.geteuid() != 0:
        with pytest.raises(OSError, match="is no program that this user may run"):
            backend.open()
    program.unlink()
    with pytest.raises(OSError, match=f"command: {program} is no program that this user may run"):
        backend.open()


def test_its_life(make: Make) -> None:
    """Built twice as itself, asked by several threads, closed twice, never asked after that."""
    backend = make(says({"answer": "yes"}), in_flight_max=3, revalidate_s=7.5)
    assert isinstance(backend, Backend)
    assert (backend.in_flight_max, backend.revalidate_s) == (3, 7.5)
    backend.close()
    backend.close()
    assert backend.authenticate(CREDENTIALS) == Unavailable("it is closed", Cause.OTHER)
    backend.open()
    assert isinstance(backend.find("main", "carol"), Identity)


def test_construction_has_no_side_effects(make: Make, tmp_path: Path) -> None:
    """`trioproxy check` may run on another machine than the server."""
    context = BackendContext(find_user=lambda _tenant, _name: None)
    backend = build("people", "program", {"command": ["/no/such/program"]}, context)
    with pytest.raises(OSError, match="/no/such/program is no program"):
        backend.open()
    with pytest.raises(BackendError, match=r"auth\.people\.command: missing"):
        build("people", "program", {}, context)


def test_it_says_what_it_is(make: Make) -> None:
    """The page shows the entry point and the class that are installed."""
    package = import_module("trioproxy_example_auth")
    page = (EXAMPLE.parent / "plugins.md").read_text(encoding="utf-8")
    assert sorted(package.__all__) == ["ProgramBackend", "ProgramSettings"]
    for file in re.findall(r"^```\{literalinclude\} plugin-example/(\S+)$", page, re.MULTILINE):
        assert (EXAMPLE / file).is_file()
    assert "plugin-example/pyproject.toml" in page
