"""What the tests of logins share: a backend for the directory at hand, and all that it says on the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from auth import Answer, Credentials, Identity, Rejected, Rejection, Step
from auth.chain import Chain
from auth.ldap import LdapBackend, LdapSettings
from auth.local import BackendContext
from tests.directories.slapd import Slapd
from tests.directories.tree import GROUPS, PEOPLE, SERVICE, password_of

__all__ = ["NOT_A_MEMBER", "OTHER_NAME", "UNKNOWN", "WRONG", "Trying", "of_slapd", "settings_for", "trying"]

UNKNOWN = Rejected(Rejection.UNKNOWN_USER)
WRONG = Rejected(Rejection.WRONG_PASSWORD)
OTHER_NAME = Rejected(Rejection.OTHER_NAME)
NOT_A_MEMBER = Rejected(Rejection.NOT_A_MEMBER)


def settings_for(ca: Path, secret: Path, *urls: str, **changes: Any) -> LdapSettings:
    """Settings for servers that have the tree of `tests.directories.tree`."""
    settings: dict[str, Any] = {
        "urls": urls,
        "user_base": PEOPLE,
        "group_base": GROUPS,
        "ca_file": str(ca),
        "bind_dn": SERVICE,
        "bind_password_file": str(secret),
        **changes,
    }
    return LdapSettings(**settings)


@attrs.define
class Trying:
    """A backend of its own, and the steps it has told of.

    Attributes:
        backend: opened.
        chain: that asks it alone, as the server does.
        steps: in their order.
    """

    backend: LdapBackend
    chain: Chain
    steps: list[Step]

    def log_in(self, name: str, password: str | None = None, *, tenant: str = "main") -> Answer:
        """A login through the chain, by default with the right password."""
        return self.chain.authenticate(
            Credentials(tenant=tenant, username=name, password=password_of(name) if password is None else password)
        )

    def find(self, name: str) -> Answer:
        """Who that is, without a password."""
        return self.chain.find("main", name)

    def groups_of(self, name: str) -> frozenset[str]:
        """The groups that a login brings."""
        answer = self.log_in(name)
        assert isinstance(answer, Identity), answer
        return answer.groups

    def step(self, name: str) -> Step:
        """The last step of this name."""
        return next(step for step in reversed(self.steps) if step.name == name)

    @property
    def failures(self) -> list[Step]:
        """The steps that went wrong."""
        return [step for step in self.steps if step.failed]


@contextmanager
def trying(settings: LdapSettings, *, proxy_group: str = "system-proxy") -> Iterator[Trying]:
    """Open a backend until the block ends."""
    steps: list[Step] = []
    context = BackendContext(find_user=lambda _tenant, _name: None, proxy_group=proxy_group, observe=steps.append)
    backend = LdapBackend(settings, context)
    chain = Chain([("campus", backend)], proxy_group)
    chain.open()
    try:
        yield Trying(backend, chain, steps)
    finally:
        chain.close()


def of_slapd(server: Slapd, *urls: str, **changes: Any) -> LdapSettings:
    """Settings for a running slapd; by default its ldaps:// port."""
    return settings_for(server.ca, server.service_password_file, *(urls or (server.tls_url,)), **changes)
