"""What a proxy is set up for, each with a running server and unchanged programs.

One workstation may use a calling program; students browse, but only with real TLS; a lab is open at some hours; a user
is cut off in the middle of a download; so many bytes a month for each person; and a rate, as iperf3 measures it.
"""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import pytest
import socks
from python_socks.sync import Proxy as SyncProxy

from tests.directories.authority import Authority
from tests.system.clock import at
from tests.system.namespaces import popen
from tests.system.origins import GREETING, blob, digest, dns_origin, free_port, tcp_origin, udp_echo, web_origin
from tests.system.proxy import LOOPBACK_FLOOR, Proxy, environment, proxy_url, run
from tests.system.waiting import PATIENCE_S, measured, until
from tests.system.wrapped import chained, socksified

USERS: Final = {"alice": "wonderland", "bob": "builder"}
LISTENER: Final = f'[[listener]]\naddress = "127.0.0.1:0"\n{LOOPBACK_FLOOR}'
REFUSED, RESET, CUT_SHORT = 97, 56, 18  # CURLE_PROXY, CURLE_RECV_ERROR, CURLE_PARTIAL_FILE

Done: TypeAlias = "subprocess.CompletedProcess[str]"


@pytest.fixture
def proxy(tmp_path: Path) -> Proxy:
    """An installation with two users and no rule yet, not started."""
    return Proxy(tmp_path, LISTENER).seed(USERS, {})


def curl(proxy: Proxy, user: str, *arguments: str | Path) -> list[str | Path]:
    """The command line of curl, through the proxy."""
    return ["curl", "-sS", "-x", proxy_url(proxy.addresses[0], f"{user}:{USERS[user]}"), *arguments]


def fetch(proxy: Proxy, user: str, *arguments: str | Path) -> Done:
    """What curl says."""
    return run(curl(proxy, user, *arguments))


def was_refused(done: Done) -> bool:
    """Whether the proxy has answered 02: not allowed by the rules."""
    return done.returncode == REFUSED and done.stderr.endswith("(2)\n")


# ---- one workstation may use a calling program


@contextmanager
def _association(proxy: Proxy) -> Iterator[socket.socket]:
    """Datagrams of alice's, from 127.0.0.1."""
    with socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.set_proxy(socks.SOCKS5, *proxy.addresses[0], username="alice", password=USERS["alice"])
        sock.settimeout(PATIENCE_S)
        sock.bind(("127.0.0.1", 0))
        yield sock


def test_a_calling_program_on_one_workstation(proxy: Proxy, tmp_path: Path) -> None:
    """TCP and UDP to whomever it likes, from one address; the same person elsewhere, and others there, get nothing."""
    for protocol in ("tcp", "udp"):
        proxy.command("rule", "add", "user:alice", f"{protocol}:127.0.0.1(*)->*(*) scan=ignore")
    with (
        proxy,
        web_origin("127.0.0.1") as web,
        dns_origin("127.0.0.1") as dns,
        udp_echo("127.0.0.1") as one,
        udp_echo("127.0.0.1") as two,
    ):
        assert fetch(proxy, "alice", web.url()).stdout.encode() == GREETING
        question = ["dig", "+short", "+tcp", "+tries=1", f"@{dns[0]}", "-p", str(dns[1]), "www.example.org"]
        assert run(chained(tmp_path, proxy.addresses[0], question)).stdout == "192.0.2.53\n"
        with _association(proxy) as sock:
            for target in (one, two):
                sock.sendto(b"hello", target)
                assert sock.recvfrom(100) == (b"echo:hello", target)
        assert was_refused(fetch(proxy, "alice", "--interface", "127.0.0.2", web.url()))
        assert was_refused(fetch(proxy, "bob", web.url()))


# ---- students may browse, but only with real TLS


def test_tls_only(proxy: Proxy, tmp_path: Path) -> None:
    """HTTPS passes, HTTP and BitTorrent on the same ports are reset; a group with a rule of its own is exempt."""
    authority = Authority(tmp_path)
    with (
        proxy,
        web_origin("127.0.0.1", authority.good().context()) as secure,
        web_origin("127.0.0.1") as plain,
        tcp_origin("127.0.0.1") as echo,
    ):
        ports = f"{secure.server_port},{plain.server_port},{echo[1]}"
        proxy.command("rule", "add", "global", f"tcp:*(*)->*({ports}) group=lab")
        proxy.command("rule", "add", "global", f"tcp:*(*)->*({ports}) app=tls")
        until("the rules", lambda: not was_refused(fetch(proxy, "bob", plain.url())))

        assert fetch(proxy, "bob", "--cacert", authority.pem, secure.url()).stdout.encode() == GREETING
        done = fetch(proxy, "bob", plain.url())
        assert (done.returncode, "reset by peer" in done.stderr) == (RESET, True)
        assert plain.asked == []
        with SyncProxy.from_url(proxy_url(proxy.addresses[0], "bob:builder", "socks5")).connect(*echo) as sock:
            sock.sendall(b"\x13BitTorrent protocol" + bytes(48))
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        row = proxy.record(target=f"127.0.0.1:{echo[1]}")
        assert (row["termination"], row["bytes_to_target"]) == ("not allowed for what the traffic is", 0)

        proxy.command("user", "group", "bob", "--add", "lab")
        until("the group", lambda: fetch(proxy, "bob", plain.url()).returncode == 0)


# ---- a lab is open at some hours


def test_the_end_of_the_hours(tmp_path: Path) -> None:
    """What runs ends with them, within a second or so, and with a grace later; what is new is refused."""
    hours = "tcp:*(*)->*(*) when=mon-fri@08:00-18:00"
    rules = {"user:alice": [hours], "user:bob": [f"{hours} grace=3s"]}
    config = LISTENER + 'time_zone = "Europe/Vienna"\n'
    with (
        Proxy(tmp_path, config, env=at("2026-11-20 17:59:52")).seed(USERS, rules) as proxy,
        tcp_origin("127.0.0.1") as echo,
    ):
        sessions = {user: proxy.connect(echo, user=user, password=USERS[user]) for user in USERS}
        ended_s = []
        for sock in sessions.values():
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
        for user, sock in sessions.items():
            with sock, pytest.raises(ConnectionResetError):
                sock.recv(1)
            ended_s.append(time.monotonic())
            measured(f"the session of {user} has ended {ended_s[-1] - ended_s[0]:.3f} s after the first one")
        assert ended_s[1] - ended_s[0] > 2
        with pytest.raises(socks.ProxyError, match="0x02"):
            proxy.connect(echo)
        ends = {row["user"]: row["termination"] for row in proxy.records(reply=0)}
        assert ends == dict.fromkeys(USERS, "not at this hour")


def test_the_beginning_of_the_hours(tmp_path: Path) -> None:
    """What was refused a moment before is permitted; on a day that is none of theirs nothing is."""
    rules = {
        "user:alice": ["tcp:*(*)->*(*) when=mon-fri@08:00-18:00"],
        "user:bob": ["tcp:*(*)->*(*) when=sat-sun@00:00-24:00"],
    }
    config = LISTENER + 'time_zone = "Europe/Vienna"\n'
    with (
        Proxy(tmp_path, config, env=at("2026-11-23 07:59:52")).seed(USERS, rules) as proxy,
        web_origin("127.0.0.1") as web,
    ):
        assert was_refused(fetch(proxy, "alice", web.url()))
        assert was_refused(fetch(proxy, "bob", web.url()))
        until("Monday morning", lambda: fetch(proxy, "alice", web.url()).returncode == 0)
        assert was_refused(fetch(proxy, "bob", web.url()))


# ---- a user is cut off during an incident


def test_an_incident(proxy: Proxy, tmp_path: Path) -> None:
    """The download of one user is reset while that of another goes on; nothing new; and back again as it was."""
    proxy.seed({}, {"global": ["any:*(*)->*(*)"]})
    with proxy, web_origin("127.0.0.1") as bobs, web_origin("127.0.0.1") as alices:
        file = tmp_path / "alice.bin"
        running = [
            subprocess.Popen(curl(proxy, user, "-o", into, web.url("/held")), env=environment())
            for user, web, into in (("bob", bobs, tmp_path / "bob.bin"), ("alice", alices, file))
        ]
        assert bobs.half.wait(PATIENCE_S)
        assert alices.half.wait(PATIENCE_S)
        proxy.command("block", "add", "user", "bob", "--for", "2h", "--reason", "stolen laptop")
        begun_s = time.monotonic()
        assert running[0].wait(PATIENCE_S) in {RESET, CUT_SHORT}
        measured(f"{time.monotonic() - begun_s:6.3f} s after the block the download has ended")
        assert was_refused(fetch(proxy, "bob", bobs.url()))
        assert "stolen laptop" in proxy.command("block", "list").stdout
        alices.go_on.set()
        assert running[1].wait(PATIENCE_S) == 0
        assert digest(file.read_bytes()) == digest(blob(200_000))
        proxy.command("block", "remove", "1")
        until("the block to be lifted", lambda: fetch(proxy, "bob", bobs.url()).returncode == 0)
        assert {row["reply"] for row in proxy.records(user="bob", termination="blocked")} == {0, 2}  # reset, refused


# ---- a monthly volume for each person


def test_a_volume(tmp_path: Path) -> None:
    """One download uses it up and is ended; nothing more, not after kill -9 either; others have theirs; a new month."""
    proxy = Proxy(tmp_path, LISTENER, env=at("2026-11-20 12:00:00")).seed(USERS, {"global": ["tcp:*(*)->*(*)"]})
    proxy.command("limit", "set", "global", "rate=80Mbit", "quota=20MB/month")
    with proxy, web_origin("127.0.0.1") as web:
        done = fetch(proxy, "bob", "-o", "/dev/null", web.url("/blob/60000000"))
        assert done.returncode in {RESET, CUT_SHORT}, done
        assert was_refused(fetch(proxy, "bob", web.url()))
        row = proxy.record(user="bob", reply=0)
        assert row["termination"] == "quota used up"
        measured(f"{row['bytes_to_client'] / 1e6:.1f} MB of 20 MB")
        assert fetch(proxy, "alice", web.url()).returncode == 0
        time.sleep(3)
        proxy.kill()
        with proxy:
            assert was_refused(fetch(proxy, "bob", web.url()))
    with Proxy(tmp_path, LISTENER, env=at("2026-11-30 23:59:52")) as proxy, web_origin("127.0.0.1") as web:
        assert was_refused(fetch(proxy, "bob", web.url()))
        until("December", lambda: fetch(proxy, "bob", web.url()).returncode == 0)


# ---- a rate


@pytest.fixture
def iperf3(tmp_path: Path) -> Iterator[int]:
    """The port of a server that measures."""
    port = free_port()
    said = tmp_path / "iperf3"
    server = popen(["iperf3", "-s", "-p", str(port), "--forceflush"], said)
    try:
        until("iperf3", lambda: "listening" in said.read_text())
        yield port
    finally:
        server.kill()
        server.wait(PATIENCE_S)


MBIT, BURST_BITS, SECONDS = 1e6, 8 * 250_000, 4


@pytest.mark.parametrize(
    ("direction", "rate"),
    [
        ([], 8 * MBIT),
        (["-R"], 20 * MBIT),
        (["-R", "-P", "4"], 20 * MBIT),
        (["-u", "-b", "40M", "-l", "1200"], 8 * MBIT),
    ],
    ids=["to-the-target", "to-the-client", "four-share-it", "udp"],
)
def test_a_rate(proxy: Proxy, iperf3: int, tmp_path: Path, direction: list[str], rate: float) -> None:
    """A guest's rate, different for each direction: never more than it and the burst, at least 95 % of it."""
    proxy.command("rule", "add", "user:alice", f"any:*(*)->*({iperf3}) rate=20Mbit/8Mbit burst=250kB")
    with proxy:
        client = ["iperf3", "-J", "-c", "127.0.0.1", "-p", str(iperf3), "-t", str(SECONDS), *direction]
        words, env = socksified(tmp_path, proxy.addresses[0], client, ("alice", USERS["alice"]))
        done = run(words, env=env)
        received = json.loads(done.stdout)["end"]["sum_received"]
        bits, bits_per_s = 8 * received["bytes"], received["bits_per_second"]
        measured(f"{bits_per_s / MBIT:.2f} Mbit/s of {rate / MBIT:.0f}")
        assert bits <= rate * received["seconds"] + BURST_BITS
        assert bits_per_s >= 0.95 * rate
