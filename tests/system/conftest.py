"""What the system tests share: the mark `system`, a server for each file of tests, and origins to reach through it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.origins import Web, tcp_origin, udp_echo, web_origin
from tests.system.proxy import LOOPBACK_FLOOR, PASSWORD, USER, Proxy

HERE = Path(__file__).parent

# Listeners 0 and 1 want a login, 2 and 3 do not; the even ones are IPv4.
CONFIG = f"""
[[listener]]
address = "127.0.0.1:0"
[[listener]]
address = "[::1]:0"
[[listener]]
address = "127.0.0.1:0"
anonymous = true
[[listener]]
address = "[::1]:0"
anonymous = true
{LOOPBACK_FLOOR}
"""

# Everybody may reach 127.0.0.1 and ::1, but nobody port 25; Alice may do more.
RULES = {
    "global": ["deny any:*(*)->*(25)", "tcp:*(*)->127.0.0.1(*)", "tcp:*(*)->::1(*)"],
    f"user:{USER}": ["any:*(*)->*(*)"],
}

FAMILIES = {"127.0.0.1": 0, "::1": 1}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder starts real programs."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A running server, the same for all tests of one file: few enough wrong passwords, so that none is penalised."""
    with Proxy(tmp_path_factory.mktemp("proxy"), CONFIG).seed({USER: PASSWORD}, RULES) as running:
        yield running


@pytest.fixture
def small_proxy(tmp_path: Path) -> Callable[..., Proxy]:
    """Makes a server of the test's own, not started yet: one listener; Alice may do everything."""

    def make(more: str = "", *, listener: str = "", **how: object) -> Proxy:
        config = f'{LOOPBACK_FLOOR}{more}\n[[listener]]\naddress = "127.0.0.1:0"\n{listener}\n'
        return Proxy(tmp_path, config, **how).seed(  # type: ignore[arg-type]  # as Proxy says
            {USER: PASSWORD}, {f"user:{USER}": ["any:*(*)->*(*)"]}
        )

    return make


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """127.0.0.1 and ::1: the test runs once with each."""
    return str(request.param)


@pytest.fixture
def login_address(proxy: Proxy, family: str) -> tuple[str, int]:
    """Where the server wants a login."""
    return proxy.addresses[FAMILIES[family]]


@pytest.fixture
def anonymous_address(proxy: Proxy, family: str) -> tuple[str, int]:
    """Where it does not."""
    return proxy.addresses[FAMILIES[family] + 2]


@pytest.fixture
def web(family: str) -> Iterator[Web]:
    """A web server of the same family."""
    with web_origin(family) as server:
        yield server


@pytest.fixture
def echo(family: str) -> Iterator[tuple[str, int]]:
    """A TCP echo server of the same family."""
    with tcp_origin(family) as address:
        yield address


@pytest.fixture
def udp(family: str) -> Iterator[tuple[str, int]]:
    """A UDP echo server of the same family."""
    with udp_echo(family) as address:
        yield address


@pytest.fixture
def as_root() -> None:
    """Skips a test that needs what only root may do: namespaces and mounts."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a network namespace or to mount")
