"""THE STORY: one client, from its greeting to its record.

    greeting -> method -> login -> request -> judge -> dial -> reply -> relay -> record

Every way out is a named `Termination`. What a refused request would need to go on, a `Permit`, does not exist.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import assert_never

import attrs
import trio

from auth import Identity
from trioproxy.accounting import Flow, Termination
from trioproxy.associate import open_association, relay_association
from trioproxy.binding import wait_for_target
from trioproxy.client import Client, Ended, address_of, reset_on_close
from trioproxy.config import Listener
from trioproxy.connecting import connect
from trioproxy.engine import Channel
from trioproxy.judge import Judge
from trioproxy.log import get_log
from trioproxy.login import log_in
from trioproxy.places import Places
from trioproxy.policy import Permit
from trioproxy.protocol import (
    Address,
    Command,
    Reply,
    ReplyMessage,
    Request,
)
from trioproxy.relay import ORDERLY
from trioproxy.relaying import forget_settings, relay_settings
from trioproxy.rights import Rights
from trioproxy.services import Services

__all__ = ["Session"]

CLOSE_WAIT_S = 1.0  # how long a refused client may take to read our answer (RFC 1928 section 6: at most 10 s)
HURRIED_WAIT_S = 0.05  # the same, where too many of one source do so at once


class Session:
    """One client's connection. `run` is its life; what may be called from outside comes first."""

    __slots__ = (
        "_cancelled",
        "_client",
        "_ended",
        "_fiber",
        "_judge",
        "_listener",
        "_places",
        "_revoked",
        "_rights",
        "_services",
        "_target",
        "_why_ended",
        "flow",
        "in_handshake",
        "number",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - who, where, for whom, and who is told of the end
        self,
        number: int,
        client: Client,
        listener: Callable[[], Listener],
        listener_name: str,
        services: Services,
        ended: Callable[["Session"], None],
    ) -> None:
        """Begin.

        Args:
            number: unique in this process.
            client: for which the caller has taken a place in `services.handshakes`; the session gives it back.
            listener: the settings of the listener, those of now: a reload may change them.
            listener_name: for the record.
            services: of the server.
            ended: called when all is over.
        """
        self.number = number
        self.flow = Flow(number, listener_name, client.address, client.port, listener().tenant, source=client.source)
        self._client = client
        self._listener = listener
        self._services = services
        self._judge = Judge(services, self.flow)
        self._fiber = client.fiber
        self._ended = ended
        self._why_ended = Termination.DRAINED
        self._cancelled = False
        self.in_handshake = True
        self._revoked = False
        self._target: Channel | None = None
        self._rights = Rights(services, self._judge, self.end)
        self._places = Places(services)

    # ---- from outside

    def start(self) -> None:
        """Begin the story; it goes on by itself."""
        self._fiber.start(self._run())

    def end(self, termination: Termination) -> None:
        """End the session now, for this reason."""
        self._why_ended = termination
        self._cancelled = True
        self._fiber.cancel()

    @property
    def identity(self) -> Identity | None:
        """Whose session it is, as was last known; None before the login, and when the user may not go on."""
        return None if self._revoked else self.flow.identity

    def flows(self) -> Iterable[Flow]:
        """What runs in it now: one flow, or one for each destination of an association."""
        return (self._rights.association.flows() if self._rights.association is not None else ()) or (self.flow,)

    def revalidate(self) -> None:
        """Time has passed: end the session of a user whose account has ended."""
        if self.flow.identity is not None and self._current(self.flow.identity) is None:
            self.revoke()

    def revoke(self) -> None:
        """The user may not go on. Who has only logged in learns it from the reply to its request."""
        self._revoked = True
        if not self.in_handshake:
            self.end(Termination.REVOKED)

    def identity_changed(self, identity: Identity) -> Iterable[None]:
        """The backend was asked again about the user, who has logged in: end what is forbidden now.

        Returns:
            Steps that are not urgent, as `policy_changed` does.
        """
        return self._surely(partial(self._take_over, identity))

    def _take_over(self, identity: Identity) -> Iterable[None]:
        old = self._judge.identity
        if identity != old and self._services.rulebook.policy is None:
            # Without rules there is nothing to judge it by: whoever asks next finds the same change again.
            identity = attrs.evolve(old, verified_s=identity.verified_s)
        self.flow.identity = identity
        return () if identity == old else self._judge_again()

    def policy_changed(self) -> Iterable[None]:
        """Users or rules have changed: end what they forbid now.

        Returns:
            Steps that are not urgent: each tidies up one destination of an association.
        """
        return self._surely(self._judge_again)

    def _judge_again(self) -> Iterable[None]:
        policy, flow = self._services.rulebook.policy, self.flow
        if flow.identity is None or policy is None:
            return ()  # before the login nothing is permitted yet; without rules the running sessions live on
        current = self._current(flow.identity)
        if current is None:
            self.revoke()
            return ()
        flow.identity = current
        self._places.count(current)
        return self._rights.judge_again(policy)

    def renew(self) -> Iterable[None]:
        """Quotas have been used up, or begun again.

        Returns:
            Steps that are not urgent, as `policy_changed` does.
        """
        return self._surely(self._rights.renew)

    def _surely(self, judge: Callable[[], Iterable[None]]) -> Iterable[None]:
        """Do it: whatever is wrong with us ends this session, and the others are judged all the same."""
        try:
            return [*judge()] if self._rights.association is None else self._step_by_step(judge())
        except Exception:  # noqa: BLE001 - as it says
            self._fail()
            return ()

    def _step_by_step(self, steps: Iterable[None]) -> Iterator[None]:
        try:
            yield from steps
        except Exception:  # noqa: BLE001 - as in `_surely`
            self._fail()

    def _fail(self) -> None:
        self._services.counters["internal_error"] += 1
        get_log().exception("internal error", session=self.flow.session)
        self.end(Termination.INTERNAL_ERROR)

    def _current(self, identity: Identity) -> Identity | None:
        """Who this is by now, as far as it is known without asking a backend; None if it may not go on."""
        current = self._services.rulebook.current_identity(identity)
        if current is None:
            return None
        if current.user is None:
            return current if self._listener().anonymous else None
        return current if self._services.authenticator.has_backend(current) else None

    # ---- the story

    async def _run(self) -> None:
        """Serve the client until its end, close everything, write the record. No exception leaves a session."""
        termination, answer, recorded = Termination.INTERNAL_ERROR, b"", False
        fiber = self._fiber
        try:
            told = await fiber.until_cancelled(self._story)
            termination, answer = told if told is not None else (self._why_ended, self._answer_when_ended())
            self._finish(self.flow, termination)
            recorded = True
            if answer:  # the termination stands; ending it again hurries the client
                await fiber.until_cancelled(partial(self._part, answer))
        except Exception:  # noqa: BLE001 - the only one: whatever is wrong with us ends one session and no more
            self._services.counters["internal_error"] += 1
            get_log().exception("internal error", session=self.flow.session)
            if not recorded:
                termination = Termination.INTERNAL_ERROR
                self._finish(self.flow, termination)
        finally:
            self._leave_handshake()
            self._rights.leave()
            forget_settings(self._rights, self._services)
            self._close(termination, answered=bool(answer))
            self._ended(self)

    async def _part(self, answer: bytes) -> None:
        source = self._client.source
        may_stay = self._services.partings.enter(source)
        try:
            wait_s = CLOSE_WAIT_S if may_stay else HURRIED_WAIT_S
            await self._fiber.in_task(partial(self._client.part, answer, wait_s=wait_s))
        finally:
            if may_stay:
                self._services.partings.leave(source)

    async def _story(self) -> tuple[Termination, bytes]:
        """How the session ended, and what the client is to be told."""
        try:
            return await self._serve(), b""
        except Ended as ended:
            return ended.termination, self._last_words(ended)

    async def _serve(self) -> Termination:
        timers, limit_s = self._services.engine.timers, self._services.limits.handshake_s
        timers.begin(limit_s, self, self._too_slow)
        try:
            await log_in(self._client, self._listener, self._services, self.flow)
            request = await self._client.next_message(Request)
        finally:
            timers.end(limit_s, self)
        self._leave_handshake()
        self.flow.ask(request.command, request.address.host, request.address.port)
        current = self._current(self._judge.identity)
        if self._revoked or current is None:  # between the login and here; or it was remembered for too long
            raise Ended(Termination.REVOKED, Reply.CONNECTION_NOT_ALLOWED_BY_RULESET)
        self.flow.identity = current
        identity, services = self._judge.identity, self._services
        if not services.allowances.new_session(identity, self._judge.owner):
            services.counters["new_sessions_limit_each"] += 1
            raise Ended(Termination.LIMIT, Reply.GENERAL_SOCKS_SERVER_FAILURE)
        if not self._places.enter(identity, self._judge.owner, request.command):
            raise Ended(Termination.LIMIT, Reply.GENERAL_SOCKS_SERVER_FAILURE)
        try:
            return await self._obey(request)
        finally:
            self._places.leave()

    def _too_slow(self) -> None:
        self._services.counters["handshake_timeout"] += 1
        self.end(Termination.HANDSHAKE_TIMEOUT)

    async def _obey(self, request: Request) -> Termination:
        match request.command:
            case Command.CONNECT:
                return await self._connect(request)
            case Command.BIND:
                return await self._bind(request)
            case Command.UDP_ASSOCIATE:
                return await self._fiber.in_task(partial(self._associate, request))
            case _:
                assert_never(request.command)

    # ---- CONNECT

    async def _connect(self, request: Request) -> Termination:
        target, permit = await connect(self._judge, self._client, self._rights, request.address, self._hold)
        host, port = target.sock.getsockname()[:2]
        if self._listener().bound_address == "zero":
            await self._client.send(ReplyMessage(Reply.SUCCEEDED, Address.ZERO))
        else:
            await self._client.succeed(address_of(host), port)
        return await self._relay(target, permit)

    def _hold(self, target: Channel) -> None:
        """From now on it is the session's, and `_close` closes it."""
        self._target = target

    async def _relay(self, target: Channel, permit: Permit) -> Termination:
        self.flow.reply = Reply.SUCCEEDED
        relays, client = self._services.relays, self._client.channel
        # No name for the settings: they hold first bytes, and this frame lives as long as the relay.
        settings = relay_settings(self._judge, self._client, self._rights, target, permit, self.end)
        return await relays.relay(self._fiber, self.flow, client, target, await settings)

    # ---- BIND

    async def _bind(self, request: Request) -> Termination:
        target, permit = await wait_for_target(
            self._judge, self._client, self._listener(), self._rights, request.address, self._hold
        )
        self._places.leave_listening()
        return await self._relay(target, permit)

    # ---- UDP ASSOCIATE

    async def _associate(self, request: Request) -> Termination:
        association, port = open_association(self._judge, self._client, self._listener(), request.address, self._finish)
        self._rights.association = association
        termination = Termination.CLIENT_RESET  # while the reply is sent
        try:
            await self._client.succeed_in_task(self._listener().advertised(self._client.local_address), port)
            self.flow.reply = Reply.SUCCEEDED
            termination = await relay_association(association, self._client)
        finally:
            with trio.CancelScope(shield=True):  # it waits for nobody, but takes turns
                await association.close(self._why_ended if self._cancelled else termination)
            self._services.relay_ports.leave(port, self._judge.owner, trio.current_time())
        return termination

    # ---- the end

    def _leave_handshake(self) -> None:
        if self.in_handshake:
            self.in_handshake = False
            self._services.handshakes.leave(self._client.source)

    def _answer_when_ended(self) -> bytes:
        """What forbids the request may come while it is being connected: then the client is still owed a reply."""
        if self._why_ended in (Termination.REVOKED, Termination.BLOCKED) and self._client.awaits_reply:
            return self._last_words(Ended(self._why_ended, Reply.CONNECTION_NOT_ALLOWED_BY_RULESET))
        return b""

    def _last_words(self, ended: Ended) -> bytes:
        if ended.reply is None:
            return ended.answer
        self.flow.reply = ended.reply
        return self._client.last_words(ReplyMessage(ended.reply))

    def _close(self, termination: Termination, *, answered: bool) -> None:
        """Close both sockets; with a reset, unless both directions ended in order or the client has its answer."""
        engine, client = self._services.engine, self._client.channel
        for channel, in_order in ((client, answered), (self._target, False)):
            if channel is not None:
                engine.forget(channel)
                if not in_order and termination not in ORDERLY:
                    reset_on_close(channel.sock)
                channel.sock.close()

    def _finish(self, flow: Flow, termination: Termination) -> None:
        """Write the record as the rule that decided wants it: `log=no` none at all, `log=yes` a line in the log too."""
        flow.block = flow.block or self.flow.block  # a destination ends with its association
        flow.change_allowance(None)
        log = flow.verdict.log if flow.verdict is not None else None
        if flow.command is None or log is False:
            return
        record = flow.end(termination)
        self._services.records.write(record.to_json())
        self._services.usage.add(record, flow.identity.groups if flow.identity else frozenset(), record.app or "")
        if log:
            get_log().info(
                "flow",
                tenant=record.tenant,
                user=record.user,
                client=record.client,
                command=record.command,
                asked=record.asked,
                termination=termination.value,
                rule=record.rule,
            )
