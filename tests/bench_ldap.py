"""What a login at a directory costs, and what 200 at once do to everybody else.

    python -m tests.bench_ldap [ROUNDS]

First, in one run, round by round: a bare bind with ldap3 (connect, TLS, bind, unbind), a login without the cache, one
from the cache. Then, as root in a network namespace of its own: a directory 200 ms away (100 ms in each direction, see
`tests.delayed_link`), relays of a user who is logged in already, and 200 other users who log in at the same moment. It
prints what it measured and judges nothing.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import ldap3
import trio

from auth import Identity
from auth.chain import Chain
from auth.ldap import LdapBackend, LdapSettings
from auth.local import BackendContext
from tests.delayed_link import FAR, NEAR
from tests.directories.authority import Authority
from tests.directories.slapd import Slapd
from tests.directories.tree import GROUPS, PEOPLE, PROXY_GROUP, SERVICE, campus, dn_of, password_of, person
from tests.system.proxy import LOOPBACK_FLOOR, PASSWORD, USER, Proxy
from trioproxy.authenticate import AuthenticationLimits, Authenticator

__all__ = ["main"]

ROUNDS: Final = 100
USERS: Final = 200
DELAY_MS: Final = 100  # in each direction
RELAYS: Final = 4
QUIET_S: Final = 3.0
PACED_BYTES_S: Final = 25_000_000  # by each relay: 0.8 Gbit/s together, so that both cores have time for the rest
CHUNK: Final = b"x" * 65_536


def say(text: str) -> None:
    """One line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


# ---- what a login costs


def settings_of(server: Slapd, url: str) -> LdapSettings:
    """Of a backend for that server."""
    return LdapSettings(
        urls=(url,),
        ca_file=str(server.ca),
        bind_dn=SERVICE,
        bind_password_file=str(server.service_password_file),
        user_base=PEOPLE,
        group_base=GROUPS,
    )


def bare_bind(server: Slapd) -> None:
    """What anybody would write with ldap3, with the certificate verified."""
    tls = ldap3.Tls(validate=2, ca_certs_file=str(server.ca))  # ssl.CERT_REQUIRED
    where = ldap3.Server("localhost", server.tls_port, use_ssl=True, tls=tls, get_info=ldap3.NONE)
    connection = ldap3.Connection(where, dn_of("alice"), password_of("alice"), auto_bind=True)
    connection.unbind()


def authenticator_of(server: Slapd, cache_s: float) -> Authenticator:
    """As the server builds it."""
    context = BackendContext(find_user=lambda _tenant, _name: None)
    chain = Chain([("campus", LdapBackend(settings_of(server, server.tls_url), context))], "system-proxy")
    return Authenticator({"main": chain}, settings=AuthenticationLimits(cache_ttl_s=cache_s))


async def measure_logins(server: Slapd, rounds: int) -> dict[str, list[float]]:
    """Seconds of each kind."""
    cached, uncached = authenticator_of(server, 60.0), authenticator_of(server, 0.0)
    times_s: dict[str, list[float]] = {"bare ldap3 bind": [], "login, not cached": [], "login, cached": []}
    for authenticator in (cached, uncached):
        await authenticator.open()

    async def log_in(authenticator: Authenticator) -> None:
        answer = await authenticator.authenticate(
            "main", b"alice", password_of("alice").encode(), ip_address("127.0.0.1")
        )
        assert isinstance(answer, Identity), answer

    await log_in(cached)
    for _ in range(rounds):
        begun_s = time.perf_counter()
        await trio.to_thread.run_sync(bare_bind, server)
        times_s["bare ldap3 bind"].append(time.perf_counter() - begun_s)
        for kind, authenticator in (("login, not cached", uncached), ("login, cached", cached)):
            begun_s = time.perf_counter()
            await log_in(authenticator)
            times_s[kind].append(time.perf_counter() - begun_s)
    for authenticator in (cached, uncached):
        await authenticator.close()
    return times_s


def show_logins(times_s: dict[str, list[float]]) -> None:
    """Medians and ratios."""
    bare_s = statistics.median(times_s["bare ldap3 bind"])
    for kind, times in times_s.items():
        median_s = statistics.median(times)
        say(f"{kind:20} {median_s * 1e3:8.3f} ms   {median_s / bare_s:6.3f} of a bare bind")


# ---- what 200 at once do


@contextmanager
def origin(paced: bool) -> Iterator[int]:
    """Sends to whoever connects, until that one leaves."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def serve(client: socket.socket) -> None:
        begun_s, sent = time.monotonic(), 0
        try:
            while True:
                client.sendall(CHUNK)
                sent += len(CHUNK)
                if paced and (ahead_s := sent / PACED_BYTES_S - (time.monotonic() - begun_s)) > 0:
                    time.sleep(ahead_s)
        except OSError:
            client.close()

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


class Meter:
    """Reads from relays and counts."""

    def __init__(self, proxy: Proxy, target: tuple[str, int]) -> None:
        self.total = 0
        self._socks = [proxy.connect(target, user=USER, password=PASSWORD) for _ in range(RELAYS)]
        self._ended = False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        buffer = bytearray(1 << 20)
        for sock in self._socks:
            sock.settimeout(0.001)
        while not self._ended:
            for sock in self._socks:
                try:
                    self.total += sock.recv_into(buffer)
                except TimeoutError:
                    continue

    def during(self, work: Callable[[], None]) -> float:
        """Bytes a second while this is done."""
        begun_s, before = time.monotonic(), self.total
        work()
        return (self.total - before) / (time.monotonic() - begun_s)

    def close(self) -> None:
        """Leave."""
        self._ended = True
        self._thread.join()
        for sock in self._socks:
            sock.close()


async def _one_login(address: tuple[str, int], number: int, name: str) -> tuple[bool, float]:
    begun_s = time.monotonic()
    source = f"127.0.1.{number + 1}"  # people at their own machines
    reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0))
    user, password = name.encode(), password_of(name).encode()
    writer.write(b"\x05\x01\x02" + b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
    answer = await reader.readexactly(4)
    writer.close()
    return answer == b"\x05\x02\x01\x00", time.monotonic() - begun_s


async def _rush(address: tuple[str, int], names: list[str]) -> list[tuple[bool, float]]:
    return await asyncio.gather(*(_one_login(address, number, name) for number, name in enumerate(names)))


def rush_at(proxy: Proxy, prefix: str, *, paced: bool) -> None:
    """200 logins at once, beside relays."""
    names = [f"{prefix}{number}" for number in range(USERS)]
    outcomes: list[tuple[bool, float]] = []
    with origin(paced) as port:
        meter = Meter(proxy, ("127.0.0.1", port))
        time.sleep(1.0)
        quiet = meter.during(lambda: time.sleep(QUIET_S))
        busy = meter.during(lambda: outcomes.extend(asyncio.run(_rush(proxy.addresses[0], names))))
        after = meter.during(lambda: time.sleep(QUIET_S))
        meter.close()
    answered_s = sorted(duration_s for _, duration_s in outcomes)
    accepted = Counter(ok for ok, _ in outcomes)[True]
    kind = "paced relays" if paced else "relays at full speed"
    say(
        f"{kind}: {accepted} of {USERS} accepted, the first after {answered_s[0]:.2f} s, half after"
        f" {answered_s[USERS // 2]:.2f} s, all answered after {answered_s[-1]:.2f} s"
    )
    say(
        f"{'':{len(kind)}}  relayed {quiet * 8e-9:.2f} Gbit/s before, {busy * 8e-9:.2f} meanwhile"
        f" ({busy / ((quiet + after) / 2):.1%} of before and after), {after * 8e-9:.2f} after"
    )


def far_away() -> None:
    """The second part, inside the namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    link = subprocess.Popen(
        [sys.executable, "-m", "tests.delayed_link", str(DELAY_MS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with link, tempfile.TemporaryDirectory() as name:
        assert link.stdout is not None
        link.stdout.readline()
        folder = Path(name)
        authority = Authority(folder)
        users = [f"{prefix}{number}" for prefix in ("paced", "full") for number in range(USERS)]
        members = "".join(f"member: {dn_of(user)}\n" for user in users)
        join = f"dn: {PROXY_GROUP}\nchangetype: modify\nadd: member\n{members}\n"
        ldif = campus() + "".join(map(person, users)) + join
        server = Slapd(folder / "slapd", authority, certificate=authority.good(FAR), ldif=ldif, host=NEAR)
        with server:
            config = f"""
{LOOPBACK_FLOOR}
[auth]
backends = ["local", "campus"]
[auth.campus]
type = "ldap"
urls = ["ldaps://{FAR}:{server.tls_port}"]
ca_file = "{server.ca}"
bind_dn = "{SERVICE}"
bind_password_file = "{server.service_password_file}"
user_base = "{PEOPLE}"
group_base = "{GROUPS}"
[[listener]]
address = "127.0.0.1:0"
"""
            (folder / "proxy").mkdir()
            proxy = Proxy(folder / "proxy", config).seed({USER: PASSWORD}, {"tenant:main": ["any:*(*)->*(*)"]})
            with proxy:
                rush_at(proxy, "paced", paced=True)
                rush_at(proxy, "full", paced=False)
        assert link.stdin is not None
        link.stdin.close()


def main() -> None:
    """Both parts."""
    warnings.simplefilter("ignore", ResourceWarning)
    if sys.argv[1:] == ["far-away"]:
        far_away()
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder, Slapd(Path(folder) / "slapd", Authority(Path(folder))) as server:
        show_logins(trio.run(measure_logins, server, rounds))
    if os.geteuid() != 0:
        say("the second part needs root, for a network namespace")
        return
    subprocess.run(["unshare", "--net", sys.executable, "-m", "tests.bench_ldap", "far-away"], check=True)


if __name__ == "__main__":
    main()
