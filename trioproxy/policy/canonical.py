"""One spelling for each destination: bytes from a request or text from a rule become a name or an address.

Resolvers read far more than RFC 1928 means: `127.1`, `0x7f.1`, `2130706433`, names cut at a NUL, zone ids and foreign
digits all reach loopback through getaddrinfo. What passes here is either an address object or a name that no resolver
takes for an address, so that what is judged is what is contacted.
"""

import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from trioproxy.policy.request import IPAddress

__all__ = ["CanonicalError", "canonical_address", "canonical_host"]

NAME_LENGTH_MAX: Final = 253  # RFC 1035 section 2.3.4: 255 bytes on the wire, less the first length and the root

_LABELS: Final = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")  # "_" is no LDH, but real hosts have it
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")  # the WHATWG's "ends in a number": inet_aton would read it
_FORBIDDEN: Final = re.compile(rb"[^\x21-\x7e]")  # controls, the space, NUL (glibc cuts there), all but ASCII


class CanonicalError(ValueError):
    """This is no host. The message never repeats the stranger's bytes."""


def canonical_address(address: IPAddress) -> IPAddress:
    """Unwrap an IPv4-mapped IPv6 address (`::ffff:192.0.2.1`); the kernel would contact the IPv4 address.

    Raises:
        CanonicalError: the address has a zone (`fe80::1%eth0`), which no SOCKS field can carry.
    """
    if isinstance(address, IPv4Address):
        return address
    if address.scope_id is not None:
        raise CanonicalError("an address has no zone")
    return address.ipv4_mapped or address


def canonical_host(host: bytes | IPAddress) -> str | IPAddress:
    """The canonical name or address for what a client or a rule wrote. Idempotent.

    Args:
        host: DST.ADDR of RFC 1928 section 4 (any bytes for ATYP 03), or an address.

    Returns:
        An address, or a lower-case name without the trailing dot whose last label is no number.

    Raises:
        CanonicalError: this is neither a name nor an address.
    """
    if not isinstance(host, bytes):
        return canonical_address(host)
    if _FORBIDDEN.search(host):
        raise CanonicalError("a name has printable ASCII only (international names are written as xn-- labels)")
    name = host.decode("ascii").lower().removesuffix(".")
    if len(name) > NAME_LENGTH_MAX:
        raise CanonicalError(f"a name has at most {NAME_LENGTH_MAX} characters")
    if ":" in name:
        return _ipv6(name)
    if not _LABELS.fullmatch(name):
        raise CanonicalError("a name has labels of 1 to 63 letters, digits, '-' or '_' with single dots between")
    if _NUMBER.fullmatch(name[name.rfind(".") + 1 :]):
        return _ipv4(name)
    if "xn--" in name:
        _check_international(name)
    return name


def _ipv4(name: str) -> IPv4Address:
    try:
        return IPv4Address(name)
    except AddressValueError as exc:
        raise CanonicalError("what ends in a number is an IPv4 address of four decimal numbers") from exc


def _ipv6(name: str) -> IPAddress:
    try:
        return canonical_address(IPv6Address(name))
    except AddressValueError as exc:
        raise CanonicalError("what has a colon is an IPv6 address without brackets") from exc


def _check_international(name: str) -> None:
    # A label such as xn--evil- spells plain "evil" and one of full-width letters looks like it. No registry has them,
    # but some resolver, log or eye on the way might fold them into the name that a rule denies (RFC 5891 section 5.4).
    for label in name.split("."):
        if label.startswith("xn--"):
            try:
                spelt = label.removeprefix("xn--").encode("ascii").decode("punycode")
                stable = unicodedata.normalize("NFKC", spelt).lower() == spelt
                spelt_again = spelt.encode("punycode").decode("ascii")
            except UnicodeError as exc:
                raise CanonicalError("an xn-- label spells an international name") from exc
            if spelt.isascii() or not stable or f"xn--{spelt_again}" != label:
                raise CanonicalError("an xn-- label spells an international name in its canonical form")
