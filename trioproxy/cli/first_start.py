"""The first start: one user with a random password and the two rules that let a calling program work."""

import getpass
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

from auth.local import LocalUser
from auth.names import canonical_username
from auth.passwords import hash_password
from trioproxy.cli.passwords import make_password
from trioproxy.config import Config
from trioproxy.policy.grammar import parse_rule
from trioproxy.policy.scope import DEFAULT_TENANT, Scope, ScopeKind
from trioproxy.store import Store

__all__ = ["FirstLogin", "prepare"]

_RULES: Final = ("tcp:*(*)->*(*)", "udp:*(*)->*(*)")


@attrs.frozen
class FirstLogin:
    """The user that was made.

    Attributes:
        name: as it is typed; needs no quoting in a shell or a URL.
        password: to be shown once; needs no quoting either.
        revision: of the store that holds the user and the rules.
    """

    name: str
    password: str = attrs.field(repr=False)
    revision: int


def prepare(store_path: Path, config: Config) -> FirstLogin | None:
    """Make the first user, unless anything was ever changed in this store. Blocks.

    Args:
        store_path: the store; it is there already.
        config: which group may use the proxy.

    Raises:
        StoreError: the store cannot be read or written.
    """
    with Store.open(store_path, create=False) as store:
        if store.revision() != 0:
            return None
        name, password = _login_name(), make_password()
        user = LocalUser(
            DEFAULT_TENANT, name, hash_password(password), frozenset({config.tenants()[DEFAULT_TENANT].proxy_group})
        )
        layer = Scope(ScopeKind.USER, DEFAULT_TENANT, name)
        with store.together():
            store.users.add([user])
            for text in _RULES:
                store.rules.add(layer, parse_rule(text))
        return FirstLogin(name, password, store.revision())


def _login_name() -> str:
    """Who is logged in, if that is a plain name that needs no quoting."""
    # OSError (from 3.13 on) or KeyError: this user id has no name, as in many containers.
    with suppress(OSError, KeyError, ValueError):
        name = canonical_username(getpass.getuser())
        if name.isascii() and name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            return name
    return "user"
