"""Every packet that may arrive at the relay's UDP socket from a client."""

from tests.protocol.oracle import header_length
from trioproxy.protocol import (
    DatagramError,
    decode_datagram_untrusted,
    encode_datagram,
    encode_header,
    header_untrusted,
)

__all__ = ["test_one_input"]


def test_one_input(data: bytes) -> None:
    """A packet is dropped exactly when the oracle says so, and otherwise reads as what was written."""
    length, header = header_length(data), header_untrusted(data)
    assert data.startswith(header)
    try:
        datagram = decode_datagram_untrusted(data)
    except DatagramError:
        assert length is None
    else:
        assert length == len(encode_header(datagram.address))
        assert header == encode_header(datagram.address)
        assert data == encode_datagram(datagram.address, datagram.data)
