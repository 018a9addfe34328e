"""`trioproxy session`: what runs through the server now, and ending some of it."""

from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Literal

import attrs
from cyclopts import App, Parameter

from trioproxy.accounting.live import Wanted
from trioproxy.admin.client import ControlError, ask_server, socket_path
from trioproxy.cli.amounts import show_rate, show_size
from trioproxy.cli.output import Failure, count, say, show_json, show_table, usage
from trioproxy.cli.place import HERE, Place, check_tenant, note_nobody, parse_user
from trioproxy.config import Config
from trioproxy.policy.scope import DEFAULT_TENANT
from trioproxy.store import StoreError

__all__ = ["app"]

app = App(
    name="session",
    help="Running sessions: who talks to whom, how fast, by which rule; and ending them.",
    help_epilogue="Example: `trioproxy session list --user alice`",
)


@Parameter(name="*")
@attrs.frozen
class Filters:
    """Which flows are meant: those that fit everything that is given.

    Attributes:
        user: alice, or physics/alice.
        tenant: whose users.
        source: the client's address, or a network.
        target: an address, a network, a name or *.name.
    """

    user: str | None = None
    tenant: str | None = None
    source: str | None = None
    target: str | None = None

    def wanted(self, config: Config) -> dict[str, object]:
        """As the server wants to hear it.

        Raises:
            Failure: one of them cannot be read.
        """
        if self.user is not None:
            parse_user(self.user, config)
        if self.tenant is not None:
            check_tenant(self.tenant, config)
        if self.source is not None:
            _check_network(self.source)
        given: dict[str, object] = {k: v for k, v in attrs.asdict(self).items() if v is not None}
        try:
            Wanted.parse(given)
        except ValueError as error:
            raise Failure(str(error)) from error
        return given


EVERYTHING = Filters()


@app.command(
    name="list", help_epilogue="Example: `trioproxy session list --source 10.1.0.0/16 --target '*.example.org'`"
)
def list_sessions(
    *,
    filters: Filters = EVERYTHING,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    place: Place = HERE,
) -> None:
    """List what runs now, the fastest first; an association has a line for each destination.

    Args:
        filters: which of them.
        as_json: print JSON.
        place: which installation.
    """
    rows = _ask(place, "sessions", filters)
    rows.sort(key=lambda row: (-row["rate_to_client"] - row["rate_to_target"], row["session"]))
    if as_json:
        show_json(rows)
    elif rows:
        headers = ["ID", "USER", "CLIENT", "COMMAND", "TARGET", "AGE", "DOWN", "UP", "DOWN/S", "UP/S", "RULE"]
        show_table(headers, [_cells(row) for row in rows])
    else:
        say("no sessions")


@app.command(help_epilogue="Example: `trioproxy session kill 4711`, or `trioproxy session kill --user alice`")
def kill(
    *numbers: int,
    filters: Filters = EVERYTHING,
    everything: Annotated[bool, Parameter(name="--all")] = False,
    place: Place = HERE,
) -> None:
    """End sessions now, with a reset. Nothing keeps their users from coming back: see `trioproxy block`.

    Args:
        numbers: the ids that `session list` shows.
        filters: instead of, or together with, numbers.
        everything: all sessions there are.
        place: which installation.
    """
    if not numbers and filters == EVERYTHING and not everything:
        raise usage("which sessions? Give ids, --user, --tenant, --source or --target, or --all")
    if everything and (numbers or filters != EVERYTHING):
        raise usage("--all goes with nothing else")
    rows = _ask(place, "kill", filters, {"sessions": list(numbers)} if numbers else {})
    ended = {row["session"] for row in rows}
    for row in rows:
        say(f"session {row['session']} ended: {_owner(row)} from {row['client']} to {row['target'] or row['asked']}")
    missing = [number for number in numbers if number not in ended]
    if missing:
        raise Failure(f"not running, or not meant: {', '.join(map(str, missing))}")
    say(f"{count(len(ended), 'session')} ended")


def _ask(
    place: Place, what: Literal["sessions", "kill"], filters: Filters, more: dict[str, object] | None = None
) -> list[dict[str, Any]]:
    config = place.load()
    wanted = filters.wanted(config) | (more or {})
    try:
        rows = list(ask_server(socket_path(place.store_path(config)), what, wanted))
    except ControlError as error:
        raise Failure(str(error)) from error
    if not rows and filters.user is not None:
        with suppress(StoreError), place.open_store(config) as store:  # the note is not worth a failure
            note_nobody([parse_user(filters.user, config)], config, store)
    return rows


def _check_network(text: str) -> None:
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise Failure(f"--source: {text!r} is no address and no network") from error
    if "/" in text and ip_address(text.partition("/")[0]) != network.network_address:
        raise Failure(f"--source: {text!r} has bits behind the prefix: the network is {network}")


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        str(row["session"]),
        _owner(row),
        row["client"],
        row["command"] or "-",
        _target(row),
        _age(row["age_s"]),
        show_size(row["bytes_to_client"]),
        show_size(row["bytes_to_target"]),
        show_rate(row["rate_to_client"]),
        show_rate(row["rate_to_target"]),
        f"{row['scope']} {row['rule']}" if row["rule"] else "-",
    ]


def _owner(row: dict[str, Any]) -> str:
    name = row["user"] if row["user"] is not None else "(anonymous)"
    return str(name) if row["tenant"] == DEFAULT_TENANT else f"{row['tenant']}/{name}"


def _target(row: dict[str, Any]) -> str:
    asked, target = row["asked"], row["target"]
    return str(asked or "-") if target in (None, asked) else f"{asked} ({target})"


def _age(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
