"""Local users and their groups, in every tenant."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import attrs

from auth.local import LocalUser
from trioproxy.policy.scope import Scope, ScopeKind
from trioproxy.store.database import Database
from trioproxy.store.errors import EntryError
from trioproxy.store.moments import end_of, text_of

__all__ = ["Users"]

_COLUMNS: Final = "tenant, name, password_hash, disabled, valid_from, valid_until, sources, epoch"

_EPOCH_BYTES: Final = 16  # by chance never the same twice, also after a backup was restored: a counter would go back


class Users:
    """The users of a store. Names are canonical; tenants never mix."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, tenant: str, name: str) -> LocalUser | None:
        """One user, or None.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._database.reading():
            return self._find(tenant, name)

    def get(self, tenant: str, name: str) -> LocalUser:
        """One user who must be there.

        Raises:
            EntryError: there is no such user.
            StoreError: the store cannot be read.
        """
        user = self.find(tenant, name)
        if user is None:
            raise _no_such_user(tenant, name)
        return user

    def all(self, tenant: str | None = None) -> list[LocalUser]:
        """The users of one tenant (None: of all), by tenant and name.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._database.reading():
            return self._read_all(tenant)

    def add(self, users: Sequence[LocalUser], *, update: bool = False) -> int:
        """Add users, all or none. Their `epoch` is chosen here.

        Args:
            users: of any tenants.
            update: who is there already gets the new password, and nothing else; otherwise that is an error.

        Returns:
            How many were there already.

        Raises:
            EntryError: some are there already; nothing was changed.
            StoreError: the store cannot be written; nothing was changed.
        """
        with self._database.writing():
            present = {(user.tenant, user.name): user for user in self.all()}
            known = sorted(_owner(*key) for user in users if (key := (user.tenant, user.name)) in present)
            if known and not update:
                raise EntryError(f"there already: user {', '.join(known)}")
            for user in users:
                before = present.get((user.tenant, user.name), user)
                self._write(attrs.evolve(before, password_hash=user.password_hash, epoch=_new_epoch()))
            return len(known)

    def change(self, tenant: str, name: str, change: Callable[[LocalUser], LocalUser]) -> LocalUser:
        """Change one user.

        A new password, disabling and other sources give the user a new epoch, which ends the live sessions.

        Args:
            tenant: whose user it is.
            name: of the user.
            change: is given the user as stored and returns it as wanted; the name stays what it is.

        Returns:
            The user as stored now.

        Raises:
            EntryError: there is no such user.
            StoreError: the store cannot be written.
        """
        with self._database.writing():
            before = self._find(tenant, name)
            if before is None:
                raise _no_such_user(tenant, name)
            after = change(before)
            if after != before:
                after = attrs.evolve(after, epoch=_new_epoch() if _ends_sessions(before, after) else before.epoch)
                self._write(after)
            return after

    def rehash(self, user: LocalUser, new_hash: str) -> None:
        """Keep the same password under another hash; live sessions go on.

        Nothing happens if the user has another password by now, or is gone.

        Raises:
            StoreError: the store cannot be written.
        """
        with self._database.writing():
            self._database.run(
                "UPDATE local_user SET password_hash = ?"
                " WHERE tenant = ? AND name = ? AND password_hash = ? AND epoch = ?",
                (new_hash, user.tenant, user.name, user.password_hash, user.epoch),
            )

    def remove(self, tenant: str, name: str) -> int:
        """Remove a user with the rules and limits of the user's own; a later user of that name starts with none.

        Blocks stay: whoever gets the name is kept out as long as the one who had it.

        Returns:
            How many rules were removed.

        Raises:
            EntryError: there is no such user.
            StoreError: the store cannot be written.
        """
        with self._database.writing():
            if not self._database.run("DELETE FROM local_user WHERE tenant = ? AND name = ?", (tenant, name)):
                raise _no_such_user(tenant, name)
            key = (ScopeKind.USER.value, tenant, name)
            self._database.run("DELETE FROM limits WHERE kind = ? AND tenant = ? AND name = ?", key)
            return self._database.run("DELETE FROM rule WHERE kind = ? AND tenant = ? AND name = ?", key)

    def _read_all(self, tenant: str | None) -> list[LocalUser]:
        which, parameters = ("WHERE tenant = ?", (tenant,)) if tenant is not None else ("", ())
        groups: dict[tuple[str, str], set[str]] = {}
        for owner, name, group in self._database.rows(
            f"SELECT tenant, user_name, group_name FROM membership {which}",  # noqa: S608 - one of the two texts above
            parameters,
        ):
            groups.setdefault((owner, name), set()).add(group)
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM local_user {which} ORDER BY tenant, name",  # noqa: S608 - as above
            parameters,
        )
        return [_user_of(row, groups.get((row[0], row[1]), ())) for row in rows]

    def _find(self, tenant: str, name: str) -> LocalUser | None:
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM local_user WHERE tenant = ? AND name = ?",  # noqa: S608 - a constant
            (tenant, name),
        )
        groups = self._database.rows(
            "SELECT group_name FROM membership WHERE tenant = ? AND user_name = ?", (tenant, name)
        )
        return _user_of(rows[0], (group for (group,) in groups)) if rows else None

    def _write(self, user: LocalUser) -> None:
        key = (user.tenant, user.name)
        self._database.run("DELETE FROM local_user WHERE tenant = ? AND name = ?", key)  # the groups go with it
        self._database.run(
            f"INSERT INTO local_user ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
            (
                *key,
                user.password_hash or "",
                int(user.disabled),
                text_of(user.valid_from),
                text_of(user.valid_until),
                None if user.sources is None else " ".join(user.sources),
                user.epoch,
            ),
        )
        self._database.run_many(
            "INSERT INTO membership (tenant, user_name, group_name) VALUES (?, ?, ?)",
            [(*key, group) for group in sorted(user.groups)],
        )


def _ends_sessions(before: LocalUser, after: LocalUser) -> bool:
    # Groups and validity are looked at again while a session lives; these are looked at in a login alone.
    return (
        after.password_hash != before.password_hash
        or (after.disabled and not before.disabled)
        or after.sources != before.sources
    )


def _user_of(row: tuple[Any, ...], groups: Iterable[str]) -> LocalUser:
    tenant, name, password_hash, disabled, valid_from, valid_until, sources, epoch = row
    return LocalUser(
        tenant=tenant,
        name=name,
        password_hash=password_hash,
        groups=frozenset(groups),
        disabled=bool(disabled),
        valid_from=end_of(valid_from),
        valid_until=end_of(valid_until),
        sources=None if sources is None else tuple(sources.split()),
        epoch=epoch,
    )


def _new_epoch() -> str:
    return secrets.token_hex(_EPOCH_BYTES)


def _owner(tenant: str, name: str) -> str:
    return Scope(ScopeKind.USER, tenant, name).owner


def _no_such_user(tenant: str, name: str) -> EntryError:
    return EntryError(f"there is no local user {_owner(tenant, name)}")
