"""What came of `auth test`: the decision, what to do about it, and which rules would hold."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, assert_never

import attrs

from auth import Answer, Cause, Identity, Rejected, Rejection, Unavailable
from trioproxy.cli.accounts import show_end
from trioproxy.cli.block import describe_block
from trioproxy.cli.login_trace import Asked
from trioproxy.cli.moments import show_moment
from trioproxy.cli.output import count, say, show_table
from trioproxy.policy import Block, DirectoryLayer, Scope

__all__ = ["CAUSE_ADVICE", "DIRECTORY_ADVICE", "LOCAL_ADVICE", "Layer", "Report"]

LOCAL_ADVICE: Final[Mapping[Rejection, str]] = {
    Rejection.EMPTY_PASSWORD: "no client gets in with an empty password",
    Rejection.MALFORMED: "look for characters that are no text",
    Rejection.UNKNOWN_USER: "a typing mistake, or another tenant? `trioproxy user add {name}` adds a local user",
    Rejection.OTHER_NAME: "log in with the name as `trioproxy user list` shows it",
    Rejection.WRONG_PASSWORD: "`trioproxy user passwd {name}` sets a new password for a local user",
    Rejection.DISABLED: "`trioproxy user enable {name}` lets a local user in again",
    Rejection.EXPIRED: "`trioproxy user change {name} --valid-until 2026-12-31` prolongs a local user",
    Rejection.WRONG_SOURCE: "`trioproxy user change {name} --source NETWORK` says from where a local user may log in",
    Rejection.NOT_A_MEMBER: "`trioproxy user group {name} --add {proxy_group}` makes a local user a member",
    Rejection.PENALTY: "wait, or look who else tries this name",
}

# The settings are those of `ldap`; a plug-in's own have most often the same names.
DIRECTORY_ADVICE: Final[Mapping[Rejection, str]] = {
    Rejection.EMPTY_PASSWORD: LOCAL_ADVICE[Rejection.EMPTY_PASSWORD],
    Rejection.MALFORMED: LOCAL_ADVICE[Rejection.MALFORMED],
    Rejection.UNKNOWN_USER: (
        "a typing mistake, or another tenant? otherwise look at user_base and user_filter of {backend}, and at what"
        " bind_dn may see"
    ),
    Rejection.OTHER_NAME: "log in with the name as {backend} has it in username_attribute",
    Rejection.WRONG_PASSWORD: "{backend} says so; the password is changed there",
    Rejection.DISABLED: "{backend} says so; enable or unlock the account there, or see status_attributes",
    Rejection.EXPIRED: "{backend} says so; prolong the account or its password there, or see status_attributes",
    Rejection.WRONG_SOURCE: "{backend} says so; from where a user may log in is changed there",
    Rejection.NOT_A_MEMBER: (
        "add the user to {proxy_group} in {backend}; if the user is in it, look at proxy_group_dn, membership and"
        ' nested_groups; nonmembers = "global-rules" lets others in with the global rules alone'
    ),
    Rejection.PENALTY: LOCAL_ADVICE[Rejection.PENALTY],
}

CAUSE_ADVICE: Final[Mapping[Cause, str]] = {
    Cause.CONNECT: "is it running, are host and port in urls right, and does a firewall let this machine through?",
    Cause.TLS: "ca_file names the authority that signed its certificate, and urls the host as the certificate has it",
    Cause.TIMEOUT: "it is slow or hangs: look at its load; connect_s, answer_s and login_s say how long it may take",
    Cause.PROTOCOL: "do host and port in urls belong to it, or to something else?",
    Cause.REFUSED: "let our own account search and read there; look at user_base and group_base, and at its log",
    Cause.SERVICE_LOGIN: "look at bind_dn, and at the password in bind_password_file",
    Cause.AMBIGUOUS: "look at the entries it finds: user_filter and group_filter must find the right ones, each once",
    Cause.BUSY: "try again in a moment; in_flight_max says how many logins may be asked about at once",
    Cause.OTHER: "look at its settings and its log",
}


@attrs.frozen
class Layer:
    """One layer that would judge the user.

    Attributes:
        scope: which.
        stored: how many rules the store has for it; None: there is no store to look into.
        written: those that the backend brought.
    """

    scope: Scope
    stored: int | None
    written: tuple[DirectoryLayer, ...]

    def as_row(self) -> list[str]:
        """For people."""
        written = "; ".join(f"{len(one.rules)} in {one.origin}" for one in self.written)
        return [str(self.scope), "-" if self.stored is None else str(self.stored), written or "-"]

    def as_json(self, clean: Callable[[str], str]) -> dict[str, object]:
        """For programs."""
        return {
            "scope": clean(str(self.scope)),
            "stored": self.stored,
            "directory": [
                {"entry": clean(one.origin), "rules": [clean(str(rule)) for rule in one.rules]} for one in self.written
            ],
        }


@attrs.frozen
class Report:
    """All of it.

    Attributes:
        wanted: who should log in, as a layer.
        source: the client's address; None: asked about without a password.
        proxy_group: of the tenant.
        asked: the backends in their order, as far as they were asked.
        answer: of all of them together.
        layers: that would apply; empty for who is not let in.
        warnings: about rules.
        block: what keeps out who is let in.
        clean: withholds a text in which the password stands; what a directory says of groups and rules goes through it.
    """

    wanted: Scope
    source: str | None
    proxy_group: str
    asked: Sequence[Asked]
    answer: Answer
    layers: tuple[Layer, ...] = ()
    warnings: tuple[str, ...] = ()
    block: Block | None = None
    clean: Callable[[str], str] = str

    def show(self) -> None:
        """Tell people."""
        say("")
        match self.answer:
            case Identity() as identity:
                self._show_identity(identity)
            case Rejected(reason):
                say(f"REFUSED: {reason.value}", tone="bad")
            case Unavailable(problem):
                say(f"REFUSED, because nobody could tell: {problem}", tone="bad")
            case _:
                assert_never(self.answer)
        say(*(f"  {line}" for line in self.advice()))

    def advice(self) -> Iterator[str]:
        """The likely cause of a refusal, and what to change."""
        match self.answer:
            case Rejected(reason):
                for kind, backend in self._who_refused(reason).items():
                    advice = (LOCAL_ADVICE if kind == "local" else DIRECTORY_ADVICE)[reason]
                    yield advice.format(name=self.wanted.owner, backend=backend, proxy_group=self.proxy_group)
            case Unavailable(_, cause):
                asked = next(one for one in self.asked if isinstance(one.answer, Unavailable))
                yield f"this is no mistake of the user; with {asked.backend}, {cause.value}"
                yield asked.advice() or CAUSE_ADVICE[cause]

    def as_json(self) -> dict[str, object]:
        """For programs."""
        identity = (
            self.answer if isinstance(self.answer, Identity) else Identity(self.wanted.tenant, None, member=False)
        )
        return {
            "tenant": self.wanted.tenant,
            "user": self.wanted.name,
            "source": self.source,
            "password": self.source is not None,
            "asked": [one.as_json() for one in self.asked],
            **_decision(self.answer),
            "advice": list(self.advice()),
            "proxy_group": self.proxy_group,
            "member": identity.member,
            "groups": self._groups(identity),
            "valid_until": identity.valid_until.isoformat() if identity.valid_until is not None else None,
            "layers": [layer.as_json(self.clean) for layer in self.layers],
            "block": describe_block(self.block) if self.block is not None else None,
            "warnings": list(map(self.clean, self.warnings)),
        }

    def _show_identity(self, identity: Identity) -> None:
        say(f"ACCEPTED by {identity.backend}{'' if self.source else ', without a password'}", tone="good")
        if self.block is not None:
            say(f"  but every request is refused by {self.block} ({show_end(self.block)})", tone="bad")
            say(f"  to lift it: trioproxy block remove {self.block.id}")
        if identity.member:
            say(f"  a member of the proxy group {self.proxy_group}")
        else:
            say(f'  no member of the proxy group {self.proxy_group}; nonmembers = "global-rules" lets everybody in')
        say(f"  groups: {', '.join(self._groups(identity)) or 'none'}")
        if identity.valid_until is not None:
            say(f"  until {show_moment(identity.valid_until)}")
        say(f"  {count(len(self.layers), 'layer')} of rules would apply:", "")
        show_table(
            ["LAYER", "STORED", "FROM THE DIRECTORY"], [list(map(self.clean, layer.as_row())) for layer in self.layers]
        )
        say(*(f"warning: {self.clean(warning)}" for warning in self.warnings), tone="bad")

    def _groups(self, identity: Identity) -> list[str]:
        return sorted(map(self.clean, identity.groups))

    def _who_refused(self, reason: Rejection) -> dict[str, str]:
        """Kind to name of each backend that said so: several may not know a user, but one alone refuses."""
        return {one.kind: one.backend for one in self.asked if one.answer == Rejected(reason)}


def _decision(answer: Answer) -> dict[str, object]:
    match answer:
        case Identity():
            return {"decision": "accepted", "backend": answer.backend, "reason": None, "cause": None}
        case Rejected(reason):
            return {"decision": "refused", "backend": None, "reason": reason.value, "cause": None}
        case Unavailable(problem, cause):
            return {"decision": "unavailable", "backend": None, "reason": problem, "cause": cause.name.lower()}
        case _:
            assert_never(answer)
