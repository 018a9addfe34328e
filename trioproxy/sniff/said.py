"""What the readers of a client's first bytes have in common."""

from typing import Protocol, TypeAlias

from trioproxy.sniff.answers import Answer
from trioproxy.sniff.finding import App, Finding

__all__ = ["Reader", "Said"]

# What a client's bytes say: what they are; or which protocols they may be, if the server's greeting says so too; or
# nothing as yet.
Said: TypeAlias = Finding | frozenset[App] | None


class Reader(Protocol):
    """Takes what a client sends until it is known what it is.

    Attributes:
        answer: what the server must say to that; None: whatever it says will do.
    """

    answer: Answer | None

    def receive_data(self, data: bytes) -> Said:
        """Take more, in any pieces; not called again once something was said. Never raises."""
