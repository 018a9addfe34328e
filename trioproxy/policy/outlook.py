"""What may come out as long as nobody has looked what a flow is.

A rule that asks for that may match or not. Each is taken to be free to do either, whatever the others do: so a refusal
here is one whatever the flow is, a permit that needs no look is the same one whatever it is, and everything between has
to be looked at. (Rules that contradict each other may make us look at a flow that is refused in any case.)
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Final, Self

import attrs

from trioproxy.policy.directory import DirectoryLayer
from trioproxy.policy.leaves import Entry, Maybe, Votes
from trioproxy.policy.rules import Question

__all__ = ["Forecast", "Outlook", "forecast", "outlooks"]

_RANK: Final = attrgetter("rank")


@attrs.frozen
class Outlook:
    """What a layer may vote.

    Attributes:
        sure: its vote if no rule fits that asks what the flow is.
        terms: the entries whose terms hold then.
        allow: the first rule that asks and would allow.
        limit: the first of these with terms.
        deny: the first rule that asks and would deny.
    """

    sure: Entry | None = None
    terms: tuple[Entry, ...] = ()
    allow: Entry | None = None
    limit: Entry | None = None
    deny: Entry | None = None

    @property
    def may_allow(self) -> Entry | None:
        """A rule by which it would allow; None if it never does."""
        return self.sure if self.sure is not None and self.sure.rule.allow else self.allow

    @property
    def only_denies(self) -> bool:
        """Whether it denies in any case."""
        return self.sure is not None and not self.sure.rule.allow and self.allow is None

    def before(self, other: Self) -> Self:
        """Where this one has no sure vote: what it asks comes first, then the other decides."""
        return attrs.evolve(
            other,
            allow=self.allow or other.allow,
            limit=self.limit or other.limit,
            deny=self.deny or other.deny,
        )


@attrs.frozen
class Forecast:
    """What may come out of all layers together.

    Attributes:
        permitted: whether it may be permitted; False is final.
        entry: the rule that decides, or may; None: none does.
        look: whether it depends on what the flow is.
        terms: the entries whose terms hold; none as long as it has to be looked.
    """

    permitted: bool
    entry: Entry | None = None
    look: bool = False
    terms: tuple[Entry, ...] = ()


def outlooks(votes: Votes, layers: Iterable[DirectoryLayer], question: Question) -> dict[str, Outlook]:
    """What each layer may vote, by its text.

    Args:
        votes: what the rules of the store say.
        layers: those of directories, which speak where the store has no sure vote.
        question: without a finding.
    """
    found = _of_votes(votes)
    written: defaultdict[str, list[Outlook]] = defaultdict(list)
    for layer in layers:
        for name, outlook in _of_votes(layer.votes(question)).items():
            written[name].append(outlook)
    for name, several in written.items():
        stored = found.get(name, Outlook())
        if stored.sure is None:
            found[name] = stored.before(_together(several))
    return found


def forecast(layers: Mapping[str, Outlook]) -> Forecast:
    """Let the layers vote: one deny denies, otherwise one allow allows, otherwise it is denied."""
    refusing = [outlook.sure for outlook in layers.values() if outlook.only_denies and outlook.sure is not None]
    if refusing:
        return Forecast(permitted=False, entry=min(refusing, key=_RANK))
    allowing = [entry for outlook in layers.values() if (entry := outlook.may_allow) is not None]
    if not allowing:
        return Forecast(permitted=False)
    entry = min(allowing, key=_RANK)
    if _depends(layers.values()):
        return Forecast(permitted=True, entry=entry, look=True)
    return Forecast(
        permitted=True, entry=entry, terms=tuple(entry for outlook in layers.values() for entry in outlook.terms)
    )


def _depends(layers: Iterable[Outlook]) -> bool:
    """Does the verdict depend on what the flow is? Asked where it may be permitted."""
    asking = [outlook for outlook in layers if outlook.allow is not None or outlook.deny is not None]
    for outlook in asking:
        denies = outlook.sure is not None and not outlook.sure.rule.allow
        if outlook.deny is not None or outlook.limit is not None or outlook.terms or denies:
            return True
    # What is left would allow and ask for nothing. It changes only which rule the verdict names, and not even that
    # behind a layer that allows in any case.
    sure = [outlook.sure.rank for outlook in layers if outlook.sure is not None]
    return any(not sure or (outlook.allow is not None and outlook.allow.rank <= min(sure)) for outlook in asking)


def _of_votes(votes: Votes) -> dict[str, Outlook]:
    found: dict[str, Outlook] = {}
    for slot in votes:
        name = slot if isinstance(slot, str) else slot[0]
        if name not in found:
            found[name] = _of_layer(name, votes)
    return found


def _of_layer(name: str, votes: Votes) -> Outlook:
    sure = votes.get(name)

    def before_it(maybe: Maybe) -> Entry | None:
        entry = votes.get((name, maybe))
        return None if entry is None or (sure is not None and entry.number > sure.number) else entry

    limit, allow = before_it(Maybe.LIMIT), before_it(Maybe.ALLOW)
    return Outlook(
        sure=sure,
        terms=(sure,) if sure is not None and sure.rule.has_terms else (),
        allow=allow or limit,
        limit=limit,
        deny=before_it(Maybe.DENY),
    )


def _together(several: Iterable[Outlook]) -> Outlook:
    """Entries of a directory that vote for the same layer: one deny denies, otherwise one allow allows."""
    several = tuple(several)
    sure = [outlook.sure for outlook in several if outlook.sure is not None]
    denied = any(outlook.only_denies for outlook in several)
    return Outlook(
        sure=min(sure, key=_RANK, default=None),
        terms=tuple(entry for outlook in several for entry in outlook.terms),
        allow=None if denied else next((outlook.allow for outlook in several if outlook.allow), None),
        limit=None if denied else next((outlook.limit for outlook in several if outlook.limit), None),
        deny=next((outlook.deny for outlook in several if outlook.deny), None),
    )
