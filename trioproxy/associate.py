"""UDP ASSOCIATE: from the request to the running association, and its end with the TCP connection."""

import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import attrs
import trio

from trioproxy.accounting import Flow, Termination
from trioproxy.client import Client, Ended
from trioproxy.config import Listener
from trioproxy.engine import Channel
from trioproxy.judge import Judge
from trioproxy.limits import keep_reserve
from trioproxy.policy import IPAddress, Permit, Reason, Refusal, RuleProtocol, Verdict, canonical_address
from trioproxy.policy.scans import Outcome
from trioproxy.policy.shapes import DatagramShape
from trioproxy.protocol import Address, Reply
from trioproxy.relay import Association, AssociationSettings, DestinationRights, open_target_side
from trioproxy.resolve import ResolveError
from trioproxy.sniff import Finding

__all__ = ["announced_port", "open_association", "relay_association"]


def open_association(
    judge: Judge, client: Client, listener: Listener, announced: Address, finished: Callable[[Flow, Termination], None]
) -> tuple[Association, int]:
    """Open the pair of sockets.

    Args:
        judge: asked for each destination.
        client: whose datagrams are relayed.
        listener: where it came in.
        announced: DST of the request.
        finished: called with the flow of each destination when that has ended.

    Returns:
        The association, and the port the client must send to.

    Raises:
        Ended: the client is blocked, no rule could ever allow a datagram, or no socket can be had.
    """
    judge.check_block()
    if not judge.may_ever(RuleProtocol.UDP):
        raise Ended(Termination.REFUSED, Reply.CONNECTION_NOT_ALLOWED_BY_RULESET)
    try:
        client_side, target_side = _open_pair(judge, client, listener)
    except OSError as exc:
        judge.services.counters["udp_socket_failed"] += 1
        raise Ended(Termination.LIMIT, Reply.GENERAL_SOCKS_SERVER_FAILURE) from exc
    limits, asked = judge.services.limits, _Asked(judge, client)
    association = Association(
        engine=judge.services.engine,
        client_side=client_side,
        target_side=target_side,
        client_host=client.host,
        client_port=announced_port(announced, client),
        settings=AssociationSettings(
            listener.udp_port_lock, limits.association_idle_s, limits.destinations_per_association_max
        ),
        rights=DestinationRights(asked.verdict, asked.admit, asked.new_flow, finished, asked.grace_s),
        resolve=asked.resolve,
        resolve_errors=(ResolveError, Ended),
        dropped=asked.dropped,
    )
    return association, client_side.sock.getsockname()[1]


@attrs.frozen
class _Asked:
    """What an association asks its session."""

    judge: Judge
    client: Client

    def new_flow(self) -> Flow:
        """For a destination."""
        flow = self.judge.flow
        return Flow(
            *(flow.session, flow.listener, flow.client_address, flow.client_port, flow.tenant, flow.identity),
            source=flow.source,
        )

    def dropped(self, reason: str) -> None:
        """A datagram was."""
        self.judge.flow.count(reason)
        self.judge.services.counters[f"datagram_{reason}"] += 1

    def verdict(
        self, name: str | None, address: IPAddress, port: int, client_port: int, finding: Finding | None
    ) -> Verdict:
        """May datagrams go there?"""
        verdict = self.judge.datagram(name, address, port, client_port, finding)
        if isinstance(verdict, Refusal) and verdict.reason not in (Reason.BLOCKED, Reason.HOURS):
            refused = self.new_flow()
            refused.verdict = verdict
            self.judge.services.scans.saw(refused, Outcome.DENIED)
        return verdict

    def grace_s(self, permit: Permit, refusal: Refusal) -> float:
        """For how long a destination that is refused now may go on."""
        return self.judge.grace_s((permit,), refusal)

    async def resolve(self, name: str, port: int) -> tuple[IPAddress, ...]:
        """The addresses of a name that is not blocked: of one that is, nobody is asked.

        Raises:
            Ended: it is blocked, or no policy is in force.
            ResolveError: there are none.
        """
        judge = self.judge
        if judge.policy().blocks.of_name(judge.identity, judge.flow.client_address, name, port) is not None:
            judge.services.counters["refused_by_block"] += 1
            raise Ended(Termination.BLOCKED)
        return await judge.resolve(name)

    def admit(self, flow: Flow, permit: Permit, new: bool) -> DatagramShape | Termination | None:
        """What a destination may have, or why it may not be."""
        services = self.judge.services
        if new:
            services.scans.saw(flow, Outcome.CONNECTED)
            if services.scans.wait_s(self.judge.identity, self.client.source, may_wait=False) != 0:
                services.counters["scan_limit"] += 1
                return Termination.LIMIT
        try:
            allowance = self.judge.admit(flow, permit, new=new)
        except Ended as ended:
            return ended.termination
        flow.change_allowance(allowance)
        return allowance.datagram_shape() if allowance is not None else None


def _open_pair(judge: Judge, client: Client, listener: Listener) -> tuple[Channel, Channel]:
    services, engine = judge.services, judge.services.engine
    numbers = listener.udp_ports.numbers if listener.udp_ports else None
    # The address the client connected to: the one it can reach, and the one it expects answers from.
    with ExitStack() as stack:
        client_side = stack.enter_context(
            services.relay_ports.bind(
                socket.SOCK_DGRAM, client.local_address, numbers, judge.owner, trio.current_time()
            )
        )
        target_side = stack.enter_context(open_target_side())
        channels = []
        for sock in (client_side, target_side):
            channels.append(engine.open(keep_reserve(sock, services.descriptors_max), writable=False))
            stack.callback(engine.forget, channels[-1])
        stack.pop_all()
    return channels[0], channels[1]


def announced_port(announced: Address, client: Client) -> int:
    """The port the client says it will send from; 0 if it did not say, or spoke of somebody else.

    Many clients put the destination into the request of UDP ASSOCIATE: an address that is not the client's own says
    nothing about the client.
    """
    if isinstance(announced.host, bytes):
        return 0
    address = canonical_address(announced.host)
    return announced.port if int(address) == 0 or address == client.address else 0


async def relay_association(association: Association, client: Client) -> Termination:
    """Relay until the association idles or, RFC 1928 section 7, its TCP connection ends, however that ends."""
    terminations: list[Termination] = []

    async def first(part: Callable[[], Awaitable[Termination]]) -> None:
        terminations.append(await part())
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first, association.relay)
        nursery.start_soon(first, client.until_its_end)
    return terminations[0]
