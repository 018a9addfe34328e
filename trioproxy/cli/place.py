"""Which installation a command is about: its configuration, its store, and the names of its users and tenants."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import attrs
from cyclopts import Parameter, Token
from platformdirs import user_data_path

from auth.names import canonical_group
from trioproxy.cli.output import Failure, warn
from trioproxy.config import Config, load_config
from trioproxy.policy.scope import DEFAULT_TENANT, Scope, ScopeKind
from trioproxy.store import Store, path_from_url

__all__ = [
    "HERE",
    "RECORDS_FILE",
    "Place",
    "check_tenant",
    "note_lonely",
    "note_nobody",
    "parse_groups",
    "parse_scope",
    "parse_user",
    "select_tenant",
]

STORE_FILE: Final = "trioproxy.db"
RECORDS_FILE: Final = "records.jsonl"

_NAMED_MAX: Final = 10  # names in one note: an import may bring thousands
_NOBODY: Final = {
    ScopeKind.USER: "there is no local user",
    ScopeKind.GROUP: "no local user is in the group",
}


def _path(_: type, tokens: Sequence[Token]) -> Any:  # noqa: ANN401 - as the library wants it
    # An empty environment variable is one that is not set, and not the current folder.
    return Path(tokens[0].value) if tokens[0].value else None


@Parameter(name="*")
@attrs.frozen
class Place:
    """The options that every command has.

    Attributes:
        config: the configuration file; without one, the defaults hold.
        data_dir: where the store is, unless the configuration says it; by default in your data folder.
    """

    config: Annotated[Path | None, Parameter(env_var="TRIOPROXY_CONFIG", converter=_path)] = None
    data_dir: Annotated[Path | None, Parameter(env_var="TRIOPROXY_DATA_DIR", converter=_path)] = None

    def load(self) -> Config:
        """The configuration.

        Raises:
            ConfigError: with everything that is wrong with it.
        """
        return load_config(self.config)

    def folder(self) -> Path:
        """The data folder; it need not be there yet."""
        return self.data_dir if self.data_dir is not None else user_data_path("trioproxy")

    def store_path(self, config: Config) -> Path:
        """The file of the store.

        Raises:
            StoreError: the configuration names a kind of store that is not supported.
        """
        path = self.folder() / STORE_FILE if config.store.url is None else path_from_url(config.store.url)
        return path.absolute()  # whoever reads a relative one in a message does not know where this process stands

    def open_store(self, config: Config, *, create: bool = False) -> Store:
        """Open the store of this installation.

        Raises:
            StoreError: it cannot be used.
        """
        return Store.open(self.store_path(config), create=create)


HERE: Final = Place()  # the default of a parameter, so that functions can be called without one


def parse_user(text: str, config: Config) -> Scope:
    """Whose layer `alice` or `physics/alice` is; a `Scope` holds the tenant and the name.

    Raises:
        Failure: it is no name, or there is no such tenant.
    """
    return parse_scope(f"{ScopeKind.USER.value}:{text}", config)


def parse_scope(text: str, config: Config) -> Scope:
    """A layer as it is written on the command line.

    Raises:
        Failure: it is none, or there is no such tenant.
    """
    try:
        scope = Scope.parse(text)
    except ValueError as error:
        raise Failure(str(error)) from error
    if scope.tenant:
        check_tenant(scope.tenant, config)
    return scope


def check_tenant(tenant: str, config: Config) -> None:
    """Is there such a tenant?

    Raises:
        Failure: there is none; it lists those there are.
    """
    if tenant not in config.tenants():
        raise Failure(
            f"there is no tenant {tenant!r}, only {', '.join(sorted(config.tenants()))}"
            " (tenants are tables [tenant.NAME] of the configuration file)"
        )


def parse_groups(names: Sequence[str]) -> frozenset[str]:
    """Canonical names of groups.

    Raises:
        Failure: one of them can be no name.
    """
    try:
        return frozenset(canonical_group(name) for name in names)
    except ValueError as error:
        raise Failure(str(error)) from error


def select_tenant(tenant: str | None, config: Config) -> str:
    """The tenant that `--tenant` names; without it, that of a site with one organisation.

    Raises:
        Failure: there is no such tenant.
    """
    check_tenant(tenant or DEFAULT_TENANT, config)
    return tenant or DEFAULT_TENANT


def note_nobody(scopes: Collection[Scope], config: Config, store: Store) -> None:
    """A name that nobody has is most often a typing mistake; but another backend may know it."""
    tenants = config.tenants()
    asked = [
        scope
        for scope in scopes
        if scope.kind in (ScopeKind.USER, ScopeKind.GROUP) and tenants[scope.tenant].backends == ("local",)
    ]
    known = {scope for tenant in {scope.tenant for scope in asked} for scope in _known(tenant, store)}
    for kind, words in _NOBODY.items():
        names = [scope.owner for scope in asked if scope.kind is kind and scope not in known]
        if names:
            more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
            warn(f"{words} {', '.join(names[:_NAMED_MAX])}{more}; a typing mistake?")


def note_lonely(
    groups: frozenset[str], tenant: str, config: Config, store: Store, members: Collection[str] = ()
) -> None:
    """A group that has no members but these and that no rule is about is most often a typing mistake, too.

    Args:
        groups: canonical names.
        tenant: whose.
        config: says whether a directory may know them.
        store: has the users, rules and limits.
        members: who has just come into the groups.
    """
    others = {scope for scope in _known(tenant, store, but=members) if scope.kind is ScopeKind.GROUP}
    spoken_of = {*store.rules.all(tenant), *(party.scope for party in store.limits.all(tenant)), *others}
    tenant_table = config.tenants()[tenant]
    lonely = [
        group
        for group in sorted(groups - {tenant_table.proxy_group})
        if Scope(ScopeKind.GROUP, tenant, group) not in spoken_of
    ]
    if lonely and tenant_table.backends == ("local",):
        warn(f"nobody else is in the group {', '.join(lonely)}, and no rule is about it; a typing mistake?")


def _known(tenant: str, store: Store, but: Collection[str] = ()) -> Iterator[Scope]:
    """The local users of a tenant, but for some, and their groups."""
    for user in store.users.all(tenant):
        if user.name in but:
            continue
        yield Scope(ScopeKind.USER, tenant, user.name)
        yield from (Scope(ScopeKind.GROUP, tenant, name) for name in user.groups)
