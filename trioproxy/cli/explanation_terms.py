"""What else there is to say about an explanation: the terms of a permit, what would be looked at, and hours."""

from collections.abc import Iterator
from datetime import datetime

from trioproxy.cli.amounts import show_size
from trioproxy.cli.explanation import Case
from trioproxy.policy import Explanation, LayerVote, Refusal, Rule, Vote
from trioproxy.policy.hours import grace_text
from trioproxy.policy.units import size_text

__all__ = ["circumstances", "hours_advice", "quota_lines", "remarks", "show_time"]


def circumstances(case: Case, explanations: list[Explanation]) -> Iterator[str]:
    """What the question supposes, where it plays a part."""
    finding = case.finding
    if finding is not None:
        name = finding.sni or finding.http_host
        yield f"the traffic is found to be {finding.app.value}{f' to {name}' if name else ''}"
    if any(explanation.hours for explanation in explanations):
        yield f"it is {show_time(case, case.now)}"


def remarks(case: Case, explanation: Explanation) -> Iterator[str]:
    """Below the votes about an address: what is looked at, and what a permit asks in return."""
    verdict = explanation.verdict
    if isinstance(verdict, Refusal):
        return
    for vote in explanation.asking if verdict.sniff else ():
        yield f"{case.layers.name(vote)} asks what the traffic is: {vote.rule}"
    for term in verdict.terms:
        vote = case.layers.vote_of(term)
        for what in _terms(case, explanation, vote, term.rule):
            yield f"{case.layers.name(vote)}: {what}"


def hours_advice(case: Case, explanation: Explanation) -> Iterator[str]:
    """Where it is refused: which rules would allow it at other times, and until when one forbids it."""
    for hours in explanation.hours:
        allows = hours.vote.vote is Vote.ALLOW
        if hours.change is not None and allows is not hours.speaks:
            verb = "allows it from" if allows else "forbids it until"
            yield f"{case.layers.name(hours.vote)} {verb} {show_time(case, hours.change)}: {hours.vote.rule}"


def quota_lines(case: Case, explanations: list[Explanation]) -> Iterator[str]:
    """What is left of each quota that would count, and what happens when nothing is."""
    for state in dict.fromkeys(state for explanation in explanations for state in case.quotas(explanation)):
        until = show_time(case, state.ends_at)
        whose = f"{state.scope or 'the user'}: {state.rule}"
        if state.left:
            yield f"quota: {show_size(state.left)} of {state.quota} left until {until} ({whose})"
        elif state.over_quota_rate is not None:
            yield f"quota: {state.quota} is used up, so at most {state.over_quota_rate} until {until} ({whose})"
        else:
            yield f"quota: {state.quota} is used up: refused until {until} ({whose})"


def show_time(case: Case, moment: datetime) -> str:
    """By the clock of the tenant."""
    return moment.astimezone(case.zone).strftime("%a %Y-%m-%d %H:%M %Z")


def _terms(case: Case, explanation: Explanation, vote: LayerVote, rule: Rule) -> Iterator[str]:
    if rule.rate is not None:
        down, _, up = str(rule.rate).partition("/")
        burst = f", {size_text(rule.burst)} at once" if rule.burst else ""
        yield f"at most {down} to the client and {up or down} to the target{burst}"
    if rule.quota is not None:
        yield f"at most {size_text(rule.quota.size)} a {rule.quota.period.value}"
    if rule.hours is not None:
        change = next((hours.change for hours in explanation.hours if hours.vote == vote), None)
        end = "at all hours" if change is None else f"until {show_time(case, change)}"
        yield f"{end}{f', and {grace_text(rule.grace_s)} longer for what runs then' if rule.grace_s else ''}"
    if rule.scan_ignored:
        yield "it counts as no scan, whatever the number of targets"
