"""`trioproxy user`: the local users of each tenant."""

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Final, TypeAlias

import attrs
from cyclopts import App, Parameter

from auth.local import LocalUser
from auth.passwords import hash_password
from trioproxy.cli.accounts import blocks_of
from trioproxy.cli.moments import parse_begin, parse_end, parse_sources, show_moment
from trioproxy.cli.output import Failure, count, say, usage, warn
from trioproxy.cli.passwords import make_password, read_password
from trioproxy.cli.place import HERE, Place, note_lonely, parse_groups, parse_user
from trioproxy.cli.user_import import import_users
from trioproxy.cli.user_list import list_users, show
from trioproxy.config import build_zones
from trioproxy.store import EntryError

__all__ = ["app"]

app = App(
    name="user",
    help="Local users: who may log in, until when, from where, and in which groups.",
    help_epilogue="Example: `trioproxy user add alice --group staff`",
)

Many: TypeAlias = tuple[str, ...]

app.command(list_users, name="list", help_epilogue="Example: `trioproxy user list --tenant physics --json`")
app.command(show, help_epilogue="Example: `trioproxy user show alice`")
app.command(
    import_users, name="import", help_epilogue="Example: `trioproxy user import users.htpasswd --tenant physics`"
)


@Parameter(name="*")
@attrs.frozen
class PasswordSource:
    """Where a password comes from; the terminal asks if neither is given.

    Attributes:
        password_stdin: read the password from one line of standard input.
        generate: make a random password and print it once.
    """

    password_stdin: bool = False
    generate: bool = False


ASK: Final = PasswordSource()


@app.command(help_epilogue="Example: `trioproxy user add physics/alice --group staff --valid-until 2026-12-31`")
def add(  # noqa: PLR0913 - the options of a command
    name: str,
    /,
    *,
    group: Many = (),
    no_proxy: bool = False,
    valid_from: str = "always",
    valid_until: str = "never",
    source: Many = ("any",),
    password: PasswordSource = ASK,
    place: Place = HERE,
) -> None:
    """Add a local user and ask for the password.

    Args:
        name: alice, or physics/alice for a user of the tenant physics.
        group: a group of the tenant; may be given several times.
        no_proxy: not a member of the proxy group, so no right to use the proxy.
        valid_from: first day, 2026-01-31, or time, 2026-01-31T08:00, by the clock of the tenant (time_zone).
        valid_until: last day, or time.
        source: an address or network to log in from; may be given several times. By default from anywhere.
        password: where the password comes from.
        place: which installation.
    """
    config = place.load()
    wanted = parse_user(name, config)
    groups = parse_groups(group) | (frozenset() if no_proxy else {config.tenants()[wanted.tenant].proxy_group})
    zone = build_zones(config).of(wanted.tenant)
    begin, end, sources = parse_begin(valid_from, zone), parse_end(valid_until, zone), parse_sources(source)
    _check_validity(begin, end, zone)
    with place.open_store(config, create=True) as store:
        if store.users.find(wanted.tenant, wanted.name) is not None:  # before anybody types a password
            raise EntryError(f"there already: user {wanted.owner}")
        secret = _new_password(password)
        store.users.add(
            [
                LocalUser(
                    tenant=wanted.tenant,
                    name=wanted.name,
                    password_hash=hash_password(secret),
                    groups=groups,
                    valid_from=begin,
                    valid_until=end,
                    sources=sources,
                )
            ]
        )
    say(f"user {wanted.owner} added, groups: {', '.join(sorted(groups)) or 'none'}")
    _note_past(end, zone)
    _show_generated(password, secret)


@app.command(help_epilogue="Example: `trioproxy user passwd alice --generate`")
def passwd(name: str, /, *, password: PasswordSource = ASK, place: Place = HERE) -> None:
    """Set a new password. Sessions that are under way with the old one end.

    Args:
        name: alice, or physics/alice.
        password: where the password comes from.
        place: which installation.
    """
    config = place.load()
    wanted = parse_user(name, config)
    with place.open_store(config) as store:
        store.users.get(wanted.tenant, wanted.name)  # before anybody types a password
        secret = _new_password(password)
        stored = hash_password(secret)
        store.users.change(wanted.tenant, wanted.name, lambda user: attrs.evolve(user, password_hash=stored))
    say(f"password of {wanted.owner} changed")
    _show_generated(password, secret)


@app.command(help_epilogue="Example: `trioproxy user disable alice`")
def disable(name: str, /, *, place: Place = HERE) -> None:
    """Refuse the user's logins and end the user's sessions; nothing is forgotten.

    Args:
        name: alice, or physics/alice.
        place: which installation.
    """
    _change(name, place, lambda user: attrs.evolve(user, disabled=True), "disabled")


@app.command(help_epilogue="Example: `trioproxy user enable alice`")
def enable(name: str, /, *, place: Place = HERE) -> None:
    """Let a disabled user log in again.

    Args:
        name: alice, or physics/alice.
        place: which installation.
    """
    _change(name, place, lambda user: attrs.evolve(user, disabled=False), "enabled")


@app.command(help_epilogue="Example: `trioproxy user change alice --valid-until never --source 10.1.0.0/16`")
def change(
    name: str,
    /,
    *,
    valid_from: str | None = None,
    valid_until: str | None = None,
    source: Many = (),
    place: Place = HERE,
) -> None:
    """Change when and from where a user may log in. What is not given stays.

    Args:
        name: alice, or physics/alice.
        valid_from: first day or time, by the clock of the tenant (time_zone); always.
        valid_until: last day or time; never.
        source: an address or network to log in from, may be given several times; any; none.
        place: which installation.
    """
    if valid_from is None and valid_until is None and not source:
        raise usage("say what to change: --valid-from, --valid-until or --source")
    config = place.load()
    zone = build_zones(config).of(parse_user(name, config).tenant)
    begin, end = parse_begin(valid_from or "always", zone), parse_end(valid_until or "never", zone)
    sources = parse_sources(source)

    def apply(user: LocalUser) -> LocalUser:
        changed = attrs.evolve(
            user,
            valid_from=user.valid_from if valid_from is None else begin,
            valid_until=user.valid_until if valid_until is None else end,
            sources=sources if source else user.sources,
        )
        _check_validity(changed.valid_from, changed.valid_until, zone)
        return changed

    _change(name, place, apply, "changed")
    _note_past(end, zone)


@app.command(help_epilogue="Example: `trioproxy user group alice --add staff --remove guests`")
def group(name: str, /, *, add: Many = (), remove: Many = (), place: Place = HERE) -> None:
    """Change which groups a user belongs to.

    Args:
        name: alice, or physics/alice.
        add: a group; may be given several times.
        remove: a group; may be given several times.
        place: which installation.
    """
    config = place.load()
    wanted = parse_user(name, config)
    joined, left = parse_groups(add), parse_groups(remove)
    if not joined | left or joined & left:
        raise usage("say which groups to --add and which to --remove, and no group twice")
    with place.open_store(config) as store:
        before = store.users.get(wanted.tenant, wanted.name)
        user = store.users.change(
            wanted.tenant, wanted.name, lambda user: attrs.evolve(user, groups=(user.groups | joined) - left)
        )
        note_lonely(joined - before.groups, wanted.tenant, config, store, [wanted.name])
    say(f"user {wanted.owner} changed, groups: {', '.join(sorted(user.groups)) or 'none'}")
    for other in sorted(left - before.groups):
        warn(f"{wanted.owner} was not in the group {other}")
    tenant = config.tenants()[wanted.tenant]
    if tenant.proxy_group in left and tenant.nonmembers == "refuse":
        warn(f"{wanted.owner} cannot log in any more: {tenant.proxy_group} is the group of those who may")


@app.command(help_epilogue="Example: `trioproxy user remove alice`")
def remove(name: str, /, *, place: Place = HERE) -> None:
    """Remove a user with the rules and limits of the user's own layer, and end the user's sessions.

    Blocks of the name stay: whoever gets it next is blocked, too.

    Args:
        name: alice, or physics/alice.
        place: which installation.
    """
    config = place.load()
    wanted = parse_user(name, config)
    with place.open_store(config) as store, store.together():
        limits = [party for party in store.limits.all(wanted.tenant) if party.scope == wanted]
        rules = store.users.remove(wanted.tenant, wanted.name)
        blocks = blocks_of(wanted, store.blocks.all())
    say(f"user {wanted.owner} removed, with {count(rules, 'rule')}{' and the limits' if limits else ''}")
    for block in blocks:
        if block.subject.user is not None:
            warn(f"{block} stays, for whoever gets the name; `trioproxy block remove {block.id}` lifts it")


def _change(name: str, place: Place, change: Callable[[LocalUser], LocalUser], done: str) -> None:
    config = place.load()
    wanted = parse_user(name, config)
    with place.open_store(config) as store:
        store.users.change(wanted.tenant, wanted.name, change)
    say(f"user {wanted.owner} {done}")


def _check_validity(begin: datetime | None, end: datetime | None, zone: tzinfo) -> None:
    if begin is not None and end is not None and begin >= end:
        raise Failure(
            f"valid from {show_moment(begin, zone)} until {show_moment(end, zone)} is never: the end comes first"
        )


def _note_past(end: datetime | None, zone: tzinfo) -> None:
    if end is not None and end <= datetime.now(UTC):
        warn(f"that is over already: {show_moment(end, zone)}")


def _new_password(source: PasswordSource) -> str:
    if source.generate:
        if source.password_stdin:
            raise usage("--generate and --password-stdin exclude each other")
        return make_password()
    return read_password(stdin=source.password_stdin, repeat=True)


def _show_generated(source: PasswordSource, secret: str) -> None:
    if source.generate:
        say(f"password: {secret}")
