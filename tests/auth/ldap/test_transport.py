"""What a connection says of its end; what it says of certificates is in test_certificates.py."""

import socket
import struct

import pytest

from auth import Cause
from auth.ldap.deadline import Deadline
from auth.ldap.failure import DirectoryError
from auth.ldap.transport import Transport

_MORE_THAN_FITS = b"x" * 64_000_000


@pytest.fixture
def pair() -> tuple[Transport, socket.socket]:
    """A connection, and the directory's end of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return Transport(ours), theirs


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _cause(of: pytest.ExceptionInfo[DirectoryError]) -> Cause:
    return of.value.cause


def test_reader_that_stops(pair: tuple[Transport, socket.socket]) -> None:
    """A question that does not fit into the buffers waits for as long as it may."""
    transport, theirs = pair
    with pytest.raises(DirectoryError) as error:
        transport.send(_MORE_THAN_FITS, Deadline.after(0.2))
    assert _cause(error) is Cause.TIMEOUT
    transport.close()
    theirs.close()


def test_nothing_comes(pair: tuple[Transport, socket.socket]) -> None:
    """An answer that does not come is waited for as long as it may."""
    transport, theirs = pair
    with pytest.raises(DirectoryError) as error:
        transport.receive(Deadline.after(0.05))
    assert _cause(error) is Cause.TIMEOUT
    transport.close()
    theirs.close()


def test_reset(pair: tuple[Transport, socket.socket]) -> None:
    """A RST is told as a lost connection, by whichever call meets it."""
    transport, theirs = pair
    _reset(theirs)
    with pytest.raises(DirectoryError, match="lost") as error:
        transport.receive(Deadline.after(5))
    assert _cause(error) is Cause.CONNECT
    with pytest.raises(DirectoryError, match="lost") as error:
        transport.send(b"x", Deadline.after(5))
    assert _cause(error) is Cause.CONNECT
    transport.close()
