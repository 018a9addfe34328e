"""Bulk over a short path is not paced, whatever the system's congestion control; everything else stays as it is."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from trioproxy.relay.pacing import stop_pacing

AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """Connected over loopback: microseconds away."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        with theirs:
            ours.send(b"x")
            theirs.recv(1)
            yield ours


def congestion_of(sock: socket.socket) -> bytes:
    """The name of its congestion control."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


@pytest.mark.skipif("bbr" not in AVAILABLE.read_text(), reason="this kernel has no BBR loaded")
def test_bbr_over_a_short_path(sock: socket.socket) -> None:
    """The timers would cost several times as much as the relay."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
    stop_pacing(sock)
    assert congestion_of(sock) == b"cubic"


def test_others_are_left_alone(sock: socket.socket) -> None:
    """What does not pace is not our business."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    stop_pacing(sock)
    assert congestion_of(sock) == b"reno"


class Kernel:
    """The answers of a kernel, and what it was told."""

    def __init__(self, rtt_us: int, *, refuses: bool = False) -> None:
        self.told: list[bytes] = []
        self._rtt_us = rtt_us
        self._refuses = refuses

    def getsockopt(self, _level: int, option: int, size: int) -> bytes:
        """TCP_CONGESTION or TCP_INFO."""
        return b"bbr\0" if option == socket.TCP_CONGESTION else struct.pack("@148xI", self._rtt_us)[:size]

    def setsockopt(self, _level: int, _option: int, value: bytes) -> None:
        """Take another congestion control."""
        if self._refuses:
            raise PermissionError
        self.told.append(value)


@pytest.mark.parametrize(("rtt_us", "expected"), [(3, [b"cubic"]), (999, [b"cubic"]), (1_000, []), (80_000, [])])
def test_long_paths_keep_what_the_administrator_chose(rtt_us: int, expected: list[bytes]) -> None:
    """From one millisecond on pacing is of use."""
    kernel = Kernel(rtt_us)
    stop_pacing(kernel)  # type: ignore[arg-type]
    assert kernel.told == expected


def test_kernel_that_refuses() -> None:
    """An ordinary user may choose among few: then it stays slow."""
    kernel = Kernel(3, refuses=True)
    stop_pacing(kernel)  # type: ignore[arg-type]
    assert kernel.told == []
