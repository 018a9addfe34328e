"""The configuration: what a machine is, as frozen classes, and the file they are read from."""

from trioproxy.config.floor import build_floor
from trioproxy.config.load import ConfigError, load_config, parse_config_untrusted
from trioproxy.config.model import (
    Auth,
    BackendTable,
    Config,
    Limits,
    Listener,
    Log,
    PolicySettings,
    PortRange,
    Scans,
    SocketAddress,
    StoreSettings,
    Tenant,
)
from trioproxy.config.zones import build_zones

__all__ = [
    "Auth",
    "BackendTable",
    "Config",
    "ConfigError",
    "Limits",
    "Listener",
    "Log",
    "PolicySettings",
    "PortRange",
    "Scans",
    "SocketAddress",
    "StoreSettings",
    "Tenant",
    "build_floor",
    "build_zones",
    "load_config",
    "parse_config_untrusted",
]
