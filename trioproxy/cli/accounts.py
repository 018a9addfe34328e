"""What there is to say about a local user: for listings, and for `rule explain`."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_network

from auth import Identity
from auth.local import LocalUser
from auth.passwords import DEFAULT_PASSWORDS
from trioproxy.cli.moments import show_moment, show_sources
from trioproxy.policy.blocks import Block, BlockKind
from trioproxy.policy.limits import LimitBook
from trioproxy.policy.scope import Scope, ScopeKind

__all__ = ["blocks_of", "describe", "limit_lines", "limits_as_json", "obstacles", "owner", "show_end", "state"]


def owner(user: LocalUser) -> str:
    """`alice` or `physics/alice`."""
    return Scope(ScopeKind.USER, user.tenant, user.name).owner


def state(user: LocalUser, proxy_group: str, now: datetime) -> str:
    """One or two words for a listing."""
    return next((word for word, _ in _findings(user, proxy_group, now)), "active")


def obstacles(
    user: LocalUser, proxy_group: str, now: datetime, source: IPv4Address | IPv6Address | None = None
) -> list[str]:
    """Every reason why a login of this user is refused whatever the password, each with what to do about it.

    Times are told in the zone of `now`.
    """
    found = [sentence for _, sentence in _findings(user, proxy_group, now)]
    if source is not None and user.sources is not None and not _is_inside(source, user.sources):
        found.append(
            f"{owner(user)} may log in from {show_sources(user.sources)} only, not from {source};"
            f" `trioproxy user change {owner(user)} --source NETWORK` changes that"
        )
    return found


def describe(user: LocalUser, proxy_group: str, now: datetime) -> dict[str, object]:
    """All about a user except the password, for JSON."""
    return {
        "tenant": user.tenant,
        "name": user.name,
        "state": state(user, proxy_group, now),
        "groups": sorted(user.groups),
        "disabled": user.disabled,
        "valid_from": user.valid_from.isoformat() if user.valid_from else None,
        "valid_until": user.valid_until.isoformat() if user.valid_until else None,
        "sources": None if user.sources is None else list(user.sources),
    }


def blocks_of(user: Scope, blocks: Iterable[Block]) -> list[Block]:
    """Those in force that keep this user out wherever the user comes from and whatever is asked for."""
    now = datetime.now(UTC)
    return [
        block
        for block in blocks
        if (block.ends_at is None or now < block.ends_at)
        and block.tenant in (None, user.tenant)
        and (block.subject.user == user or block.subject.kind is BlockKind.EVERYTHING)
    ]


def show_end(block: Block) -> str:
    """How long it holds."""
    return f"until {show_moment(block.ends_at)}" if block.ends_at else "until it is removed"


def limit_lines(limits: LimitBook, identity: Identity) -> Iterator[str]:
    """The limits that hold for somebody, and who says so."""
    each = limits.each(identity)
    for key, text in each.limit.texts().items():
        yield f"{key}={text} for each user, says {' with '.join(map(str, each.origins[key]))}"
    for scope, limit in limits.together(identity):
        yield f"{limit} for everybody in {scope} together"


def limits_as_json(limits: LimitBook, identity: Identity) -> dict[str, object]:
    """The same for programs."""
    each = limits.each(identity)
    return {
        "each": [
            {"key": key, "value": text, "scopes": list(map(str, each.origins[key]))}
            for key, text in each.limit.texts().items()
        ],
        "together": [{"scope": str(scope), "limit": limit.texts()} for scope, limit in limits.together(identity)],
    }


def _findings(user: LocalUser, proxy_group: str, now: datetime) -> Iterator[tuple[str, str]]:
    name = owner(user)
    if user.disabled:
        yield "disabled", f"{name} is disabled; `trioproxy user enable {name}` changes that"
    if user.valid_until is not None and now >= user.valid_until:
        yield (
            "expired",
            f"{name} expired on {show_moment(user.valid_until, now.tzinfo)}; see `trioproxy user change --help`",
        )
    if user.valid_from is not None and now < user.valid_from:
        yield "not yet valid", f"{name} is valid from {show_moment(user.valid_from, now.tzinfo)} only"
    if proxy_group not in user.groups:
        yield (
            "no proxy user",
            f"{name} is not a member of {proxy_group}; `trioproxy user group {name} --add {proxy_group}` changes that",
        )
    problem = DEFAULT_PASSWORDS.problem(user.password_hash)
    if problem is not None:
        yield "no password", f"{name} cannot log in, {problem}; `trioproxy user passwd {name}` sets a new password"


def _is_inside(source: IPv4Address | IPv6Address, networks: tuple[str, ...]) -> bool:
    return any(source in ip_network(network) for network in networks)
