"""BER for the scripted server: written without care for what is written, read strictly.

Not the reader and not the library of the program under test, so that a mistake there is not made here too.
"""

from collections.abc import Iterator

__all__ = ["element", "elements", "integer", "length_of", "octets", "one", "sequence"]

SEQUENCE, INTEGER, OCTETS = 0x30, 0x02, 0x04


def element(tag: int, *contents: bytes) -> bytes:
    """An element of any kind, from its members or contents."""
    whole = b"".join(contents)
    return bytes([tag]) + length(len(whole)) + whole


def length(number: int) -> bytes:
    """A definite length, in the shortest form."""
    if number < 0x80:
        return bytes([number])
    raw = number.to_bytes((number.bit_length() + 7) // 8)
    return bytes([0x80 | len(raw)]) + raw


def integer(value: int, tag: int = INTEGER) -> bytes:
    """An INTEGER, or an ENUMERATED with its tag."""
    return element(tag, value.to_bytes(value.bit_length() // 8 + 1, signed=True))


def octets(value: str | bytes, tag: int = OCTETS) -> bytes:
    """An OCTET STRING."""
    return element(tag, value.encode() if isinstance(value, str) else value)


def sequence(*members: bytes) -> bytes:
    """A SEQUENCE."""
    return element(SEQUENCE, *members)


def length_of(data: bytes) -> int | None:
    """How long the element at the beginning is, header included; None: too few bytes to tell."""
    if len(data) < 2:
        return None
    if data[1] < 0x80:
        return 2 + data[1]
    count = data[1] - 0x80
    assert 1 <= count <= 4, f"a length that no client needs: {data[:8].hex()}"
    return 2 + count + int.from_bytes(data[2 : 2 + count]) if len(data) >= 2 + count else None


def one(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and contents of the first element, and what follows."""
    whole = length_of(data)
    assert whole is not None, "cut off"
    assert whole <= len(data), f"{whole} bytes of {len(data)}"
    header = 2 if data[1] < 0x80 else 2 + data[1] - 0x80
    return data[0], data[header:whole], data[whole:]


def elements(contents: bytes) -> Iterator[tuple[int, bytes]]:
    """All elements in there."""
    while contents:
        tag, inside, contents = one(contents)
        yield tag, inside
