"""CONNECT: from the request to the connected target, and what is told to whoever looks for scans."""

import socket
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from trioproxy.accounting import Termination
from trioproxy.client import Client, Ended
from trioproxy.dial import DialError, candidates, dial, dial_first, reply_for
from trioproxy.engine import Channel
from trioproxy.judge import Judge
from trioproxy.policy import Permit, Reason, Refusal, RuleProtocol
from trioproxy.policy.scans import Outcome
from trioproxy.protocol import Address, Reply
from trioproxy.rights import Rights
from trioproxy.services import Services

__all__ = ["connect", "saw", "take_on"]

_OUTCOMES: Final = {
    Reply.CONNECTION_NOT_ALLOWED_BY_RULESET: Outcome.DENIED,
    Reply.CONNECTION_REFUSED: Outcome.REFUSED,
}
# What is refused for these says nothing of the target: a browser goes on trying when a quota is used up.
_NO_SCAN: Final = {
    Termination.LIMIT,
    Termination.QUOTA,
    Termination.BLOCKED,
    Termination.POLICY_STALE,
    Termination.REVOKED,
}


async def connect(
    judge: Judge, client: Client, rights: Rights, destination: Address, hold: Callable[[Channel], None]
) -> tuple[Channel, Permit]:
    """Connect to what the client asks for; on the fiber of the session.

    Args:
        judge: asked before, and again when it is connected.
        client: who waits; its reset ends the attempt.
        rights: told what the session goes by.
        destination: DST of the request.
        hold: makes what is connected the session's.

    Returns:
        The target, and what permits it.

    Raises:
        Ended: it is not permitted, cannot be reached, or its client has gone.
    """
    wait_s = judge.services.scans.wait_s(judge.identity, client.source)
    if wait_s is None:
        judge.services.counters["scan_limit"] += 1
        raise Ended(Termination.LIMIT, Reply.CONNECTION_NOT_ALLOWED_BY_RULESET)
    if wait_s:
        await client.in_task(partial(trio.sleep, wait_s))
    try:
        permits = judge.permits_at_once(destination, RuleProtocol.TCP)
        if permits is None:
            target, permit = await client.in_task(partial(_dial_name, judge, rights, destination, hold))
        else:
            target, permit = await _dial_address(judge, client, rights, permits[0], hold)
    except Ended as ended:
        _saw_failure(judge, rights, ended)
        raise
    if not permit.sniff:  # otherwise it may turn out to be what is no scan
        saw(judge, Outcome.CONNECTED)
    rights.settle(permit)
    return target, permit


def saw(judge: Judge, outcome: Outcome) -> None:
    """Tell who looks for scans what came of the attempt to reach what was judged last."""
    verdict = judge.flow.verdict
    if isinstance(verdict, Permit) and verdict.sniff and judge.may_ignore_scans(verdict):
        return  # nobody will ever know what it was
    judge.services.scans.saw(judge.flow, outcome)


def take_on(services: Services, sock: socket.socket) -> Channel:
    """Register a target's socket; it is closed if that is not possible.

    Raises:
        Ended: epoll has no room (max_user_watches).
    """
    try:
        return services.engine.open(sock)
    except OSError as exc:
        sock.close()
        raise Ended(Termination.CONNECT_FAILED, reply_for(exc)) from exc


async def _dial_address(
    judge: Judge, client: Client, rights: Rights, permit: Permit, hold: Callable[[Channel], None]
) -> tuple[Channel, Permit]:
    rights.permits = (permit,)
    rights.admit(permit)
    services = judge.services
    limits, descriptors = services.limits, services.descriptors_max
    client.watch()
    try:
        target = await dial(
            services.engine, client.fiber, permit, timeout_s=limits.connect_s, descriptors_max=descriptors
        )
    except DialError as exc:
        raise Ended(Termination.CONNECT_FAILED, exc.reply) from exc
    finally:
        client.unwatch()
    hold(target)
    return target, judge.still_permitted(permit)


async def _dial_name(
    judge: Judge, rights: Rights, destination: Address, hold: Callable[[Channel], None]
) -> tuple[Channel, Permit]:
    rights.permits = permits = await judge.permits(destination, RuleProtocol.TCP)
    judge.flow.verdict = permits[0]
    rights.admit(permits[0])
    limits, descriptors = judge.services.limits, judge.services.descriptors_max
    try:
        sock, permit = await dial_first(permits, timeout_s=limits.connect_s, descriptors_max=descriptors)
    except DialError as exc:
        raise Ended(Termination.CONNECT_FAILED, exc.reply) from exc
    target = take_on(judge.services, sock)
    hold(target)
    rights.permits = (permit,)  # before anything waits: the others are not what flows
    if permit is not permits[0]:  # another target than the one that was counted
        judge.flow.verdict = permit
        judge.count_target(permit, instead_of=permits[0])
    return target, judge.still_permitted(permit)


def _saw_failure(judge: Judge, rights: Rights, ended: Ended) -> None:
    flow, verdict = judge.flow, judge.flow.verdict
    if ended.termination in _NO_SCAN or (isinstance(verdict, Refusal) and verdict.reason is Reason.HOURS):
        return
    outcome = _OUTCOMES.get(ended.reply or Reply.SUCCEEDED, Outcome.NO_ANSWER)
    for candidate in candidates(rights.permits) if isinstance(verdict, Permit) else (verdict,):
        flow.verdict = candidate
        saw(judge, outcome)
    flow.verdict = verdict
