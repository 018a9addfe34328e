"""The sessions that run now, as whoever looks from outside sees them, and which of them are meant."""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Protocol, Self

import attrs

from trioproxy.accounting.record import Flow, Termination
from trioproxy.policy.canonical import CanonicalError, canonical_host
from trioproxy.policy.ranges import IPNetwork
from trioproxy.policy.rules import Domain
from trioproxy.policy.scope import Scope

__all__ = ["LiveSession", "Wanted", "row_of"]


class LiveSession(Protocol):
    """What is known of a running session.

    Attributes:
        number: unique in its process.
    """

    number: int

    def flows(self) -> Iterable[Flow]:
        """What runs in it: one flow, or one for each destination of an association."""
        ...

    def end(self, termination: Termination) -> None:
        """End it now."""
        ...


def row_of(flow: Flow) -> dict[str, object]:
    """A running flow as a JSON object; rates in bytes a second, measured over the last few seconds."""
    identity, verdict, finding = flow.identity, flow.verdict, flow.finding
    return {
        "session": flow.session,
        "tenant": flow.tenant_of_now,
        "user": identity.user if identity is not None else None,
        "client": flow.client_text,
        "command": flow.command.name if flow.command is not None else None,
        "asked": flow.asked,
        "target": flow.target_text,
        "app": finding.app.value if finding is not None else None,
        "started_at": datetime.fromtimestamp(flow.started_at, UTC).isoformat(timespec="milliseconds"),
        "age_s": round(time.time() - flow.started_at, 3),
        "bytes_to_target": flow.bytes_to_target,
        "bytes_to_client": flow.bytes_to_client,
        "rate_to_target": round(flow.rate_to_target),
        "rate_to_client": round(flow.rate_to_client),
        "scope": verdict.scope if verdict is not None else None,
        "rule": verdict.rule if verdict is not None else None,
    }


@attrs.frozen
class Wanted:
    """Which flows are meant: those that fit everything that is given.

    Attributes:
        sessions: by their numbers; None: any.
        tenant: whose users.
        user: the scope of one user.
        source: the network of the client.
        target: where the flow goes: a network, or a name that was asked for.
    """

    sessions: frozenset[int] | None = None
    tenant: str | None = None
    user: Scope | None = None
    source: IPNetwork | None = None
    target: IPNetwork | Domain | None = None

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> Self:
        """From the texts of a command line, or of a JSON object; what is left out or None says nothing.

        Raises:
            ValueError: says what was expected.
        """
        numbers, tenant = given.get("sessions"), given.get("tenant")
        if numbers is not None and not (isinstance(numbers, list) and all(type(n) is int for n in numbers)):
            raise ValueError("sessions: a list of numbers")
        texts = {name: given.get(name) for name in ("user", "source", "target")}
        if any(not isinstance(text, str | None) for text in (tenant, *texts.values())):
            raise ValueError("tenant, user, source and target are texts")
        user, source, target = (texts[name] for name in ("user", "source", "target"))
        return cls(
            sessions=None if numbers is None else frozenset(numbers),
            tenant=str(tenant) if tenant is not None else None,
            user=Scope.parse(f"user:{user}") if user is not None else None,
            source=ip_network(str(source)) if source is not None else None,
            target=_target(str(target)) if target is not None else None,
        )

    def fits(self, flow: Flow) -> bool:
        """Whether this one is meant."""
        identity = flow.identity
        if self.sessions is not None and flow.session not in self.sessions:
            return False
        if self.tenant is not None and flow.tenant_of_now != self.tenant:
            return False
        if self.user is not None and (
            identity is None or (identity.tenant, identity.user) != (self.user.tenant, self.user.name)
        ):
            return False
        return (self.source is None or flow.client_address in self.source) and self._goes_there(flow)

    def _goes_there(self, flow: Flow) -> bool:
        match self.target, flow.verdict:
            case None, _:
                return True
            case _, None:
                return False
            case Domain() as domain, verdict:
                return domain.covers(verdict.request.name)
            case network, verdict:
                return verdict.request.address in network


def _target(text: str) -> IPNetwork | Domain:
    try:
        return ip_network(text)
    except ValueError:
        below = text.startswith("*.")
        try:
            host = canonical_host((text[2:] if below else text).encode())
        except CanonicalError as exc:
            raise ValueError(f"{text!r} is no address, no network and no name: {exc}") from exc
        return Domain(host, below) if isinstance(host, str) else ip_network(str(host))
