"""Single values: strict types, ranges, and messages that say what would have been right."""

import pytest

from trioproxy.config import ConfigError, parse_config_untrusted

NETWORK = ', e.g. "127.0.0.0/8"'


def outcome(text: str) -> str:
    """The only error of the file, or nothing."""
    try:
        parse_config_untrusted(text, "t")
    except ConfigError as error:
        [line] = error.errors
        return line
    return ""


@pytest.mark.parametrize("address", ["127.0.0.1:0", "0.0.0.0:65535", "[::]:1080", "[2001:db8::1]:1"])
def test_addresses_to_listen_on(address: str) -> None:
    """An address and a port; IPv6 in brackets; port 0 takes any."""
    assert outcome(f'[[listener]]\naddress = "{address}"\n') == ""


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1:80", "localhost:80", "127.1:80", "0177.0.0.1:80", "[::1%lo]:80", "[1.2.3.4]:1", "1.2.3.4:", ""],
)
def test_what_is_no_address_to_listen_on(address: str) -> None:
    """CASES 2.4: no name, no zone, no other spelling of a number."""
    expected = (
        f"""listener[0].address: {address!r} is not an address with a port, e.g. "0.0.0.0:1080" or "[::]:1080\""""
    )
    assert outcome(f'[[listener]]\naddress = "{address}"\n') == expected


def test_a_port_that_is_too_large() -> None:
    """A port has 16 bits."""
    assert outcome('[[listener]]\naddress = "1.2.3.4:65536"\n') == "listener[0].address: port 65536 is above 65535"


@pytest.mark.parametrize("ports", ["0-5", "5-4", "1-65536", "1", "1-", "a-b", "1 - 2", "-1-2"])
def test_wrong_port_ranges(ports: str) -> None:
    """Ranges begin with the smaller port, and 0 is none."""
    error = outcome(f'[[listener]]\naddress = "127.0.0.1:1"\nudp_ports = "{ports}"\n')
    assert error.startswith("listener[0].udp_ports: ")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[auth]\nhash_threads = "2"', "auth.hash_threads: '2' is not a whole number"),
        ("[auth]\nhash_threads = 2.0", "auth.hash_threads: 2.0 is not a whole number"),
        ("[auth]\nhash_threads = true", "auth.hash_threads: true is not a whole number"),
        ("[auth]\nhash_threads = 65", "auth.hash_threads: 65 is not between 1 and 64"),
        ("[auth]\ncache_s = true", "auth.cache_s: true is not a number"),
        ("[auth]\ncache_s = -1", "auth.cache_s: -1 is not between 0 and 60"),
        ("[auth]\ncache_s = 60.5", "auth.cache_s: 60.5 is not between 0 and 60"),
        ("[auth]\nnonmembers = true", 'auth.nonmembers: true is not "refuse" or "global-rules"'),
        ('[tenant.a]\nnonmembers = "all"', 'tenant.a.nonmembers: \'all\' is not "refuse" or "global-rules"'),
        ("[tenant.a]\nfall_through = 1", "tenant.a.fall_through: 1 is not true or false"),
        ("[limits]\nidle_s = nan", "limits.idle_s: nan is not between 0.01 and 31,622,400"),
        ("[limits]\nidle_s = inf", "limits.idle_s: inf is not between 0.01 and 31,622,400"),
        ("[limits]\nidle_s = 0", "limits.idle_s: 0 is not between 0.01 and 31,622,400"),
        ("[limits]\nsessions_per_user_max = 0", "limits.sessions_per_user_max: 0 is not between 1 and 10,000,000"),
    ],
)
def test_numbers(text: str, error: str) -> None:
    """LIBRARIES 7: nothing is converted silently, and every number has a range."""
    assert outcome(text) == error


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[auth]\nproxy_group = 5", "auth.proxy_group: 5 is not a text in quotes"),
        ('[auth]\nbackends = "local"', "auth.backends: this is 'local', a list is expected"),
        ("[auth.backends]\nx = 1", "auth.backends: this is a table, a list is expected"),
        ("[auth.x]\ntype = 3", "auth.x: 3 is not a text in quotes"),
        ("auth = []", "auth: this is a list, a table is expected"),
        ("tenant = 5", "tenant: this is 5, a table is expected"),
        ("[tenant]\nx = 5", "tenant.x: this is 5, a table is expected"),
        ('[log]\nlevel = "loud"', """log.level: 'loud' is not "debug" or "info" or "warning" or "error\""""),
        ("[log]\nlevel = []", """log.level: [] is not "debug" or "info" or "warning" or "error\""""),
        (
            '[listener]\naddress = "127.0.0.1:1"',
            "listener: there may be several of these: write its name in double brackets, [[...]]",
        ),
        ("[[listener]]\n", "listener[0].address: is missing"),
        ('[[listener]]\naddress="127.0.0.1:1"\nrealms = 1', "listener[0].realms: 1 is not true or false"),
        ("[policy]\nopen_floor = [5]", """policy.open_floor[0]: 5 is not a network in quotes, e.g. "127.0.0.0/8\""""),
        (
            '[policy]\nopen_floor = ["10.0.0.1/8"]',
            "policy.open_floor[0]: '10.0.0.1/8' is not a network" + NETWORK + "; it has bits set behind its prefix",
        ),
        (
            '[policy]\nopen_floor = ["ten"]',
            """policy.open_floor[0]: 'ten' is not a network, e.g. "127.0.0.0/8\"""",
        ),
    ],
)
def test_types(text: str, error: str) -> None:
    """Each value has the type that it should have, or the error says which."""
    assert outcome(text) == error


@pytest.mark.parametrize("address", ["5", '"x"', '"fe80::1%eth0"', '"1.2.3.04"'])
def test_wrong_addresses_to_advertise(address: str) -> None:
    """BND.ADDR carries an address without a zone (RFC 1928 section 6)."""
    error = outcome(f'[[listener]]\naddress = "127.0.0.1:1"\nadvertise = [{address}]\n')
    assert error.startswith("listener[0].advertise[0]: ")
    assert "is not an IP address" in error


def test_a_long_value_is_shown_in_part() -> None:
    """A pasted file as a value does not fill the screen."""
    assert len(outcome(f'[log]\nlevel = "{"x" * 10_000}"')) < 200
