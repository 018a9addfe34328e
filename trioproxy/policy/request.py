"""What policy is asked, and the two things it may answer."""

import enum
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, TypeAlias

import attrs

from auth import Identity
from trioproxy.sniff import Finding

if TYPE_CHECKING:
    from trioproxy.policy.rules import Rule

__all__ = ["AccessRequest", "IPAddress", "Permit", "Reason", "Refusal", "RuleProtocol", "Term", "Verdict"]

IPAddress: TypeAlias = IPv4Address | IPv6Address


class RuleProtocol(enum.Enum):
    """The protocol word of a rule; each command of RFC 1928 has one (`any` stands for all three)."""

    TCP = "tcp"
    UDP = "udp"
    BIND = "bind"

    __hash__ = object.__hash__  # there is one of each; Enum's own is Python code, and each verdict needs it


@attrs.frozen
class AccessRequest:
    """One question: may this identity, from this client address, reach this destination?

    Attributes:
        identity: who asks.
        client_address: canonical address of the client (v4-mapped IPv6 already unwrapped).
        client_port: 0 to 65535; the TCP port of the client, or for UDP the port of its datagrams.
        protocol: the rule word for the command.
        name: the canonical name the client asked for, or None if it gave an address.
        address: one canonical candidate address that would be contacted.
        port: 0 to 65535.
        finding: what the first bytes of the flow said; None: nobody has looked yet, or ever will.
    """

    identity: Identity
    client_address: IPAddress
    client_port: int
    protocol: RuleProtocol
    name: str | None
    address: IPAddress
    port: int
    finding: Finding | None = None


class Reason(enum.Enum):
    """What made the verdict."""

    RULE = "rule"
    NO_RULE = "no rule allows it"
    FLOOR = "floor"
    BLOCKED = "blocked"
    HOURS = "not at this hour"
    APP = "not for what the traffic is"


@attrs.frozen
class Term:
    """What a rule that permits asks in return: a rate, a quota, its hours, or that nobody takes its flows for a scan.

    Attributes:
        scope: the layer of the rule, in its text form.
        text: the canonical text of the rule.
        rule: the rule.
    """

    scope: str
    text: str
    rule: "Rule" = attrs.field(eq=False)  # equal texts are equal rules


@attrs.frozen
class Permit:
    """The only thing a dialler or a relay can be built from.

    Attributes:
        request: exactly what was judged.
        scope: the layer that decided, in its text form, e.g. `user:alice`.
        rule: the canonical text of the rule that decided.
        log: what that rule says about the record of the flow: more (True), none (False), the usual (None).
        terms: under which it is permitted; all of them hold together.
        sniff: only to look what the flow is: ask again with the finding before anything goes on. `scope` and `rule` are
            then what may come out, and there are no terms yet.
    """

    request: AccessRequest
    scope: str
    rule: str
    log: bool | None = None
    terms: tuple[Term, ...] = ()
    sniff: bool = False


@attrs.frozen
class Refusal:
    """A refusal is a value, not an exception.

    Attributes:
        request: exactly what was judged.
        reason: what made the verdict. HOURS: at another time of the week it would be permitted. APP: it may be, with
            another finding.
        scope: the layer whose rule decided; empty if none did.
        rule: the text of that rule, for FLOOR which part of the floor it is, for BLOCKED the block; empty if nothing
            of the kind decided.
        log: as in `Permit`.
    """

    request: AccessRequest
    reason: Reason
    scope: str = ""
    rule: str = ""
    log: bool | None = None


Verdict: TypeAlias = Permit | Refusal
