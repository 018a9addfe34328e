"""The process: listeners, one task for each client, the watch over the store, reload and drain.

trio.run
+- background: engine, relays, resolver, store watcher, look-ups of users in directories
|  +- accepting: one task per listening socket (left first on shutdown)

Sessions are fibers of the engine; what one of them has done in a task is a child of the engine's.
"""

import socket
from collections import Counter, OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import trio

from auth import Identity
from auth.local import LocalUser
from auth.throttle import Throttle
from trioproxy.accounting import NullUsage, Termination
from trioproxy.accounting.sinks import Sink
from trioproxy.admin.client import socket_path
from trioproxy.admin.server import ControlServer
from trioproxy.allowances import Allowances
from trioproxy.authenticate import Authenticator
from trioproxy.backends import build_authenticator
from trioproxy.client import Client, origin_of
from trioproxy.config import Config, ConfigError, Listener, build_floor, build_zones, load_config
from trioproxy.dial import KeepAlive
from trioproxy.judge import JUDGED_AT_ONCE, judge_in_turns
from trioproxy.limits import Occupancy, descriptors_max
from trioproxy.listen import ListenError, OpenListener, accept_clients, open_listener
from trioproxy.log import get_log
from trioproxy.meters import Meters
from trioproxy.policy import BlockSubject, Floor, IPAddress
from trioproxy.relay import make_engine
from trioproxy.resolve import Lookup, Resolver, system_lookup
from trioproxy.revalidate import Revalidator
from trioproxy.rulebook import Rulebook
from trioproxy.scan_watch import SET_BY, ScanWatch
from trioproxy.services import Services
from trioproxy.session import Session
from trioproxy.store import Store
from trioproxy.store.usage_writer import UsageWriter
from trioproxy.store_watch import StoreWatch

__all__ = ["Server", "StartError"]

REVALIDATE = timedelta(seconds=30)  # how late the end of an account may be noticed in running sessions
PARTINGS_MAX = 64  # refused clients of one source that may take a second to read why


class StartError(Exception):
    """The server cannot start; the text is one line for the reader."""


class Server:
    """One running proxy.

    Args:
        config: in force until a reload.
        config_path: what SIGHUP reads again; None: there is nothing to read.
        store: users and rules; closed at the end.
        records: one line for each finished flow; stays the caller's.
        usage: sums of finished flows; stays the caller's. None: nobody wants them.
        lookup: asks for the addresses of a name.
    """

    def __init__(  # noqa: PLR0913 - what a server is made of
        self,
        config: Config,
        store: Store,
        records: Sink,
        *,
        usage: UsageWriter | None = None,
        config_path: Path | None = None,
        lookup: Lookup = system_lookup,
    ) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self._config_path = config_path
        self._store = StoreWatch(store, self.counters)
        self._records = records
        self._usage = usage
        self._lookup = lookup
        self._listeners: list[OpenListener] = []
        self._sessions: dict[int, Session] = {}
        self._handshaking: OrderedDict[int, Session] = OrderedDict()  # the oldest first; some may be past that
        self._session_number = 0
        self._stop = trio.Event()
        self._no_sessions = trio.Event()
        self.stopped = trio.Event()
        self._relied_on: frozenset[tuple[IPAddress, int]] = frozenset()  # directories: nobody's target

    @property
    def store_path(self) -> Path:
        """The file that holds users and rules."""
        return self._store.path

    async def until_read(self, revision: int) -> None:
        """Wait until the users and rules of this revision of the store, or a later one, are in force."""
        await self._store.until_read(self.rulebook, revision)

    def all_counters(self) -> dict[str, int]:
        """Everything that is counted, and what penalties and records hold now."""
        counters = self.counters + self.services.authenticator.throttle.counters
        counters["records_dropped"] = self._records.dropped
        if self._usage is not None:
            counters["usage_merged"] = self._usage.merged
            counters += self._usage.counters
        return dict(counters)

    @property
    def open_sessions(self) -> int:
        """How many there are now."""
        return len(self._sessions)

    def stop(self) -> None:
        """Drain; called again: end at once."""
        if self._stop.is_set():
            self._end_sessions()
        self._stop.set()

    async def run(self, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`; starts with the names of the open listeners.

        Raises:
            StartError: the store, a backend or a listener does not work.
        """
        authenticator = await self._open()
        async with trio.open_nursery() as background:
            self._provide(background, authenticator)
            await background.start(self.services.engine.run)
            background.start_soon(self.services.relays.run)
            meters = Meters(
                self._sessions.values,
                self.services.relays,
                self.services.allowances,
                self._usage.quotas_used if self._usage is not None else lambda _: {},
            )
            await meters.restore()
            background.start_soon(meters.run)
            background.start_soon(self._watch)
            await background.start(ControlServer(socket_path(self._store.path), self._sessions.values).run)
            background.start_soon(Revalidator(self.services, self._sessions.values).run)
            try:
                await self._accept_until_stopped(task_status)
            finally:
                for listener in self._listeners:
                    listener.sock.close()
            get_log().info("draining", sessions=len(self._sessions), limit_s=self.config.limits.drain_s)
            background.start_soon(self._end_after_drain)
            await self._drained()
            background.cancel_scope.cancel()
        self.services.allowances.flush()
        await self.services.authenticator.close()
        await self._store.close()
        self.stopped.set()
        get_log().info("stopped", **self.all_counters())

    # ---- starting

    async def _open(self) -> Authenticator:
        config, limits = self.config, self.config.limits
        try:
            self._listeners = _open_all(config.listener, limits.dead_after_s)
            floor = self._floor(config, self._listeners)
            self.rulebook = Rulebook(
                floor,
                config.membership,
                config.local_backends(),
                config.store.stale_max_s,
                zones=build_zones(config),
            )
            await self._store.read_into(self.rulebook)
            return await self._open_authenticator(config, None)
        except (ListenError, ValueError, OSError) as exc:  # a BackendError, a StoreError: of a backend or the store
            for listener in self._listeners:
                listener.sock.close()
            raise StartError(str(exc)) from exc

    def _provide(self, background: trio.Nursery, authenticator: Authenticator) -> None:
        config, limits = self.config, self.config.limits
        occupancy = partial(Occupancy, counters=self.counters)
        engine, relays = make_engine(lambda: self.services.descriptors_max)
        self.services = Services(
            engine=engine,
            relays=relays,
            allowances=Allowances(lambda: self.rulebook.limits, self.rulebook.zone_of, self._usage or NullUsage()),
            limits=limits,
            realms=config.realms(),
            scans=ScanWatch(config.scans, self.counters, partial(self._set_block, background)),
            authenticator=authenticator,
            resolver=Resolver(background, limits, self.counters, lookup=self._lookup),
            rulebook=self.rulebook,
            records=self._records,
            usage=self._usage or NullUsage(),
            counters=self.counters,
            descriptors_max=descriptors_max() - limits.descriptors_reserve,
            handshakes=occupancy("unauthenticated", each_max=limits.unauthenticated_per_source_max),
            partings=occupancy("partings", each_max=PARTINGS_MAX),
            sessions=occupancy("sessions", each_max=limits.sessions_per_user_max),
            shared_sessions=occupancy("shared_sessions", each_max=0),  # the limits say how many
            associations=occupancy("associations", each_max=limits.associations_per_user_max),
            binds=occupancy("binds", each_max=limits.binds_per_user_max),
        )

    def _floor(self, config: Config, listeners: Sequence[OpenListener]) -> Floor:
        return build_floor(config, [listener.bound for listener in listeners], lambda: self._relied_on)

    async def _open_authenticator(self, config: Config, throttle: Throttle | None) -> Authenticator:
        authenticator = build_authenticator(config, self.rulebook.find_user, self._rehashed, self.counters, throttle)
        await authenticator.open()
        self._relied_on |= authenticator.endpoints()
        return authenticator

    def _rehashed(self, user: LocalUser, password_hash: str) -> None:
        """Keep a better hash; called from a hashing thread, so with a connection of its own."""
        with Store.open(self._store.path, create=False) as store:
            store.users.rehash(user, password_hash)

    # ---- clients

    async def _accept_until_stopped(self, task_status: trio.TaskStatus[list[str]]) -> None:
        async with trio.open_nursery() as self._accepting:
            for listener in self._listeners:
                self._accept(listener)
            task_status.started([listener.name for listener in self._listeners])
            await self._stop.wait()
            self._accepting.cancel_scope.cancel()

    def _accept(self, listener: OpenListener) -> None:
        engine = self.services.engine
        self._accepting.start_soon(accept_clients, engine, listener, self._start_session, self.counters)

    def _start_session(self, listener: OpenListener, sock: socket.socket, host: str, port: int) -> None:
        services = self.services
        if sock.fileno() > services.descriptors_max:
            self.counters["descriptors_reserve_limit"] += 1
            sock.close()
            return
        if not services.handshakes.enter(origin_of(host)[1]):
            sock.close()
            return
        try:
            client = Client(
                services.engine,
                sock,
                (host, port),
                self.counters,
                tolerate_reserved=listener.settings.tolerate_reserved,
            )
        except OSError:  # epoll has no room
            self.counters["accept_failed"] += 1
            services.handshakes.leave(origin_of(host)[1])
            sock.close()
            return
        self.counters["sessions"] += 1
        self._session_number += 1
        session = Session(
            self._session_number, client, lambda: listener.settings, listener.name, services, self._session_ended
        )
        self._sessions[self._session_number] = self._handshaking[self._session_number] = session
        if services.handshakes.total > self.config.limits.unauthenticated_max:
            self._make_room()
        session.start()

    def _session_ended(self, session: Session) -> None:
        del self._sessions[session.number]
        self._handshaking.pop(session.number, None)
        if not self._sessions:
            self._no_sessions.set()

    async def _drained(self) -> None:
        while self._sessions:
            self._no_sessions = trio.Event()
            await self._no_sessions.wait()

    def _make_room(self) -> None:
        """End the session that has been without a login for longest, so that idle connections keep nobody out.

        Whoever means to log in has done so long before; turning the newcomer away would let a few silent clients close
        the door.
        """
        while self._handshaking:
            _, session = self._handshaking.popitem(last=False)
            if session.in_handshake:
                self.counters["unauthenticated_limit_total"] += 1
                session.end(Termination.CROWDED_OUT)
                return

    async def _judge_sessions(self) -> None:
        """Let every session look at the rules of now."""
        await judge_in_turns(session.policy_changed() for session in list(self._sessions.values()))

    def _live_identities(self) -> list[Identity]:
        return [session.identity for session in self._sessions.values() if session.identity is not None]

    async def _revalidate_sessions(self) -> None:
        """Accounts end without any change of the store."""
        for count, session in enumerate(list(self._sessions.values()), start=1):
            session.revalidate()
            if count % JUDGED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    # ---- the store

    async def _watch(self) -> None:
        """See what changes without anybody asking: the store, hours, blocks and accounts that end. For ever."""
        revalidated_at = datetime.now(UTC)
        while True:
            await trio.sleep(self.config.store.poll_s)
            self._relied_on = self.services.authenticator.endpoints()  # names get other addresses
            self.rulebook.end_blocks()
            hours_changed = self.rulebook.hours_have_changed(self._live_identities)
            changed = await self._store.look(self.rulebook, self._user_changed)
            now = datetime.now(UTC)
            if changed or hours_changed:
                await self._judge_sessions()
            if now - revalidated_at >= REVALIDATE:
                revalidated_at = now
                await self._revalidate_sessions()

    def _set_block(
        self, background: trio.Nursery, subject: BlockSubject, tenant: str, reason: str, ends_at: datetime
    ) -> None:
        background.start_soon(self._write_block, subject, tenant, reason, ends_at)

    async def _write_block(self, subject: BlockSubject, tenant: str, reason: str, ends_at: datetime) -> None:
        try:
            await self._store.write(
                lambda store: store.blocks.add(subject, tenant=tenant, reason=reason, set_by=SET_BY, ends_at=ends_at)
            )
        except (OSError, RuntimeError, ValueError) as exc:  # a StoreError; no thread could be had; a reason too long
            get_log().error("a scan was noticed, and the block cannot be written", problem=str(exc))

    def _user_changed(self, tenant: str, name: str) -> None:
        self.services.authenticator.user_changed(tenant, name)

    # ---- reload

    async def reload(self) -> None:
        """Read the configuration again: all of it or nothing. Errors go to the log, and the old one stays in force."""
        self._records.reopen()  # whoever rotates files sends SIGHUP, whatever the configuration is worth
        if self._stop.is_set():
            get_log().info("not reloaded: the server is stopping")
            return
        if self._config_path is None:
            get_log().info("nothing to reload: there is no configuration file")
            return
        opened: list[OpenListener] = []
        try:
            config = load_config(self._config_path)
            if config.store.url != self.config.store.url:
                raise StartError("store.url cannot change in a running server; restart it")  # noqa: TRY301 - as below
            kept = {listener.address: listener for listener in self._listeners}
            opened = _open_all([s for s in config.listener if s.address not in kept], config.limits.dead_after_s)
            authenticator = await self._changed_authenticator(config)
        except (ConfigError, ListenError, StartError, ValueError, OSError) as exc:  # ValueError: a BackendError is one
            for listener in opened:
                listener.sock.close()
            self.counters["reload_failed"] += 1
            get_log().error("configuration not reloaded, the old one stays in force", problem=str(exc))
            return
        await self._put_in_force(config, opened, authenticator)
        self.counters["reloads"] += 1
        get_log().info("configuration reloaded", listeners=[listener.name for listener in self._listeners])

    async def _changed_authenticator(self, config: Config) -> Authenticator:
        """The same one, with all that it remembers, unless its configuration is another."""
        if (config.auth, config.tenants()) == (self.config.auth, self.config.tenants()):
            return self.services.authenticator
        return await self._open_authenticator(config, self.services.authenticator.throttle)

    async def _put_in_force(self, config: Config, opened: list[OpenListener], authenticator: Authenticator) -> None:
        settings = {listener.address: listener for listener in config.listener}
        gone = [listener for listener in self._listeners if listener.address not in settings]
        listeners = [listener for listener in self._listeners if listener not in gone] + opened
        floor = self._floor(config, listeners)
        async with self._store.changing:
            policy = await trio.to_thread.run_sync(self.rulebook.with_floor, floor, build_zones(config))
            self.rulebook.apply(floor, policy, config.membership, config.local_backends(), config.store.stale_max_s)
        # From here to the end of the block nothing waits: no client sees half of it.
        for listener in gone:
            listener.closed.cancel()
            listener.sock.close()
        for listener in listeners:
            listener.settings = settings[listener.address]
        self._listeners = listeners
        old_authenticator, self.config = self.services.authenticator, config
        if self._usage is not None:
            self._usage.retention_days = config.usage.retention_days
        reserve = descriptors_max() - config.limits.descriptors_reserve
        self.services.apply(config, authenticator, config.realms(), reserve)
        for listener in opened:
            self._accept(listener)
        if old_authenticator is not authenticator:
            await old_authenticator.close()
        await self._judge_sessions()

    # ---- stopping

    async def _end_after_drain(self) -> None:
        await trio.sleep(self.config.limits.drain_s)
        get_log().warning("drain time is over", sessions=len(self._sessions))
        self._end_sessions()

    def _end_sessions(self) -> None:
        for session in list(self._sessions.values()):
            session.end(Termination.DRAINED)


def _open_all(settings: Sequence[Listener], dead_after_s: float) -> list[OpenListener]:
    """Open all of them or none."""
    opened: list[OpenListener] = []
    try:
        opened.extend(open_listener(one, KeepAlive(dead_after_s)) for one in settings)
    except ListenError:
        for listener in opened:
            listener.sock.close()
        raise
    return opened
