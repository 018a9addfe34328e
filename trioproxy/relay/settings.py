"""What a TCP relay is told about its flow, besides the two sockets."""

import socket
from collections.abc import Callable

import attrs

from trioproxy.policy import Permit
from trioproxy.policy.shapes import Shape

__all__ = ["RelaySettings"]


@attrs.frozen(eq=False)
class RelaySettings:
    """What a TCP relay is told about its flow.

    Attributes:
        permit: what allows it; kept in the record.
        idle_s: without a byte in either direction for so long the relay ends.
        half_closed_s: the same once one direction has ended.
        settle: called with the target's socket once the relay has lasted a moment: short ones need not pay for it.
        early_data: what the client sent behind its request and was read already.
        client_ended: the client's end of input was seen already.
        early_answer: what the target has said and was read already.
        check: is given the target's first bytes, piece by piece, before the client sees them: whether they are what
            was promised, or None as long as nobody can tell.
        shape: what bytes have to wait for; None: for nothing.
    """

    permit: Permit
    idle_s: float
    half_closed_s: float
    settle: Callable[[socket.socket], None]
    early_data: bytes = b""
    client_ended: bool = False
    early_answer: bytes = b""
    check: Callable[[bytes], bool | None] | None = None
    shape: Shape | None = None
