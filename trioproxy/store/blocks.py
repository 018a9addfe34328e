"""What is cut off, until when, by whom and why."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from trioproxy.policy.blocks import REASON_LENGTH_MAX, Block, BlockKind, BlockSubject
from trioproxy.store.database import Database
from trioproxy.store.errors import EntryError
from trioproxy.store.moments import end_of, moment_of, text_of

__all__ = ["StoredBlocks"]

_COLUMNS: Final = "id, tenant, kind, subject, reason, set_by, set_at, ends_at"


class StoredBlocks:
    """The blocks of a store. Those that have ended do nothing any more, and go with the next change of any."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> tuple[Block, ...]:
        """Every block by id; some may have ended.

        Raises:
            StoreError: the store cannot be read.
        """
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM block ORDER BY id")  # noqa: S608 - a constant
        return tuple(map(_block_of, rows))

    def add(
        self,
        subject: BlockSubject,
        *,
        tenant: str | None = None,
        reason: str,
        set_by: str,
        ends_at: datetime | None = None,
    ) -> Block:
        """Cut something off.

        Args:
            subject: what.
            tenant: for whom; None: for the users and clients of every tenant. A user has one already.
            reason: for people, one line.
            set_by: who does it.
            ends_at: aware; None: until it is removed.

        Raises:
            ValueError: the reason is no line of text, or the user is of another tenant.
            StoreError: the store cannot be written.
        """
        _check_reason(reason)
        if subject.user is not None:
            if tenant not in (None, subject.user.tenant):
                raise ValueError(f"user {subject.user.owner} is of tenant {subject.user.tenant}, not of {tenant}")
            tenant = subject.user.tenant
        now = datetime.now(UTC).replace(microsecond=0)
        end = None if ends_at is None else ends_at.astimezone(UTC).replace(microsecond=0)  # as it will be read
        with self._database.writing():
            self._tidy(now)
            block = Block(self._database.next_value("block_id"), subject, tenant, reason, set_by, now, end)
            self._database.run(
                f"INSERT INTO block ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
                (
                    block.id,
                    tenant or "",
                    subject.kind.value,
                    subject.text,
                    reason,
                    set_by,
                    text_of(now),
                    text_of(end),
                ),
            )
        return block

    def remove(self, numbers: Iterable[int]) -> list[Block]:
        """Remove the blocks with these ids, all or none.

        Returns:
            What was removed, by id.

        Raises:
            EntryError: an id is of no block; nothing was removed.
            StoreError: the store cannot be written.
        """
        wanted = set(numbers)
        with self._database.writing():
            removed = [block for block in self.all() if block.id in wanted]
            missing = wanted - {block.id for block in removed}
            if missing:
                raise EntryError(f"there is no block {', '.join(map(str, sorted(missing)))}; it may have ended")
            self._database.run_many("DELETE FROM block WHERE id = ?", [(number,) for number in wanted])
            self._tidy(datetime.now(UTC))
        return removed

    def _tidy(self, now: datetime) -> None:
        self._database.run("DELETE FROM block WHERE ends_at <= ?", (text_of(now),))


def _check_reason(reason: str) -> None:
    if not reason.strip() or not reason.isprintable() or len(reason) > REASON_LENGTH_MAX:
        raise ValueError(f"a reason is one line of 1 to {REASON_LENGTH_MAX} characters")


def _block_of(row: tuple[Any, ...]) -> Block:
    number, tenant, kind, subject, reason, set_by, set_at, ends_at = row
    try:
        what = BlockSubject.parse(BlockKind(kind), subject)
    except ValueError as error:
        # As with a rule that cannot be read: nobody knows whom it would keep out.
        what = BlockSubject(BlockKind.EVERYTHING)
        reason = f"it cannot be read, so everything is blocked: {error}"
    return Block(number, what, tenant or None, reason, set_by, moment_of(set_at), end_of(ends_at))
