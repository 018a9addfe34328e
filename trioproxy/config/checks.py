"""What no single value shows: the second pass over a configuration whose values are each right by themselves."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from auth.local import BackendContext
from auth.names import canonical_group, canonical_tenant
from auth.registry import BackendError, build
from trioproxy.config.model import KEYS_OF_MAIN, Config, Listener, Tenant
from trioproxy.policy.scope import DEFAULT_TENANT

__all__ = ["check", "join"]

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_BACKEND_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", re.ASCII)  # stands in logs and records


def join(path: str, key: str) -> str:
    """The path of a key; quoted as in TOML unless it is a plain word, so that an error is always one line."""
    word = key if _BARE_KEY.fullmatch(key) else json.dumps(key)
    return f"{path}.{word}" if path else word


def check(config: Config, broken: frozenset[str]) -> Iterator[str]:
    """All faults, each "path: message".

    Args:
        config: what was read; defaults stand for the sections that are broken.
        broken: names of these sections. A check that needs one of them is left out, or it would complain of defaults.
    """
    for sections, look in _CHECKS:
        if broken.isdisjoint(sections):
            yield from look(config)


def _check_listeners(config: Config) -> Iterator[str]:
    if not config.listener:
        yield "listener: at least one is needed"
    for index, listener in enumerate(config.listener):
        if listener.anonymous and not listener.address.host.is_loopback and not listener.anonymous_beyond_loopback:
            yield (
                f"listener[{index}].anonymous: this lets everybody who reaches {listener.address} in without login;"
                " say anonymous_beyond_loopback = true as well if that is meant"
            )
        if max(Counter(address.version for address in listener.advertise).values(), default=0) > 1:
            yield f"listener[{index}].advertise: one IPv4 and one IPv6 address at most"
        for earlier, other in enumerate(config.listener[:index]):
            if _overlap(listener, other):
                yield f"listener[{index}].address: {listener.address} is taken by listener[{earlier}] already"


def _overlap(one: Listener, other: Listener) -> bool:
    a, b = one.address, other.address
    if a.port != b.port or a.port == 0 or a.host.version != b.host.version:
        return False
    return a.host == b.host or a.host.is_unspecified or b.host.is_unspecified


def _check_listener_tenants(config: Config) -> Iterator[str]:
    tenants = config.tenants()
    known = ", ".join(join("", name) for name in sorted(tenants))
    for index, listener in enumerate(config.listener):
        if listener.tenant not in tenants:
            yield f"listener[{index}].tenant: there is no tenant {listener.tenant!r}, only {known}"


def _check_tenants(config: Config) -> Iterator[str]:
    taken: dict[str, str] = {}
    for name, tenant in config.tenant.items():
        path = join("tenant", name)
        try:
            if canonical_tenant(name) != name:
                yield f"{path}: write {canonical_tenant(name)!r}, the name of a tenant is lower-case"
        except ValueError as error:
            yield f"{path}: {error}"
        yield from _check_group(f"{path}.proxy_group", tenant.proxy_group)
        for index, realm in enumerate(tenant.realms):
            if not realm or "@" in realm or realm != realm.lower() or " " in realm or not realm.isprintable():
                yield f"{path}.realms[{index}]: {realm!r} is not what may stand behind an @, in lower case"
            elif realm in taken:
                yield f"{path}.realms[{index}]: {realm!r} is a realm of tenant {taken[realm]!r} already"
            taken.setdefault(realm, name)
    main, defaults = config.tenant.get(DEFAULT_TENANT), Tenant()
    if main is not None and any(getattr(main, key) != getattr(defaults, key) for key in KEYS_OF_MAIN):
        yield f"tenant.{DEFAULT_TENANT}: {', '.join(KEYS_OF_MAIN)} of this tenant belong in [auth]"


def _check_group(path: str, name: str) -> Iterator[str]:
    try:
        if canonical_group(name) != name:
            yield f"{path}: write {canonical_group(name)!r}, the name of a group is lower-case"
    except ValueError as error:
        yield f"{path}: {error}"


def _check_auth(config: Config) -> Iterator[str]:
    yield from _check_group("auth.proxy_group", config.auth.proxy_group)
    local = config.auth.tables.get("local")
    if local is not None and local.type != "local":
        yield "auth.local.type: the backend 'local' is the tenant's own users; call this one otherwise"
    for name, table in config.auth.tables.items():
        if not _BACKEND_NAME.fullmatch(name):
            yield f"{join('auth', name)}: the name of a backend is up to 63 letters, digits, '_' and '-'"
            continue
        try:
            # A backend is constructed without side effects; this one is never opened.
            build(name, table.type, table.settings, BackendContext(find_user=lambda _tenant, _name: None))
        except BackendError as error:
            yield from error.problems


def _check_backends(config: Config) -> Iterator[str]:
    known = {"local", *config.auth.tables}
    chains = {"auth": config.auth.backends}
    chains |= {
        join("tenant", name): tenant.backends for name, tenant in config.tenant.items() if name != DEFAULT_TENANT
    }
    for path, backends in chains.items():
        if not backends:
            yield f"{path}.backends: at least one is needed, or nobody could log in"
        for index, name in enumerate(backends):
            if name not in known:
                yield f"{path}.backends[{index}]: there is no table [{join('auth', name)}]"
            if name in backends[:index]:
                yield f"{path}.backends[{index}]: {name!r} is listed twice"


def _check_deadline(config: Config) -> Iterator[str]:
    if config.auth.deadline_s > config.limits.handshake_s:
        yield (
            f"auth.deadline_s: {config.auth.deadline_s:g} is never reached,"
            f" limits.handshake_s ends the connection after {config.limits.handshake_s:g} s"
        )


def _check_store(config: Config) -> Iterator[str]:
    # The URL is not repeated: that of a database server holds a password.
    if config.store.url is not None and not config.store.url.startswith("sqlite:///"):
        yield 'store.url: only SQLite is supported yet, e.g. "sqlite:////var/lib/trioproxy/trioproxy.db"'


_CHECKS: Final[tuple[tuple[tuple[str, ...], Callable[[Config], Iterator[str]]], ...]] = (
    (("listener",), _check_listeners),
    (("listener", "tenant", "auth"), _check_listener_tenants),
    (("tenant",), _check_tenants),
    (("auth",), _check_auth),
    (("auth", "tenant"), _check_backends),
    (("auth", "limits"), _check_deadline),
    (("store",), _check_store),
)
