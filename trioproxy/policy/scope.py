"""The four kinds of layers a rule may live in, and how they are written."""

import enum
from typing import Self, assert_never

import attrs

from auth import Identity
from auth.names import canonical_group, canonical_tenant, canonical_username

__all__ = ["DEFAULT_TENANT", "Scope", "ScopeKind"]

DEFAULT_TENANT = "main"  # a site with one organisation never meets the word


class ScopeKind(enum.Enum):
    """What a layer belongs to; in the order in which layers are listed."""

    GLOBAL = "global"
    TENANT = "tenant"
    GROUP = "group"
    USER = "user"


@attrs.frozen(order=False)
class Scope:
    """One layer: `global`, `tenant:physics`, `group:physics/staff`, `user:alice` (short for `user:main/alice`).

    Attributes:
        kind: what it belongs to.
        tenant: empty for `global`.
        name: the group or user; empty for `global` and `tenant`.
    """

    kind: ScopeKind
    tenant: str = ""
    name: str = ""

    def __str__(self) -> str:
        return "global" if self.kind is ScopeKind.GLOBAL else f"{self.kind.value}:{self.owner}"

    @property
    def owner(self) -> str:
        """Whose layer it is, without the kind: empty, `physics`, `physics/staff`, or `alice` in the default tenant."""
        match self.kind:
            case ScopeKind.GLOBAL:
                return ""
            case ScopeKind.TENANT:
                return self.tenant
            case ScopeKind.GROUP | ScopeKind.USER:
                return self.name if self.tenant == DEFAULT_TENANT else f"{self.tenant}/{self.name}"
            case _:
                assert_never(self.kind)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form; names come out in their canonical spelling.

        Raises:
            ValueError: it is none of the four forms, or holds what can be no name; the message says what was expected.
        """
        if text == "global":
            return cls(ScopeKind.GLOBAL)
        kind, _, owner = text.partition(":")
        if kind == "tenant":
            return cls(ScopeKind.TENANT, canonical_tenant(owner))
        if kind not in ("group", "user"):
            raise ValueError(
                f"{text!r} is no scope; write global, tenant:NAME, group:NAME or user:NAME (or user:TENANT/NAME)"
            )
        tenant, slash, name = owner.rpartition("/")
        canonical = canonical_username if kind == "user" else canonical_group
        return cls(ScopeKind(kind), canonical_tenant(tenant) if slash else DEFAULT_TENANT, canonical(name))

    @classmethod
    def around(cls, identity: Identity) -> tuple[Self, ...]:
        """Everything that this identity is part of, from the wide to the narrow: whom a rule about it may name."""
        scopes = [cls(ScopeKind.GLOBAL), cls(ScopeKind.TENANT, identity.tenant)]
        scopes += [cls(ScopeKind.GROUP, identity.tenant, group) for group in sorted(identity.groups)]
        if identity.user is not None:
            scopes.append(cls(ScopeKind.USER, identity.tenant, identity.user))
        return tuple(scopes)

    @classmethod
    def layers_of(cls, identity: Identity) -> tuple[Self, ...]:
        """The layers that judge this identity, in the order in which an explanation lists them.

        Somebody who is not in the proxy group has the global layer alone: what is written for a tenant, a group or a
        user is written for those whom the tenant lets use the proxy.
        """
        return cls.around(identity) if identity.member else (cls(ScopeKind.GLOBAL),)
