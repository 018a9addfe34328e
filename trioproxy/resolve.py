"""Names to addresses, by the system's resolver in threads of their own, with a short memory.

A thread that waits for a dead name server cannot be stopped, only left alone. So a look-up runs until its thread
ends, whoever asked for it has gone meanwhile or not, and holds its place in the limits for so long; those who wait
for it give up at their own deadline.
"""

import os
import socket
from collections import Counter
from collections.abc import Callable, Hashable
from ipaddress import ip_address
from typing import TypeAlias

import attrs
import trio

from trioproxy.config import Limits
from trioproxy.limits import Occupancy
from trioproxy.policy import IPAddress, canonical_address

__all__ = ["Lookup", "ResolveError", "Resolver", "forget_search_domains", "system_lookup"]

WAITING_PER_THREAD = 16  # a page with names of 100 hosts is no attack
NEGATIVE_CACHE_S = 5.0  # CASES 93: a typo is not asked for again and again, a new name works within seconds
CACHE_ENTRIES_MAX = 10_000  # some 3 MB
ADDRESSES_MAX = 16  # of one name; more are never tried, and each is judged

Lookup: TypeAlias = Callable[[str], list[IPAddress]]


class ResolveError(Exception):
    """The name gave no address. `temporary` if it may do so later (time-out, server failure, too many look-ups)."""

    def __init__(self, problem: str, *, temporary: bool, limit: bool = False) -> None:
        super().__init__(problem)
        self.temporary = temporary
        self.limit = limit


def forget_search_domains() -> None:
    """Make a name mean the same everywhere: the search domains of resolv.conf are not appended to it.

    A dot behind the name would do so too, but then /etc/hosts does not know it. glibc reads the variable when a thread
    first looks something up (resolv.conf(5)), so this belongs to the start of a process.
    """
    os.environ["LOCALDOMAIN"] = ""


def system_lookup(name: str) -> list[IPAddress]:
    """Ask the system's resolver for the addresses of a canonical name. Blocks.

    Raises:
        OSError: it has none, or none could be got.
    """
    rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [canonical_address(ip_address(str(row[4][0]).partition("%")[0])) for row in rows]


@attrs.define(eq=False)
class _Entry:
    """One name: under way until `done` is set, then an answer until `expires_s`."""

    done: trio.Event = attrs.field(factory=trio.Event)
    addresses: tuple[IPAddress, ...] = ()
    problem: str = ""
    temporary: bool = False
    expires_s: float = float("inf")


class Resolver:
    """Looks names up once for all who ask at the same time, and remembers the answers for some seconds."""

    def __init__(
        self, nursery: trio.Nursery, limits: Limits, counters: Counter[str], *, lookup: Lookup = system_lookup
    ) -> None:
        """Look-ups run in `nursery`."""
        self._nursery = nursery
        self._lookup = lookup
        self._counters = counters
        self._entries: dict[str, _Entry] = {}
        self._threads = trio.CapacityLimiter(limits.resolve_threads)
        self._askers = Occupancy("resolve_per_user", counters, each_max=0)
        self._turns: dict[Hashable, trio.Semaphore] = {}
        self.apply(limits)

    def apply(self, limits: Limits) -> None:
        """Take over changed limits."""
        self._limits = limits
        self._threads.total_tokens = limits.resolve_threads
        self._askers.each_max = limits.resolve_per_user_max * WAITING_PER_THREAD

    async def resolve(self, name: str, asker: Hashable) -> tuple[IPAddress, ...]:
        """The addresses of a canonical name, in the resolver's order, at most 16.

        Raises:
            ResolveError: there are none.
        """
        entry = self._entries.get(name)
        if entry is None or entry.expires_s <= trio.current_time():
            entry = self._start(name, asker)
        with trio.move_on_after(self._limits.resolve_s):
            await entry.done.wait()
        if not entry.done.is_set():
            self._counters["resolve_timeout"] += 1
            raise ResolveError("time-out", temporary=True)
        if not entry.addresses:
            raise ResolveError(entry.problem, temporary=entry.temporary)
        return entry.addresses

    def _start(self, name: str, asker: Hashable) -> _Entry:
        if not self._askers.enter(asker):
            raise ResolveError("too many look-ups under way", temporary=True, limit=True)
        self._entries.pop(name, None)
        self._make_room()
        entry = self._entries[name] = _Entry()
        self._nursery.start_soon(self._look_up, name, entry, asker)
        return entry

    def _make_room(self) -> None:
        if len(self._entries) >= CACHE_ENTRIES_MAX:
            # The oldest goes, finished or not: those who wait for it hold the entry themselves.
            del self._entries[next(iter(self._entries))]
            self._counters["resolve_cache_limit"] += 1

    async def _look_up(self, name: str, entry: _Entry, asker: Hashable) -> None:
        self._counters["resolve_lookups"] += 1
        turn = self._turns.setdefault(asker, trio.Semaphore(self._limits.resolve_per_user_max))
        try:
            async with turn:  # before the threads that all share: nobody's names wait behind those of one user
                found = await trio.to_thread.run_sync(
                    self._lookup, name, limiter=self._threads, abandon_on_cancel=True, thread_name="resolve"
                )
        except OSError as exc:
            entry.problem = exc.strerror or type(exc).__name__
            entry.temporary = exc.errno not in (socket.EAI_NONAME, socket.EAI_NODATA)
        except UnicodeError as exc:  # the resolver's own encoding step; a canonical name should never get here
            entry.problem = type(exc).__name__
        except RuntimeError as exc:  # no thread could be started: out of memory, or of the number a cgroup allows
            entry.problem, entry.temporary = str(exc), True
        else:
            entry.addresses = tuple(dict.fromkeys(found))[:ADDRESSES_MAX]
            entry.problem = "no addresses"
        finally:
            self._askers.leave(asker)
            if asker not in self._askers:
                del self._turns[asker]
        lifetime_s = (
            self._limits.resolve_cache_s if entry.addresses else min(NEGATIVE_CACHE_S, self._limits.resolve_cache_s)
        )
        entry.expires_s = trio.current_time() + lifetime_s
        entry.done.set()
