"""Chains as the configuration says: which backends, who is let in, and who is asked when one cannot tell."""

from typing import Any

import pytest

from auth import Answer, Credentials, Identity, Rejected, Rejection, Unavailable
from auth.local import BackendContext, LocalUser
from auth.membership import Membership
from auth.registry import BackendError
from tests.auth.doubles import CHEAP
from tests.plugins import PASSWORD, Directory, install_directory
from trioproxy.backends import build_chain
from trioproxy.config import Auth, BackendTable, Config, Tenant

ALICE = LocalUser("main", "alice", CHEAP.hash(PASSWORD))
CONTEXT = BackendContext(lambda tenant, name: ALICE if (tenant, name) == ("main", "alice") else None, passwords=CHEAP)
STAFF = frozenset({"staff"})


@pytest.fixture(autouse=True)
def _directory(monkeypatch: pytest.MonkeyPatch) -> None:
    install_directory(monkeypatch, Identity("main", "bob", STAFF), Identity("physics", "bob", STAFF))


def a_config(*backends: str, **keys: Any) -> Config:
    """The tenant main as stated; physics has the same directory and says nothing else."""
    tables = {"campus": BackendTable("directory")}
    return Config(auth=Auth(backends, tables=tables, **keys), tenant={"physics": Tenant(backends=("campus",))})


def log_in(config: Config, name: str, tenant: str = "main") -> Answer:
    """What the chain of the tenant says to the right password."""
    return build_chain(config, tenant, CONTEXT).authenticate(Credentials(tenant, name, PASSWORD))


def test_each_tenant_has_its_own_group_and_its_backends_know_it() -> None:
    """DESIGN section 6: a directory decides about the proxy group of the tenant for which it is built."""
    config = a_config("campus", proxy_group="staff")
    assert log_in(config, "bob") == Identity("main", "bob", STAFF, "campus")
    assert log_in(config, "bob", "physics") == Rejected(Rejection.NOT_A_MEMBER)
    assert [context.proxy_group for context in Directory.contexts] == ["staff", "system-proxy"]


def test_others_are_let_in_where_the_tenant_says_so() -> None:
    """`nonmembers = "global-rules"`: who is outside the group logs in, and is marked as what it is."""
    assert log_in(a_config("local"), "alice") == Rejected(Rejection.NOT_A_MEMBER)
    config = a_config("local", "campus", nonmembers="global-rules")
    assert log_in(config, "alice") == Identity("main", "alice", backend="local", member=False)
    assert log_in(config, "bob") == Identity("main", "bob", STAFF, "campus", member=False)
    assert build_chain(config, "physics", CONTEXT).membership == Membership("system-proxy")


@pytest.mark.parametrize("fall_through", [False, True])
def test_next_backend_is_asked_after_one_that_cannot_tell_only_if_that_is_said(fall_through: bool) -> None:
    """CASES 2.3: a password meant for one directory reaches no other backend by default."""
    Directory.people["main", "alice"] = Unavailable("down")
    config = a_config("campus", "local", nonmembers="global-rules", fall_through=fall_through)
    found = Identity("main", "alice", backend="local", member=False)
    assert log_in(config, "alice") == (found if fall_through else Unavailable("down"))


def test_a_chain_that_cannot_be_built_says_whose_it_is() -> None:
    """One line for whoever starts the server."""
    with pytest.raises(BackendError, match="tenant main: a backend is named twice in one chain"):
        build_chain(a_config("local", "local"), "main", CONTEXT)
