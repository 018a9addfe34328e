"""What there is to say about a local user: for listings, and for `rule explain`."""

from collections.abc import Iterator
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_network

from auth.local import LocalUser
from auth.passwords import DEFAULT_PASSWORDS
from trioproxy.cli.moments import show_moment, show_sources
from trioproxy.policy.scope import Scope, ScopeKind

__all__ = ["describe", "obstacles", "owner", "state"]


def owner(user: LocalUser) -> str:
    """`alice` or `physics/alice`."""
    return Scope(ScopeKind.USER, user.tenant, user.name).owner


def state(user: LocalUser, proxy_group: str, now: datetime) -> str:
    """One or two words for a listing."""
    return next((word for word, _ in _findings(user, proxy_group, now)), "active")


def obstacles(
    user: LocalUser, proxy_group: str, now: datetime, source: IPv4Address | IPv6Address | None = None
) -> list[str]:
    """Every reason why a login of this user is refused whatever the password, each with what to do about it."""
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


def _findings(user: LocalUser, proxy_group: str, now: datetime) -> Iterator[tuple[str, str]]:
    name = owner(user)
    if user.disabled:
        yield "disabled", f"{name} is disabled; `trioproxy user enable {name}` changes that"
    if user.valid_until is not None and now >= user.valid_until:
        yield "expired", f"{name} expired on {show_moment(user.valid_until)}; see `trioproxy user change --help`"
    if user.valid_from is not None and now < user.valid_from:
        yield "not yet valid", f"{name} is valid from {show_moment(user.valid_from)} only"
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
