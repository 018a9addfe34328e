"""Reading the meters of all running flows once a second: current rates, and what was used of quotas."""

import time
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Final, Protocol

import trio

from trioproxy.accounting import Flow, QuotaKey
from trioproxy.allowances import PERIOD_MAX, Allowances
from trioproxy.judge import judge_in_turns
from trioproxy.log import get_log
from trioproxy.relay import Relays
from trioproxy.store import StoreError

__all__ = ["Metered", "Meters"]

ALL_TICKS: Final = 4  # of what has no limits only the rates in a list depend
METER_S: Final = 1.0  # how late the end of a quota is noticed; 9,000 idle flows cost 4 ms
READ_AT_ONCE: Final = 500  # before others get their turn: 1 ms


class Metered(Protocol):
    """A running session."""

    def flows(self) -> Iterable[Flow]:
        """What runs in it."""
        ...

    def renew(self) -> Iterable[None]:
        """Quotas have been used up, or begun again; returns steps that are not urgent."""
        ...


class Meters:
    """Reads them.

    Args:
        sessions: those that run now.
        relays: whose meters are exact only after they were asked.
        allowances: where quotas are counted.
        read_store: what was used of quotas, of periods that began at this moment or later; blocks.
    """

    def __init__(
        self,
        sessions: Callable[[], Collection[Metered]],
        relays: Relays,
        allowances: Allowances,
        read_store: Callable[[datetime], dict[QuotaKey, int]],
    ) -> None:
        self._sessions = sessions
        self._relays = relays
        self._allowances = allowances
        self._read_store = read_store
        self._failing = False

    async def run(self) -> None:
        """Read, for ever."""
        read_s = read_all_s = time.monotonic()
        for tick in count(1):
            if not self._allowances.is_restored:
                await self.restore()
            await trio.sleep(METER_S)
            now_s = time.monotonic()
            read_all = tick % ALL_TICKS == 0
            stale = await self._read(now_s - read_s, now_s - read_all_s if read_all else None)
            read_s = now_s
            if read_all:
                read_all_s = now_s
            self._allowances.flush()
            self._allowances.tidy()
            if stale:
                await judge_in_turns(session.renew() for session in stale)

    async def restore(self) -> None:
        """Learn what was used of quotas; what counts for one has to wait until that succeeds."""
        since = datetime.now(UTC) - PERIOD_MAX
        try:
            used = await trio.to_thread.run_sync(partial(self._read_store, since))
        except (StoreError, RuntimeError) as exc:  # RuntimeError: no thread could be had
            if not self._failing:
                get_log().error("what was used of quotas cannot be read: who has one is refused", problem=str(exc))
            self._failing = True
            return
        self._failing = False
        self._allowances.restore(used)

    async def _read(self, elapsed_s: float, elapsed_of_all_s: float | None) -> list[Metered]:
        """Read what has limits, and now and then all; those whose quotas stand otherwise than when they began."""
        stale: list[Metered] = []
        if elapsed_of_all_s is None and not self._allowances.has_any:
            return stale
        read = 0
        for session in list(self._sessions()):
            is_stale = False
            for flow in session.flows():
                read += 1
                if read % READ_AT_ONCE == 0:  # flows, not sessions: an association may have thousands
                    await trio.lowlevel.checkpoint()
                allowance = flow.allowance
                if allowance is not None:
                    self._relays.read_meter(flow)
                    flow.read_meter(elapsed_s)
                    is_stale |= allowance.is_stale()
                elif elapsed_of_all_s is not None:
                    self._relays.read_meter(flow)
                    flow.read_meter(elapsed_of_all_s)
            if is_stale:
                stale.append(session)
        return stale
