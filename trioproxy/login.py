"""From the greeting to an identity: method, login, answer. Whoever may not go on leaves as `Ended`."""

from collections.abc import Callable
from typing import assert_never

from auth import Answer, Identity, Rejected, Rejection, Unavailable
from trioproxy.accounting import Flow, Termination, escaped
from trioproxy.client import Client, Ended
from trioproxy.config import Listener
from trioproxy.log import get_log
from trioproxy.protocol import (
    AuthenticationReply,
    AuthenticationStatus,
    Greeting,
    Method,
    MethodSelection,
    UsernamePassword,
)
from trioproxy.services import Services

__all__ = ["choose_method", "log_in"]

# These cost the client nothing: at the level "info" they could fill a disk.
FREE_REJECTIONS = frozenset({Rejection.PENALTY, Rejection.EMPTY_PASSWORD, Rejection.MALFORMED})


def choose_method(offered: tuple[int, ...], *, anonymous: bool) -> Method:
    """The method for a greeting: login wherever it is offered, none only where the listener allows it.

    Never one that was not offered. GSSAPI is not spoken, and curl always offers it, so it must not be preferred.
    """
    if Method.USERNAME_PASSWORD in offered:
        return Method.USERNAME_PASSWORD
    if anonymous and Method.NO_AUTHENTICATION_REQUIRED in offered:
        return Method.NO_AUTHENTICATION_REQUIRED
    return Method.NO_ACCEPTABLE_METHODS


async def log_in(client: Client, settings: Callable[[], Listener], services: Services, flow: Flow) -> None:
    """Find out who the client is, and keep it in its flow.

    It stands there before anything else waits, the answer to the client included: what ends the rights of a user from
    then on (a change, a reload, a look-up in the directory) finds the session, and nobody slips through.

    Args:
        client: that has said nothing yet.
        settings: of its listener; asked when it greets, so that a reload holds for who has only connected.
        services: of the server.
        flow: whose identity it becomes.

    Raises:
        Ended: it offers no method that the listener takes, its login is refused, or it breaks the protocol.
    """
    greeting = await client.next_message(Greeting)
    listener = settings()
    method = choose_method(greeting.methods, anonymous=listener.anonymous)
    match method:
        case Method.USERNAME_PASSWORD:
            await client.send(MethodSelection(method))
            await _check_password(client, listener, services, flow, await client.next_message(UsernamePassword))
        case Method.NO_AUTHENTICATION_REQUIRED:
            flow.identity = Identity(listener.tenant, user=None)
            await client.send(MethodSelection(method))
        case _:
            services.counters["no_acceptable_method"] += 1
            raise Ended(Termination.NO_METHOD, answer=client.last_words(MethodSelection(method)))


async def _check_password(
    client: Client, listener: Listener, services: Services, flow: Flow, login: UsernamePassword
) -> None:
    realms = services.realms if listener.realms else None

    async def authenticate() -> Answer:
        answer = await services.authenticator.authenticate(
            listener.tenant, login.username, login.password, client.address, realms
        )
        if isinstance(answer, Identity):
            flow.identity = answer
        return answer

    answer = services.authenticator.answer_at_once(
        listener.tenant, login.username, login.password, client.address, realms
    )
    if answer is None:
        answer = await client.in_task(authenticate)
    match answer:
        case Identity():
            flow.identity = answer
            await client.send(AuthenticationReply(AuthenticationStatus.SUCCESS))
            return
        case Rejected():
            termination, why = Termination.LOGIN_REJECTED, answer.reason.value
        case Unavailable():
            termination, why = Termination.LOGIN_UNAVAILABLE, answer.problem
        case _:
            assert_never(answer)
    free = isinstance(answer, Rejected) and answer.reason in FREE_REJECTIONS
    log = get_log().debug if free else get_log().info
    log(termination.value, tenant=listener.tenant, user=escaped(login.username), source=str(client.address), why=why)
    # The same two octets whatever the reason.
    raise Ended(termination, answer=client.last_words(AuthenticationReply(AuthenticationStatus.FAILURE)))
