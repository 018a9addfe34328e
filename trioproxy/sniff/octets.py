"""Reading numbers and lengths that a stranger wrote."""

__all__ = ["Cursor", "MalformedError"]


class MalformedError(ValueError):
    """These bytes are not what they began as; no more of them would mend that."""


class Cursor:
    """A place in octets that are all there. Every step is checked against their end."""

    __slots__ = ("_at", "_octets")

    def __init__(self, octets: bytes, at: int = 0) -> None:
        self._octets = octets
        self._at = at

    @property
    def left(self) -> int:
        """How many octets follow."""
        return len(self._octets) - self._at

    def take(self, count: int) -> bytes:
        """The next octets, exactly so many.

        Raises:
            MalformedError: there are fewer.
        """
        start, end = self._at, self._at + count
        if end > len(self._octets):
            raise MalformedError("a length reaches beyond the end")
        self._at = end
        return self._octets[start:end]

    def number(self, width: int) -> int:
        """A number of so many octets, the highest first.

        Raises:
            MalformedError: there are fewer octets.
        """
        start, end = self._at, self._at + width  # not by `take`: a hello has thirty lengths
        if end > len(self._octets):
            raise MalformedError("a number reaches beyond the end")
        self._at = end
        return int.from_bytes(self._octets[start:end], "big")

    def vector(self, width: int, least: int = 0, most: int = 0xFFFF) -> bytes:
        """Octets behind their count, which is a number of `width` octets (RFC 8446 section 3.4).

        Raises:
            MalformedError: the count lies, or is not between `least` and `most`.
        """
        count = self.number(width)
        if not least <= count <= most:
            raise MalformedError("a vector is too short or too long")
        return self.take(count)

    def finish(self) -> None:
        """Make sure that nothing follows.

        Raises:
            MalformedError: something does.
        """
        if self.left:
            raise MalformedError("octets that belong to nothing")
