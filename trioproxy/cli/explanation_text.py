"""An explanation for people: what was asked, what each layer says to it, who decided, and what to do about it."""

from collections.abc import Iterator
from functools import partial
from itertools import groupby, islice
from shlex import quote
from typing import Final

from attrs import evolve

from trioproxy.cli.accounts import limit_lines
from trioproxy.cli.explanation import Case
from trioproxy.cli.explanation_terms import circumstances, hours_advice, quota_lines, remarks
from trioproxy.cli.output import say, show_table
from trioproxy.policy import Explanation, LayerVote, Permit, Reason, Refusal, Rule, Scope, ScopeKind, Vote, parse_rule
from trioproxy.policy.floor import OWN_LISTENER, OWN_SERVER

__all__ = ["show_case"]

_NEAR_MISSES_MAX: Final = 3


def show_case(case: Case) -> None:
    """Print it."""
    groups = ", ".join(sorted(case.identity.groups))
    say(
        f"{case.asker}{f' (groups: {groups})' if groups else ''} from {case.client} asks for {case.target}",
        tone="strong",
    )
    if not case.identity.member:
        say("not in the proxy group, so the global layer alone judges")
    for reason in case.refused:
        say(f"login refused: {reason}", tone="bad")
    explanations = case.explanations()
    say(*circumstances(case, explanations))
    # Most names mean several addresses about which there is the same to say.
    gist = partial(_gist, case)
    for _, alike in groupby(sorted(explanations, key=gist), key=gist):
        _show_addresses(case, list(alike))
    say("")
    limits = limit_lines(case.limits, case.identity)
    say(*(f"limit: {line}" for line in limits), *quota_lines(case, explanations))
    for line, good in _verdict(case, explanations):
        say(line, tone="good" if good else "bad")
    say(*(f"  {line}" for line in _advice(case, explanations)))


def _gist(case: Case, explanation: Explanation) -> tuple[bool, str, str, str, str, str, bool]:
    """Equal for explanations that differ in their address alone; what is allowed sorts first."""
    verdict = explanation.verdict
    return (
        isinstance(verdict, Refusal),
        explanation.floor,
        verdict.scope,
        verdict.rule,
        str(explanation.votes),
        str((_state(case, explanation), explanation.asking, explanation.hours, getattr(verdict, "terms", ()))),
        explanation.address != verdict.request.address,
    )


def _state(case: Case, explanation: Explanation) -> str:
    if isinstance(explanation.verdict, Permit):
        return "allowed" if case.is_certain(explanation) else "may be allowed"
    return "denied"


def _show_addresses(case: Case, alike: list[Explanation]) -> None:
    first = alike[0]
    allowed = isinstance(first.verdict, Permit)
    addresses = ", ".join(str(explanation.verdict.request.address) for explanation in alike)
    say("")
    say(f"{addresses}: {_state(case, first)}", tone="good" if allowed else "bad")
    if first.address != first.verdict.request.address:
        say(f"  because of the IPv4 address {first.address} inside it")
    floor = ["floor", "deny" if first.floor else "-", "", first.floor or "not part of it", ""]
    block = case.block(first)
    blocks = [] if block is None else [["block", "deny", str(block.id), f"{block.subject}: {block.reason}", ""]]
    rows = [["LAYER", "VOTE", "ID", "RULE", "FROM"], *blocks, floor, *(_row(case, vote) for vote in first.votes)]
    if not case.layers.directory:  # where there is only the store, nobody asks
        rows = [row[:-1] for row in rows]
    show_table(rows[0], rows[1:])
    say(*(f"  {remark}" for remark in remarks(case, first)))


def _row(case: Case, vote: LayerVote) -> list[str]:
    if vote.vote is Vote.NONE:
        size = case.layers.size(vote.scope)
        return [str(vote.scope), "-", "", f"none of {size} fits" if size else "no rules", ""]
    stored = case.layers.find(vote)
    return [str(vote.scope), vote.vote.value, str(stored.id) if stored else "", vote.rule, vote.origin or "store"]


def _verdict(case: Case, explanations: list[Explanation]) -> Iterator[tuple[str, bool]]:
    if case.refused:
        yield "DENIED: the login is refused", False
    permitted = [item for item in explanations if isinstance(item.verdict, Permit)]
    if permitted and all(map(case.is_over_quota, permitted)):
        yield f"REFUSED: a quota is used up; apart from that: {_permission(case, permitted)}", False
    elif permitted:
        yield f"{'apart from that: ' if case.refused else ''}{_permission(case, permitted)}", True
        if len(permitted) < len(explanations):
            addresses = ", ".join(str(item.verdict.request.address) for item in permitted)
            yield f"the proxy connects to {addresses} only", True
    else:
        yield f"{'apart from that: ' if case.refused else ''}DENIED: {_because(case, explanations[0])}", False


def _permission(case: Case, permitted: list[Explanation]) -> str:
    first = permitted[0]
    decider = _decider(case, first)
    if case.is_certain(first) and getattr(first.verdict, "sniff", False):
        sure = next(vote for vote in first.votes if vote.vote is Vote.ALLOW)
        return f"ALLOWED by {case.layers.name(sure)}, {_addition(case, first)}"
    if case.is_certain(first):
        return f"ALLOWED by {decider}"
    return f"MAY BE ALLOWED by {decider}: the proxy connects, looks at the first bytes, and then decides"


def _addition(case: Case, explanation: Explanation) -> str:
    """What rules that ask make of a permit that there is in any case."""
    limiting = [case.layers.name(vote) for vote in explanation.asking if parse_rule(vote.rule).has_terms]
    if not limiting:
        return "whatever the traffic is; the proxy looks at the first bytes only to say by which rule"
    names = ", ".join(limiting)
    return f"whatever the traffic is; the proxy looks at the first bytes, as the limits of {names} depend on them"


def _because(case: Case, explanation: Explanation) -> str:
    block = case.block(explanation)
    if block is not None:
        return f"{block}; a block outweighs every rule"
    if explanation.floor:
        return f"{explanation.address} is {explanation.floor}, which no rule can allow"
    if explanation.verdict.scope:
        cause = _cause(explanation)
        return f"{_decider(case, explanation)} forbids it{cause}, and one deny outweighs every allow"
    return f"no rule allows it{_cause(explanation)}"


def _cause(explanation: Explanation) -> str:
    verdict = explanation.verdict
    match verdict.reason if isinstance(verdict, Refusal) else None:
        case Reason.HOURS:
            return " at this hour"
        case Reason.APP:
            return " for what the traffic is"
        case _:
            return ""


def _deciding_vote(explanation: Explanation) -> LayerVote:
    verdict = explanation.verdict
    # Where it has to be looked, it may be a rule that asks; its layer then votes otherwise, or not at all.
    candidates = [vote for vote in (*explanation.asking, *explanation.votes) if str(vote.scope) == verdict.scope]
    return next((vote for vote in candidates if vote.rule == verdict.rule), candidates[-1])


def _decider(case: Case, explanation: Explanation) -> str:
    return case.layers.name(_deciding_vote(explanation))


def _advice(case: Case, explanations: list[Explanation]) -> Iterator[str]:
    """What to do if it should be allowed; about the first address, as others most often are alike."""
    if any(isinstance(explanation.verdict, Permit) for explanation in explanations):
        return
    explanation = explanations[0]
    block = case.block(explanation)
    if block is not None:
        yield f"to lift it: trioproxy block remove {block.id}"
        return
    yield from hours_advice(case, explanation)
    if explanation.floor in (OWN_LISTENER, OWN_SERVER):
        yield "nobody reaches the proxy's own endpoints through the proxy"
    elif explanation.floor:
        yield "the administrator can open parts of the floor in the configuration: [policy] open_floor"
    elif explanation.verdict.scope:
        yield from _advice_against_deny(case, explanation)
    else:
        for vote, aspect in islice(case.layers.near_misses(explanation, case.now), _NEAR_MISSES_MAX):
            yield f"close: {case.layers.name(vote)} fits but for {aspect}: {vote.rule}"
        rule, whom = _exception(case, case.innermost)
        yield f"to allow it to {whom}: {_command(case.innermost, rule)}"


def _advice_against_deny(case: Case, explanation: Explanation) -> Iterator[str]:
    vote = _deciding_vote(explanation)
    stored = case.layers.find(vote)
    rule, whom = _exception(case, vote.scope)
    if stored is not None:
        place = case.layers.place(vote.scope, stored)
        yield f"to allow it to {whom}: {_command(vote.scope, rule, place)}"
        yield f"or to lift the ban for everybody in {vote.scope}: trioproxy rule remove {stored.id}"
    elif vote.origin:
        # Wherever it stands among the rules of the store: they are asked before those of the directory.
        yield f"to allow it to {whom}: {_command(vote.scope, rule)}"
        yield f"or to lift the ban for everybody in {vote.scope}: change the directory, {vote.origin}"
    else:
        yield f"look for the rule that cannot be read: trioproxy rule list {quote(str(vote.scope))}"


def _exception(case: Case, scope: Scope) -> tuple[Rule, str]:
    """The narrowest rule of this layer that would allow it from anywhere, and to whom it would."""
    rule = parse_rule(f"{case.protocol.value}:*(*)->{case.host}({case.port or '*'})")
    if scope.kind is ScopeKind.GLOBAL and case.user is not None:
        # Without user= the whole world would be allowed to.
        return evolve(rule, user=case.user), case.asker
    return rule, case.asker if scope == case.user else f"everybody in {scope}"


def _command(scope: Scope, rule: Rule, place: int | None = None) -> str:
    position = f" --position {place}" if place is not None else ""
    return f"trioproxy rule add {quote(str(scope))}{position} {quote(str(rule))}"
