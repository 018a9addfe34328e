"""Users, layers and rules as tests write them."""

from auth.local import LocalUser
from trioproxy.policy import Rule, Scope, parse_rule

__all__ = ["ALICE", "BOB", "GLOBAL", "alice", "rule", "rules"]

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
GLOBAL = Scope.parse("global")
ALICE = Scope.parse("user:alice")
BOB = Scope.parse("user:physics/bob")


def alice(tenant: str = "main", name: str = "alice", groups: tuple[str, ...] = ("system-proxy",)) -> LocalUser:
    """A user who can log in."""
    return LocalUser(tenant, name, HASH, frozenset(groups))


def rule(text: str) -> Rule:
    """A parsed rule."""
    return parse_rule(text)


def rules(*texts: str) -> list[Rule]:
    """Parsed rules."""
    return [parse_rule(text) for text in texts]
