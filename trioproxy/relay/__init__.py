"""Moving bytes, once policy has permitted it: a relay takes a `Permit`, or asks for one for each destination."""

from trioproxy.relay.bind import accept_target, egress_address, listen_for_target
from trioproxy.relay.datagrams import open_target_side
from trioproxy.relay.destinations import DestinationRights
from trioproxy.relay.engines import Relays, make_engine
from trioproxy.relay.ports import RelayPorts
from trioproxy.relay.resets import ResetWatch
from trioproxy.relay.settings import RelaySettings
from trioproxy.relay.streams import ORDERLY, relay_streams
from trioproxy.relay.udp import Association, AssociationSettings

__all__ = [
    "ORDERLY",
    "Association",
    "AssociationSettings",
    "DestinationRights",
    "RelayPorts",
    "RelaySettings",
    "Relays",
    "ResetWatch",
    "accept_target",
    "egress_address",
    "listen_for_target",
    "make_engine",
    "open_target_side",
    "relay_streams",
]
