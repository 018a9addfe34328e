"""What a connection says of its end; what it says of certificates is in test_certificates.py."""

import contextlib
import socket
import ssl
import struct
import threading
import time

import pytest

from auth import Cause
from auth.ldap.deadline import Deadline
from auth.ldap.failure import DirectoryError
from auth.ldap.transport import Transport, _Tls

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


def test_records_without_data(pair: tuple[Transport, socket.socket]) -> None:
    """A flood of key updates, say, of which TLS makes nothing: the clock is looked at after each record."""
    transport, theirs = pair
    fed: list[int] = []

    def flood() -> None:
        with contextlib.suppress(OSError):
            while True:
                theirs.sendall(b"\x17\x03\x03" * 10_000)

    sender = threading.Thread(target=flood)
    tls = _Tls(transport._sock, ssl.create_default_context(), "localhost")

    def step() -> bytes:
        fed.append(tls._incoming.pending)
        tls._incoming.read()
        raise ssl.SSLWantReadError

    sender.start()
    begun_s = time.monotonic()
    with pytest.raises(DirectoryError) as error:
        tls.do(step, Deadline.after(0.3))
    assert _cause(error) is Cause.TIMEOUT
    assert 0.25 < time.monotonic() - begun_s < 3
    assert 0 < max(fed) <= 16_384
    transport.close()
    theirs.close()
    sender.join()


def test_what_nobody_asked_for_is_stale(pair: tuple[Transport, socket.socket]) -> None:
    """Also where TLS has taken it from the socket already."""
    transport, theirs = pair
    assert not transport.is_stale()
    transport._tls = tls = _Tls(transport._sock, ssl.create_default_context(), "localhost")
    assert not transport.is_stale()
    tls._incoming.write(b"x")
    assert transport.is_stale()
    transport.close()
    theirs.close()
