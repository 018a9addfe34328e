"""Changes of users and rules under running sessions, for tests."""

from typing import Any

import attrs

from tests.harness import Running, settle
from tests.socks_client import CONNECT, SocksClient
from tests.targets import Origin
from tests.wires import Wire

__all__ = ["ENDS_WITHIN_S", "change", "ended", "relayed", "remove_rules"]

ENDS_WITHIN_S = 2.0  # issue item 6: sessions that a change forbids are ended within 2 s


async def relayed(client: SocksClient, origin: Origin) -> Wire:
    """The target's end of a new relay."""
    assert (await client.ask(CONNECT, *origin.address)).code == 0
    return await origin.accept()


async def ended(running: Running, within_s: float = ENDS_WITHIN_S) -> None:
    """Wait until every session has ended."""
    await settle(lambda: running.server.open_sessions == 0, within_s)


def change(running: Running, **changes: Any) -> None:
    """Change the user alice, as the command line does."""
    running.store.users.change("main", "alice", lambda user: attrs.evolve(user, **changes))


def remove_rules(running: Running) -> None:
    """Remove every rule."""
    numbers = [rule.id for rules in running.store.rules.all().values() for rule in rules]
    running.store.rules.remove(numbers)
