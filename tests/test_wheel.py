"""What is tested is what is shipped: `make test` runs all of this against the wheel, not against the source tree."""

import os
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

import auth
import trioproxy

SITE_PACKAGES = Path(sysconfig.get_path("purelib")).resolve()

of_the_wheel = pytest.mark.skipif(
    os.environ.get("TRIOPROXY_TEST_WHEEL") != "1", reason="this run tests the source tree; `make test` tests the wheel"
)


def _home(package: str) -> Path:
    return Path(package).resolve().parent.parent


@of_the_wheel
def test_both_packages_come_from_the_wheel() -> None:
    """`auth` is a package of its own beside `trioproxy`; automatic discovery would leave it out without a word."""
    assert (_home(trioproxy.__file__), _home(auth.__file__)) == (SITE_PACKAGES, SITE_PACKAGES)


@of_the_wheel
def test_the_wheel_ships_what_is_not_python() -> None:
    """Migrations and the markers of typed packages are needed at run time and are no modules."""
    shipped = {str(path) for path in metadata.files("trioproxy") or ()}
    assert {"trioproxy/py.typed", "auth/py.typed"} <= shipped
    for folder in ("migrations", "usage_migrations"):
        assert any(path.startswith(f"trioproxy/store/{folder}/") and path.endswith(".sql") for path in shipped)


@of_the_wheel
def test_nothing_but_the_two_packages_is_shipped() -> None:
    """Tests and tools would land in everybody's site-packages under names like `tests`."""
    tops = {path.parts[0] for path in metadata.files("trioproxy") or () if path.suffix == ".py"}
    assert tops == {"trioproxy", "auth"}


@of_the_wheel
def test_the_console_script_and_the_backends_are_registered() -> None:
    """`trioproxy` is a command, and backends are found through the entry-point group `trioproxy.auth`."""
    points = {(point.group, point.name, point.value) for point in metadata.distribution("trioproxy").entry_points}
    assert points == {
        ("console_scripts", "trioproxy", "trioproxy.cli:main"),
        ("trioproxy.auth", "ldap", "auth.ldap:LdapBackend"),
        ("trioproxy.auth", "local", "auth.local:LocalBackend"),
    }


@of_the_wheel
def test_the_version_is_that_of_the_package() -> None:
    """The version stands in one place, `trioproxy.__version__`."""
    assert metadata.version("trioproxy") == trioproxy.__version__
