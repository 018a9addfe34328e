"""The configuration file as a whole: every fault at once, each with its path, and all or nothing."""

import os
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.config import (
    BackendTable,
    Config,
    ConfigError,
    Listener,
    PortRange,
    SocketAddress,
    Tenant,
    load_config,
    parse_config_untrusted,
)
from trioproxy.config import load as loading

WHOLE = """
[[listener]]
address = "0.0.0.0:1080"
advertise = ["203.0.113.7", "2001:db8::7"]
udp_ports = "40000-40999"
udp_port_lock = "ip"
bound_address = "zero"
tenant = "physics"
realms = true

[[listener]]
address = "[::1]:1080"
anonymous = true

[auth]
backends = ["local", "campus"]
proxy_group = "socks"
cache_s = 5

[auth.campus]
type = "local"

[tenant.physics]
realms = ["physics.example.org"]
backends = ["campus"]

[store]
url = "sqlite:////var/lib/x.db"

[policy]
open_floor = ["127.0.0.0/8"]
closed = ["192.0.2.10:5432"]

[limits]
drain_s = 0

[log]
level = "debug"
"""


def errors_of(text: str | bytes) -> tuple[str, ...]:
    """All errors of a file that must be refused."""
    with pytest.raises(ConfigError) as caught:
        parse_config_untrusted(text, "t.toml")
    return caught.value.errors


def test_the_whole_file() -> None:
    """DESIGN section 6: each section of the file becomes the class of its name."""
    config = parse_config_untrusted(WHOLE, "t.toml")
    assert config.listener == (
        Listener(
            SocketAddress(IPv4Address("0.0.0.0"), 1080),
            advertise=(IPv4Address("203.0.113.7"), IPv6Address("2001:db8::7")),
            udp_ports=PortRange(40000, 40999),
            udp_port_lock="ip",
            bound_address="zero",
            tenant="physics",
            realms=True,
        ),
        Listener(SocketAddress(IPv6Address("::1"), 1080), anonymous=True),
    )
    assert config.auth.backends == ("local", "campus")
    assert config.auth.tables["campus"].type == "local"
    assert config.auth.cache_s == 5.0
    assert config.policy.open_floor == (IPv4Network("127.0.0.0/8"),)
    assert config.policy.closed == (SocketAddress(IPv4Address("192.0.2.10"), 5432),)
    assert config.limits.drain_s == 0
    assert config.log.level == "debug"


def test_tenant_main_is_the_auth_section() -> None:
    """DESIGN section 6: [auth] is the tenant main, further tenants have tables of their own."""
    tenants = parse_config_untrusted(WHOLE, "t.toml").tenants()
    assert tenants == {
        "main": Tenant(backends=("local", "campus"), proxy_group="socks"),
        "physics": Tenant(realms=("physics.example.org",), backends=("campus",)),
    }


def test_no_file_is_the_defaults() -> None:
    """Issue item 2: without a configuration the server listens on loopback alone."""
    assert load_config(None) == Config()
    assert [str(listener.address) for listener in Config().listener] == ["127.0.0.1:1080"]


def test_an_empty_file_is_the_defaults() -> None:
    """Every key has a default."""
    assert parse_config_untrusted("", "t.toml") == Config()


def test_defaults_pass_their_own_checks() -> None:
    """A default outside its own limits would be refused as soon as somebody wrote it down."""
    lines = ["[limits]"]
    lines += [f"{field.name} = {getattr(Config().limits, field.name)}" for field in attrs.fields(type(Config().limits))]
    assert parse_config_untrusted("\n".join(lines), "t.toml") == Config()


def test_every_error_at_once_with_its_path() -> None:
    """Issue: a broken configuration lists every error with its path; wrong values and wrong relations together."""
    text = """
listen = 1
[[listener]]
address = "1.2.3.4:99999"
anonymos = true
[[listener]]
anonymous = "yes"
udp_ports = "5-1"
[auth]
hash_threads = 0
backends = ["nix"]
[auth.campus]
url = "x"
[tenant.Physics]
realms = ["A"]
[policy]
open_floor = ["10.0.0.1/8", 5]
[limits]
drain = 5
idle_s = nan
[log]
level = "loud"
[store]
url = "mysql://x"
"""
    paths = [error.partition(":")[0] for error in errors_of(text)]
    assert paths == [
        "listen",
        "listener[0].address",
        "listener[0].anonymos",
        "listener[1].address",
        "listener[1].anonymous",
        "listener[1].udp_ports",
        "auth.hash_threads",
        "auth.campus",
        "policy.open_floor[0]",
        "policy.open_floor[1]",
        "limits.idle_s",
        "limits.drain",
        "log.level",
        "tenant.Physics",
        "tenant.Physics.realms[0]",
        "store.url",
    ]


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("[limit]\ndrain_s = 1\n", "limit: unknown section (did you mean 'limits'?)"),
        ("[limits]\ndrain = 1\n", "limits.drain: unknown key (did you mean 'drain_s'?)"),
        ("[auth]\nbackend = ['local']\n", "auth.backend: unknown key (did you mean 'backends'?)"),
        ("[store]\nzzz = 1\n", "store.zzz: unknown key"),
        ("[auth]\ntables = 1\n", "auth: unknown key 'tables'"),
    ],
)
def test_unknown_keys_are_errors(text: str, suggestion: str) -> None:
    """STYLE habit 11: an unknown key is an error, and the likely one is named."""
    assert errors_of(text) == (suggestion,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a = [", "not TOML: Invalid value (at end of document)"),
        (b"\xff\xfe", "not UTF-8 (byte 0)"),
        ("a = " + "[" * 5000, "lists or tables are nested too deeply"),
        ("a = " + "1" * 5000, "not TOML: Exceeds the limit (4300 digits) for integer string conversion"),
        ("#" * (1 << 20) + "#", "larger than 1,048,576 bytes: is this the right file?"),
    ],
)
def test_no_toml_at_all(content: str | bytes, message: str) -> None:
    """A file that is no TOML is one clear line and no traceback."""
    [error] = errors_of(content)
    assert error.startswith(message)


def test_a_byte_order_mark_and_crlf_are_fine() -> None:
    """Editors on Windows write both."""
    assert parse_config_untrusted(b'\xef\xbb\xbf[log]\r\nlevel = "error"\r\n', "t").log.level == "error"


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A configuration that was named must be there: the defaults would be another machine."""
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load_config(tmp_path / "none.toml")


def test_a_file_is_read(tmp_path: Path) -> None:
    """The path stands before each error."""
    file = tmp_path / "t.toml"
    file.write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value) == f"{file}: x: unknown section"
    file.write_text("[log]\nlevel = 'error'\n", encoding="utf-8")
    assert load_config(file).log.level == "error"


def test_a_pipe_is_read_up_to_the_limit() -> None:
    """`--config <(generator)` works, and an endless generator does not fill the memory."""
    reader, writer = os.pipe()
    with open(writer, "wb") as out:  # noqa: PTH123 - a descriptor, no path
        out.write(b'[log]\nlevel = "error"\n')
    assert load_config(Path(f"/dev/fd/{reader}")).log.level == "error"
    os.close(reader)


def test_secrets_stay_out_of_errors_and_repr() -> None:
    """Case 106: passwords in the file are in no error and in no repr."""
    text = """
[store]
url = "postgresql://me:PW-CANARY@db/x"
[auth]
password = "PW-CANARY"
[auth.campus]
type = "nothing"
bind_password = "PW-CANARY"
"""
    assert "PW-CANARY" not in "\n".join(errors_of(text))
    config = parse_config_untrusted('[store]\nurl = "sqlite:///PW-CANARY"\n', "t")
    assert "PW-CANARY" not in repr(config)
    assert "PW-CANARY" not in repr(BackendTable("ldap", {"bind_password": "PW-CANARY"}))


_VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 70_000) | st.floats() | st.text(max_size=20) | st.just("1.2.3.4:80"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["address", "type", "x"]), inner),
    max_leaves=5,
)


@given(
    document=st.dictionaries(
        st.sampled_from(["listener", "auth", "tenant", "store", "policy", "limits", "log", "other"]), _VALUES
    )
)
def test_only_config_errors_escape(document: dict[str, object]) -> None:
    """CASES 5: whatever TOML holds, there is a configuration or a ConfigError whose errors are single lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_parse_toml", lambda _text, _where: document)
        try:
            config = parse_config_untrusted("", "t")
        except ConfigError as error:
            lines = error.errors
        else:
            lines = (str(config.listener[0].address),)
    assert lines
    assert all(line.isprintable() for line in lines)
