"""How fast, how much and how many, for whom: canonical texts, one for each party."""

from collections.abc import Callable, Mapping

from trioproxy.policy.limits import Limit, Party, check_limit
from trioproxy.policy.scope import Scope, ScopeKind
from trioproxy.store.database import Database
from trioproxy.store.errors import EntryError, StoreError
from trioproxy.store.rules import listing_order

__all__ = ["Limits", "party_order"]


def party_order(party: Party) -> tuple[object, ...]:
    """Sorts limits for people: as layers are, what each has before what they share."""
    return (*listing_order(party.scope), party.together)


class Limits:
    """The limits of a store. A party without any limit is one that is not there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, tenant: str | None = None) -> dict[Party, Limit]:
        """All limits, in `party_order`.

        Args:
            tenant: only those of this tenant, without the global ones; None: everything.

        Raises:
            StoreError: the store cannot be read, or holds a limit that another version or a hand wrote.
        """
        found = {}
        for kind, owner, name, together, text in self._database.rows(
            "SELECT kind, tenant, name, together, content FROM limits"
        ):
            if tenant is None or owner == tenant:
                party = Party(Scope(ScopeKind(kind), owner, name), bool(together))
                try:
                    found[party] = _read(party, text)
                except ValueError as error:
                    # Nobody knows what it would have limited; so nothing is put in force until somebody has looked.
                    raise StoreError(
                        f"{self._database.path}: the limit for {party} cannot be read: {error};"
                        " `trioproxy limit remove` removes it"
                    ) from error
        return {party: found[party] for party in sorted(found, key=party_order)}

    def change(self, party: Party, change: Callable[[Limit], Limit]) -> Limit:
        """Change the limit of one party.

        Args:
            party: whom it is for.
            change: is given the limit as stored, an empty one if there is none, and returns it as wanted.

        Returns:
            The limit as stored now; one that limits nothing is not kept.

        Raises:
            ValueError: it cannot be for this party.
            StoreError: the store cannot be written.
        """
        with self._database.writing():
            before = self.all().get(party, Limit())
            after = change(before)
            check_limit(party, after)
            if after != before:
                self._write(party, after)
        return after

    def remove(self, party: Party) -> str:
        """Remove the limit of one party.

        Returns:
            Its text.

        Raises:
            EntryError: there is none.
            StoreError: the store cannot be written.
        """
        with self._database.writing():
            found = self._database.rows(
                "SELECT content FROM limits WHERE kind = ? AND tenant = ? AND name = ? AND together = ?", _key(party)
            )
            if not found:
                raise EntryError(f"there is no limit for {party}")
            self._delete(party)
        return str(found[0][0])

    def replace(self, wanted: Mapping[Party, Limit], tenant: str | None = None) -> None:
        """Make the limits exactly these, in one step.

        Args:
            wanted: parties that are missing here lose their limits.
            tenant: touch nothing but this tenant; None: everything.

        Raises:
            ValueError: a limit cannot be for its party, or a party is not of this tenant.
            StoreError: the store cannot be written; nothing was changed.
        """
        for party, limit in wanted.items():
            if tenant is not None and party.scope.tenant != tenant:
                raise ValueError(f"{party.scope} does not belong to tenant {tenant}")
            check_limit(party, limit)
        with self._database.writing():
            present = self.all(tenant)
            for party in present.keys() | wanted.keys():
                limit = wanted.get(party, Limit())
                if limit != present.get(party):
                    self._write(party, limit)

    def _write(self, party: Party, limit: Limit) -> None:
        self._delete(party)
        if limit != Limit():
            self._database.run(
                "INSERT INTO limits (kind, tenant, name, together, content) VALUES (?, ?, ?, ?, ?)",
                (*_key(party), str(limit)),
            )

    def _delete(self, party: Party) -> None:
        self._database.run(
            "DELETE FROM limits WHERE kind = ? AND tenant = ? AND name = ? AND together = ?", _key(party)
        )


def _read(party: Party, text: str) -> Limit:
    limit = Limit.parse(text)
    check_limit(party, limit)
    return limit


def _key(party: Party) -> tuple[str, str, str, int]:
    return (party.scope.kind.value, party.scope.tenant, party.scope.name, int(party.together))
