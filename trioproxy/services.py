"""What every session needs of the server, in one place; a reload changes it under running sessions."""

from collections import Counter
from collections.abc import Mapping

import attrs

from trioproxy.accounting import Usage
from trioproxy.accounting.sinks import Sink
from trioproxy.allowances import Allowances
from trioproxy.authenticate import Authenticator
from trioproxy.config import Config, Limits
from trioproxy.engine import Engine
from trioproxy.limits import Occupancy
from trioproxy.relay import RelayPorts, Relays
from trioproxy.resolve import Resolver
from trioproxy.rulebook import Rulebook
from trioproxy.scan_watch import ScanWatch

__all__ = ["Services"]


@attrs.define(eq=False)
class Services:
    """Shared by all sessions of one process.

    Attributes:
        limits: of the configuration in force.
        engine: on which sessions run.
        relays: for TCP.
        usage: who moved how much, for the store.
        allowances: rates, quotas and paces.
        scans: who tries too many targets.
        realms: which tenant a realm of a login name selects.
        shared_sessions: of those that have a limit together.
        descriptors_max: the highest descriptor that a session may use; above is the reserve.
    """

    engine: Engine
    relays: Relays
    limits: Limits
    realms: Mapping[str, str]
    allowances: Allowances
    scans: ScanWatch
    authenticator: Authenticator
    resolver: Resolver
    rulebook: Rulebook
    records: Sink
    usage: Usage
    counters: Counter[str]
    descriptors_max: int
    handshakes: Occupancy
    sessions: Occupancy
    shared_sessions: Occupancy
    associations: Occupancy
    binds: Occupancy
    partings: Occupancy
    relay_ports: RelayPorts = attrs.field(factory=RelayPorts)

    def apply(
        self, config: Config, authenticator: Authenticator, realms: Mapping[str, str], descriptors_max: int
    ) -> None:
        """Take over a changed configuration; whoever holds a place keeps it."""
        limits = config.limits
        self.limits, self.authenticator, self.realms = limits, authenticator, realms
        self.descriptors_max = descriptors_max
        self.resolver.apply(limits)
        if config.scans != self.scans.settings:
            self.scans.apply(config.scans)
        self.handshakes.each_max = limits.unauthenticated_per_source_max
        self.sessions.each_max = limits.sessions_per_user_max
        self.associations.each_max = limits.associations_per_user_max
        self.binds.each_max = limits.binds_per_user_max
