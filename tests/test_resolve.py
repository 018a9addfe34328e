"""Names: asked once for all who wait, remembered for a short time, bounded for each user and in time."""

import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from trioproxy.config import Limits
from trioproxy.policy import IPAddress
from trioproxy.resolve import ADDRESSES_MAX, WAITING_PER_THREAD, ResolveError, Resolver, system_lookup

ADDRESS = ip_address("192.0.2.1")


class Names:
    """A name service in the test's hands."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, list[IPAddress] | Exception] = {}
        self.gate = threading.Event()
        self.gate.set()

    def lookup(self, name: str) -> list[IPAddress]:
        """Wait for the gate, then answer."""
        self.asked.append(name)
        self.gate.wait()
        answer = self.answers.get(name, [ADDRESS])
        if isinstance(answer, Exception):
            raise answer
        return answer


def a_resolver(nursery: trio.Nursery, names: Names, **limits: float) -> Resolver:
    """A resolver with these limits."""
    return Resolver(nursery, Limits(**limits), Counter(), lookup=names.lookup)  # type: ignore[arg-type]


async def test_answer_is_remembered_for_seconds(nursery: trio.Nursery) -> None:
    """Two requests for the same name ask the name service once."""
    names = Names()
    resolver = a_resolver(nursery, names)
    assert await resolver.resolve("a.example", "alice") == (ADDRESS,)
    assert await resolver.resolve("a.example", "bob") == (ADDRESS,)
    assert names.asked == ["a.example"]


async def test_answer_is_asked_for_again_after_its_time(nursery: trio.Nursery) -> None:
    """`resolve_cache_s` is over: ask again."""
    names = Names()
    resolver = a_resolver(nursery, names, resolve_cache_s=0)
    await resolver.resolve("a.example", "alice")
    await resolver.resolve("a.example", "alice")
    assert names.asked == ["a.example"] * 2


async def test_those_who_ask_at_the_same_time_share_one_lookup(nursery: trio.Nursery) -> None:
    """One thread for one name, however many sessions want it."""
    names = Names()
    names.gate.clear()
    resolver = a_resolver(nursery, names)
    answers: list[tuple[IPAddress, ...]] = []

    async def ask(asker: int) -> None:
        answers.append(await resolver.resolve("a.example", asker))

    async with trio.open_nursery() as asking:
        for asker in range(20):
            asking.start_soon(ask, asker)
        while not names.asked:
            await trio.sleep(0.001)
        names.gate.set()
    assert answers == [(ADDRESS,)] * 20
    assert names.asked == ["a.example"]


@pytest.mark.parametrize(
    ("failure", "temporary"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), False),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), True),
        (OSError("no descriptors"), True),
        (UnicodeError("label too long"), False),
    ],
)
async def test_case_93_failure_is_told_and_remembered_for_a_moment(
    failure: Exception, temporary: bool, nursery: trio.Nursery
) -> None:
    """Case 93: NXDOMAIN, server failure: an error at once, also for the next one who asks within 5 s."""
    names = Names()
    names.answers["a.example"] = failure
    resolver = a_resolver(nursery, names)
    for _ in range(2):
        with pytest.raises(ResolveError) as told:
            await resolver.resolve("a.example", "alice")
        assert told.value.temporary is temporary
        assert not told.value.limit
    assert names.asked == ["a.example"]


async def test_name_without_addresses(nursery: trio.Nursery) -> None:
    """An answer without an address is none."""
    names = Names()
    names.answers["a.example"] = []
    with pytest.raises(ResolveError, match="no addresses"):
        await a_resolver(nursery, names).resolve("a.example", "alice")


async def test_many_addresses_are_cut_and_doubles_removed(nursery: trio.Nursery) -> None:
    """At most 16 candidates, each once, in the resolver's order."""
    names = Names()
    many = [ip_address(number) for number in range(2**25, 2**25 + 50)]
    names.answers["a.example"] = [many[0], *many]
    assert await a_resolver(nursery, names).resolve("a.example", "alice") == tuple(many[:ADDRESSES_MAX])


async def test_case_93_timeout_is_the_askers_own(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    """Case 93: a silent name server: an error after `resolve_s`; the look-up goes on and is used later."""
    names = Names()
    names.gate.clear()
    resolver = a_resolver(nursery, names, resolve_s=5)
    failed = trio.Event()

    async def ask() -> None:
        with pytest.raises(ResolveError, match="time-out"):
            await resolver.resolve("a.example", "alice")
        failed.set()

    nursery.start_soon(ask)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(5)
    await failed.wait()
    names.gate.set()
    assert await resolver.resolve("a.example", "alice") == (ADDRESS,)
    assert names.asked == ["a.example"]


async def test_case_92_one_user_cannot_hold_all_threads(nursery: trio.Nursery) -> None:
    """Case 92: look-ups of one user wait for each other while their threads live, not for ever more; others go on."""
    names = Names()
    names.gate.clear()
    resolver = a_resolver(nursery, names, resolve_per_user_max=2, resolve_threads=3)
    for number in range(2 * WAITING_PER_THREAD):
        nursery.start_soon(resolver.resolve, f"{number}.example", "mallory")
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(ResolveError) as told:
        await resolver.resolve("c.example", "mallory")
    while len(names.asked) < 2:
        await trio.sleep(0.001)
    assert len(names.asked) == 2
    assert told.value.limit
    assert resolver._counters["resolve_per_user_limit_each"] == 1
    nursery.start_soon(resolver.resolve, "d.example", "alice")
    while "d.example" not in names.asked:
        await trio.sleep(0.001)
    names.gate.set()
    assert await resolver.resolve("d.example", "alice") == (ADDRESS,)
    while resolver._turns:
        await trio.sleep(0.001)
    assert await resolver.resolve("c.example", "mallory") == (ADDRESS,)
    assert len(names.asked) == 2 * WAITING_PER_THREAD + 2


async def test_memory_is_bounded(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest name makes room; that is counted."""
    monkeypatch.setattr("trioproxy.resolve.CACHE_ENTRIES_MAX", 3)
    names = Names()
    resolver = a_resolver(nursery, names)
    for number in range(5):
        await resolver.resolve(f"{number}.example", "alice")
    assert list(resolver._entries) == ["2.example", "3.example", "4.example"]
    assert resolver._counters["resolve_cache_limit"] == 2


async def test_changed_limits_hold_at_once(nursery: trio.Nursery) -> None:
    """A reload changes the number of threads and the limits for a user."""
    resolver = a_resolver(nursery, Names())
    resolver.apply(Limits(resolve_threads=1, resolve_per_user_max=1))
    assert resolver._threads.total_tokens == 1
    assert resolver._askers.each_max == WAITING_PER_THREAD


def test_system_lookup_knows_localhost() -> None:
    """The system's resolver, with /etc/hosts."""
    assert ip_address("127.0.0.1") in system_lookup("localhost")


@pytest.mark.skipif(os.geteuid() != 0, reason="port 53 and a mount namespace need root")
def test_case_93_search_domains_are_never_asked(tmp_path: Path) -> None:
    """Case 93: no query with a search domain behind the name ever leaves; /etc/hosts is still known."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("search corp.example\nnameserver 127.0.0.1\n")
    script = textwrap.dedent("""
        import socket, subprocess, sys, threading
        from trioproxy.resolve import forget_search_domains, system_lookup
        subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 53))
        def answer():
            while True:
                query, client = server.recvfrom(4096)
                name, at = [], 12
                while query[at]:
                    name.append(query[at + 1 : at + 1 + query[at]].decode())
                    at += query[at] + 1
                print("asked", ".".join(name), flush=True)
                server.sendto(query[:2] + b"\\x81\\x83" + query[4:6] + bytes(6) + query[12 : at + 5], client)
        threading.Thread(target=answer, daemon=True).start()
        forget_search_domains()
        print("localhost", system_lookup("localhost"))
        for name in ("printer", "a.example"):
            try:
                system_lookup(name)
            except OSError as error:
                print("failed", error)
    """)
    done = subprocess.run(
        ["unshare", "--mount", "--net", sys.executable, "-c", script, str(resolv_conf)],
        capture_output=True,
        text=True,
        check=True,
    )
    asked = {line.removeprefix("asked ") for line in done.stdout.splitlines() if line.startswith("asked")}
    assert asked == {"printer", "a.example"}
    assert "localhost [IPv4Address('127.0.0.1')" in done.stdout
