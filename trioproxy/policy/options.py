"""The options behind a rule: what each key may say, and which of them go together."""

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from trioproxy.policy.canonical import CanonicalError, canonical_host
from trioproxy.policy.hours import Hours, Span, parse_grace
from trioproxy.policy.request import RuleProtocol
from trioproxy.policy.rules import DATAGRAM_APPS, Domain, Rule
from trioproxy.policy.scope import Scope
from trioproxy.policy.units import parse_quota, parse_rates, parse_size, size_text
from trioproxy.sniff import App

__all__ = ["KEYS", "NAMES_LENGTH_MAX", "NOTE_LENGTH_MAX", "SPANS_MAX", "OptionError", "conflicts", "read_option"]

NOTE_LENGTH_MAX: Final = 500  # characters
NAMES_LENGTH_MAX: Final = 2_000  # characters of sni= or http-host=: some eighty names; more are more rules
SPANS_MAX: Final = 21  # three on each day of the week

_ANSWERS: Final = {"yes": True, "no": False}
_APPS: Final = {app.value: app for app in App}

Item = TypeVar("Item")


class OptionError(ValueError):
    """A value that cannot be read.

    Attributes:
        place: where in the value, beginning with 0.
    """

    def __init__(self, expected: str, place: int = 0) -> None:
        super().__init__(expected)
        self.place = place


def read_option(key: str, text: str) -> tuple[str, object]:
    """The field of `Rule` that a key sets, and to what.

    Raises:
        OptionError: with the place inside the text and what was expected there.
    """
    field, read = _OPTIONS[key]
    try:
        return field, read(text)
    except OptionError:
        raise
    except ValueError as exc:
        raise OptionError(str(exc)) from exc


def conflicts(rule: Rule) -> Iterator[tuple[str, str]]:
    """Keys that do not go with the rest of their rule, each with what was expected."""
    if not rule.allow:
        for key in _ALLOW_ONLY:
            if getattr(rule, _OPTIONS[key][0]) not in (None, False):
                yield key, f"{key}= on allow rules only"
    if rule.burst is not None and rule.rate is None:
        yield "burst", "rate= beside burst="
    if rule.burst is not None and rule.rate is not None and rule.burst < rule.rate.least_burst:
        yield "burst", f"{size_text(rule.rate.least_burst)} or more at this rate, a hundredth of a second of it"
    if rule.grace_s is not None and rule.hours is None:
        yield "grace", "when= beside grace="
    yield from _conflicts_of_findings(rule)


def _conflicts_of_findings(rule: Rule) -> Iterator[tuple[str, str]]:
    names = [("sni", App.TLS, rule.sni), ("http-host", App.HTTP, rule.http_host)]
    for key, app, some in names:
        if some and rule.protocol not in (None, RuleProtocol.TCP):
            yield key, f"{key}= on tcp: or any: only"
        if some and rule.apps not in ((), (app,)):
            yield "app", f"app={app.value} beside {key}=, or no app="
    if rule.sni and rule.http_host:
        yield "http-host", "sni= or http-host=, not both"
    if rule.apps and rule.protocol is RuleProtocol.BIND:
        yield "app", "app= on tcp:, udp: or any: only"
    for app in rule.apps:
        carrier = "udp" if app in DATAGRAM_APPS else "tcp"
        if app is not App.UNKNOWN and rule.protocol is not None and rule.protocol.value != carrier:
            yield "app", f"app={app.value} on {carrier}: or any: only"


def _user(text: str) -> Scope:
    return _owner("user", text)


def _group(text: str) -> Scope:
    return _owner("group", text)


def _owner(kind: str, text: str) -> Scope:
    try:
        return Scope.parse(f"{kind}:{text}")
    except ValueError as exc:
        raise OptionError(f"NAME or TENANT/NAME: {exc}") from exc


def _log(text: str) -> bool:
    if text not in _ANSWERS:
        raise OptionError("yes or no")
    return _ANSWERS[text]


def _note(text: str) -> str:
    if len(text) > NOTE_LENGTH_MAX:
        raise OptionError(f"a note of at most {NOTE_LENGTH_MAX} characters")
    return text


def _hours(text: str) -> Hours:
    spans = _items(text, Span.parse)
    if len(spans) > SPANS_MAX:
        raise OptionError(f"hours of at most {SPANS_MAX} parts")
    return Hours(spans)


def _apps(text: str) -> tuple[App, ...]:
    apps = _items(text, _app)
    if len(set(apps)) < len(apps):
        raise OptionError("each word once")
    return apps


def _app(text: str) -> App:
    if text not in _APPS:
        *words, last = _APPS
        raise OptionError(f"{', '.join(words)} or {last}")
    return _APPS[text]


def _server_names(text: str) -> tuple[Domain, ...]:
    return _names(text, addresses=False)


def _http_hosts(text: str) -> tuple[Domain, ...]:
    return _names(text, addresses=True)


def _names(text: str, *, addresses: bool) -> tuple[Domain, ...]:
    names = _items(text, lambda item: _name(item, addresses=addresses))
    if len(",".join(map(str, names))) > NAMES_LENGTH_MAX:
        raise OptionError(f"names of at most {NAMES_LENGTH_MAX} characters together")
    return names


def _name(text: str, *, addresses: bool) -> Domain:
    below = text.startswith("*.")
    try:
        host = canonical_host((text[2:] if below else text).encode())
    except CanonicalError as exc:
        raise OptionError(f"a name or *.name: {exc}") from exc
    if not isinstance(host, str) and (below or not addresses):
        raise OptionError("a name or *.name, no address" if not addresses else "a name after '*.'")
    return Domain(str(host), below)


def _scan(text: str) -> bool:
    if text != "ignore":
        raise OptionError("ignore")
    return True


def _items(text: str, read: Callable[[str], Item]) -> tuple[Item, ...]:
    """What commas separate, each with its own place in an error."""
    items: list[Item] = []
    place = 0
    for item in text.split(","):
        try:
            items.append(read(item))
        except ValueError as exc:
            raise OptionError(str(exc), place) from exc
        place += len(item) + 1
    return tuple(items)


_OPTIONS: Final[dict[str, tuple[str, Callable[[str], object]]]] = {  # the field of `Rule`, and what reads its text
    "user": ("user", _user),
    "group": ("group", _group),
    "rate": ("rate", parse_rates),
    "burst": ("burst", parse_size),
    "quota": ("quota", parse_quota),
    "when": ("hours", _hours),
    "grace": ("grace_s", parse_grace),
    "app": ("apps", _apps),
    "sni": ("sni", _server_names),
    "http-host": ("http_host", _http_hosts),
    "scan": ("scan_ignored", _scan),
    "log": ("log", _log),
    "note": ("note", _note),
}
_ALLOW_ONLY: Final = ("rate", "burst", "quota", "grace", "scan")
KEYS: Final = tuple(_OPTIONS)
