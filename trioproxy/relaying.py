"""From the success reply to the relay: what it is told, once it is known what the flow is where a rule asks for it."""

from collections.abc import Callable
from functools import partial
from typing import Final

import attrs

from trioproxy.accounting import Termination
from trioproxy.client import Client, Ended
from trioproxy.connecting import saw
from trioproxy.dial import KeepAlive
from trioproxy.engine import Channel
from trioproxy.first_bytes import FirstBytes, Listening, look
from trioproxy.judge import Judge
from trioproxy.policy import Permit
from trioproxy.policy.scans import Outcome
from trioproxy.relay import RelaySettings
from trioproxy.rights import Rights
from trioproxy.services import Services
from trioproxy.sniff import SERVER_FIRST

__all__ = ["forget_settings", "relay_settings"]

_REFUSED_S: Final = 1.0  # for a client to read why TLS is refused, and to close
_REFUSED: Final = "refused"  # with the rights of the session the key of that wait


async def relay_settings(  # noqa: PLR0913, PLR0917 - the parts of a session
    judge: Judge,
    client: Client,
    rights: Rights,
    target: Channel,
    permit: Permit,
    end: Callable[[Termination], None],
) -> RelaySettings:
    """Look what the flow is, if a rule asks for it, and say how it is to be relayed; on the fiber of the session.

    Args:
        judge: asked again when it is known.
        client: has its success reply.
        rights: told what the session goes by.
        target: connected.
        permit: for it, or to look.
        end: ends the session.

    Raises:
        Ended: it may not go on as what it is, or there was nothing to look at.
    """
    limits, first = judge.services.limits, None
    try:
        if permit.sniff:
            try:
                permit, first = await _look(judge, client, rights, target, permit)
            finally:  # now it is known whether a rule says that it is no scan
                saw(judge, Outcome.CONNECTED)
        rights.settle(permit)
    except Ended as ended:
        raise Ended(ended.termination) from ended  # the client has its success reply
    rights.begin_relay(permit)
    allowance, check = rights.allowance, None
    if first is not None and not first.in_kind:  # what is kept for the check are not the bytes
        check = partial(_check_answer, judge, rights, permit, first.check, first.refused, end)
    return RelaySettings(
        permit,
        limits.idle_s,
        limits.half_closed_s,
        KeepAlive(limits.dead_after_s).apply,
        early_data=first.from_client if first is not None else client.take_early_data(),
        client_ended=client.has_ended,
        early_answer=first.from_target if first is not None else b"",
        check=check,
        shape=allowance.shape() if allowance is not None else None,
    )


def forget_settings(rights: Rights, services: Services) -> None:
    """The session is over."""
    services.engine.timers.end(_REFUSED_S, (rights, _REFUSED))


async def _look(
    judge: Judge, client: Client, rights: Rights, target: Channel, permit: Permit
) -> tuple[Permit, FirstBytes]:
    services, limits = judge.services, judge.services.limits
    may_begin = bool(judge.foreseen(permit, SERVER_FIRST))
    listening = Listening(may_begin, rights.gate_to_client(), services.relays.shaper)
    limits_s = (limits.idle_s, limits.handshake_s)
    first = await look(services.engine, client.fiber, client, target, judge.flow, listening, limits_s)
    permit = judge.found(permit, first.finding, first.left)
    if first.in_kind is False:  # the target spoke first, and wrongly
        unknown = judge.as_unknown(permit)
        if unknown is None:
            raise Ended(Termination.WRONG_ANSWER)
        permit, first = unknown, attrs.evolve(first, in_kind=True)
    rights.found(permit)
    return permit, first


def _check_answer(  # noqa: PLR0913, PLR0917 - the parts of a session
    judge: Judge,
    rights: Rights,
    permit: Permit,
    check: Callable[[bytes], bool | None],
    refused: Callable[[], bool],
    end: Callable[[Termination], None],
    data: bytes,
) -> bool | None:
    """Whether the target's answer may pass; one that is not in kind may where anything may."""
    in_kind = check(data)
    if in_kind is not False:
        if refused():  # or two ends could agree on an alert, and on whatever they like from then on
            timers = judge.services.engine.timers
            timers.begin(_REFUSED_S, (rights, _REFUSED), partial(end, Termination.WRONG_ANSWER))
        return in_kind
    unknown = judge.as_unknown(permit)
    if unknown is not None:
        rights.change(unknown)
    return unknown is not None
