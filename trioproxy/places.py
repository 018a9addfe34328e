"""Where a session counts: among the sessions of its user, of those it shares a limit with, and for its command."""

import sys
from collections.abc import Hashable, Iterable
from typing import Final

from auth import Identity
from trioproxy.limits import Occupancy
from trioproxy.policy import Scope
from trioproxy.protocol import Command
from trioproxy.services import Services

__all__ = ["Places"]

_NOWHERE: Final[list[tuple[Occupancy, Hashable]]] = []  # never written to


class Places:
    """The places of one session."""

    __slots__ = ("_services", "_taken")

    def __init__(self, services: Services) -> None:
        self._services = services
        self._taken = _NOWHERE

    def enter(self, identity: Identity, owner: Hashable, command: Command) -> bool:
        """Take all that this request needs, or none; False: there was no room. Who got them must `leave`.

        Args:
            identity: whose session it is; it says with whom it shares.
            owner: whose limits count.
            command: of the request.
        """
        services = self._services
        limit = services.rulebook.limits.each(identity).limit
        self._taken = []
        taken = self._take(services.sessions, owner, limit.sessions)
        for scope, most in self._shared(identity):
            taken = taken and self._take(services.shared_sessions, scope, most)
        if command is Command.BIND:
            taken = taken and self._take(services.binds, owner, limit.binds)
        elif command is Command.UDP_ASSOCIATE:
            taken = taken and self._take(services.associations, owner, limit.associations)
        if not taken:
            self.leave()
        return taken

    def count(self, identity: Identity) -> None:
        """Limits have changed: a session that runs already counts for new ones, and none ends for it."""
        shared = self._services.shared_sessions
        for scope, _ in self._shared(identity) if self._taken else ():
            if (shared, scope) not in self._taken:
                self._take(shared, scope, sys.maxsize)

    def leave_listening(self) -> None:
        """Nobody waits for a target any more: from now on it is a session like any other."""
        listening = [taken for taken in self._taken if taken[0] is self._services.binds]
        for places, key in listening:
            places.leave(key)
            self._taken.remove((places, key))

    def leave(self) -> None:
        """Give back what was taken."""
        for places, key in self._taken:
            places.leave(key)
        self._taken = _NOWHERE

    def _take(self, places: Occupancy, key: Hashable, most: int | None) -> bool:
        entered = places.enter(key, most)
        if entered:
            self._taken.append((places, key))
        return entered

    def _shared(self, identity: Identity) -> Iterable[tuple[Scope, int]]:
        """With whom it shares, and how many sessions they may have together."""
        together = self._services.rulebook.limits.together(identity)
        return [(scope, limit.sessions) for scope, limit in together if limit.sessions is not None]
