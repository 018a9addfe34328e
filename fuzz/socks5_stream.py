"""Everything that a client may send over TCP before the relay begins.

The first octet of an input says in its low bits at how many places the stream is cut and with 0x80 that it ends. The
places follow as one octet each, then the stream.
"""

from tests.protocol.driver import drive, split
from tests.protocol.oracle import Outlook, lengths
from trioproxy.protocol import State

__all__ = ["test_one_input"]

_PLACES_MASK = 0x3F
_ENDED = 0x80


def test_one_input(data: bytes) -> None:
    """However the stream is cut, the same comes out, and it is what the oracle says."""
    if not data:
        return
    behind = 1 + (data[0] & _PLACES_MASK)
    places, stream = data[1:behind], data[behind:]
    ended = bool(data[0] & _ENDED)
    end = [b""] if ended else []
    whole = drive([*split(stream, []), *end])
    assert whole == drive([*split(stream, places), *end])

    read, outlook = lengths(stream)
    assert read == [len(event.encode()) for event in whole.events]
    wrong = outlook is Outlook.ILLEGAL or (outlook is Outlook.INCOMPLETE and ended)
    assert wrong == (whole.violation is not None)
    assert whole.trailing_data == (b"" if whole.state is State.CLOSED else stream[sum(read) :])
    assert stream.startswith(b"".join(event.encode() for event in whole.events))
