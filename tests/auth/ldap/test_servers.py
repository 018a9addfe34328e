"""Several servers, and servers that come and go in what order they are asked, and how long."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from auth import Cause, Identity, Unavailable
from auth.ldap.deadline import Deadline
from auth.ldap.failure import DirectoryError
from auth.ldap.servers import Servers
from auth.ldap.transport import Host
from auth.ldap.watch import Watch
from tests.auth.ldap.trying import of_slapd, trying
from tests.directories.authority import Authority
from tests.directories.slapd import Slapd
from tests.directories.tree import dn_of

DEAD = "ldaps://127.0.0.1:1"  # nobody listens there


@pytest.fixture
def slapd(tmp_path: Path) -> Iterator[Slapd]:
    """A server of the test's own."""
    with Slapd(tmp_path / "server", Authority(tmp_path)) as server:
        yield server


def test_the_next_one_is_asked(slapd: Slapd) -> None:
    """Within the same login; the dead one is not tried again for a while."""
    with trying(of_slapd(slapd, DEAD, slapd.tls_url)) as campus:
        assert isinstance(campus.log_in("alice"), Identity)
        assert [step.failed for step in campus.steps if step.name == "connect"] == [True, False, False]
        campus.steps.clear()
        assert isinstance(campus.log_in("alice"), Identity)
        assert [step.failed for step in campus.steps if step.name == "connect"] == [False]


def test_the_dead_one_is_tried_again(slapd: Slapd) -> None:
    """After `retry_failed_s`."""
    with trying(of_slapd(slapd, DEAD, slapd.tls_url, retry_failed_s=0)) as campus:
        for _ in range(2):
            campus.steps.clear()
            assert isinstance(campus.log_in("alice"), Identity)
            assert campus.failures[0].name == "connect"


def test_all_are_dead(slapd: Slapd) -> None:
    """Each is tried each time: a hiccup of the only server is no outage of half a minute."""
    with trying(of_slapd(slapd, DEAD, "ldap://127.0.0.1:2")) as campus:
        for _ in range(3):
            campus.steps.clear()
            answer = campus.log_in("alice")
            assert isinstance(answer, Unavailable)
            assert answer.cause is Cause.CONNECT
            assert "127.0.0.1:1" in answer.problem
            assert "127.0.0.1:2" in answer.problem
            assert [step.failed for step in campus.steps if step.name == "connect"] == [True, True]


def test_restart(slapd: Slapd) -> None:
    """Connections that were kept are replaced within the same login."""
    with trying(of_slapd(slapd)) as campus:
        assert isinstance(campus.log_in("alice"), Identity)
        slapd.stop()
        answer = campus.log_in("alice")
        assert isinstance(answer, Unavailable)
        assert answer.cause is Cause.CONNECT
        slapd.start()
        assert isinstance(campus.log_in("alice"), Identity)
        slapd.kill()
        slapd.start()
        assert isinstance(campus.log_in("alice"), Identity)
        assert isinstance(campus.find("alice"), Identity)


def test_connection_that_dies_in_use(slapd: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept connection that looked alive and was not: asked again over a new one, without an outage."""
    with trying(of_slapd(slapd)) as campus:
        assert isinstance(campus.log_in("alice"), Identity)
        slapd.kill()
        slapd.start()
        monkeypatch.setattr("auth.ldap.connection.Connection.is_stale", lambda _connection: False)
        assert isinstance(campus.log_in("alice"), Identity)


def test_silence(slapd: Slapd) -> None:
    """A server that hangs is unavailable in time; when it goes on, so do the logins, and no bind was repeated."""
    settings = of_slapd(slapd, answer_s=0.3, connect_s=0.3, login_s=1.0)
    with trying(settings) as campus:
        assert isinstance(campus.log_in("alice"), Identity)
        binds = slapd.binds(dn_of("alice"))
        slapd.pause()
        try:
            for _ in range(3):
                answer = campus.log_in("alice")
                assert isinstance(answer, Unavailable)
                assert answer.cause in (Cause.TIMEOUT, Cause.TLS)
        finally:
            slapd.resume()
        assert isinstance(campus.log_in("alice"), Identity)
        assert slapd.binds(dn_of("alice")) == binds + 1


def test_deadline_of_a_login(slapd: Slapd) -> None:
    """Nothing waits beyond it, whatever the limits of the single steps allow."""
    with trying(of_slapd(slapd, answer_s=60.0, connect_s=60.0, login_s=0.5)) as campus:
        slapd.pause()
        try:
            answer = campus.log_in("alice")
        finally:
            slapd.resume()
        assert isinstance(answer, Unavailable)
        assert answer.cause is Cause.TIMEOUT


def test_many_at_once(slapd: Slapd) -> None:
    """Threads share what is kept, and nobody gets another's answer."""
    names = ["alice", "heidi", "j\u00fcrgen", "bob", "nobody", "carol"]
    with trying(of_slapd(slapd)) as campus:
        expected = {name: campus.find(name) for name in names}
        wrong: list[str] = []

        def look(name: str) -> None:
            wrong.extend(name for _ in range(10) if campus.find(name) != expected[name])

        threads = [threading.Thread(target=look, args=(name,)) for name in names * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        before = slapd.connections()
        campus.find("alice")
        assert slapd.connections() == before


def test_quiet_times(slapd: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a rush the connections it needed go one by one, down to what is to be kept."""
    monkeypatch.setattr("auth.ldap.servers._QUIET_S", 0.0)
    with trying(of_slapd(slapd, idle_connections_max=1)) as campus:
        server = campus.backend._servers.all[0]
        deadline = Deadline.after(10)
        servers = campus.backend._servers
        with servers.service(server, deadline), servers.service(server, deadline), servers.service(server, deadline):
            pass
        assert len(server._idle) == 1


def test_too_old_to_be_used(slapd: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was idle for minutes may have been dropped on the way without a word."""
    with trying(of_slapd(slapd)) as campus:
        campus.find("alice")
        monkeypatch.setattr("auth.ldap.servers._IDLE_S", 0.0)
        before = slapd.connections()
        campus.find("alice")
        assert slapd.connections() == before + 2  # for the person, and for the groups


def test_closed_while_in_use(slapd: Slapd) -> None:
    """A connection that comes back after the end is not kept."""
    with trying(of_slapd(slapd)) as campus:
        servers = campus.backend._servers
        with servers.service(servers.all[0], Deadline.after(10)):
            campus.backend.close()
        assert servers.all[0]._idle == []


def test_mistake_of_ours_while_in_use(slapd: Slapd) -> None:
    """Whatever goes wrong in the middle of an answer: such a connection is never given to the next login."""
    with trying(of_slapd(slapd)) as campus:
        servers = campus.backend._servers
        server = servers.all[0]
        with pytest.raises(ZeroDivisionError), servers.service(server, Deadline.after(10)):
            raise ZeroDivisionError
        assert server._idle == []


def test_what_the_proxy_keeps_to(slapd: Slapd) -> None:
    """How many may be asked at once and how often is what the settings say."""
    with trying(of_slapd(slapd, in_flight_max=7, revalidate_s=30.0)) as campus:
        assert (campus.backend.in_flight_max, campus.backend.revalidate_s) == (7, 30.0)


# ---- names


def test_name_that_does_not_resolve(slapd: Slapd) -> None:
    """Said so, with what to do."""
    with trying(of_slapd(slapd, "ldaps://directory.invalid")) as campus:
        answer = campus.log_in("alice")
        assert isinstance(answer, Unavailable)
        assert answer.cause is Cause.CONNECT
        assert "directory.invalid" in answer.problem
        assert "urls" in campus.failures[0].advice


def test_dead_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that hangs holds up nobody beyond the deadline, and only one runs; old addresses serve on."""
    started, release = threading.Event(), threading.Event()
    calls: list[str] = []

    def hang(name: str, port: int, **_kind: object) -> list[tuple[object, ...]]:
        calls.append(name)
        if len(calls) > 1:
            started.set()
            release.wait(20)
        return [(2, 1, 6, "", ("192.0.2.1", port))]

    monkeypatch.setattr("auth.ldap.transport.socket.getaddrinfo", hang)
    host = Host("ldap.example.org", 636)
    assert host._known == ()
    assert host.addresses(Deadline.after(5)) == ("192.0.2.1",)
    monkeypatch.setattr("auth.ldap.transport._KEEP_ADDRESSES_S", 0.0)
    for _ in range(5):
        assert host.addresses(Deadline.after(0.05)) == ("192.0.2.1",)
    assert len(calls) == 2
    assert len(host.endpoints()) == 1
    release.set()


def test_name_server_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the look-up, and names that no resolver takes."""
    host = Host("x" * 70 + ".example", 389)
    with pytest.raises(DirectoryError, match="cannot be resolved"):
        host.addresses(Deadline.after(5))
    assert str(host).endswith(":389")
    assert str(Host("::1", 636)) == "[::1]:636"


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a look-up: that one fails, nothing else does, and the next works."""
    host = Host("localhost", 389)

    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert host.endpoints() == frozenset()
        with pytest.raises(DirectoryError, match="can't start new thread") as caught:
            host.addresses(Deadline.after(1))
    assert caught.value.cause is Cause.CONNECT
    assert "127.0.0.1" in host.addresses(Deadline.after(5))


def test_addresses_of_the_servers(slapd: Slapd) -> None:
    """Known from the start, so that they can be nobody's target."""
    with trying(of_slapd(slapd, slapd.tls_url, slapd.url.replace("localhost", "127.0.0.1"))) as campus:
        deadline = time.monotonic() + 20
        while len(campus.backend.endpoints) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert {(str(address), port) for address, port in campus.backend.endpoints} >= {
            ("127.0.0.1", slapd.tls_port),
            ("127.0.0.1", slapd.port),
        }


def test_deadlines() -> None:
    """What is left is never nothing, and never more than either limit."""
    deadline = Deadline.after(100)
    assert 0 < deadline.within(1).left_s() <= 1
    assert 99 < deadline.within(1000).left_s() <= 100
    with pytest.raises(DirectoryError) as caught:
        Deadline.after(-1).left_s()
    assert caught.value.cause is Cause.TIMEOUT


def test_servers_of_urls(slapd: Slapd) -> None:
    """Ports by default, and IPv6."""
    settings = attrs.evolve(of_slapd(slapd), urls=("ldaps://a.example", "ldap://b.example", "ldaps://[::1]:1636"))
    hosts = [server.host for server in Servers(settings, Watch(lambda _step: None)).all]
    assert [str(host) for host in hosts] == ["a.example:636", "b.example:389", "[::1]:1636"]
