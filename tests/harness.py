"""A real server on loopback for tests: real sockets, a real store, records kept in a list."""

import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import attrs
import trio

from auth.chain import Chain
from auth.local import BackendContext, LocalUser
from auth.passwords import DEFAULT_PASSWORDS
from auth.throttle import Throttle
from trioproxy.authenticate import Authenticator
from trioproxy.config import Config, Limits, Listener, PolicySettings, SocketAddress
from trioproxy.log import configure_log
from trioproxy.policy import Party, Scope, parse_rule
from trioproxy.resolve import Lookup, system_lookup
from trioproxy.server import Server
from trioproxy.store import Store, usage_path
from trioproxy.store.usage_writer import UsageWriter

__all__ = ["SOAK", "Records", "Running", "config_for_tests", "running_server", "settle"]

# `make soak` sets it: the numbers of the case list instead of those that fit into every run.
SOAK = bool(os.environ.get("TRIOPROXY_SOAK"))
LOOPBACK = ("127.0.0.0/8", "::1/128")


class Records:
    """A sink that keeps what it is given."""

    dropped = 0

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.reopened = 0

    def write(self, line: bytes) -> None:
        """Keep the line."""
        self.lines.append(line)

    def reopen(self) -> None:
        """Count it."""
        self.reopened += 1

    def close(self) -> None:
        """Nothing to close."""

    def rows(self) -> list[dict[str, Any]]:
        """The records as objects."""
        return [json.loads(line) for line in self.lines]

    def text(self) -> str:
        """Everything as one text."""
        return b"\n".join(self.lines).decode()


@attrs.define(eq=False)
class Running:
    """A server under test.

    Attributes:
        addresses: `(host, port)` of each listener.
        log: the lines of the human log.
    """

    server: Server
    store: Store
    records: Records
    log: Records
    addresses: list[tuple[str, int]]

    @property
    def address(self) -> tuple[str, int]:
        """The first listener."""
        return self.addresses[0]

    def add_rules(self, rules: Mapping[str, Iterable[str]]) -> None:
        """Add rules to layers, as the command line does."""
        for scope, texts in rules.items():
            for text in texts:
                self.store.rules.add(Scope.parse(scope), parse_rule(text))

    def set_limit(self, party: str, words: str) -> None:
        """Change what `trioproxy limit set` changes; `together global` is what all share."""
        shared, _, scope = party.rpartition(" ")
        self.store.limits.change(
            Party(Scope.parse(scope), together=shared == "together"), lambda limit: limit.changed(words.split(" "))
        )

    async def until_rules_hold(self) -> None:
        """Wait until the server has read what the store holds now."""
        await settle(lambda: self.server.rulebook.revision == self.store.revision())

    async def until_idle(self) -> None:
        """Wait until every session has ended."""
        await settle(lambda: self.server.open_sessions == 0)


async def settle(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait until something that other tasks bring about is so; how long that takes is not what is tested."""
    with trio.fail_after(within_s):
        while not condition():
            await trio.sleep(0.005)


class _ServerOnChains(Server):
    """Asks ready-made chains; everything else is the server's own."""

    def __init__(self, *args: Any, chains: Callable[[BackendContext], Mapping[str, Chain]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._chains = chains

    async def _open_authenticator(self, config: Config, throttle: Throttle | None) -> Authenticator:
        context = BackendContext(find_user=self.rulebook.find_user, rehashed=self._rehashed)
        authenticator = Authenticator(self._chains(context), counters=self.counters, throttle=throttle)
        await authenticator.open()
        return authenticator


def config_for_tests(**changes: Any) -> Config:
    """One listener on loopback, whose floor is open; `limits` and `listener` may be given as mappings of changes."""
    listener = Listener(SocketAddress(ip_network("127.0.0.1/32").network_address, 0))
    limits = Limits(**changes.pop("limits", {}))
    listeners = changes.pop("listener", ({},))
    config = Config(
        listener=tuple(attrs.evolve(listener, **one) for one in listeners),
        limits=limits,
        policy=PolicySettings(open_floor=tuple(ip_network(text) for text in LOOPBACK)),
    )
    return attrs.evolve(config, **changes)


@asynccontextmanager
async def running_server(
    folder: Path,
    config: Config | None = None,
    *,
    users: Mapping[str, str] | None = None,
    rules: Mapping[str, Iterable[str]] | None = None,
    lookup: Lookup = system_lookup,
    config_path: Path | None = None,
    chains: Callable[[BackendContext], Mapping[str, Chain]] | None = None,
    limits: Mapping[str, str] | None = None,
    keep_usage: bool = False,
) -> AsyncIterator[Running]:
    """Run a server until the block ends.

    Args:
        folder: for the store.
        config: see `config_for_tests`.
        users: `NAME` or `TENANT/NAME` to password; default: alice, wonderland.
        rules: scope to rules; default: alice may do everything.
        lookup: resolves names.
        config_path: what a reload reads.
        chains: makes the backends of each tenant, from what the server lends them; default: as the configuration says.
        limits: scope, or `together` and a scope, to the template: `rate=20Mbit sessions=3`.
        keep_usage: usage and quotas are written into a file beside the store, as `trioproxy serve` does.
    """
    log = Records()
    configure_log("debug", sink=log)
    store = Store.open(folder / "trioproxy.db", create=True)
    add_users(store, {"alice": "wonderland"} if users is None else users)
    records = Records()
    usage = UsageWriter(usage_path(store.path), 90) if keep_usage else None
    server_type = Server if chains is None else partial(_ServerOnChains, chains=chains)
    server = server_type(
        config or config_for_tests(),
        Store.open(folder / "trioproxy.db", create=False),
        records,
        usage=usage,
        config_path=config_path,
        lookup=lookup,
    )
    running = Running(server, store, records, log, [])
    running.add_rules({"user:alice": ["any:*(*)->*(*)"]} if rules is None else rules)
    for party, limit in (limits or {}).items():
        running.set_limit(party, limit)
    try:
        async with trio.open_nursery() as nursery:
            names = await nursery.start(server.run)
            running.addresses = [(name.rpartition(":")[0].strip("[]"), int(name.rpartition(":")[2])) for name in names]
            yield running
            server.stop()
            server.stop()
    finally:
        store.close()
        if usage is not None:
            usage.close()


def add_users(store: Store, users: Mapping[str, str]) -> None:
    """Users with passwords, members of the proxy group."""
    for owner, password in users.items():
        tenant, _, name = owner.rpartition("/")
        password_hash = DEFAULT_PASSWORDS.hash(password)
        store.users.add([LocalUser(tenant or "main", name, password_hash, frozenset({"system-proxy"}))])
