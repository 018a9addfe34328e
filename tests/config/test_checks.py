"""What no single value shows."""

import pytest

from trioproxy.config import ConfigError, parse_config_untrusted
from trioproxy.config.checks import join

KEYS_OF_MAIN = "tenant.main: backends, proxy_group, nonmembers, fall_through of this tenant belong in [auth]"
TENANT_NAME = "a tenant name is 1 to 63 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit"


def errors_of(text: str) -> list[str]:
    """All errors of a file; none if it is fine."""
    try:
        parse_config_untrusted(text, "t")
    except ConfigError as error:
        return list(error.errors)
    return []


def listener(address: str, *lines: str) -> str:
    """A table for one listener."""
    return "\n".join(["[[listener]]", f'address = "{address}"', *lines, ""])


@pytest.mark.parametrize(
    ("address", "lines", "refused"),
    [
        ("0.0.0.0:1080", ["anonymous = true"], True),
        ("[::]:1080", ["anonymous = true"], True),
        ("10.0.0.1:1080", ["anonymous = true"], True),
        ("0.0.0.0:1080", ["anonymous = true", "anonymous_beyond_loopback = true"], False),
        ("0.0.0.0:1080", ["anonymous_beyond_loopback = true"], False),
        ("127.0.0.1:1080", ["anonymous = true"], False),
        ("[::1]:1080", ["anonymous = true"], False),
    ],
)
def test_an_open_proxy_must_be_meant(address: str, lines: list[str], refused: bool) -> None:
    """Case 33: no login on a listener that others reach is refused unless it is said twice."""
    errors = errors_of(listener(address, *lines))
    assert [error.partition(":")[0] for error in errors] == (["listener[0].anonymous"] if refused else [])


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        ("127.0.0.1:1080", "127.0.0.1:1080", True),
        ("0.0.0.0:1080", "127.0.0.1:1080", True),
        ("127.0.0.1:1080", "0.0.0.0:1080", True),
        ("[::]:1080", "[::1]:1080", True),
        ("0.0.0.0:1080", "[::]:1080", False),  # an IPv6 listener takes IPv6 alone
        ("127.0.0.1:1080", "127.0.0.2:1080", False),
        ("127.0.0.1:1080", "127.0.0.1:1081", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_two_listeners_on_one_address(first: str, second: str, taken: bool) -> None:
    """The second could not be opened; that is said before anything starts."""
    expected = [f"listener[1].address: {second} is taken by listener[0] already"] if taken else []
    assert errors_of(listener(first) + listener(second)) == expected


def test_no_listener_at_all() -> None:
    """A proxy that listens nowhere is a mistake."""
    assert errors_of("listener = []") == ["listener: at least one is needed"]


def test_one_address_of_each_family_is_advertised() -> None:
    """BND.ADDR holds one address, of the family the client used."""
    text = listener("127.0.0.1:1", 'advertise = ["1.2.3.4", "1.2.3.5"]')
    assert errors_of(text) == ["listener[0].advertise: one IPv4 and one IPv6 address at most"]
    assert errors_of(listener("127.0.0.1:1", 'advertise = ["1.2.3.4", "2001:db8::1"]')) == []


def test_the_tenant_of_a_listener_exists() -> None:
    """A listener for nobody would refuse every login; the tenants there are stand in the error."""
    text = listener("127.0.0.1:1", 'tenant = "chemistry"') + "[tenant.physics]\n"
    assert errors_of(text) == ["listener[0].tenant: there is no tenant 'chemistry', only main, physics"]


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("[tenant.physics]\n", []),
        ("[tenant.Physics]\n", ["tenant.Physics: write 'physics', the name of a tenant is lower-case"]),
        (
            '[tenant."a/b"]\n',
            [f'tenant."a/b": {TENANT_NAME}'],
        ),
        (
            '[tenant.a]\nproxy_group = "x/y"\n',
            ['tenant.a.proxy_group: a group name holds none of / : , " \\'],
        ),
        (
            '[auth]\nproxy_group = "Staff"\n',
            ["auth.proxy_group: write 'staff', the name of a group is lower-case"],
        ),
        (
            '[tenant.main]\nbackends = ["x"]\n[auth.x]\ntype = "local"\n',
            [KEYS_OF_MAIN],
        ),
        ('[tenant.main]\nproxy_group = "socks"\n', [KEYS_OF_MAIN]),
        ('[tenant.main]\nnonmembers = "global-rules"\n', [KEYS_OF_MAIN]),
        ("[tenant.main]\nfall_through = true\n", [KEYS_OF_MAIN]),
        ('[tenant.a]\nnonmembers = "global-rules"\nfall_through = true\n', []),
        ('[tenant.main]\nrealms = ["example.org"]\n', []),
    ],
)
def test_tenants(text: str, errors: list[str]) -> None:
    """Names are compared in one spelling, so the file must use it."""
    assert errors_of(text) == errors


@pytest.mark.parametrize("realm", ["", "A.example", "a@b", " a", "a b"])
def test_what_is_no_realm(realm: str) -> None:
    """A realm is what can stand behind the last @ of a canonical login name."""
    assert errors_of(f'[tenant.a]\nrealms = ["{realm}"]\n') == [
        f"tenant.a.realms[0]: {realm!r} is not what may stand behind an @, in lower case"
    ]


def test_a_realm_belongs_to_one_tenant() -> None:
    """DESIGN section 3: the realm selects the tenant, so it can be only one."""
    text = '[tenant.a]\nrealms = ["x.org"]\n[tenant.b]\nrealms = ["y.org", "x.org"]\n'
    assert errors_of(text) == ["tenant.b.realms[1]: 'x.org' is a realm of tenant 'a' already"]


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ('[auth]\nbackends = ["campus"]\n', ["auth.backends[0]: there is no table [auth.campus]"]),
        ('[tenant.a]\nbackends = ["b\\nc"]\n', ['tenant.a.backends[0]: there is no table [auth."b\\nc"]']),
        ("[auth]\nbackends = []\n", ["auth.backends: at least one is needed, or nobody could log in"]),
        ('[auth]\nbackends = ["local", "local"]\n', ["auth.backends[1]: 'local' is listed twice"]),
        (
            '[auth.local]\ntype = "ldap9"\n',
            [
                "auth.local.type: the backend 'local' is the tenant's own users; call this one otherwise",
                "auth.local.type: there is no backend 'ldap9'; installed are ldap, local",
            ],
        ),
        ('[auth.x]\ntype = "local"\nurl = "y"\n', ["auth.x: unknown key 'url'"]),
        (
            '[auth."x y"]\ntype = "local"\n',
            ["""auth."x y": the name of a backend is up to 63 letters, digits, '_' and '-'"""],
        ),
    ],
)
def test_backends(text: str, errors: list[str]) -> None:
    """Every backend that is named has a table, and its plug-in accepts the table."""
    assert errors_of(text) == errors


def test_a_deadline_behind_the_end_of_the_handshake() -> None:
    """A limit that can never be reached is a misunderstanding."""
    assert errors_of("[auth]\ndeadline_s = 20\n") == [
        "auth.deadline_s: 20 is never reached, limits.handshake_s ends the connection after 10 s"
    ]
    assert errors_of("[auth]\ndeadline_s = 20\n[limits]\nhandshake_s = 30\n") == []


def test_only_sqlite_yet() -> None:
    """Case 106: the URL of another server is refused without being repeated."""
    [error] = errors_of('[store]\nurl = "postgresql://me:PW-CANARY@db/x"\n')
    assert error == 'store.url: only SQLite is supported yet, e.g. "sqlite:////var/lib/trioproxy/trioproxy.db"'


def test_a_broken_section_is_not_judged_by_its_defaults() -> None:
    """A listener for a tenant whose table is wrong is no second error."""
    text = listener("127.0.0.1:1", 'tenant = "physics"') + "[tenant.physics]\nrealms = 5\n"
    assert errors_of(text) == ["tenant.physics.realms: this is 5, a list is expected"]


@pytest.mark.parametrize(
    ("path", "key", "joined"),
    [("a", "b-1", "a.b-1"), ("", "x", "x"), ("a", "b c", 'a."b c"'), ("a", "\u202e", 'a."\\u202e"'), ("a", "", 'a.""')],
)
def test_paths(path: str, key: str, joined: str) -> None:
    """An odd key is quoted as in TOML: an error is one line, whatever the file holds."""
    assert joined == join(path, key)
