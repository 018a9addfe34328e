"""An explanation for people: what was asked, what each layer says to it, who decided, and what to do about it."""

from collections.abc import Iterator
from itertools import groupby, islice
from shlex import quote
from typing import Final

from attrs import evolve

from trioproxy.cli.explanation import Case
from trioproxy.cli.output import say, show_table
from trioproxy.policy import Explanation, LayerVote, Permit, Refusal, Rule, Scope, ScopeKind, Vote, parse_rule
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
    for reason in case.refused:
        say(f"login refused: {reason}", tone="bad")
    explanations = case.explanations()
    # Most names mean several addresses about which there is the same to say.
    for _, alike in groupby(sorted(explanations, key=_gist), key=_gist):
        _show_addresses(case, list(alike))
    say("")
    for line, good in _verdict(case, explanations):
        say(line, tone="good" if good else "bad")
    say(*(f"  {line}" for line in _advice(case, explanations)))


def _gist(explanation: Explanation) -> tuple[bool, str, str, str, bool]:
    """Equal for explanations that differ in their address alone; what is allowed sorts first."""
    verdict = explanation.verdict
    return (
        isinstance(verdict, Refusal),
        explanation.floor,
        verdict.scope,
        str(explanation.votes),
        explanation.address != verdict.request.address,
    )


def _show_addresses(case: Case, alike: list[Explanation]) -> None:
    first = alike[0]
    allowed = isinstance(first.verdict, Permit)
    addresses = ", ".join(str(explanation.verdict.request.address) for explanation in alike)
    say("")
    say(f"{addresses}: {'allowed' if allowed else 'denied'}", tone="good" if allowed else "bad")
    if first.address != first.verdict.request.address:
        say(f"  because of the IPv4 address {first.address} inside it")
    floor = ["floor", "deny" if first.floor else "-", "", first.floor or "not part of it"]
    show_table(["LAYER", "VOTE", "ID", "RULE"], [floor, *(_row(case, vote) for vote in first.votes)])


def _row(case: Case, vote: LayerVote) -> list[str]:
    if vote.vote is Vote.NONE:
        size = case.layers.size(vote.scope)
        return [str(vote.scope), "-", "", f"none of {size} fits" if size else "no rules"]
    stored = case.layers.find(vote)
    return [str(vote.scope), vote.vote.value, str(stored.id) if stored else "", vote.rule]


def _verdict(case: Case, explanations: list[Explanation]) -> Iterator[tuple[str, bool]]:
    if case.refused:
        yield "DENIED: the login is refused", False
    permitted = [item for item in explanations if isinstance(item.verdict, Permit)]
    if permitted:
        yield f"{'apart from that: ' if case.refused else ''}ALLOWED by {_decider(case, permitted[0])}", True
        if len(permitted) < len(explanations):
            addresses = ", ".join(str(item.verdict.request.address) for item in permitted)
            yield f"the proxy connects to {addresses} only", True
    else:
        yield f"{'apart from that: ' if case.refused else ''}DENIED: {_because(case, explanations[0])}", False


def _because(case: Case, explanation: Explanation) -> str:
    if explanation.floor:
        return f"{explanation.address} is {explanation.floor}, which no rule can allow"
    if explanation.verdict.scope:
        return f"{_decider(case, explanation)} forbids it, and one deny outweighs every allow"
    return "no rule allows it"


def _deciding_vote(explanation: Explanation) -> LayerVote:
    return next(vote for vote in explanation.votes if str(vote.scope) == explanation.verdict.scope)


def _decider(case: Case, explanation: Explanation) -> str:
    vote = _deciding_vote(explanation)
    stored = case.layers.find(vote)
    return f"rule {stored.id} of {vote.scope}" if stored is not None else f"an unreadable rule of {vote.scope}"


def _advice(case: Case, explanations: list[Explanation]) -> Iterator[str]:
    """What to do if it should be allowed; about the first address, as others most often are alike."""
    if any(isinstance(explanation.verdict, Permit) for explanation in explanations):
        return
    explanation = explanations[0]
    if explanation.floor in (OWN_LISTENER, OWN_SERVER):
        yield "nobody reaches the proxy's own endpoints through the proxy"
    elif explanation.floor:
        yield "the administrator can open parts of the floor in the configuration: [policy] open_floor"
    elif explanation.verdict.scope:
        yield from _advice_against_deny(case, explanation)
    else:
        for vote, aspect in islice(case.layers.near_misses(explanation), _NEAR_MISSES_MAX):
            stored = case.layers.find(vote)
            number = f"rule {stored.id}" if stored is not None else "a rule"
            yield f"close: {number} of {vote.scope} fits but for {aspect}: {vote.rule}"
        yield f"to allow it to {_whom(case)}: {_command(case.innermost, _rule(case))}"


def _advice_against_deny(case: Case, explanation: Explanation) -> Iterator[str]:
    vote = _deciding_vote(explanation)
    stored = case.layers.find(vote)
    if stored is None:
        yield f"look for the rule that cannot be read: trioproxy rule list {quote(str(vote.scope))}"
        return
    place = case.layers.place(vote.scope, stored)
    rule, whom = _rule(case), f"everybody in {vote.scope}"
    if vote.scope.kind is ScopeKind.GLOBAL and case.identity.user is not None:
        # Without user= an exception in the global layer would allow it to the whole world.
        rule, whom = evolve(rule, user=case.innermost), case.asker
    yield f"to allow it to {whom}: {_command(vote.scope, rule, place)}"
    yield f"or to lift the ban for everybody in {vote.scope}: trioproxy rule remove {stored.id}"


def _whom(case: Case) -> str:
    return case.asker if case.identity.user is not None else f"everybody in {case.innermost}"


def _rule(case: Case) -> Rule:
    """The narrowest rule that would allow it from anywhere."""
    return parse_rule(f"{case.protocol.value}:*(*)->{case.host}({case.port or '*'})")


def _command(scope: Scope, rule: Rule, place: int | None = None) -> str:
    position = f" --position {place}" if place is not None else ""
    return f"trioproxy rule add {quote(str(scope))}{position} {quote(str(rule))}"
