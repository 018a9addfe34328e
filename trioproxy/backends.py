"""From the configuration to what checks logins: the backends of every tenant, as chains, behind one authenticator."""

from collections import Counter
from collections.abc import Callable

import attrs

from auth.chain import Chain
from auth.local import BackendContext, LocalUser
from auth.registry import BackendError, build
from auth.throttle import Throttle
from trioproxy.authenticate import AuthenticationLimits, Authenticator
from trioproxy.config import Config

__all__ = ["build_authenticator", "build_chain"]


def build_chain(config: Config, tenant: str, context: BackendContext) -> Chain:
    """The backends of one tenant, not opened yet; each is told the tenant's proxy group.

    Raises:
        BackendError: a backend's table is wrong, or its plug-in is.
    """
    settings = config.tenants()[tenant]
    membership = settings.membership()
    context = attrs.evolve(context, proxy_group=settings.proxy_group, admits_nonmembers=membership.admits_nonmembers)
    backends = []
    for name in settings.backends:
        table = config.auth.tables.get(name)
        backend = build(name, table.type, table.settings, context) if table else build(name, "local", {}, context)
        backends.append((name, backend))
    try:
        return Chain(backends, membership, context.passwords, fall_through=settings.fall_through)
    except ValueError as exc:
        raise BackendError(f"tenant {tenant}: {exc}") from exc


def build_authenticator(
    config: Config,
    find_user: Callable[[str, str], LocalUser | None],
    rehashed: Callable[[LocalUser, str], None],
    counters: Counter[str],
    throttle: Throttle | None = None,
) -> Authenticator:
    """What sessions ask; to be opened before its use.

    Args:
        config: which tenant has which backends.
        find_user: looks a local user up, from any thread.
        rehashed: keeps a better hash of a right password, from any thread.
        counters: of the server.
        throttle: the penalties so far; they outlive a reload.

    Raises:
        BackendError: a backend's table is wrong, or its plug-in is.
    """
    context = BackendContext(find_user=find_user, rehashed=rehashed)
    auth = config.auth
    limits = AuthenticationLimits(
        hash_threads=auth.hash_threads,
        queue_max=auth.hash_queue_max,
        queue_per_source_max=max(1, auth.hash_queue_max // 2),
        deadline_s=auth.deadline_s,
        cache_ttl_s=auth.cache_s,
        cache_entries_max=auth.cache_entries_max,
    )
    chains = {tenant: build_chain(config, tenant, context) for tenant in config.tenants()}
    return Authenticator(chains, settings=limits, counters=counters, throttle=throttle)
