"""By what a session runs: its permits, its part of rates and quotas; and whether it still may when these change."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from trioproxy.accounting import Termination, ended_by
from trioproxy.allowances import Allowance
from trioproxy.client import Ended
from trioproxy.judge import Judge
from trioproxy.policy import LimitBook, Permit, Policy, Refusal, RuleProtocol, Verdict
from trioproxy.policy.buckets import Gate
from trioproxy.relay import Association  # noqa: TC001 - documentation tools read the annotation
from trioproxy.services import Services

__all__ = ["Rights"]

SOON_S: Final = 0.05  # when what has changed in the middle of a relay's turn is seen to


class Rights:
    """What one session has been permitted.

    Args:
        services: of the server.
        judge: of the session.
        end: ends the session, for this reason.

    Attributes:
        permits: what it goes by: candidates while it connects or waits, then one.
        association: instead of permits; each of its destinations has its own.
        allowance: its part of rates and quotas; None: it has no limit.
    """

    __slots__ = (
        "_admitted",
        "_end",
        "_grace_s",
        "_judge",
        "_relaying",
        "_services",
        "allowance",
        "association",
        "permits",
    )

    def __init__(self, services: Services, judge: Judge, end: Callable[[Termination], None]) -> None:
        self.permits: Sequence[Permit] = ()
        self.association: Association | None = None
        self.allowance: Allowance | None = None
        self._services = services
        self._judge = judge
        self._end = end
        self._relaying = False
        self._admitted: tuple[Permit, LimitBook] | None = None  # what the allowance is for
        self._grace_s: float | None = None  # it goes on for so long although its hours are over

    def admit(self, permit: Permit, *, new: bool = True) -> None:
        """Take its part of rates and quotas.

        Args:
            permit: by which it runs, or will.
            new: its target is contacted now.

        Raises:
            Ended: there is none left.
        """
        self._admitted = permit, self._services.rulebook.limits
        self._change(self._judge.admit(self._judge.flow, permit, new=new))

    def gate_to_client(self) -> Gate | None:
        """What the target's bytes wait for as long as nobody knows what the flow is; whoever asks calls its `leave`."""
        shape = self.allowance.shape() if self.allowance is not None else None
        return shape.to_client if shape is not None else None

    def found(self, permit: Permit) -> None:
        """It is known what the flow is: what was carried until now counts for the quotas of its rules, too.

        Raises:
            Ended: there is nothing left.
        """
        before, flow = self.allowance, self._judge.flow
        self.admit(permit, new=False)
        if self.allowance is not None:
            self.allowance.charge_but(before, flow.bytes_to_client + flow.bytes_to_target)

    def settle(self, permit: Permit) -> None:
        """Connecting takes seconds: this may be another candidate, limits may have changed, quotas been used up.

        Raises:
            Ended: there is nothing left.
        """
        admitted, book = self._admitted or (None, None)
        unchanged = admitted is permit and book is self._services.rulebook.limits
        if not unchanged or (self.allowance is not None and self.allowance.is_stale()):
            self.admit(permit, new=False)

    def begin_relay(self, permit: Permit) -> None:
        """From now on it runs by this one."""
        self.permits, self._relaying = (permit,), True

    def change(self, permit: Permit) -> None:
        """It turned out to be something else than was thought: from now on it runs by this one.

        Its limits follow a moment later, as the relay that tells of it must not be changed while it does.
        """
        self.permits, self._judge.flow.verdict = (permit,), permit
        self._services.engine.timers.begin(SOON_S, self, lambda: self._renew(self.permits[0]))

    def judge_again(self, policy: Policy) -> Iterable[None]:
        """Rules, limits, blocks or hours have changed: end what they forbid now.

        Returns:
            Steps that are not urgent: each tidies up one destination of an association.
        """
        if self.permits:
            self._judge_permits(policy)
        elif self.association is not None:
            block = self._judge.block(policy)
            if block is not None:
                self._judge.flow.block = str(block)
                self._end(Termination.BLOCKED)
            elif self._judge.may_ever(RuleProtocol.UDP, policy):
                return self.association.judge_again()
            else:
                self._end(Termination.REVOKED)
        return ()

    def renew(self) -> Iterable[None]:
        """Quotas have been used up, or begun again.

        Returns:
            Steps that are not urgent, as `judge_again` does.
        """
        if self.association is not None:
            return self.association.judge_again()
        if self._relaying:
            self._renew(self.permits[0])
        elif self.allowance is not None and self.permits:  # while it connects, or is looked at
            try:
                self.admit(self.permits[0], new=False)
            except Ended as ended:
                self._end(ended.termination)
        return ()

    def leave(self) -> None:
        """The session is over."""
        self._services.engine.timers.end(SOON_S, self)
        if self._grace_s is not None:
            self._services.engine.timers.end(self._grace_s, self)
        # Otherwise session and rights hold each other, and their memory is free only when the collector has found them:
        # measured, a tenth of what a session costs. Rules that change at this moment may still ask for the end.
        self._end, self.association, self.permits = _has_ended, None, ()
        self._relaying = False

    def _judge_permits(self, policy: Policy) -> None:
        ask = self._judge.running if self._relaying else self._judge.again
        verdicts: list[Verdict] = [ask(permit, policy) for permit in self.permits]
        permitted = [verdict for verdict in verdicts if isinstance(verdict, Permit)]
        if not permitted:
            self._refuse(next(verdict for verdict in verdicts if isinstance(verdict, Refusal)))
        elif self._relaying:
            self.permits = permitted
            self._renew(permitted[0])

    def _refuse(self, refusal: Refusal) -> None:
        """It may not go on; where only its hours are over, not when the patience of its rule is."""
        grace_s = self._judge.grace_s(self.permits, refusal)
        if not grace_s:
            self._judge.flow.verdict = refusal
            self._end(ended_by(refusal))
        elif self._grace_s is None:
            self._grace_s = grace_s
            self._services.engine.timers.begin(grace_s, self, self._grace_is_over)

    def _grace_is_over(self) -> None:
        self._grace_s = None
        policy = self._services.rulebook.policy
        if policy is None:
            return  # without rules the running sessions live on
        verdict = self._judge.running(self.permits[0], policy)
        if isinstance(verdict, Refusal):
            self._judge.flow.verdict = verdict
            self._end(ended_by(verdict))

    def _renew(self, permit: Permit) -> None:
        """Other limits may hold by now."""
        flow = self._judge.flow
        flow.verdict = permit
        try:
            allowance = self._judge.admit(flow, permit, new=False)
        except Ended as ended:
            self._end(ended.termination)
            return
        if allowance is not None and allowance.same_as(self.allowance):
            allowance.leave()
        elif allowance is not None or self.allowance is not None:
            self._change(allowance)
            self._services.relays.reshape(flow, allowance.shape() if allowance is not None else None)

    def _change(self, allowance: Allowance | None) -> None:
        flow = self._judge.flow
        self._services.relays.read_meter(flow)  # what was carried until now counts for the old one
        flow.change_allowance(allowance)
        self.allowance = allowance


def _has_ended(_termination: Termination) -> None:
    """End what has ended."""
