"""The gates of a flow: what its bytes wait for, in each direction."""

import attrs

from trioproxy.policy.buckets import DatagramGate, Gate

__all__ = ["DatagramShape", "Shape"]


@attrs.frozen(eq=False)
class Shape:
    """Of a TCP relay.

    Attributes:
        to_client: for what the target sends.
        to_target: for what the client sends.
    """

    to_client: Gate
    to_target: Gate

    def leave(self) -> None:
        """The relay is over."""
        self.to_client.leave()
        self.to_target.leave()


@attrs.frozen(eq=False)
class DatagramShape:
    """Of one destination of an association."""

    to_client: DatagramGate
    to_target: DatagramGate

    def leave(self) -> None:
        """The destination is forgotten."""
        self.to_client.leave()
        self.to_target.leave()
