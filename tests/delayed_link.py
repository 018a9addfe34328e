"""A distant machine on this one: whatever is sent to it takes its time, and comes back as if it were there.

Run as root in a network namespace: `python -m tests.delayed_link 100` makes 10.9.0.2, 100 ms away in each direction. A
server that listens at 10.9.0.1 is reached at 10.9.0.2: each packet waits here, then its two addresses change places,
which leaves every checksum right. (`tc netem` does the same where the kernel has it.)
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from typing import Final

__all__ = ["FAR", "NEAR", "run"]

NEAR: Final = "10.9.0.1"
FAR: Final = "10.9.0.2"

_DEVICE: Final = "far0"
_PACKET_BYTES_MAX: Final = 65_536
_SET_INTERFACE, _TUN, _NO_HEADER = 0x4004_54CA, 0x0001, 0x1000  # linux/if_tun.h


def run(delay_s: float) -> None:
    """Carry packets until standard input ends."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _SET_INTERFACE, struct.pack("16sH", _DEVICE.encode(), _TUN | _NO_HEADER))
    subprocess.run(["ip", "addr", "add", NEAR, "peer", FAR, "dev", _DEVICE], check=True)
    subprocess.run(["ip", "link", "set", _DEVICE, "up", "txqueuelen", "10000"], check=True)
    print("ready", flush=True)  # noqa: T201 - whoever started it waits for that
    waiting: deque[tuple[float, bytes]] = deque()
    poll = select.poll()
    poll.register(device, select.POLLIN)
    poll.register(sys.stdin, select.POLLIN)
    while True:
        timeout_ms = max(0.0, (waiting[0][0] - time.monotonic()) * 1000) if waiting else None
        ready = dict(poll.poll(timeout_ms))
        if sys.stdin.fileno() in ready:
            return
        if device in ready:
            packet = os.read(device, _PACKET_BYTES_MAX)
            if packet[0] >> 4 == 4:
                waiting.append((time.monotonic() + delay_s, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            packet = waiting.popleft()[1]
            source, destination = packet[12:16], packet[16:20]
            os.write(device, packet[:12] + destination + source + packet[20:])


if __name__ == "__main__":
    run(float(sys.argv[1]) / 1000)
