"""`trioproxy user list` and `trioproxy user show`."""

from datetime import UTC, datetime, tzinfo
from typing import Annotated

from cyclopts import Parameter

from auth import Identity
from auth.local import LocalUser
from trioproxy.cli.accounts import (
    blocks_of,
    describe,
    limit_lines,
    limits_as_json,
    obstacles,
    owner,
    show_end,
    state,
)
from trioproxy.cli.block import describe_block
from trioproxy.cli.moments import show_moment, show_sources
from trioproxy.cli.output import say, show_json, show_table, usage
from trioproxy.cli.place import HERE, Place, parse_user, select_tenant
from trioproxy.config import Config, build_zones
from trioproxy.policy.hours import TimeZones
from trioproxy.policy.limits import LimitBook

__all__ = ["list_users", "show"]


def list_users(
    *,
    tenant: str | None = None,
    all_tenants: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    place: Place = HERE,
) -> None:
    """List the local users of one tenant.

    Args:
        tenant: whose users; by default those of the tenant main.
        all_tenants: those of every tenant.
        as_json: print JSON.
        place: which installation.
    """
    config = place.load()
    if tenant is not None and all_tenants:
        raise usage("--tenant and --all-tenants exclude each other")
    wanted = None if all_tenants else select_tenant(tenant, config)
    with place.open_store(config) as store:
        users = store.users.all(wanted)
    now, zones = datetime.now(UTC), build_zones(config)
    if as_json:
        show_json([describe(user, _proxy_group(user, config), now) for user in users])
    elif users:
        show_table(
            ["NAME", "STATE", "GROUPS", "VALID UNTIL", "FROM"], [_row(user, config, zones, now) for user in users]
        )
    else:
        say("no local users" if wanted is None else f"no local users in tenant {wanted}")


def show(name: str, /, *, as_json: Annotated[bool, Parameter(name="--json")] = False, place: Place = HERE) -> None:
    """Show one user, why a login would be refused, blocks, limits, and the rules of the user's own layer.

    Args:
        name: alice, or physics/alice.
        as_json: print JSON.
        place: which installation.
    """
    config = place.load()
    wanted = parse_user(name, config)
    with place.open_store(config) as store:
        user = store.users.get(wanted.tenant, wanted.name)
        rules = store.rules.of(wanted)
        blocks = blocks_of(wanted, store.blocks.all())
        limits = LimitBook(store.limits.all(wanted.tenant) | store.limits.all(""))
    identity = Identity(user.tenant, user.name, user.groups)
    proxy_group, now = _proxy_group(user, config), datetime.now(build_zones(config).of(user.tenant))
    if as_json:
        show_json(
            describe(user, proxy_group, now)
            | {"obstacles": obstacles(user, proxy_group, now)}
            | {"blocks": list(map(describe_block, blocks)), "limits": limits_as_json(limits, identity)}
            | {"rules": [{"id": rule.id, "rule": rule.text} for rule in rules]}
        )
        return
    lines = list(limit_lines(limits, identity))
    say(
        f"user    {owner(user)} (tenant {user.tenant})",
        f"state   {state(user, proxy_group, now)}{', blocked' if blocks else ''}",
        f"groups  {', '.join(sorted(user.groups)) or 'none'}",
        f"valid   {_validity(user, now.tzinfo)}",
        f"from    {show_sources(user.sources)}",
        *(f"        {sentence}" for sentence in obstacles(user, proxy_group, now)),
        *(f"        every request is refused by {block} ({show_end(block)})" for block in blocks),
        f"limits  {'' if lines else 'none but those of the configuration'}".rstrip(),
        *(f"        {line}" for line in lines),
        f"rules   {len(rules) or 'none'}",
        *(f"        {rule.id:>4}  {rule.text}" for rule in rules),
    )


def _proxy_group(user: LocalUser, config: Config) -> str:
    tenant = config.tenants().get(user.tenant)
    return tenant.proxy_group if tenant is not None else ""  # a tenant that the configuration does not name any more


def _validity(user: LocalUser, zone: tzinfo | None) -> str:
    begin = [f"from {show_moment(user.valid_from, zone)}"] if user.valid_from else []
    end = [f"until {show_moment(user.valid_until, zone)}"] if user.valid_until else []
    return " ".join(begin + end) or "always"


def _row(user: LocalUser, config: Config, zones: TimeZones, now: datetime) -> list[str]:
    return [
        owner(user),
        state(user, _proxy_group(user, config), now),
        ", ".join(sorted(user.groups)),
        show_moment(user.valid_until, zones.of(user.tenant)) or "-",
        show_sources(user.sources),
    ]
