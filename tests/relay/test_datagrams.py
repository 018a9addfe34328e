"""Sockets for datagrams over real loopback sockets: the same octets in the same order, however few calls it takes."""

import ctypes
import errno
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.relay import datagrams, mmsg, open_target_side
from trioproxy.relay.datagrams import BatchSocket, DatagramSocket, Run, SingleSocket, SocketAddress, datagram_socket

Kind: TypeAlias = Callable[[socket.socket], DatagramSocket]

KINDS: tuple[Kind, ...] = (datagram_socket, SingleSocket)
SENDERS = pytest.mark.parametrize("sender", KINDS, ids=["sent in batches", "sent singly"])
RECEIVERS = pytest.mark.parametrize("receiver", KINDS, ids=["received in batches", "received singly"])


@contextmanager
def opened(kind: Kind, host: str = "127.0.0.1") -> Iterator[tuple[DatagramSocket, SocketAddress]]:
    """A socket of one kind, and where it is."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind((host, 0))
        yield kind(sock), sock.getsockname()[:2]


def arrived(side: DatagramSocket) -> list[tuple[SocketAddress, bytes]]:
    """Everything that waits. On loopback a datagram is there when it has been sent."""
    everything = []
    while groups := side.receive():
        everything += [(sender, packet) for sender, packets in groups for packet in packets]
    return everything


def numbered(sizes: Sequence[int]) -> list[bytes]:
    """Datagrams of these sizes, no two alike where that is possible."""
    return [(b"%d," % number * size)[:size] for number, size in enumerate(sizes)]


def scripted(side: DatagramSocket, answers: Sequence[int | None]) -> list[int]:
    """Let the kernel answer like this: so many messages at most, or minus an errno; then None: as it really would.

    Returns:
        The number of messages it was asked to send, call by call.
    """
    assert isinstance(side, BatchSocket)
    sender = side._calls._sender
    real, left, asked = sender._sendmmsg, list(answers), list[int]()

    def sendmmsg(descriptor: int, address: int, count: int, flags: int) -> int:
        asked.append(count)
        answer = left.pop(0) if left else None
        if answer is not None and answer < 0:
            ctypes.set_errno(-answer)
            return -1
        return real(descriptor, address, count if answer is None else answer, flags)

    sender._sendmmsg = sendmmsg
    return asked


@pytest.fixture(autouse=True)
def fresh_calls() -> Iterator[None]:
    """What a test did to the calls is for itself alone."""
    mmsg.message_calls.cache_clear()
    yield
    mmsg.message_calls.cache_clear()


# ---- the same octets in the same order


@SENDERS
@RECEIVERS
@pytest.mark.parametrize("header", [b"", b"ten octets"], ids=["", "header"])
@pytest.mark.parametrize(
    "sizes",
    [
        [200] * 64,
        [200] * 63 + [199],  # the last may be shorter
        [1200] * 10 + [7, 1200, 1200],  # and is the last then
        [100] * 150,  # more than one call can cut
        [1, 2, 3, 3, 2, 2, 1, 1],
        [100, 101] * 40,
        [0],
        [0, 0, 0, 5, 5, 0, 5, 0],
        [1] * 70 + [0],
        [9000] * 9,  # more octets than one call can cut
        [65_497],
        [40_000, 40_000, 30_000],
    ],
    ids=lambda sizes: f"{len(sizes)}x{sizes[0]}",
)
def test_all_arrive_in_order(sender: Kind, receiver: Kind, header: bytes, sizes: list[int]) -> None:
    """Law 9, case 80: each datagram as it was, in its order, with its header; zero-length ones and long ones too."""
    payloads = numbered(sizes)
    with opened(sender) as (out, source), opened(receiver) as (into, address):
        run = Run(address, header, payloads)
        out.send([run])
        assert [(source, header + payload) for payload in payloads] == arrived(into)
        assert run.unsent == []


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from([b"", b"h"]),
            st.lists(st.sampled_from([0, 1, 50, 50, 50, 51]), min_size=1),
        ),
        max_size=30,
    )
)
def test_runs_for_several_receivers(script: list[tuple[int, bytes, list[int]]]) -> None:
    """Law 9: whatever the order of receivers and sizes, each gets what a call for each datagram would have sent."""
    for kind in KINDS:
        with ExitStack() as stack:
            out, source = stack.enter_context(opened(kind))
            into = [stack.enter_context(opened(datagram_socket)) for _ in range(3)]
            runs = [Run(into[index][1], header, numbered(sizes)) for index, header, sizes in script]
            out.send(runs)
            for side, address in into:
                expected = [(source, run.header + p) for run in runs if run.receiver == address for p in run.payloads]
                assert expected == arrived(side)


@RECEIVERS
def test_senders_are_told_apart(receiver: Kind) -> None:
    """Law 9: who sent which, also where they take turns."""
    with (
        opened(receiver) as (into, address),
        opened(SingleSocket) as (one, first),
        opened(SingleSocket) as (two, second),
    ):
        for side in (one, one, two, one, two, two):
            side.send([Run(address, b"", [b"x"])])
        assert [first, first, second, first, second, second] == [sender for sender, _ in arrived(into)]


@SENDERS
@RECEIVERS
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_families_through_one_socket(sender: Kind, receiver: Kind, host: str) -> None:
    """Case 77: IPv4 targets over the socket that speaks both; their addresses are as the kernel maps them."""
    with opened(sender, host) as (target, address), open_target_side() as sock:
        side = receiver(sock)
        mapped = (f"::ffff:{host}" if "." in host else host, address[1])
        side.send([Run(mapped, b"", [b"ask", b"ask", b"more"])])
        ((relay, _), *_) = asked = arrived(target)
        assert [packet for _, packet in asked] == [b"ask", b"ask", b"more"]
        target.send([Run((host, relay[1]), b"", [b"answer"] * 2)])
        assert [(mapped, b"answer")] * 2 == arrived(side)


# ---- few calls


def test_equal_sizes_are_one_message() -> None:
    """Issue "The UDP path": the kernel cuts a run; at most 64 pieces and 65,507 octets, the last may be shorter."""
    with opened(datagram_socket) as (out, _), opened(datagram_socket) as (_, address):
        assert isinstance(out, BatchSocket)

        def parts(header: bytes, sizes: list[int]) -> list[int]:
            assert isinstance(out, BatchSocket)
            return [len(part) for part in out._parts(Run(address, header, numbered(sizes)))]

        assert parts(b"", [200] * 130) == [64, 64, 2]
        assert parts(b"", [10_000] * 10) == [6, 4]
        assert parts(b"h" * 4000, [9_000] * 10) == [5, 5]
        assert parts(b"", [50, 50, 50, 49, 50, 50]) == [4, 2]
        assert parts(b"", [50, 50, 50, 0]) == [3, 1]
        assert parts(b"h", [50, 50, 50, 0]) == [4]
        assert parts(b"", [0, 0, 0]) == [1, 1, 1]
        assert parts(b"", [70_000, 70_000]) == [1, 1]


def test_one_call_for_runs_to_everybody() -> None:
    """Issue "The UDP path": what goes to different receivers goes with one call, 64 messages at a time."""
    with opened(datagram_socket) as (out, _), opened(datagram_socket) as (_, one), opened(datagram_socket) as (_, two):
        asked = scripted(out, [])
        out.send([Run(one if index % 2 else two, b"", [b"x"] * 3) for index in range(100)])
        assert asked == [64, 36]


def test_what_the_kernel_joined_comes_apart() -> None:
    """Issue "The UDP path": UDP_GRO gives more datagrams with one call than it has messages."""
    with opened(datagram_socket) as (out, source), opened(datagram_socket) as (into, address):
        payloads = numbered(([300] * 63 + [200]) * 3)
        out.send([Run(address, b"", payloads)])
        assert [(source, payloads)] == into.receive()
        assert len(payloads) > into.batch_max


def test_a_plain_datagram_after_a_joined_one() -> None:
    """Issue "The UDP path": what was said about the size of joined datagrams does not outlive them."""
    with opened(datagram_socket) as (out, source), opened(datagram_socket) as (into, address):
        for sizes in ([10] * 20, [500], [10] * 20 + [500]):
            out.send([Run(address, b"", numbered(sizes))])
            assert [(source, numbered(sizes))] == into.receive()


# ---- what does not go


@SENDERS
def test_too_long_is_told_and_the_rest_goes(sender: Kind) -> None:
    """Case 80, CASES 1.5: EMSGSIZE is of one datagram only."""
    with opened(sender) as (out, source), opened(datagram_socket) as (into, address):
        run = Run(address, b"0123456789", [b"one", bytes(65_498), b"two"])
        out.send([run])
        assert run.unsent == [(65_498, errno.EMSGSIZE)]
        assert [(source, b"0123456789one"), (source, b"0123456789two")] == arrived(into)


@SENDERS
def test_no_address_of_this_family(sender: Kind) -> None:
    """Law 9: a receiver that cannot be reached costs its own datagrams only."""
    with opened(sender) as (out, source), opened(datagram_socket) as (into, address):
        wrong, right = Run(("::1", 9), b"", [b"a", b"bc"]), Run(address, b"", [b"d"])
        out.send([wrong, right])
        assert [size for size, _ in wrong.unsent] == [1, 2]
        assert [(source, b"d")] == arrived(into)


def test_busy_in_the_middle_of_a_batch() -> None:
    """Issue "The UDP path": a call that takes a part and then EAGAIN: known exactly which went, nothing goes twice."""
    with opened(datagram_socket) as (out, source), opened(datagram_socket) as (into, address):
        run = Run(address, b"", numbered([1, 2, 3, 4, 5]))
        asked = scripted(out, [2, -errno.EAGAIN])
        out.send([run])
        assert asked == [5, 3, 2]
        assert run.unsent == [(3, errno.EAGAIN)]
        assert [(source, payload) for payload in numbered([1, 2, 3, 4, 5]) if len(payload) != 3] == arrived(into)


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL, errno.EMSGSIZE])
def test_receiver_for_whom_nothing_can_be_cut(code: int) -> None:
    """Issue "The UDP path": a device or an MTU that forbids cutting loses nothing, and is asked once, not each time."""
    sizes = [500] * 5 + [600]
    with opened(datagram_socket) as (out, source), opened(datagram_socket) as (into, address):
        asked = scripted(out, [-code])
        for _ in range(2):
            run = Run(address, b"", numbered(sizes))
            out.send([run])
            assert run.unsent == []
            assert [(source, payload) for payload in numbered(sizes)] == arrived(into)
        assert asked == [2, 1, 6]
        out.send([Run(address, b"", numbered([499] * 6))])
        assert (6 if code == errno.EIO else 1) == asked[-1]


def test_run_that_finds_the_socket_busy_may_be_cut_again() -> None:
    """Issue "The UDP path": EAGAIN says nothing about cutting; one by one it says how many really found no room."""
    with opened(datagram_socket) as (out, _), opened(datagram_socket) as (into, address):
        asked = scripted(out, [-errno.EAGAIN])
        for _ in range(2):
            out.send([Run(address, b"", [b"x"] * 5)])
        assert asked == [1, 1]
        assert len(arrived(into)) == 10


def test_receivers_for_whom_nothing_can_be_cut_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 12: whoever talks to many receivers behind such a device takes no more memory than this."""
    monkeypatch.setattr(datagrams, "WHOLE_MAX", 3)
    with opened(datagram_socket) as (out, _):
        assert isinstance(out, BatchSocket)
        for port in range(10_000, 10_010):
            scripted(out, [-errno.EIO])
            out.send([Run(("127.0.0.1", port), b"", [b"x"] * 2)])
            assert len(out._whole_above) <= 3


@RECEIVERS
def test_error_for_something_sent_earlier(receiver: Kind) -> None:
    """Case 80: an ICMP error is told once, and the socket is fine."""
    with opened(receiver) as (side, _), opened(SingleSocket) as (target, address):
        side.sock.connect(address)
        side.sock.send(b"there")
        ((source, _),) = arrived(target)
        target.sock.close()
        side.sock.send(b"gone")
        with pytest.raises(ConnectionRefusedError):
            side.receive()
        assert not side.receive()
        assert side.sock.getsockname()[:2] == source


# ---- systems


def test_a_library_without_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue "The UDP path": other systems, and C libraries without the two calls, get a call for each datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert isinstance(datagram_socket(sock), BatchSocket)
        mmsg.message_calls.cache_clear()
        monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: object())
        assert isinstance(datagram_socket(sock), SingleSocket)
        mmsg.message_calls.cache_clear()
        monkeypatch.setattr(sys, "platform", "freebsd14")
        assert isinstance(datagram_socket(sock), SingleSocket)


def test_a_kernel_that_cannot_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue "The UDP path": before Linux 4.18 a run would leave as one long datagram; so it is not asked to cut."""
    monkeypatch.setattr(datagrams, "UDP_SEGMENT", 250)
    with opened(datagram_socket) as (out, source), opened(datagram_socket) as (into, address):
        asked = scripted(out, [])
        out.send([Run(address, b"", [b"x"] * 5)])
        assert asked == [5]
        assert [(source, b"x")] * 5 == arrived(into)


@RECEIVERS
def test_room_for_what_arrives_meanwhile(receiver: Kind) -> None:
    """Limits: what comes while others have their turn waits in the kernel, which bounds it (net.core.rmem_max)."""
    allowed = int(Path("/proc/sys/net/core/rmem_max").read_text())
    with opened(receiver) as (side, _):
        room = side.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert room >= 2 * min(allowed, datagrams.RECEIVE_BUFFER_BYTES)


@given(st.ip_addresses(), st.integers(0, 65_535))
def test_addresses_as_the_kernel_writes_them(address: object, port: int) -> None:
    """Law 9: an address reads as it was written, so who was sent to is recognised in the answer."""
    host = str(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    written = (socket.inet_ntop(family, socket.inet_pton(family, host)), port)
    assert written == datagrams._address_of(datagrams._name_of(family, (host, port)))


def test_link_local_addresses_have_an_interface() -> None:
    """CASES 1.9: as Python's sockets write them, so that a client on a link is recognised."""
    name = datagrams._name_of(socket.AF_INET6, ("fe80::1%lo", 7))
    assert datagrams._address_of(name) == ("fe80::1%lo", 7)
    gone = name[:-4] + (2**31 - 1).to_bytes(4, "little")
    assert datagrams._address_of(gone) == ("fe80::1%2147483647", 7)
