"""recvmmsg and sendmmsg of the C library: many datagrams in one call, and addresses as the kernel writes them.

All sockets share the buffers: they are used inside one call of `receive` or `send` only, never across an await, and in
one thread.
"""

import ctypes
import errno
import functools
import mmap
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

__all__ = ["MESSAGES_MAX", "SOL_UDP", "UDP_GRO", "UDP_SEGMENT", "Message", "MessageCalls", "message_calls"]

MESSAGES_MAX: Final = 64  # in one call
SOL_UDP: Final = socket.IPPROTO_UDP
UDP_SEGMENT: Final = 103  # linux/udp.h; Python has no names for these two
UDP_GRO: Final = 104

# One message to send: the datagrams, one behind the other; the name of the receiver; the size of each datagram but the
# last, which may be shorter, or 0 where there is one only. A name is a sockaddr.
Message: TypeAlias = tuple[bytes, bytes, int]
_Function: TypeAlias = Callable[..., int]

_LENGTH_MAX = 65_535  # of a datagram, and of datagrams that the kernel has joined
# Each message has pages of its own: only what is touched takes memory. Were they 64 KiB apart, the beginnings of all
# messages would compete for the same few lines of the processor's caches.
_STEP = _LENGTH_MAX + 1 + mmap.PAGESIZE + 64
_CONTROL_STEP = 64
_NAME_LENGTHS: Final[dict[int, int]] = {socket.AF_INET: 16, socket.AF_INET6: 28}  # of sockaddr_in and sockaddr_in6
_INT: Final = struct.calcsize("I")
_SIZE_T: Final = struct.calcsize("L")


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint))


class _Cmsghdr(ctypes.Structure):
    _fields_ = (("length", ctypes.c_size_t), ("level", ctypes.c_int), ("type", ctypes.c_int))


_CONTROL_DATA: Final = ctypes.sizeof(_Cmsghdr)  # where its content begins
_JOINED: Final = struct.Struct("=i")  # the content that comes with joined datagrams: the size of each but the last
_SEGMENT: Final = struct.Struct("=H")  # the content for datagrams to be cut: the same
_SEGMENT_SPACE: Final = _CONTROL_DATA + _SIZE_T  # with what fills it up


def _memory(size: int) -> tuple[mmap.mmap, int]:
    """Memory that is taken when it is touched, and its address. A slice of it is `bytes`."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


class _Headers:
    """The headers of as many messages as one call takes, each with its iovec, its name and its control message."""

    def __init__(self, name_length: int) -> None:
        self.name_length = name_length
        self.iovecs = (_Iovec * MESSAGES_MAX)()
        self.messages = (_Mmsghdr * MESSAGES_MAX)()
        self.address = ctypes.addressof(self.messages)
        self.names, names_at = _memory(MESSAGES_MAX * name_length)
        self.controls, controls_at = _memory(MESSAGES_MAX * _CONTROL_STEP)
        for index, (iovec, message) in enumerate(zip(self.iovecs, self.messages, strict=True)):
            header = message.header
            header.name, header.namelen = names_at + index * name_length, name_length
            header.iov, header.iovlen = ctypes.addressof(iovec), 1
            header.control = controls_at + index * _CONTROL_STEP


class _Receiver:
    """What sockets of one family receive with."""

    def __init__(self, recvmmsg: _Function, data: tuple[mmap.mmap, int], name_length: int) -> None:
        self._recvmmsg = recvmmsg
        self._headers = headers = _Headers(name_length)
        self._data, data_at = data
        self._starts = range(0, MESSAGES_MAX * _STEP, _STEP)
        for start, iovec, message in zip(self._starts, headers.iovecs, headers.messages, strict=True):
            ctypes.c_void_p.from_buffer(iovec).value = data_at + start
            iovec.length = _LENGTH_MAX
            message.header.controllen = _CONTROL_STEP
        self._octets = memoryview(headers.messages).cast("B")
        self._unused = bytes(self._octets)
        step = ctypes.sizeof(_Mmsghdr)
        self._lengths = self._octets.cast("I")[_Mmsghdr.length.offset // _INT :: step // _INT]
        self._control_lengths = self._octets.cast("L")[_Msghdr.controllen.offset // _SIZE_T :: step // _SIZE_T]

    def receive(self, descriptor: int) -> list[tuple[bytes, list[bytes]]]:
        self._octets[:] = self._unused  # the kernel has written into it the last time
        count = self._recvmmsg(descriptor, self._headers.address, MESSAGES_MAX, socket.MSG_DONTWAIT, None)
        if count < 0:
            code = ctypes.get_errno()
            if code == errno.EAGAIN:
                return []
            raise OSError(code, os.strerror(code))
        lengths = self._lengths[:count].tolist()
        joined = any(self._control_lengths[:count].tolist())
        name_length = self._headers.name_length
        names = self._headers.names[: count * name_length]
        sender = names[:name_length]
        if not joined and names == sender * count:  # as a rule
            data = self._data
            return [(sender, [data[start : start + n] for start, n in zip(self._starts, lengths, strict=False)])]
        groups: list[tuple[bytes, list[bytes]]] = [(sender, [])]
        for index, length in enumerate(lengths):
            name = names[index * name_length : (index + 1) * name_length]
            if name != groups[-1][0]:
                groups.append((name, []))
            groups[-1][1].extend(self._datagrams(index, length))
        return groups

    def _datagrams(self, index: int, length: int) -> Iterator[bytes]:
        """What one message holds: one datagram, or several of equal size that the kernel has joined (UDP_GRO)."""
        start, size = self._starts[index], length
        if self._control_lengths[index]:
            (size,) = _JOINED.unpack_from(self._headers.controls, index * _CONTROL_STEP + _CONTROL_DATA)
        for offset in range(start, start + length, size) if length else (start,):
            yield self._data[offset : min(offset + size, start + length)]


class _Sender:
    """What sockets of one family send with."""

    def __init__(self, sendmmsg: _Function, name_length: int) -> None:
        self._sendmmsg = sendmmsg
        self._headers = headers = _Headers(name_length)
        self._iovecs = list(headers.iovecs)
        self._message_headers = [message.header for message in headers.messages]
        for index in range(MESSAGES_MAX):
            control = _Cmsghdr.from_buffer(headers.controls, index * _CONTROL_STEP)
            control.length, control.level, control.type = _CONTROL_DATA + _SEGMENT.size, SOL_UDP, UDP_SEGMENT

    def send(self, descriptor: int, messages: Sequence[Message]) -> Iterator[tuple[int, int]]:
        for start in range(0, len(messages), MESSAGES_MAX):
            count = self._prepare(messages[start : start + MESSAGES_MAX])
            done = 0
            while done < count:
                address = self._headers.address + done * ctypes.sizeof(_Mmsghdr)
                sent = self._sendmmsg(descriptor, address, count - done, socket.MSG_DONTWAIT)
                if sent < 0:  # it says so of the first one only; one behind that ends the call early
                    yield start + done, ctypes.get_errno()
                    sent = 1
                done += sent

    def _prepare(self, messages: Sequence[Message]) -> int:
        headers, step = self._headers, self._headers.name_length
        for index, (data, name, segment) in enumerate(messages):
            iovec, header = self._iovecs[index], self._message_headers[index]
            iovec.base, iovec.length = data, len(data)
            headers.names[index * step : (index + 1) * step] = name
            header.controllen = _SEGMENT_SPACE if segment else 0
            if segment:
                _SEGMENT.pack_into(headers.controls, index * _CONTROL_STEP + _CONTROL_DATA, segment)
        return len(messages)


class MessageCalls:
    """The two calls, for sockets of one family."""

    def __init__(self, library: ctypes.CDLL, data: tuple[mmap.mmap, int], family: int) -> None:
        recvmmsg, sendmmsg = library.recvmmsg, library.sendmmsg
        message = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
        recvmmsg.argtypes, sendmmsg.argtypes = (*message, ctypes.c_void_p), message
        self._receiver = _Receiver(recvmmsg, data, _NAME_LENGTHS[family])
        self._sender = _Sender(sendmmsg, _NAME_LENGTHS[family])

    def receive(self, sock: socket.socket) -> list[tuple[bytes, list[bytes]]]:
        """The datagrams that have arrived, at most `MESSAGES_MAX` messages of them, grouped by sender, in their order.

        Raises:
            OSError: an error for something sent earlier waited; what has arrived still does.
        """
        return self._receiver.receive(sock.fileno())

    def send(self, sock: socket.socket, messages: Sequence[Message]) -> Iterator[tuple[int, int]]:
        """Send all, in their order.

        Returns:
            The index and the errno of each message that did not go, before the next one is sent. Exhaust it before
            anything else is sent.
        """
        return self._sender.send(sock.fileno(), messages)


@functools.cache
def message_calls(family: int) -> MessageCalls | None:
    """The calls for sockets of this family; None where the C library has none."""
    if sys.platform != "linux":
        return None
    try:
        return MessageCalls(ctypes.CDLL(None, use_errno=True), _received(), family)
    except (OSError, AttributeError):
        return None


@functools.cache
def _received() -> tuple[mmap.mmap, int]:
    return _memory(MESSAGES_MAX * _STEP)
