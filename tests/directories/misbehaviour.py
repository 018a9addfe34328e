"""What a directory can do wrong: acts and replies for the scripted server, and a port that never answers."""

import select
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final

from tests.directories.ber import element, integer, length, octets, sequence
from tests.directories.messages import (
    Kind,
    Message,
    Request,
    bind_result,
    entry,
    extended_result,
    search_done,
)
from tests.directories.scripted import Act, Reply, Script, Wire, start_tls_answer

__all__ = [
    "GARBAGE",
    "black_hole",
    "close",
    "close_within",
    "endless",
    "huge",
    "reset",
    "result_for",
    "silent",
    "slowly",
    "start_tls_with_more",
]

_CHUNK_BYTES: Final = 65_536


def silent(wire: Wire) -> None:
    """Take what comes, and say nothing, until the client leaves."""
    while True:
        wire.receive()


def close(wire: Wire) -> None:
    """Close the connection; a client that still sends gets a RST."""
    wire.break_off()


def reset(wire: Wire) -> None:
    """Throw the connection away."""
    wire.reset()


def slowly(*pieces: Message | bytes, interval_s: float = 1.0) -> Act:
    """One byte, a pause, the next byte."""

    def act(wire: Wire) -> None:
        for byte in _joined(wire, pieces):
            wire.send(bytes([byte]))
            wire.sleep(interval_s)

    return act


def close_within(*pieces: Message | bytes, after: int | None = None) -> Act:
    """Close in the middle of a message: after so many bytes of it, or the half of them."""

    def act(wire: Wire) -> None:
        data = _joined(wire, pieces)
        wire.send(data[: len(data) // 2 if after is None else after])
        wire.break_off()

    return act


def huge(size: int = 100 << 20) -> Act:
    """An entry, well-formed, with one value of this size; it is never in memory as a whole."""

    def act(wire: Wire) -> None:
        # From the inside out: what stands in front of the value is longer by one header for each level around it.
        front = octets("description") + b"\x31" + length(size + 1 + len(length(size))) + b"\x04" + length(size)
        front = b"\x30" + length(len(front) + size) + front
        front = octets("uid=huge,dc=example") + b"\x30" + length(len(front) + size) + front
        front = integer(wire.request.number if wire.request else 1) + b"\x64" + length(len(front) + size) + front
        wire.send(b"\x30" + length(len(front) + size) + front)
        for at in range(0, size, _CHUNK_BYTES):
            wire.send(b"x" * min(_CHUNK_BYTES, size - at))

    return act


def endless(message: Message | None = None) -> Act:
    """The same message again and again, until the client has had enough; by default an entry of 1 KiB."""
    again = message or entry("uid=endless,dc=example", {"description": [b"x" * 1024]})

    def act(wire: Wire) -> None:
        data = wire.encoded(again) * 64
        while True:
            wire.send(data)

    return act


def start_tls_with_more(context: ssl.SSLContext, more: Message | bytes) -> Reply:
    """Yes to StartTLS, in the same piece something in plain text, and then the handshake (case 53)."""
    yes, *handshake = start_tls_answer(context)
    return [yes, more, *handshake]


def result_for(code: int, diagnostic: str = "") -> Script:
    """Every request has this result: 51 busy, 52 unavailable ..."""
    results = {
        Kind.BIND: bind_result(code, diagnostic),
        Kind.SEARCH: search_done(code, diagnostic),
        Kind.EXTENDED: extended_result(code, diagnostic),
    }

    def script(request: Request) -> Reply:
        return [results[request.kind]]

    return script


@contextmanager
def black_hole() -> Iterator[int]:
    """A port where connecting gets no answer: its queue is full, so the kernel drops every SYN.

    Yields:
        The port, on 127.0.0.1.

    Raises:
        AssertionError: it does answer.
    """
    held: list[socket.socket] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        try:
            # One after the other: two at once can both find room, and be dropped when they have shaken hands.
            while _connects(listener, held):
                assert len(held) < 16, "this kernel lets everybody in"
            yield int(listener.getsockname()[1])
        finally:
            for sock in held:
                sock.close()


def _connects(listener: socket.socket, held: list[socket.socket]) -> bool:
    """Whether one more gets in. On loopback the kernel says so at once; 100 ms are for a busy machine."""
    sock = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    held.append(sock)
    sock.connect_ex(listener.getsockname())
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(100))


def _joined(wire: Wire, pieces: tuple[Message | bytes, ...]) -> bytes:
    return b"".join(wire.encoded(piece) if isinstance(piece, Message) else piece for piece in pieces)


def _with_number(make: Callable[[bytes], bytes]) -> Act:
    """Something that knows the number of the request, as its INTEGER."""

    def act(wire: Wire) -> None:
        wire.send(make(integer(wire.request.number if wire.request else 1)))

    return act


def _as_it_is(data: bytes) -> Act:
    return partial(Wire.send, data=data)


_DONE: Final = integer(0, 0x0A) + octets("") + octets("")  # success

# Each is wrong in one way. Many are answers to a bind that a careless reader takes for success.
GARBAGE: Final[Mapping[str, Act]] = {
    "indefinite length": _with_number(lambda number: b"\x30\x80" + number + element(0x61, _DONE) + b"\0\0"),
    "length 2**40": _as_it_is(b"\x30\x86\x01\x00\x00\x00\x00\x00" + b"x" * 1024),
    "length 2**32 - 1, a negative one": _as_it_is(b"\x30\x84\xff\xff\xff\xff" + b"x" * 1024),
    "length of 126 bytes": _as_it_is(b"\x30\xfe" + b"\xff" * 126),
    "reserved length": _as_it_is(b"\x30\xff" + b"x" * 256),
    "nothing inside": _as_it_is(b"\x30\x00"),
    "no operation": _with_number(sequence),
    "inner length beyond the end": _with_number(lambda number: sequence(number, b"\x61\x7f" + _DONE)),
    "inner length of 2**31": _with_number(lambda number: sequence(number, b"\x61\x84\x80\x00\x00\x00" + _DONE)),
    "result cut off": _with_number(lambda number: sequence(number, element(0x61, _DONE[:3]))),
    "result without contents": _with_number(lambda number: sequence(number, element(0x61))),
    "result code without contents": _with_number(
        lambda number: sequence(number, element(0x61, b"\x0a\x00", octets(""), octets("")))
    ),
    "result code of 300 bytes": _with_number(
        lambda number: sequence(number, element(0x61, element(0x0A, bytes(300)), octets(""), octets("")))
    ),
    "result code as a string": _with_number(
        lambda number: sequence(number, element(0x61, octets("\0"), octets(""), octets("")))
    ),
    "message number without contents": _as_it_is(sequence(b"\x02\x00", element(0x61, _DONE))),
    "message number of 64 bits": _with_number(
        lambda number: sequence(element(0x02, b"\1" + bytes(5) + number[2:]), element(0x61, _DONE))
    ),
    "something behind the message": _with_number(
        lambda number: sequence(number, element(0x61, _DONE), element(0xA0), octets("more"))
    ),
    "a SET": _with_number(lambda number: element(0x31, number, element(0x61, _DONE))),
    "a tag of many bytes": _as_it_is(b"\x3f\x81\x82\x83\x04" + b"x" * 64),
    "10,000 levels deep": _as_it_is(b"\x30\x82\xff\xf0" + b"\x30\x80" * 10_000 + b"\0" * 50_000),
    "a request": _with_number(lambda number: sequence(number, element(0x60, integer(3), octets(""), octets("", 0x80)))),
    "HTTP": _as_it_is(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
    "a TLS alert": _as_it_is(b"\x15\x03\x03\x00\x02\x02\x28"),
    "zeros": _as_it_is(bytes(4096)),
}
