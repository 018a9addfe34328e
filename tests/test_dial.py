"""Dialling: exactly the judged address, several in turn, one survivor, and the reply that fits the failure."""

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Any, TypeAlias

import pytest
import trio

from auth import Identity
from tests.targets import black_hole
from tests.wires import open_descriptors
from trioproxy.dial import REPLIES, DialError, KeepAlive, dial, dial_first, reply_for
from trioproxy.engine.epoll import EpollEngine
from trioproxy.engine.fiber import Cut
from trioproxy.policy import AccessRequest, Permit, RuleProtocol
from trioproxy.protocol import Reply

Connect: TypeAlias = Callable[..., Awaitable[socket.socket]]


def permit(address: str, port: int) -> Permit:
    """A permit for one address."""
    client = ip_address("127.0.0.1")
    request = AccessRequest(Identity("main", "alice"), client, 1, RuleProtocol.TCP, None, ip_address(address), port)
    return Permit(request, "global", "tcp:*(*)->*(*)")


async def connect(
    *permits: Permit, timeout_s: float = 20, descriptors_max: int = 100_000
) -> tuple[socket.socket, Permit]:
    """Dial in a task, with the limits of a test."""
    return await dial_first(permits, timeout_s=timeout_s, descriptors_max=descriptors_max)


async def connect_on_fiber(permit: Permit, timeout_s: float = 20, descriptors_max: int = 100_000) -> socket.socket:
    """Dial on a fiber, which is what happens to an address that was asked for as such."""
    outcomes: list[socket.socket | DialError] = []
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        engine = EpollEngine()
        await nursery.start(engine.run)
        fiber = engine.fiber()

        async def run() -> None:
            try:
                channel = await dial(engine, fiber, permit, timeout_s=timeout_s, descriptors_max=descriptors_max)
                engine.forget(channel)
                outcomes.append(channel.sock)
            except DialError as error:
                outcomes.append(error)
            except Cut:
                return
            done.set()

        fiber.start(run())
        try:
            await done.wait()
        finally:
            nursery.cancel_scope.cancel()
    (outcome,) = outcomes
    if isinstance(outcome, DialError):
        raise outcome
    return outcome


async def connect_in_task(permit: Permit, **limits: Any) -> socket.socket:
    """The same over the other way."""
    return (await connect(permit, **limits))[0]


either_way = pytest.mark.parametrize("connect_to", [connect_on_fiber, connect_in_task])


def a_listening_socket(address: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Somebody listens."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen()
    return sock


@either_way
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_connects_to_the_judged_address(connect_to: Connect, address: str) -> None:
    """Law 1: exactly the judged socket address, and without delay."""
    with a_listening_socket(address) as listening:
        port = listening.getsockname()[1]
        with await connect_to(permit(address, port)) as sock:
            assert sock.getpeername()[:2] == (address, port)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_keep_alive() -> None:
    """Case 98: a dead peer is noticed, whether it owes us data or an acknowledgement."""
    with socket.socket() as sock:
        KeepAlive(120).apply(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
        KeepAlive(365 * 86_400).apply(sock)  # beyond what the kernel takes: as long as it can
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 32_767


@either_way
async def test_case_20_refused(connect_to: Connect) -> None:
    """Case 20: nobody listens there: 05."""
    with a_listening_socket() as listening:
        port = listening.getsockname()[1]
    with pytest.raises(DialError) as told:
        await connect_to(permit("127.0.0.1", port))
    assert told.value.reply is Reply.CONNECTION_REFUSED


@either_way
async def test_case_20_timeout_closes_what_it_opened(connect_to: Connect) -> None:
    """Case 20: no answer: 04 after the time limit, and no descriptor stays behind."""
    async with black_hole("127.0.0.2") as port:
        before = open_descriptors()
        with pytest.raises(DialError) as told:
            await connect_to(permit("127.0.0.2", port), timeout_s=0.1)
        assert told.value.reply is Reply.HOST_UNREACHABLE
        assert open_descriptors() == before


async def test_case_21_second_candidate_after_the_first_is_silent() -> None:
    """Case 21: the first address is a black hole: the second is tried without waiting for it; one survives."""
    async with black_hole("127.0.0.2") as port:
        with a_listening_socket("127.0.0.1", port):
            before = open_descriptors()
            stream, permitted = await connect(permit("127.0.0.2", port), permit("127.0.0.1", port))
            assert permitted.request.address == ip_address("127.0.0.1")
            assert open_descriptors() == before + 1
            stream.close()


async def test_second_candidate_at_once_after_a_refusal() -> None:
    """RFC 8305 section 5: a failed attempt starts the next one without the delay."""
    with a_listening_socket("127.0.0.1") as listening:
        port = listening.getsockname()[1]
        stream, permitted = await connect(permit("127.0.0.3", port), permit("::1", port), permit("127.0.0.1", port))
        assert permitted.request.address == ip_address("127.0.0.1")
        stream.close()


async def test_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8305 section 4: the family of the first address first, then in turns; no more than four are tried."""
    tried: list[str] = []

    async def refuse(candidate: Permit, *_: object) -> socket.socket:
        tried.append(str(candidate.request.address))
        raise OSError(errno.ECONNREFUSED, "refused")

    monkeypatch.setattr("trioproxy.dial._connect", refuse)
    candidates = ["2001:db8::1", "2001:db8::2", "192.0.2.1", "2001:db8::3", "192.0.2.2"]
    with pytest.raises(DialError):
        await connect(*(permit(address, 80) for address in candidates))
    assert tried == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]


async def test_two_successes_leave_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 21: two attempts succeed in the same moment: only one survives."""
    both = trio.Event()
    started: list[Permit] = []
    socks: list[socket.socket] = []

    async def succeed(candidate: Permit, *_: object) -> socket.socket:
        started.append(candidate)
        if len(started) == 2:
            both.set()  # wakes the first attempt in the moment in which this one succeeds
        else:
            await both.wait()
        ours, theirs = socket.socketpair()
        socks.append(ours)
        theirs.close()
        return ours

    monkeypatch.setattr("trioproxy.dial._connect", succeed)
    sock, _ = await connect(permit("127.0.0.1", 80), permit("127.0.0.2", 80))
    assert len(socks) == 2
    assert [one.fileno() == -1 for one in socks].count(False) == 1
    sock.close()


@either_way
async def test_cancelled_dial_leaves_nothing(connect_to: Connect) -> None:
    """Case 19: the client has gone while its target is dialled: the attempt is closed."""
    async with black_hole("127.0.0.2") as port:
        before = open_descriptors()
        with trio.move_on_after(0.05) as scope:
            await connect_to(permit("127.0.0.2", port))
        assert scope.cancelled_caught
        assert open_descriptors() == before


@either_way
async def test_reserve_of_descriptors_is_kept(connect_to: Connect) -> None:
    """A socket that would eat into the reserve is not used: 01."""
    with a_listening_socket() as listening, pytest.raises(DialError) as told:
        await connect_to(permit("127.0.0.1", listening.getsockname()[1]), descriptors_max=2)
    assert told.value.reply is Reply.GENERAL_SOCKS_SERVER_FAILURE


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([errno.ENETUNREACH], Reply.NETWORK_UNREACHABLE),
        ([errno.EHOSTUNREACH, errno.ECONNREFUSED], Reply.CONNECTION_REFUSED),
        ([errno.ENETUNREACH, errno.ETIMEDOUT], Reply.HOST_UNREACHABLE),
        ([errno.EACCES], Reply.CONNECTION_NOT_ALLOWED_BY_RULESET),
        ([errno.EMFILE], Reply.GENERAL_SOCKS_SERVER_FAILURE),
        ([], Reply.GENERAL_SOCKS_SERVER_FAILURE),
    ],
)
def test_case_20_the_most_telling_failure_is_told(codes: Sequence[int], expected: Reply) -> None:
    """Case 20: CASES 1.3's table from errno to REP; of several failures the one that proves most."""
    assert DialError([OSError(code, os.strerror(code)) for code in codes]).reply is expected


def test_table_of_replies() -> None:
    """CASES 1.3: refused 05, network 03, host and time-out 04, everything unknown 01."""
    expected = {errno.ECONNREFUSED: 5, errno.ENETUNREACH: 3, errno.EHOSTUNREACH: 4, errno.ETIMEDOUT: 4}
    assert {code: int(REPLIES[code]) for code in expected} == expected
    assert reply_for(OSError("without a number")) is Reply.GENERAL_SOCKS_SERVER_FAILURE
