"""BIND: from the request to the target that has connected, with the two replies (RFC 1928 section 6)."""

import socket
from collections.abc import Callable, Sequence
from functools import partial

import attrs
import trio

from trioproxy.accounting import Termination
from trioproxy.client import Client, Ended, address_of, reset_on_close
from trioproxy.config import Listener
from trioproxy.connecting import take_on
from trioproxy.dial import reply_for
from trioproxy.engine import Channel
from trioproxy.judge import Judge
from trioproxy.limits import keep_reserve
from trioproxy.policy import IPAddress, Permit, RuleProtocol
from trioproxy.protocol import Address, Reply
from trioproxy.relay import accept_target, egress_address, listen_for_target
from trioproxy.rights import Rights

__all__ = ["wait_for_target"]


async def wait_for_target(  # noqa: PLR0913, PLR0917 - the parts of a session
    judge: Judge,
    client: Client,
    listener: Listener,
    rights: Rights,
    expected: Address,
    hold: Callable[[Channel], None],
) -> tuple[Channel, Permit]:
    """Listen, say where, and wait for the one who may connect; on the fiber of the session.

    Args:
        judge: asked for the target that is expected, and again when it has come.
        client: gets both replies.
        listener: where it came in.
        rights: told what the session goes by.
        expected: DST of the request.
        hold: makes what was accepted the session's.

    Returns:
        The target, and what permits it.

    Raises:
        Ended: it is not permitted, no port can be had, nobody came in time, or somebody else did.
    """
    permits = await client.in_task(partial(judge.permits, expected, RuleProtocol.BIND))
    rights.permits = permits
    judge.flow.verdict = permits[0]
    rights.admit(permits[0])
    listening = _listen(judge, listener, permits[0].request.address)
    host, port = listening.getsockname()[:2]
    try:
        # It listens already: the target may connect at once.
        await client.succeed(listener.advertised(address_of(host)), port)
        accept = partial(_accept, judge, rights, listening, permits, hold)
        target, permit = await client.in_task(accept, until_end_of_input=True)
    finally:
        listening.close()
        judge.services.relay_ports.leave(port, judge.owner, trio.current_time())
    rights.settle(permit)
    await client.succeed(permit.request.address, permit.request.port)
    return target, permit


def _listen(judge: Judge, listener: Listener, target: IPAddress) -> socket.socket:
    ports, port_range = judge.services.relay_ports, listener.bind_ports
    numbers = port_range.numbers if port_range else None
    try:
        host = address_of(egress_address(target))
        listening = listen_for_target(host, ports, numbers, judge.owner, trio.current_time())
        return keep_reserve(listening, judge.services.descriptors_max)
    except OSError as exc:
        raise Ended(Termination.CONNECT_FAILED, reply_for(exc)) from exc


async def _accept(
    judge: Judge,
    rights: Rights,
    listening: socket.socket,
    permits: Sequence[Permit],
    hold: Callable[[Channel], None],
) -> tuple[Channel, Permit]:
    accepted: tuple[socket.socket, str, int] | None = None
    with trio.move_on_after(judge.services.limits.bind_s):
        try:
            accepted = await accept_target(listening)
            keep_reserve(accepted[0], judge.services.descriptors_max)
        except OSError as exc:
            raise Ended(Termination.CONNECT_FAILED, reply_for(exc)) from exc
    if accepted is None:
        raise Ended(Termination.BIND_TIMEOUT, Reply.HOST_UNREACHABLE)
    sock, host, port = accepted
    address = address_of(host)
    expected = next((p for p in permits if p.request.address == address), None)
    if expected is None:
        judge.services.counters["bind_wrong_target"] += 1
        reset_on_close(sock)  # before the client has read our reply: the stranger need not wait
        sock.close()
        raise Ended(Termination.BIND_WRONG_TARGET, Reply.CONNECTION_NOT_ALLOWED_BY_RULESET)
    target = take_on(judge.services, sock)
    hold(target)
    asked = attrs.evolve(expected, request=attrs.evolve(expected.request, port=port))
    permit = judge.permitted(judge.again(asked))
    rights.permits = (permit,)
    return target, permit
