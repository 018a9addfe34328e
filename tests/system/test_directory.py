"""Issue 3, end to end: curl logs in as a user of a real slapd through a running server; changes there hold here."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import socks

from tests.directories.authority import Authority
from tests.directories.slapd import Slapd
from tests.directories.tree import GROUPS, PEOPLE, SERVICE, campus, dn_of, password_of, person
from tests.system.origins import GREETING, tcp_origin, web_origin
from tests.system.proxy import LOOPBACK_FLOOR, Proxy, proxy_url, run
from tests.system.waiting import PATIENCE_S, measured, until

REVALIDATE_S = 1.0  # the shortest that may be set; 60 s by default
PROXY_ERROR = 97


def directory_table(name: str, server: Slapd, **more: object) -> str:
    """The table `[auth.NAME]` for a server of the tests."""
    settings: dict[str, object] = {
        "type": "ldap",
        "urls": [server.tls_url],
        "ca_file": str(server.ca),
        "bind_dn": SERVICE,
        "bind_password_file": str(server.service_password_file),
        "user_base": PEOPLE,
        "group_base": GROUPS,
        "rules_attribute": "trioproxyRule",
        "revalidate_s": REVALIDATE_S,
        **more,
    }
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    return f"\n[auth.{name}]\n{lines}\n"


def config_of(*tables: str, auth: str = "") -> str:
    """A whole configuration: main asks the store first, then the directory `campus`."""
    return f"""
{LOOPBACK_FLOOR}
[[listener]]
address = "127.0.0.1:0"
[auth]
backends = ["local", "campus"]
{auth}
{"".join(tables)}
"""


@pytest.fixture
def slapd(tmp_path: Path) -> Iterator[Slapd]:
    """A directory of the test's own."""
    folder = tmp_path / "directory"
    folder.mkdir()
    with Slapd(folder / "server", Authority(folder)) as server:
        yield server


@pytest.fixture
def directory_proxy(slapd: Slapd, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """A server that asks it; members of students may reach 127.0.0.1. The parameter is a line for `[auth]`."""
    (tmp_path / "proxy").mkdir()
    rules = {"group:students": ["tcp:*(*)->127.0.0.1(*)"], "user:heidi": ["tcp:*(*)->127.0.0.1(*)"]}
    config = config_of(directory_table("campus", slapd), auth=getattr(request, "param", ""))
    with Proxy(tmp_path / "proxy", config).seed({}, rules) as proxy:
        yield proxy


# What a directory permits anew holds for new logins once the accepted ones are forgotten: after a minute by default.
soon = pytest.mark.parametrize("directory_proxy", ["cache_s = 0.5"], indirect=True)


def change_members(server: Slapd, how: str, name: str, group: str = "system-proxy") -> None:
    """Add or delete a member with the real ldapmodify."""
    server.modify(f"dn: cn={group},{GROUPS}\nchangetype: modify\n{how}: member\nmember: {dn_of(name)}\n")


def login_works(proxy: Proxy, target: tuple[str, int], name: str) -> bool:
    """Whether a new session of this user reaches the target."""
    try:
        proxy.connect(target, user=name, password=password_of(name)).close()
    except socks.ProxyError:
        return False
    return True


def ended(sock: socket.socket) -> Callable[[], bool]:
    """A question: has the server ended this session?"""
    sock.settimeout(0.01)

    def ask() -> bool:
        try:
            sock.sendall(b"x")
            return sock.recv(10) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    return ask


def test_curl_logs_in(directory_proxy: Proxy) -> None:
    """A member gets the page, with the layers of the directory's groups; a wrong password gets nothing."""
    with web_origin("127.0.0.1") as web:
        done = run(["curl", "-sS", "-x", proxy_url(directory_proxy.addresses[0], "alice:alice-secret"), web.url()])
        assert (done.returncode, done.stdout.encode()) == (0, GREETING), done.stderr
        row = directory_proxy.record(user="alice")
        assert (row["rule"], row["scope"]) == ("tcp:*(*)->127.0.0.1(*)", "group:students")
        web.asked.clear()
        for login in ("alice:wrong", "bob:bob-secret", "nobody:x", "*:alice-secret"):
            done = run(["curl", "-sS", "-x", proxy_url(directory_proxy.addresses[0], login), web.url()])
            assert done.returncode == PROXY_ERROR
            assert "User was rejected by the SOCKS5 server (1 1)" in done.stderr
        assert web.asked == []
    assert "alice-secret" not in directory_proxy.log
    assert "service-secret" not in directory_proxy.log


@soon
def test_rules_of_the_directory(slapd: Slapd, directory_proxy: Proxy) -> None:
    """A rule in the entry of the user takes part; a wrong one is said with its DN and changes nothing (item 4)."""
    with tcp_origin("127.0.0.1") as target:
        assert login_works(directory_proxy, target, "heidi")
        slapd.modify(
            f"dn: {dn_of('heidi')}\nchangetype: modify\nadd: objectClass\nobjectClass: trioproxyRules\n-\n"
            f"add: trioproxyRule\ntrioproxyRule: tcp:what is this\ntrioproxyRule: tcp:*(*)->*({target[1]})\n"
        )
        until(
            "the wrong rule in the log", lambda: "what is this" in directory_proxy.log or _try(directory_proxy, target)
        )
        assert dn_of("heidi") in directory_proxy.log
        assert login_works(directory_proxy, target, "heidi")
        slapd.add(person("walter", f"trioproxyRule: tcp:*(*)->127.0.0.1({target[1]})", classes="trioproxyRules"))
        change_members(slapd, "add", "walter")
        assert login_works(directory_proxy, target, "walter")
        row = directory_proxy.record(user="walter")
        assert (row["scope"], row["rule"]) == ("user:walter", f"tcp:*(*)->127.0.0.1({target[1]})")


def _try(proxy: Proxy, target: tuple[str, int]) -> bool:
    """One more login, for its effect on the log."""
    login_works(proxy, target, "heidi")
    return False


@pytest.mark.parametrize("how", ["group", "locked", "deleted", "password"])
def test_revocation(slapd: Slapd, directory_proxy: Proxy, how: str) -> None:
    """Removed from the group, locked, deleted, a new password: next login and live session end (cases 41, 43)."""
    with (
        tcp_origin("127.0.0.1") as target,
        directory_proxy.connect(target, user="heidi", password="heidi-secret") as live,
    ):
        live.sendall(b"x")
        assert live.recv(1) == b"x"
        begun_s = time.monotonic()
        match how:
            case "group":
                change_members(slapd, "delete", "heidi")
            case "locked":
                slapd.modify(
                    f"dn: {dn_of('heidi')}\nchangetype: modify\nadd: pwdAccountLockedTime\n"
                    "pwdAccountLockedTime: 000001010000Z\n"
                )
            case "deleted":
                slapd.modify(f"dn: {dn_of('heidi')}\nchangetype: delete\n")
            case "password":
                slapd.modify(f"dn: {dn_of('heidi')}\nchangetype: modify\nreplace: userPassword\nuserPassword: new\n")
        until("the live session to end", ended(live))
        measured(
            f"{time.monotonic() - begun_s:6.3f} s  {how}: the live session has ended (revalidate_s = {REVALIDATE_S})"
        )
        assert not login_works(directory_proxy, target, "heidi")
        assert directory_proxy.record(user="heidi")["termination"] == "no longer allowed"


@soon
def test_changed_groups(slapd: Slapd, directory_proxy: Proxy) -> None:
    """What a group permitted ends with the membership; the user stays logged in with the rest."""
    with (
        tcp_origin("127.0.0.1") as target,
        directory_proxy.connect(target, user="alice", password="alice-secret") as live,
    ):
        change_members(slapd, "delete", "alice", "students")
        until("the live session to end", ended(live))
        with pytest.raises(socks.ProxyError, match="0x02"):
            directory_proxy.connect(target, user="alice", password="alice-secret")
        change_members(slapd, "add", "alice", "students")
        until("it to be permitted again", lambda: login_works(directory_proxy, target, "alice"))


def test_restart_under_load(slapd: Slapd, directory_proxy: Proxy) -> None:
    """A slapd stopped and started again while people log in: no live session is lost, and logins work again."""
    stop = threading.Event()
    outcomes: list[bool] = []

    def load() -> None:
        while not stop.is_set():
            outcomes.append(login_works(directory_proxy, target, "heidi"))

    with tcp_origin("127.0.0.1") as target:
        live = [directory_proxy.connect(target, user="alice", password="alice-secret") for _ in range(20)]
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for end in (slapd.stop, slapd.kill):
                end()
                time.sleep(2 * REVALIDATE_S)  # revalidation finds it gone
                slapd.start()
                outcomes.clear()
                until("a login to work again", lambda: any(outcomes))
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE_S)
        for number, sock in enumerate(live):
            sock.settimeout(PATIENCE_S)
            sock.sendall(b"alive %d" % number)
            assert sock.recv(100) == b"alive %d" % number
            sock.close()
        assert directory_proxy.records(termination="no longer allowed") == []


def test_unavailable_is_not_a_wrong_password(slapd: Slapd, directory_proxy: Proxy) -> None:
    """A dead directory refuses, is counted by its cause, brings nobody a penalty, and asks nobody else (item 7)."""
    with tcp_origin("127.0.0.1") as target:
        slapd.stop()
        for _ in range(25):
            assert not login_works(directory_proxy, target, "alice")
        counters = directory_proxy.counters()
        assert counters["login_unavailable"] == counters["login_unavailable_connect"] == 25
        assert counters.get("login_rejected_penalty", 0) == 0
        slapd.start()
        assert login_works(directory_proxy, target, "alice")


def test_auth_test(directory_proxy: Proxy) -> None:
    """Every step with its time, and the layers that would apply (item 9); no password."""
    done = directory_proxy.command("auth", "test", "alice", "--password-stdin", text="alice-secret\n")
    for word in ("resolve", "connect", "TLS", "127.0.0.1", "service bind", "(uid=alice)", "bind", "groups", "students"):
        assert word in done.stdout, word
    for layer in ("global", "tenant:main", "group:students", "group:system-proxy", "user:alice"):
        assert layer in done.stdout, layer
    refused = directory_proxy.try_command("auth", "test", "bob", "--password-stdin", text="bob-secret\n")
    assert refused.returncode == 1
    assert "proxy_group_dn" in refused.stdout
    assert not any(word in done.stdout + refused.stdout for word in ("alice-secret", "bob-secret", "service-secret"))


def test_tenants_with_directories_of_their_own(slapd: Slapd, tmp_path: Path) -> None:
    """The same name in two directories: passwords, sessions and revocation of the one are not those of the other."""
    folder = tmp_path / "physics"
    folder.mkdir()
    ldif = campus().replace("alice-secret", "alice-of-physics")
    with Slapd(folder / "server", Authority(folder), ldif=ldif) as physics:
        config = (
            config_of(directory_table("campus", slapd), directory_table("other", physics))
            + '[[listener]]\naddress = "127.0.0.1:0"\ntenant = "physics"\n[tenant.physics]\nbackends = ["other"]\n'
        )
        everything = ["tcp:*(*)->*(*)"]
        proxy = Proxy(folder, config).seed({}, {"tenant:main": everything, "tenant:physics": everything})
        with proxy, tcp_origin("127.0.0.1") as target:
            ours = proxy.connect(target, user="alice", password="alice-secret")
            theirs = proxy.connect(target, listener=1, user="alice", password="alice-of-physics")
            for listener, password in ((0, "alice-of-physics"), (1, "alice-secret")):
                with pytest.raises(socks.ProxyError):
                    proxy.connect(target, listener=listener, user="alice", password=password)
            change_members(physics, "delete", "alice")
            until("the session of physics to end", ended(theirs))
            theirs.close()
            assert login_works(proxy, target, "alice")
            ours.sendall(b"still here")
            assert ours.recv(100) == b"still here"
            assert [row["tenant"] for row in proxy.records(termination="no longer allowed")] == ["physics"]
            ours.close()


def test_nonmembers(slapd: Slapd, tmp_path: Path) -> None:
    """Let in with the global layer alone, where that is set (item 3)."""
    folder = tmp_path / "open"
    folder.mkdir()
    config = config_of(directory_table("campus", slapd), auth='nonmembers = "global-rules"')
    with tcp_origin("127.0.0.1") as allowed, tcp_origin("127.0.0.1") as other:
        rules = {"global": [f"tcp:*(*)->127.0.0.1({allowed[1]})"], "tenant:main": ["tcp:*(*)->*(*)"]}
        with Proxy(folder, config).seed({}, rules) as proxy:
            assert login_works(proxy, allowed, "bob")
            assert not login_works(proxy, other, "bob")
            assert login_works(proxy, other, "alice")


def test_the_directory_is_nobodys_target(slapd: Slapd, directory_proxy: Proxy) -> None:
    """Whatever a rule allows, the directory's own endpoints are part of the floor (DESIGN section 3)."""
    with pytest.raises(socks.ProxyError, match="0x02"):
        directory_proxy.connect(("127.0.0.1", slapd.tls_port), user="alice", password="alice-secret").close()
    assert "directory" in directory_proxy.record(asked=f"127.0.0.1:{slapd.tls_port}")["rule"]
