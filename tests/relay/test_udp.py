"""Associations over real sockets without a server round them: in batches and one by one it must come to the same."""

import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from ipaddress import IPv4Address
from typing import TypeAlias

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from auth import Identity
from tests.harness import settle
from tests.socks_client import unwrapped, wrapped
from trioproxy.accounting import Flow, Termination
from trioproxy.engine import Engine
from trioproxy.engine.epoll import EpollEngine
from trioproxy.policy import AccessRequest, IPAddress, Permit, Reason, Refusal, RuleProtocol, Verdict
from trioproxy.relay import Association, AssociationSettings, DestinationRights, open_target_side
from trioproxy.relay.datagrams import DatagramSocket, SingleSocket, datagram_socket
from trioproxy.sniff import Finding

Kind: TypeAlias = Callable[[socket.socket], DatagramSocket]

KINDS = pytest.mark.parametrize(
    "kind", [datagram_socket, SingleSocket], ids=["batches", "singly"]
)  # each on its engine
HOST = "127.0.0.1"
TARGETS = 3  # the last one is denied


def bound() -> socket.socket:
    """A socket for datagrams on loopback."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind((HOST, 0))
    return sock


def waiting(sock: socket.socket) -> list[bytes]:
    """Everything that has arrived."""
    packets = []
    while True:
        try:
            packets.append(sock.recv(65_535))
        except BlockingIOError:
            return packets


@attrs.define(eq=False)
class Relayed:
    """An association under test, its client and its targets.

    Attributes:
        engine: which serves it.
        denied: ports that nobody may send to.
        judged: which ports were asked about, in this order.
        on_judge: called each time, before the verdict.
    """

    engine: Engine
    association: Association
    client: socket.socket
    relay: tuple[str, int]
    targets: list[socket.socket]
    denied: set[int]
    judged: list[int]
    drops: Counter[str]
    ended: list[tuple[Flow, Termination]]
    on_judge: Callable[[int], None] = lambda _: None

    @property
    def ports(self) -> list[int]:
        """Of the targets."""
        return [target.getsockname()[1] for target in self.targets]

    def send(self, port: int, data: bytes) -> None:
        """One datagram for a target."""
        self.client.sendto(wrapped(HOST, port, data), self.relay)

    def flow(self, port: int) -> Flow:
        """What is kept of one target now; nothing has moved if it is not known."""
        known = {destination.sockaddr[1]: destination.flow for destination in self.association._destinations}
        return known.get(port) or Flow(1, "listener", IPv4Address(HOST), 0, "main")

    def knows(self, judged: int) -> bool:
        """Whether so many have been judged and sent to."""
        return len(self.judged) == judged and self.flow(self.judged[-1]).bytes_to_target > 0

    def judge_again(self) -> None:
        """The rules have changed."""
        for _ in self.association.judge_again():
            pass

    def verdict(self, name: str | None, address: IPAddress, port: int, client_port: int) -> Verdict:
        """What the rules say."""
        self.judged.append(port)
        self.on_judge(port)
        identity = Identity("main", None)
        request = AccessRequest(identity, IPv4Address(HOST), client_port, RuleProtocol.UDP, name, address, port)
        return Refusal(request, Reason.RULE) if port in self.denied else Permit(request, "global", "udp:*(*)->*(*)")


@asynccontextmanager
async def relayed(kind: Kind, targets: int = TARGETS, destinations_max: int = 100) -> AsyncIterator[Relayed]:
    """An association that runs until the block ends."""
    with ExitStack() as stack:
        client, *others = [stack.enter_context(bound()) for _ in range(1 + targets)]
        client_side = bound()
        engine = EpollEngine() if kind is datagram_socket else Engine()
        ours = [engine.open(sock, writable=False) for sock in (client_side, open_target_side())]
        drops, ended = Counter[str](), list[tuple[Flow, Termination]]()

        async def resolve(name: str, port: int) -> tuple[IPAddress, ...]:
            raise OSError(name)

        def verdict(name: str | None, address: IPAddress, port: int, client_port: int, _: Finding | None) -> Verdict:
            return running.verdict(name, address, port, client_port)

        association = Association(
            engine=engine,
            client_side=ours[0],
            target_side=ours[1],
            client_host=HOST,
            client_port=0,
            settings=AssociationSettings("strict", 30.0, destinations_max),
            rights=DestinationRights(
                judge=verdict,
                admit=lambda flow, permit, new: None,
                new_flow=lambda: Flow(1, "listener", IPv4Address(HOST), 0, "main", Identity("main", None)),
                finished=lambda flow, why: ended.append((flow, why)),
                grace_s=lambda permit, refusal: 0,
            ),
            resolve=resolve,
            resolve_errors=(OSError,),
            dropped=lambda reason: drops.update([reason]),
            wrap=kind,
        )
        running = Relayed(engine, association, client, client_side.getsockname(), others, set(), [], drops, ended)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(engine.run)
                nursery.start_soon(association.relay)
                yield running
                nursery.cancel_scope.cancel()
        finally:
            await association.close(Termination.CLIENT_CLOSED)


# ---- both kinds do the same

PACKETS = st.one_of(
    st.tuples(st.integers(0, TARGETS - 1), st.sampled_from([0, 1, 40, 40, 40, 41, 1200])),
    st.sampled_from(
        [b"", b"\0\0\0", b"\0\0\1\1", b"\0\0\0\1\x7f", b"\0\0\0\2", b"\0\0\0\3\0\0\0", b"\0\0\0\1" + bytes(6)]
    ),
    st.sampled_from([wrapped(b"127.1", 9, b"?"), wrapped(b"nowhere.example", 9, b"?"), b"\0\0\0\3"]),
)


async def outcome(kind: Kind, script: list[tuple[int, int] | bytes]) -> object:
    """Everything that can be seen of an association that is sent this in one go, while its targets answer twice."""
    async with relayed(kind) as running:
        running.denied.add(running.ports[-1])
        for number, item in enumerate(script):
            if isinstance(item, bytes):
                running.client.sendto(item, running.relay)
            else:
                running.send(running.ports[item[0]], (b"%d," % number * item[1])[: item[1]])
        received: list[list[bytes]] = [[] for _ in running.targets]
        answers: list[tuple[int, bytes]] = []
        passed = 0

        def done() -> bool:
            nonlocal passed
            for target, packets in zip(running.targets, received, strict=True):
                while True:
                    try:
                        packet, relay = target.recvfrom(65_535)
                    except BlockingIOError:
                        break
                    packets.append(packet)
                    passed += 1
                    target.sendto(packet, relay)
                    target.sendto(packet + b"!", relay)
            for answer in waiting(running.client):
                _, port, data = unwrapped(answer)
                answers.append((running.ports.index(port), data))
            return passed + running.drops.total() == len(script) and len(answers) == 2 * passed

        await settle(done)
    by_target = [[data for index, data in answers if index == target] for target in range(TARGETS)]
    meters = [(flow.bytes_to_target, flow.bytes_to_client, why) for flow, why in running.ended]
    return received, by_target, running.drops, meters


@settings(max_examples=40)
@given(st.lists(PACKETS, max_size=80))
async def test_batches_do_what_single_datagrams_do(script: list[tuple[int, int] | bytes]) -> None:
    """Issue "The UDP path", cases 76-80: the same datagrams in the same order, the same drops, the same meters."""
    assert await outcome(SingleSocket, script) == await outcome(datagram_socket, script)


# ---- rules


@KINDS
async def test_changed_rules_hold_for_the_next_datagram(kind: Kind) -> None:
    """Issue "The UDP path": a rule change empties what is remembered of verdicts, both ways, whatever waits already."""
    async with relayed(kind) as running:
        (target, other, _), (port, other_port, _) = running.targets, running.ports
        for _ in range(50):
            running.send(port, b"before")
            running.send(other_port, b"before")
        await settle(lambda: running.flow(port).bytes_to_target == running.flow(other_port).bytes_to_target == 300)
        assert len(waiting(target)) == 50
        assert running.judged == [port, other_port]  # once, not once for each datagram
        relay = ("127.0.0.1", running.association._target_side.sock.getsockname()[1])
        for _ in range(50):
            running.send(port, b"after")
            target.sendto(b"answer", relay)
        running.denied.add(port)
        steps = running.association.judge_again()  # nobody has gone through them yet
        running.send(other_port, b"after")
        await settle(lambda: waiting(other)[-1:] == [b"after"])
        await settle(lambda: running.drops.total() == 100)
        assert (waiting(target), waiting(running.client)) == ([], [])
        assert set(running.drops) <= {"denied", "stranger_target"}
        assert [(flow.bytes_to_target, why) for flow, why in running.ended] == [(300, Termination.REVOKED)]
        assert list(steps) == [None]  # one of the two is forgotten already


@KINDS
async def test_changed_rules_hold_in_the_middle_of_a_batch(kind: Kind) -> None:
    """Issue "The UDP path": the rules change while a batch is handled; the rest of that batch goes by the new ones."""
    async with relayed(kind, targets=4) as running:
        one, two, three, four = running.ports

        def change(port: int) -> None:
            if port == three and one not in running.denied:
                running.denied.add(one)
                running.judge_again()

        running.on_judge = change
        for port in (one, one, two, three, one, four, one):
            running.send(port, b"x")
        await settle(lambda: len(waiting(running.targets[3])) == 1)
        assert [len(waiting(target)) for target in running.targets[:3]] == [2, 1, 1]
        assert running.drops == {"denied": 2}
        assert [(flow.bytes_to_target, why) for flow, why in running.ended] == [(2, Termination.REVOKED)]


@KINDS
async def test_many_new_destinations_let_others_have_their_turn(kind: Kind) -> None:
    """Law 12: one association that talks to new destinations all the time holds nobody up for long."""
    async with relayed(kind, targets=60) as running:
        for port in running.ports:
            running.send(port, b"x")
        seen = list[int]()

        def work() -> bool | str:
            seen.append(len(running.judged))
            return True if seen[-1] < 60 else "all were judged"

        other = running.engine.open(running.targets[0])
        await running.engine.until_problem(other, work)
        running.engine.forget(other)
        # Four of them use a turn up; it may be the last one of one round and the first one of the next.
        assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) <= 8
        assert sum(len(waiting(target)) for target in running.targets) == 60


@KINDS
async def test_what_waits_for_a_turn_keeps_its_order(kind: Kind) -> None:
    """Law 9: answers wake the association while a batch of the client's waits; what comes behind that stays behind."""
    async with relayed(kind, targets=30) as running:
        for number, port in enumerate(running.ports):
            running.send(running.ports[0], b"%d" % number)
            running.send(port, b"new")
        answered = list[bytes]()
        for number in range(30, 60):
            await trio.lowlevel.checkpoint()
            running.send(running.ports[0], b"%d" % number)
            for target in running.targets[1:]:
                try:
                    packet, relay = target.recvfrom(65_535)
                except BlockingIOError:
                    continue
                target.sendto(packet, relay)
            answered += waiting(running.client)
        received = list[bytes]()

        def all_received() -> bool:
            received.extend(waiting(running.targets[0]))
            return len(received) == 61

        await settle(all_received)
        received.remove(b"new")
        assert received == [b"%d" % number for number in range(60)]


@KINDS
async def test_what_is_remembered_is_bounded(kind: Kind) -> None:
    """Law 12: of more than `destinations_max` destinations the one unused for longest is forgotten, and its verdict."""
    async with relayed(kind, targets=6, destinations_max=3) as running:
        for number, port in enumerate(running.ports, 1):
            running.send(running.ports[0], b"used")
            running.send(port, b"x")
            await settle(partial(running.knows, number))
        assert len(running.association._destinations._contacted) == 3
        assert [why for _, why in running.ended] == [Termination.FORGOTTEN] * 3
        assert running.ports[0] in {key[1] for key in running.association._destinations._contacted}
