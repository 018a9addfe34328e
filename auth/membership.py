"""Who may use the proxy at all: the members of one group, and others only where the configuration lets them."""

import attrs

from auth.backend import Identity
from auth.names import canonical_group

__all__ = ["Membership"]


@attrs.frozen
class Membership:
    """What a tenant says about members of its proxy group and about everybody else.

    Attributes:
        proxy_group: canonical name of the group.
        admits_nonmembers: others may log in too, and then have the global layer of rules alone.

    Raises:
        ValueError: `proxy_group` is no group name.
    """

    proxy_group: str = attrs.field(converter=canonical_group)
    admits_nonmembers: bool = False

    def admit(self, identity: Identity) -> Identity | None:
        """The identity, marked as what it is; None if it may not use the proxy."""
        member = identity.user is None or self.proxy_group in identity.groups
        if not member and not self.admits_nonmembers:
            return None
        return identity if identity.member is member else attrs.evolve(identity, member=member)
