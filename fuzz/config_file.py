"""The configuration file: any bytes give a sound configuration, or errors that a person can read."""

import math
import tomllib

import attrs

from trioproxy.config import Auth, Config, ConfigError, Limits, StoreSettings, parse_config_untrusted

__all__ = ["test_one_input"]


def test_one_input(data: bytes) -> None:
    """Only `ConfigError` escapes, each of its errors is one line, and what is accepted holds together."""
    try:
        config = parse_config_untrusted(data, "fuzz.toml")
    except ConfigError as error:
        _check_errors(error.errors)
        return
    assert tomllib.loads(data.decode("utf-8-sig")).keys() <= attrs.fields_dict(Config).keys()
    _check_listeners(config)
    _check_numbers(config)
    for tenant in config.tenants().values():
        assert set(tenant.backends) <= {"local", *config.auth.tables}


def _check_errors(errors: tuple[str, ...]) -> None:
    assert errors
    assert all(line.isprintable() for line in errors)
    # "path: what is wrong" each, or one sentence about a file that is no TOML at all.
    assert len(errors) == 1 or all(": " in line for line in errors)


def _check_listeners(config: Config) -> None:
    assert config.listener
    for listener in config.listener:
        assert 0 <= listener.address.port <= 65_535
        assert listener.tenant in config.tenants()
        # Case 33: an open proxy needs two words, not one.
        assert not listener.anonymous or listener.anonymous_beyond_loopback or listener.address.host.is_loopback
        for ports in (listener.udp_ports, listener.bind_ports):
            assert ports is None or 1 <= ports.first <= ports.last <= 65_535


def _check_numbers(config: Config) -> None:
    sections: tuple[Limits | Auth | StoreSettings, ...] = (config.limits, config.auth, config.store)
    for section in sections:
        for field in attrs.fields(type(section)):
            value = getattr(section, field.name)
            if isinstance(value, int | float) and field.type is not bool:
                assert not isinstance(value, bool)
                assert math.isfinite(value)
                assert value >= 0
