"""Keeping the rulebook at what the store says: asked several times a second, read in a thread when it has changed."""

import contextlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from trioproxy.log import get_log
from trioproxy.rulebook import Rulebook
from trioproxy.store import Store

__all__ = ["StoreWatch"]

T = TypeVar("T")


class StoreWatch:
    """The store of a running server.

    Args:
        store: closed by `close`.
        counters: `store_failed`, `store_changes`.

    Attributes:
        changing: held while what is in force is replaced: a reload and a changed store must not build on each other's
            past.
    """

    def __init__(self, store: Store, counters: Counter[str]) -> None:
        self.changing = trio.Lock()
        self._store = store
        self._counters = counters
        self._thread = trio.CapacityLimiter(1)  # a connection belongs to one thread at a time
        self._replaced = False  # another file may have the same revision by chance
        self._was_read = trio.Event()  # a new one for each reading
        self._failing = False

    @property
    def path(self) -> Path:
        """The file."""
        return self._store.path

    async def close(self) -> None:
        """Let go of the file."""
        await self._in_thread(self._store.close)

    async def until_read(self, rulebook: Rulebook, revision: int) -> None:
        """Wait until the rulebook has this revision of the store, or a later one."""
        while rulebook.revision < revision:
            await self._was_read.wait()

    async def read_into(self, rulebook: Rulebook) -> frozenset[tuple[str, str]]:
        """Put in force what the store holds; returns the users that have changed.

        Raises:
            StoreError: it cannot be read.
        """
        snapshot = await self._in_thread(self._store.snapshot)
        put_in_force = await self._in_thread(partial(rulebook.prepare, snapshot))
        changed = put_in_force()
        self._was_read.set()
        self._was_read = trio.Event()
        return changed

    async def look(self, rulebook: Rulebook, user_changed: Callable[[str, str], None]) -> bool | None:
        """Take over what has changed.

        Args:
            rulebook: brought up to date.
            user_changed: called with tenant and name of each user that is not what it was.

        Returns:
            Whether something has changed; None if the store cannot be read. Then it is opened anew: perhaps it was
            replaced.
        """
        try:
            async with self.changing:
                changed = await self._take_over(rulebook, user_changed)
        except (OSError, RuntimeError) as exc:  # a StoreError; or no thread could be had
            self._counters["store_failed"] += 1
            if not self._failing:
                get_log().error("the store cannot be read, the last rules stay in force", problem=str(exc))
            self._failing = True
            with contextlib.suppress(RuntimeError):
                await self._in_thread(self._open_again)
            return None
        if self._failing:
            get_log().info("the store can be read again")
            self._failing = False
        return changed

    async def write(self, work: Callable[[Store], T]) -> T:
        """Change something, in the thread.

        Raises:
            StoreError: it cannot be written.
        """
        return await self._in_thread(lambda: work(self._store))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._thread)

    async def _take_over(self, rulebook: Rulebook, user_changed: Callable[[str, str], None]) -> bool:
        revision = await self._in_thread(self._store.revision)
        if revision == rulebook.revision and not self._replaced:
            rulebook.confirm()
            return False
        self._replaced = False
        for tenant, name in await self.read_into(rulebook):
            user_changed(tenant, name)
        self._counters["store_changes"] += 1
        get_log().info("users and rules read again", revision=rulebook.revision)
        return True

    def _open_again(self) -> None:
        """The file was removed, or replaced by a backup: what is there now counts."""
        with contextlib.suppress(OSError):  # said already; the next round tries again
            store = Store.open(self._store.path, create=False)
            self._store.close()
            self._store = store
            self._replaced = True
