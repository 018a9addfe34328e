"""Issue 2 item 5: two organisations in one server, made with the real command line, used with curl."""

from collections.abc import Iterator

import pytest

from tests.system.origins import Web, web_origin
from tests.system.proxy import LOOPBACK_FLOOR, Proxy, proxy_url, run

CONFIG = f"""
{LOOPBACK_FLOOR}
[[listener]]
address = "127.0.0.1:0"
realms = true
[[listener]]
address = "127.0.0.1:0"
tenant = "physics"
[tenant.physics]
realms = ["physics.example.org"]
"""


@pytest.fixture(scope="module")
def two_tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Alice of main may reach 127.0.0.1; Alice of physics may reach 127.0.0.2."""
    proxy = Proxy(tmp_path_factory.mktemp("tenants"), CONFIG)
    proxy.command("user", "add", "alice", "--password-stdin", text="of-main\n")
    proxy.command("user", "add", "physics/alice", "--password-stdin", text="of-physics\n")
    proxy.command("rule", "add", "user:alice", "tcp:*(*)->127.0.0.1(*)")
    proxy.command("rule", "add", "user:physics/alice", "tcp:*(*)->127.0.0.2(*)")
    with proxy:
        yield proxy


@pytest.fixture
def webs() -> Iterator[tuple[Web, Web]]:
    """A web server on each of the two addresses."""
    with web_origin("127.0.0.1") as one, web_origin("127.0.0.2") as two:
        yield one, two


@pytest.mark.parametrize(
    ("listener", "login", "reached"),
    [
        (0, "alice:of-main", (True, False)),
        (1, "alice:of-physics", (False, True)),
        (0, "alice%40physics.example.org:of-physics", (False, True)),
    ],
    ids=["main", "physics", "realm"],
)
def test_each_alice_has_her_own_rules(
    two_tenants: Proxy, webs: tuple[Web, Web], listener: int, login: str, reached: tuple[bool, bool]
) -> None:
    """The listener or the realm selects the tenant; the same name has two passwords and two rule sets."""
    address = two_tenants.addresses[listener]
    codes = [run(["curl", "-sS", "-x", proxy_url(address, login), web.url()]).returncode for web in webs]
    assert tuple(code == 0 for code in codes) == reached
    assert tuple(bool(web.asked) for web in webs) == reached
    for web in webs:
        row = two_tenants.record(asked=f"{web.server_name}:{web.server_port}")
        assert (row["tenant"], row["user"]) == ("main" if reached[0] else "physics", "alice")


@pytest.mark.parametrize(
    ("listener", "login"),
    [
        (0, "alice:of-physics"),
        (1, "alice:of-main"),
        (1, "alice%40physics.example.org:of-physics"),  # this listener knows no realms: the whole name is the name
        (0, "alice%40physics.example.org:of-main"),
        (0, "physics%2Falice:of-physics"),  # how the command line writes it is no way to log in
    ],
)
def test_a_password_of_the_other_tenant(two_tenants: Proxy, webs: tuple[Web, Web], listener: int, login: str) -> None:
    """The password of one Alice is worth nothing to the other."""
    address = two_tenants.addresses[listener]
    done = run(["curl", "-sS", "-x", proxy_url(address, login), webs[0].url()])
    assert done.returncode == 97
    assert "User was rejected by the SOCKS5 server (1 1)" in done.stderr
    assert webs[0].asked == []
