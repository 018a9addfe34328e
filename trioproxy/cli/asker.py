"""Who asks, for `rule explain`: as the store says, or the first other backend that knows the name."""

from contextlib import ExitStack
from datetime import datetime
from typing import Final, assert_never

import attrs
from cyclopts import Parameter

from auth import Answer, Identity, Rejected, Rejection, Unavailable
from auth.chain import Chain
from auth.local import BackendContext, LocalUser
from auth.registry import BackendError
from trioproxy.cli.accounts import obstacles
from trioproxy.cli.output import Failure
from trioproxy.cli.place import parse_groups, parse_user, select_tenant
from trioproxy.config import Config, build_zones
from trioproxy.policy import IPAddress, Scope
from trioproxy.store import Snapshot

__all__ = ["NOBODY", "Who", "identify"]

_UNKNOWN: Final = Rejected(Rejection.UNKNOWN_USER)


@Parameter(name="*")
@attrs.frozen
class Who:
    """Who asks; one of `user` and `anonymous`.

    Attributes:
        user: alice, or physics/alice.
        group: count the user in this group as well; may be given several times.
        anonymous: a client without login.
        tenant: the tenant of a client without login; by default main.
    """

    user: str | None = None
    group: tuple[str, ...] = ()
    anonymous: bool = False
    tenant: str | None = None


NOBODY: Final = Who()


def identify(who: Who, client: IPAddress, config: Config, snapshot: Snapshot) -> tuple[Identity, list[str]]:
    """The identity, and why it would not even get past the login.

    Raises:
        Failure: what was said is no name, or a backend cannot tell whose name it is.
    """
    if who.user is None:
        return _anonymous(select_tenant(who.tenant, config), config)
    wanted = parse_user(who.user, config)
    given = parse_groups(who.group)
    backend, found = _find(wanted, config, snapshot.users.get((wanted.tenant, wanted.name)))
    match found:
        case LocalUser():
            return _local(attrs.evolve(found, groups=found.groups | given), client, config)
        case Identity():
            return _of_backend(attrs.evolve(found, groups=found.groups | given), wanted, config)
        case Unavailable(problem):
            # Without the groups and rules of the user every answer would be a guess.
            raise Failure(
                f"{backend} cannot tell who {wanted.owner} is: {problem}",
                f"  `trioproxy auth test {wanted.owner}` shows each step",
            )
        case Rejected(reason):
            refused = _unknown(wanted, config) if found == _UNKNOWN else f"{backend} says: {reason.value}"
            return Identity(wanted.tenant, wanted.name, given), [refused]
        case _:
            assert_never(found)


def _unknown(wanted: Scope, config: Config) -> str:
    backends = config.tenants()[wanted.tenant].backends
    local = any(backend in config.local_backends() for backend in backends)
    advice = f"; `trioproxy user add {wanted.owner}` adds one" if local else ""
    return f"there is no user {wanted.owner}{advice}"


def _anonymous(tenant: str, config: Config) -> tuple[Identity, list[str]]:
    if any(listener.anonymous and listener.tenant == tenant for listener in config.listener):
        return Identity(tenant, None), []
    return Identity(tenant, None), [
        f"no listener of tenant {tenant} lets clients in without login; `anonymous = true` would"
    ]


def _find(wanted: Scope, config: Config, user: LocalUser | None) -> tuple[str, LocalUser | Answer]:
    """Who the first backend that knows the name says it is, and which one that is."""
    with ExitStack() as stack:
        chain = None
        for backend in config.tenants()[wanted.tenant].backends:
            if backend in config.local_backends():
                if user is not None:
                    return backend, user
                continue
            # Not before it is needed: what is asked about local users must not wait for a directory.
            chain = chain or _open_chain(wanted.tenant, config, stack)
            answer = chain.find(wanted.tenant, wanted.name, backend)
            if answer != _UNKNOWN:
                return backend, answer
    return "", _UNKNOWN


def _open_chain(tenant: str, config: Config, stack: ExitStack) -> Chain:
    from trioproxy.backends import build_chain  # noqa: PLC0415 - loads Trio

    try:
        chain = build_chain(config, tenant, BackendContext(find_user=lambda _tenant, _name: None))
        chain.open()
    except BackendError as error:
        raise Failure(*error.problems) from error
    except (OSError, ValueError) as error:
        raise Failure(f"a backend of tenant {tenant} cannot be opened: {error}") from error
    stack.callback(chain.close)
    # Groups and rules of somebody who is refused are worth knowing, too; `_of_backend` decides about that.
    chain.membership = attrs.evolve(chain.membership, admits_nonmembers=True)
    return chain


def _local(user: LocalUser, client: IPAddress, config: Config) -> tuple[Identity, list[str]]:
    tenant = config.tenants()[user.tenant]
    admitted = tenant.membership().admit(Identity(user.tenant, user.name, user.groups))
    identity = admitted or Identity(user.tenant, user.name, user.groups)
    if not identity.member:  # let in nevertheless, so that is no obstacle
        user = attrs.evolve(user, groups=user.groups | {tenant.proxy_group})
    return identity, obstacles(user, tenant.proxy_group, datetime.now(build_zones(config).of(user.tenant)), client)


def _of_backend(found: Identity, wanted: Scope, config: Config) -> tuple[Identity, list[str]]:
    tenant = config.tenants()[wanted.tenant]
    admitted = tenant.membership().admit(found)
    if admitted is not None:
        return admitted, []
    # What is said about the rules is what would hold if the user were a member.
    return attrs.evolve(found, member=True), [
        f"{wanted.owner} is not a member of {tenant.proxy_group}, says {found.backend}"
    ]
