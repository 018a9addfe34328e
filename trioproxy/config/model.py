"""The configuration as frozen classes: what a machine is. What people change while it runs lives in the store.

The names are those of the file, the docstrings become the reference in the documentation, every limit has its reason
beside it. Nothing here reads a file; `trioproxy.config.load` does.
"""

import functools
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

import attrs

from auth.membership import Membership
from trioproxy.policy.scope import DEFAULT_TENANT

__all__ = [
    "KEYS_OF_MAIN",
    "Auth",
    "BackendTable",
    "Between",
    "Config",
    "Count",
    "Limits",
    "Listener",
    "Log",
    "NonMembers",
    "PolicySettings",
    "PortRange",
    "Scans",
    "Seconds",
    "SocketAddress",
    "StoreSettings",
    "Tenant",
    "UsageSettings",
]


@attrs.frozen
class Between:
    """The smallest and the largest number that make sense.

    It is part of a number's annotation, so that the loader reports every one that does not, with its path.
    """

    low: float
    high: float


_YEAR_S = 366 * 86_400

# What `[auth]` says for the tenant main and a table `[tenant.NAME]` for its tenant.
KEYS_OF_MAIN: Final = ("backends", "proxy_group", "nonmembers", "fall_through")

NonMembers: TypeAlias = Literal["refuse", "global-rules"]
Count = Annotated[int, Between(1, 10_000_000)]
ScanCount = Annotated[int, Between(1, 2_000)]  # the detector has no room for more
Seconds = Annotated[float, Between(0.01, _YEAR_S)]  # a time limit of nothing would let nobody do anything
SecondsOrNone = Annotated[float, Between(0, _YEAR_S)]


@attrs.frozen
class SocketAddress:
    """Where to listen: an address (no name) and a port, written `0.0.0.0:1080` or `[::]:1080`."""

    host: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.host.version == 6 else str(self.host)  # noqa: PLR2004 - IP version 6
        return f"{host}:{self.port}"


@attrs.frozen
class PortRange:
    """First and last port, both included, written `40000-40999`."""

    first: int
    last: int

    @property
    def numbers(self) -> range:
        """All of them."""
        return range(self.first, self.last + 1)

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


@attrs.frozen
class Listener:
    """One listening socket.

    Attributes:
        address: where to listen, `0.0.0.0:1080` or `[::]:1080` (IPv6 only). Port 0 takes any free one.
        anonymous: clients without login get the global rules and those of the tenant.
        anonymous_beyond_loopback: must be said as well if an anonymous listener is reachable from other machines.
        advertise: what BND.ADDR says behind NAT, one address for each family; left out: the address the client
            connected to.
        udp_ports: where the relay sockets of UDP associations are bound; left out: any free port.
        bind_ports: where BIND listens for targets; left out: any free port.
        udp_port_lock: "strict": an association takes datagrams from one port of the client only; "ip": from any port of
            its address.
        bound_address: what BND.ADDR of CONNECT says; "egress": the address used towards the target; "zero": 0.0.0.0:0,
            which hides inner addresses.
        tolerate_reserved: accept requests whose RSV octet is not zero.
        tenant: whose users log in here.
        realms: alice@physics.example.org is alice of the tenant that has that realm.
    """

    address: SocketAddress
    anonymous: bool = False
    anonymous_beyond_loopback: bool = False
    advertise: tuple[IPv4Address | IPv6Address, ...] = ()
    udp_ports: PortRange | None = None
    bind_ports: PortRange | None = None
    udp_port_lock: Literal["strict", "ip"] = "strict"
    bound_address: Literal["egress", "zero"] = "egress"
    tolerate_reserved: bool = False
    tenant: str = DEFAULT_TENANT
    realms: bool = False

    def advertised(self, host: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
        """What BND.ADDR says for our address `host`: the advertised one of its family, if there is one."""
        return next((address for address in self.advertise if address.version == host.version), host)


@attrs.frozen
class BackendTable:
    """A table `[auth.NAME]`: its `type` names the plug-in, which reads the rest itself."""

    type: str
    settings: Mapping[str, object] = attrs.field(factory=dict, repr=False)  # may hold a password


@attrs.frozen
class Tenant:
    """One organisation. The keys of `[auth]` are those of the tenant main; others have a table `[tenant.NAME]`.

    Attributes:
        realms: what may stand behind the last `@` of a login name to select this tenant.
        backends: asked in this order; the first that knows the user decides. "local" is always there.
        proxy_group: who is not a member may not log in, or has the global rules alone; see `nonmembers`.
        nonmembers: `"refuse"`: who is not in the proxy group may not log in; `"global-rules"`: may, and the global
            layer alone judges.
        fall_through: ask the next backend also where one could not tell, because it is down, say. The password then
            goes to a backend that may not be the user's.
        time_zone: by whose clock the hours in rules (`when=`) are read for the tenant's users, `"Europe/Berlin"`; left
            out: that of `[policy]`.
    """

    realms: tuple[str, ...] = ()
    backends: tuple[str, ...] = ("local",)
    proxy_group: str = "system-proxy"
    nonmembers: NonMembers = "refuse"
    fall_through: bool = False  # a password meant for one directory is not for another one to see
    time_zone: ZoneInfo | None = None

    def membership(self) -> Membership:
        """Who may use the proxy.

        Raises:
            ValueError: `proxy_group` is no group name; the loader has seen to that.
        """
        return Membership(self.proxy_group, admits_nonmembers=self.nonmembers == "global-rules")


@attrs.frozen
class Auth:
    """How logins are checked, for all tenants together, and the backends by name.

    Attributes:
        backends: the backends of the tenant main, asked in this order.
        proxy_group: who is not a member may not log in, or has the global rules alone (tenant main).
        nonmembers: `"refuse"`: who is not in the proxy group may not log in; `"global-rules"`: may, and the global
            layer alone judges (tenant main).
        fall_through: ask the next backend also where one could not tell, because it is down, say. The password then
            goes to a backend that may not be the user's (tenant main).
        hash_threads: passwords verified at the same time. One takes 20 ms of a core and 19 MiB.
        hash_queue_max: logins that may wait for a thread, in each queue: that of hashing, and that of each directory of
            a tenant. More are refused as unavailable.
        deadline_s: seconds a login may take from its arrival.
        cache_s: seconds an accepted login is remembered. Also how long a revoked right may still open new sessions when
            the change is made behind our back (in a directory).
        cache_entries_max: accepted logins remembered at most.
        tables: the backends, from the tables `[auth.NAME]`.
    """

    backends: tuple[str, ...] = ("local",)
    proxy_group: str = "system-proxy"
    nonmembers: NonMembers = "refuse"
    fall_through: bool = False  # a password meant for one directory is not for another one to see
    hash_threads: Annotated[int, Between(1, 64)] = 2  # as many as the smallest machine we expect has cores
    hash_queue_max: Count = (
        200  # 5 s of work for two threads at 50 ms each: whoever stands behind would miss the deadline
    )
    deadline_s: Seconds = 5.0  # clients give up after some 10 s (curl: 5 min, browsers: 20 s), and handshake_s is 10
    cache_s: Annotated[float, Between(0, 60)] = 60.0  # who loses an account in a directory is out within a minute
    cache_entries_max: Count = 10_000  # 50,000 people are not all online; an entry is about 500 bytes
    tables: Mapping[str, BackendTable] = attrs.field(factory=dict)


@attrs.frozen
class StoreSettings:
    """Where users and rules are kept.

    Attributes:
        url: `sqlite:////var/lib/trioproxy/trioproxy.db` (four slashes: an absolute path). Left out: `trioproxy.db` in
            the data folder.
        poll_s: how often the server asks the store whether something changed, in seconds.
        stale_max_s: how long the server goes on with the last users and rules it read when the store cannot be read;
            then it refuses new sessions.
    """

    url: str | None = attrs.field(default=None, repr=False)  # may hold a password
    poll_s: Annotated[float, Between(0.05, 60)] = (
        0.25  # a change must hold within a second; one question costs 5 microseconds
    )
    stale_max_s: SecondsOrNone = (
        3600.0  # long enough to be woken and mend it, short enough that a revoked user is not in for days
    )


@attrs.frozen
class PolicySettings:
    """What comes before the rules, and by whose clock they are read.

    Attributes:
        open_floor: networks of the floor (loopback, link-local, multicast ...) that rules may allow.
        closed: further endpoints that no rule may open: `192.0.2.10:5432` (a database, say).
        time_zone: by whose clock the hours in rules (`when=`) are read, `"Europe/Berlin"`; left out: the zone of the
            system. A tenant may have its own.
    """

    open_floor: tuple[IPv4Network | IPv6Network, ...] = ()
    closed: tuple[SocketAddress, ...] = ()
    time_zone: ZoneInfo | None = None


@attrs.frozen
class Limits:
    """Everything that can grow has a limit; reaching one is counted. Times are in seconds.

    Attributes:
        unauthenticated_max: connections that have not logged in yet, in all; the oldest makes room for one more.
        unauthenticated_per_source_max: the same for one client address (IPv6: one /64).
        handshake_s: from accepting a connection to its complete request.
        sessions_per_user_max: sessions of one user at once; of one client address where clients need no login.
        associations_per_user_max: UDP associations of one user at once, counted as above.
        binds_per_user_max: listening sockets of BIND of one user at once, counted as above.
        descriptors_reserve: file descriptors kept free for the store, the log and the running sessions.
        resolve_threads: names looked up at the same time.
        resolve_per_user_max: look-ups of one user at the same time; 16 times as many may wait for them.
        resolve_s: a look-up takes no longer.
        resolve_cache_s: an answer is used again for so long.
        connect_s: connecting to a target takes no longer, all its addresses together.
        idle_s: a relay without a byte in either direction ends.
        half_closed_s: the same once one direction has ended.
        dead_after_s: a connection whose other end no longer answers the system's probes is given up.
        bind_s: how long BIND waits for the target to connect.
        association_idle_s: a UDP association without a datagram ends.
        destinations_per_association_max: destinations one association remembers; the one unused for longest is
            forgotten.
        drain_s: how long running sessions may go on after SIGTERM.
    """

    unauthenticated_max: Count = 1_000  # each holds one descriptor of the usual 20,000 and some 20 KiB
    unauthenticated_per_source_max: Count = 250  # a lecture hall behind one NAT address opens its lids at the same time
    handshake_s: Seconds = (
        10.0  # OpenSSH: 120 s, Dante: 30 s; no client measured needed more than one round trip a step
    )
    sessions_per_user_max: Count = 1_000  # a peer-to-peer client opens some 500
    associations_per_user_max: Count = 32  # two descriptors each; a call needs one to four
    binds_per_user_max: Count = 16  # a listening port each
    descriptors_reserve: Annotated[int, Between(0, 100_000)] = (
        64  # the store, logs, listeners and a name look-up in each thread
    )
    resolve_threads: Annotated[int, Between(1, 1_000)] = 64  # a dead name server holds each for 5 to 30 s
    resolve_per_user_max: Count = 8  # an eighth of the threads: few users cannot hold them all
    resolve_s: Seconds = 5.0  # glibc's first time-out
    resolve_cache_s: SecondsOrNone = 30.0
    connect_s: Seconds = 10.0  # Dante: 30 s; Linux gives up after 127 s; people after 10
    idle_s: Seconds = (
        3600.0  # longer than the two hours' keep-alive would be no limit; ssh sends keep-alives more often
    )
    half_closed_s: Seconds = 300.0  # the answer to a finished request is computed within minutes
    dead_after_s: Seconds = 120.0  # a sleeping laptop; long enough for a change of Wi-Fi cell
    bind_s: Seconds = 120.0  # SOCKS4 says 2 minutes
    association_idle_s: Seconds = 600.0  # RFC 4787 asks for at least 5 minutes
    destinations_per_association_max: Count = 4_096  # a DHT node talks to thousands; an entry is about 1 KiB
    drain_s: SecondsOrNone = 30.0


@attrs.frozen
class Log:
    """What is written where.

    Attributes:
        level: the least severe lines that go to stderr.
        records: the file for one JSON line per finished flow; "stdout" or "none" as well. Left out: `records.jsonl` in
            the data folder. SIGHUP opens the file anew.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    records: str | None = None


@attrs.frozen
class UsageSettings:
    """What `trioproxy usage` adds up: sums of finished flows, in `trioproxy-usage.db` beside the store.

    Attributes:
        retention_days: how many days they are kept; 0: nothing is written, and what was written before is removed.
    """

    retention_days: Annotated[int, Between(0, 3_660)] = (
        90  # a question about last month's bill comes within the next two; longer is for who must keep it
    )


@attrs.frozen
class Scans:
    """When somebody's connections look like a scan, and what is done about it. A rule with `scan=ignore` is exempt.

    Attributes:
        action: `"log"`: a line in the log; `"slow"`: five targets a second for `block_s`; `"block-for"`: a block for
            `block_s`, as `trioproxy block` sets it; `"off"`: nobody looks. Sources from which users log in are only
            logged: one must not suffer for another.
        block_s: how long who was caught is slowed down or blocked.
        window_s: in which the following are counted.
        targets_max: distinct targets (address and port).
        refused_max: distinct targets that refused, did not answer, or are denied by the rules.
        ports_of_one_host_max: distinct ports of one address.
        hosts_of_one_port_max: distinct addresses with the same port.
    """

    action: Literal["log", "slow", "block-for", "off"] = "log"  # who acts on a guess should have seen some first
    block_s: Seconds = 600.0  # long enough that a scan is not worth the trouble, short enough for a mistake
    window_s: Annotated[float, Between(1, 600)] = 10.0  # a common scanner's thousand ports take some seconds
    targets_max: ScanCount = 200  # a browser with many tabs opens some dozens
    refused_max: ScanCount = 50  # of what people use, hardly anything is refused
    ports_of_one_host_max: ScanCount = 50  # a browser uses one or two, a file transfer one for each file
    hosts_of_one_port_max: ScanCount = 150  # of port 443 a browser reaches some dozens


def _default_listeners() -> tuple[Listener, ...]:
    return (
        Listener(SocketAddress(IPv4Address("127.0.0.1"), 1080)),
    )  # loopback: nothing is opened that nobody asked for


@attrs.frozen
class Config:
    """The whole file."""

    listener: tuple[Listener, ...] = attrs.field(factory=_default_listeners)
    auth: Auth = attrs.field(factory=Auth)
    tenant: Mapping[str, Tenant] = attrs.field(factory=dict)
    store: StoreSettings = attrs.field(factory=StoreSettings)
    policy: PolicySettings = attrs.field(factory=PolicySettings)
    limits: Limits = attrs.field(factory=Limits)
    log: Log = attrs.field(factory=Log)
    usage: UsageSettings = attrs.field(factory=UsageSettings)
    scans: Scans = attrs.field(factory=Scans)

    def tenants(self) -> dict[str, Tenant]:
        """All tenants by name, the tenant main among them."""
        main = self.tenant.get(DEFAULT_TENANT, Tenant())
        main = attrs.evolve(main, **{key: getattr(self.auth, key) for key in KEYS_OF_MAIN})
        return {DEFAULT_TENANT: main, **{name: t for name, t in self.tenant.items() if name != DEFAULT_TENANT}}

    def membership(self, tenant: str) -> Membership | None:
        """Who of a tenant may use the proxy; None if there is no such tenant."""
        return self._memberships.get(tenant)

    @functools.cached_property
    def _memberships(self) -> dict[str, Membership]:
        return {name: tenant.membership() for name, tenant in self.tenants().items()}

    def local_backends(self) -> frozenset[str]:
        """The names of the backends whose users are the store's."""
        return frozenset(name for name, table in self.auth.tables.items() if table.type == "local") | {"local"}

    def realms(self) -> dict[str, str]:
        """Which tenant each realm selects."""
        return {realm: name for name, tenant in self.tenants().items() for realm in tenant.realms}
