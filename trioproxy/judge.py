"""Asking policy for one session: canonicalise, resolve once, judge every candidate, and again when rules change."""

from collections.abc import Hashable, Iterable
from datetime import UTC, datetime
from itertools import chain
from typing import Final

import attrs
import trio

from auth import Identity
from trioproxy.accounting import Flow, Termination, ended_by
from trioproxy.allowances import Allowance, OverQuotaError
from trioproxy.client import Ended
from trioproxy.policy import (
    AccessRequest,
    Block,
    CanonicalError,
    IPAddress,
    Permit,
    Policy,
    Reason,
    Refusal,
    RuleProtocol,
    Verdict,
    canonical_host,
)
from trioproxy.protocol import Address, Reply
from trioproxy.resolve import ResolveError
from trioproxy.services import Services
from trioproxy.sniff import App, Finding

__all__ = ["Judge", "judge_in_turns"]

JUDGED_AT_ONCE: Final = 100  # sessions judged again before others get their turn: 2 ms


@attrs.define(eq=False)
class Judge:
    """Everything a session asks before bytes may flow. A refusal leaves as `Ended`: no code path goes on behind it.

    Attributes:
        flow: whose identity and client address are judged; its verdict is kept there.
    """

    services: Services
    flow: Flow
    _judged_by: Policy | None = None
    _judged_as: Identity | None = None
    _owner: Hashable | None = None

    @property
    def identity(self) -> Identity:
        """Who is asking."""
        if self.flow.identity is None:
            raise AssertionError("nothing is judged before the login")
        return self.flow.identity

    @property
    def owner(self) -> Hashable:
        """Whose limits count: the user's, or those of the source where nobody logs in."""
        if self._owner is None:  # who logged in stays who it is
            tenant, user = self.identity.tenant, self.identity.user
            self._owner = (tenant, user) if user is not None else (tenant, None, self.flow.source)
        return self._owner

    def permits_at_once(self, destination: Address, protocol: RuleProtocol) -> list[Permit] | None:
        """The only candidate, or None: it is a name, and `permits` has to be asked.

        Raises:
            Ended: malformed, or not permitted.
        """
        host = _canonical(destination)
        if isinstance(host, str):
            return None
        return [self.permitted(self._judge(protocol, None, host, destination.port))]

    async def permits(self, destination: Address, protocol: RuleProtocol) -> list[Permit]:
        """The candidates that may be contacted, at least one.

        Raises:
            Ended: malformed, not resolved, or not permitted.
        """
        host = _canonical(destination)
        if isinstance(host, str):
            name, addresses = host, await self._addresses(host, destination.port, protocol)
        else:
            name, addresses = None, (host,)
        verdicts = [self._judge(protocol, name, address, destination.port) for address in addresses]
        permits = [verdict for verdict in verdicts if isinstance(verdict, Permit)]
        return permits or [self.permitted(verdicts[0])]

    def permitted(self, verdict: Verdict) -> Permit:
        """Keep the verdict in the flow.

        Raises:
            Ended: it is a refusal.
        """
        self.flow.verdict = verdict
        if isinstance(verdict, Permit):
            return verdict
        if verdict.reason is Reason.BLOCKED:
            raise self._blocked()
        self.services.counters["refused_by_rule"] += 1
        raise Ended(Termination.REFUSED, Reply.CONNECTION_NOT_ALLOWED_BY_RULESET)

    def datagram(
        self, name: str | None, address: IPAddress, port: int, client_port: int, finding: Finding | None
    ) -> Verdict:
        """The verdict for one destination of an association; a refusal as long as there are no rules in force.

        Without a finding it may be a permit to look what it is.
        """
        request = AccessRequest(
            self.identity, self.flow.client_address, client_port, RuleProtocol.UDP, name, address, port, finding
        )
        policy = self.services.rulebook.policy
        return Refusal(request, Reason.NO_RULE) if policy is None else _ask(policy, request)

    def again(self, permit: Permit, policy: Policy | None = None) -> Verdict:
        """The verdict for the same request, by `policy` or the rules in force, and the groups of now.

        Raises:
            Ended: no policy was given, and none is in force.
        """
        # `_judged_by` stays: it says by which rules *all* candidates were judged, see `still_permitted`; so does
        # `_judged_as`.
        return _ask(policy or self.policy(), attrs.evolve(permit.request, identity=self.identity))

    def found(self, permit: Permit, finding: Finding, left: Termination | None) -> Permit:
        """The verdict for the same request, now that it is known what the flow is.

        Args:
            permit: to look.
            finding: what was found.
            left: how a flow ended in which nobody said anything; None: somebody spoke.

        Raises:
            Ended: it is not permitted, or no policy is in force. The client has its success reply already.
        """
        verdict = _ask(self.policy(), attrs.evolve(permit.request, identity=self.identity, finding=finding))
        if isinstance(verdict, Permit):
            self.flow.verdict = verdict
            return verdict
        if verdict.reason is Reason.APP:
            if left is not None:
                raise Ended(left)  # it was nothing, so it was nothing forbidden
            self.services.counters["refused_by_app"] += 1
        self.flow.verdict = verdict
        raise Ended(ended_by(verdict))

    def as_unknown(self, permit: Permit) -> Permit | None:
        """The permit for the same request if nobody can tell what the flow is; None: there is none."""
        policy = self.services.rulebook.policy
        verdict = _unknown(policy, attrs.evolve(permit.request, identity=self.identity)) if policy else None
        return verdict if isinstance(verdict, Permit) else None

    def may_ignore_scans(self, permit: Permit) -> bool:
        """Whether what is permitted to be looked at may turn out to be what a rule says is no scan."""
        return any(term.rule.scan_ignored for found in self.foreseen(permit, App) for term in found.terms)

    def foreseen(self, permit: Permit, apps: Iterable[App]) -> list[Permit]:
        """What would permit the flow if it turns out to be one of these."""
        policy, asked = self.policy(), attrs.evolve(permit.request, identity=self.identity)
        verdicts = [_ask(policy, attrs.evolve(asked, finding=Finding(app))) for app in apps]
        return [verdict for verdict in verdicts if isinstance(verdict, Permit)]

    def running(self, permit: Permit, policy: Policy) -> Verdict:
        """As `again`, for what runs: rules that ask what it is come too late if nobody has looked."""
        verdict = self.again(permit, policy)
        return _unknown(policy, verdict.request) if isinstance(verdict, Permit) and verdict.sniff else verdict

    def admit(self, flow: Flow, permit: Permit, *, new: bool = True) -> Allowance | None:
        """What the flow may have of rates and quotas.

        Args:
            flow: of this session.
            permit: that allows it.
            new: the target is contacted now, and counts as one.

        Raises:
            Ended: nothing.
        """
        if new:
            self.count_target(permit)
        try:
            return self.services.allowances.of(self.identity, flow.source, permit.terms)
        except OverQuotaError as exc:
            self.services.counters["refused_by_quota"] += 1
            raise Ended(Termination.QUOTA, Reply.CONNECTION_NOT_ALLOWED_BY_RULESET) from exc

    def count_target(self, permit: Permit, instead_of: Permit | None = None) -> None:
        """Its target is contacted now.

        Args:
            permit: for it.
            instead_of: for another address of the same name, which was counted and did not answer.

        Raises:
            Ended: those were too many within a minute.
        """
        target = (permit.request.address, permit.request.port)
        other = instead_of.request.address if instead_of is not None else None
        if not self.services.allowances.target(self.identity, self.owner, *target, other):
            self.services.counters["targets_limit_each"] += 1
            raise Ended(Termination.LIMIT, Reply.CONNECTION_NOT_ALLOWED_BY_RULESET)

    def grace_s(self, permits: Iterable[Permit], refusal: Refusal) -> float:
        """How many seconds what runs by these permits may go on."""
        policy = self.services.rulebook.policy
        return policy.grace_s(permits, refusal, datetime.now(UTC)) if policy is not None else 0

    def still_permitted(self, permit: Permit) -> Permit:
        """Connecting takes seconds; the rules may have changed meanwhile, or what a directory says of the user.

        Raises:
            Ended: it is not permitted any more.
        """
        unchanged = self.services.rulebook.policy is self._judged_by and self.identity is self._judged_as
        return permit if unchanged else self.permitted(self.again(permit))

    def may_ever(self, protocol: RuleProtocol, policy: Policy | None = None) -> bool:
        """Whether any destination at all could be permitted; see `again`."""
        return (policy or self.policy()).may_ever(self.identity, self.flow.client_address, protocol)

    def block(self, policy: Policy) -> Block | None:
        """What keeps this client out, whatever it asks for."""
        return policy.blocks.of_identity(self.identity, self.flow.client_address)

    def check_block(self) -> None:
        """See that nothing keeps this client out; for what has no single destination that could be judged.

        Raises:
            Ended: it is blocked, or no policy is in force.
        """
        self._check(self.block(self.policy()))

    def policy(self) -> Policy:
        """The rules in force.

        Raises:
            Ended: the store could not be read for too long.
        """
        policy = self.services.rulebook.policy
        if policy is None:
            raise Ended(Termination.POLICY_STALE, Reply.GENERAL_SOCKS_SERVER_FAILURE)
        return policy

    async def resolve(self, name: str) -> tuple[IPAddress, ...]:
        """The addresses of a canonical name, counted for the owner of the session.

        Raises:
            ResolveError: there are none.
        """
        return await self.services.resolver.resolve(name, self.owner)

    async def _addresses(self, name: str, port: int, protocol: RuleProtocol) -> tuple[IPAddress, ...]:
        # A name that is blocked is not even looked up: the question itself tells somebody something.
        self._check(self.policy().blocks.of_name(self.identity, self.flow.client_address, name, port))
        if not self.may_ever(protocol):
            # Whoever may reach nothing has no use for a look-up, except to carry data out in names.
            raise Ended(Termination.REFUSED, Reply.CONNECTION_NOT_ALLOWED_BY_RULESET)
        try:
            return await self.resolve(name)
        except ResolveError as exc:
            if exc.limit:
                raise Ended(Termination.LIMIT, Reply.GENERAL_SOCKS_SERVER_FAILURE) from exc
            raise Ended(Termination.RESOLVE_FAILED, Reply.HOST_UNREACHABLE) from exc

    def _check(self, block: Block | None) -> None:
        if block is not None:
            self.flow.block = str(block)
            raise self._blocked()

    def _blocked(self) -> Ended:
        self.services.counters["refused_by_block"] += 1
        return Ended(Termination.BLOCKED, Reply.CONNECTION_NOT_ALLOWED_BY_RULESET)

    def _judge(self, protocol: RuleProtocol, name: str | None, address: IPAddress, port: int) -> Verdict:
        identity, flow = self.identity, self.flow
        self._judged_by, self._judged_as = self.policy(), identity
        request = AccessRequest(identity, flow.client_address, flow.client_port, protocol, name, address, port)
        return _ask(self._judged_by, request)


def _ask(policy: Policy, request: AccessRequest) -> Verdict:
    """The verdict of now; the clock is read only where rules have hours."""
    return policy.judge(request, datetime.now(UTC) if policy.wants_time(request.identity) else None)


def _unknown(policy: Policy, request: AccessRequest) -> Verdict:
    return _ask(policy, attrs.evolve(request, finding=Finding(App.UNKNOWN)))


def _canonical(destination: Address) -> str | IPAddress:
    try:
        return canonical_host(destination.host)
    except CanonicalError as exc:
        raise Ended(Termination.MALFORMED_DESTINATION, Reply.GENERAL_SOCKS_SERVER_FAILURE) from exc


async def judge_in_turns(sessions: Iterable[Iterable[None]]) -> None:
    """Judge sessions again: first all of them, then what is not urgent. Others get their turn in between.

    Args:
        sessions: each item judges one session, and is the steps that are left for later.
    """
    later: list[Iterable[None]] = []
    for steps in sessions:
        later.append(steps)
        if len(later) % JUDGED_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    for count, _ in enumerate(chain.from_iterable(later), start=1):
        if count % JUDGED_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
