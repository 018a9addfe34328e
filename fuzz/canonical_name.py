"""The host of a request: whatever a client may write into DST.ADDR, as a name or as an address."""

import re
import socket
from ipaddress import IPv4Address, IPv6Address

from trioproxy.policy import CanonicalError, IPAddress, canonical_host

__all__ = ["test_one_input"]

_NAME = re.compile(r"(?!.{254})[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
_ADDRESSES: dict[int, type[IPv4Address | IPv6Address]] = {4: IPv4Address, 16: IPv6Address}


def test_one_input(data: bytes) -> None:
    """A host is refused, or becomes an address, or a name that no resolver takes for an address."""
    if len(data) in _ADDRESSES:
        _check_address(_canonical(_ADDRESSES[len(data)](data)))
    host = _canonical(data)
    if host is None:
        return
    # Case and the dot at the end are no differences; a second dot is no name.
    assert host == _canonical(data.upper()) == _canonical(data.lower())
    assert (None if data.endswith(b".") else host) == _canonical(data + b".")
    if isinstance(host, str):
        _check_name(host)
    else:
        _check_address(host)
        _check_spelling(data.decode("ascii").removesuffix("."), host)


def _canonical(host: bytes | IPAddress) -> str | IPAddress | None:
    try:
        return canonical_host(host)
    except CanonicalError as exc:
        message = str(exc)
    assert message.isascii()
    assert message.isprintable()
    return None


def _check_name(name: str) -> None:
    assert _NAME.fullmatch(name)
    assert not _NUMBER.fullmatch(name)
    assert name == canonical_host(name.encode())
    try:
        found = socket.getaddrinfo(name, None, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return
    raise AssertionError(f"the resolver reads {name!r} as {found}")


def _check_address(address: str | IPAddress | None) -> None:
    assert isinstance(address, IPv4Address | IPv6Address)
    assert address == canonical_host(address) == canonical_host(str(address).encode())
    assert isinstance(address, IPv4Address) or address.ipv4_mapped is None


def _check_spelling(text: str, address: IPAddress) -> None:
    """The system must read the text as the address that was judged (or, mapped, as what it is mapped from)."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    read = socket.inet_pton(family, text)
    assert address.packed == (read[-4:] if read[:12] == bytes(10) + b"\xff\xff" else read)
