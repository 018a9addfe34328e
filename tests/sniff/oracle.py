"""Second opinions, written in another way: what is a ClientHello, and which host is a request of HTTP for.

A grammar of TLS is put together from functions that take octets from the front and give back the rest.
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from trioproxy.policy import CanonicalError, canonical_host

__all__ = ["canonical", "is_client_hello", "request_host"]

Grammar = Callable[[bytes], bytes]


def _fixed(count: int) -> Grammar:
    def rest(octets: bytes) -> bytes:
        if len(octets) < count:
            raise ValueError
        return octets[count:]

    return rest


def _vector(width: int, least: int, most: int, item: Grammar) -> Grammar:
    def rest(octets: bytes) -> bytes:
        behind = _fixed(width)(octets)
        length = int.from_bytes(octets[:width], "big")
        if not least <= length <= most:
            raise ValueError
        end = _fixed(length)(behind)
        inside = behind[:length]
        while inside:
            inside = item(inside)
        return end

    return rest


def _sequence(*parts: Grammar) -> Grammar:
    def rest(octets: bytes) -> bytes:
        for part in parts:
            octets = part(octets)
        return octets

    return rest


def _whole(grammar: Grammar) -> Callable[[bytes], bool]:
    def fits(octets: bytes) -> bool:
        try:
            return grammar(octets) == b""
        except ValueError:
            return False

    return fits


_byte, _short = _fixed(1), _fixed(2)
_opaque = _vector(2, 1, 0xFFFF, _byte)
_GRAMMARS = {
    0: _whole(_vector(2, 1, 0xFFFF, _sequence(_byte, _opaque))),
    10: _whole(_vector(2, 2, 0xFFFF, _short)),
    11: _whole(_vector(1, 1, 0xFF, _byte)),
    13: _whole(_vector(2, 2, 0xFFFF, _short)),
    16: _whole(_vector(2, 2, 0xFFFF, _vector(1, 1, 0xFF, _byte))),
    27: _whole(_vector(1, 2, 0xFF, _short)),
    41: _whole(
        _sequence(
            _vector(2, 7, 0xFFFF, _sequence(_opaque, _fixed(4))), _vector(2, 33, 0xFFFF, _vector(1, 32, 255, _byte))
        )
    ),
    43: _whole(_vector(1, 2, 0xFF, _short)),
    45: _whole(_vector(1, 1, 0xFF, _byte)),
    50: _whole(_vector(2, 2, 0xFFFF, _short)),
    51: _whole(_vector(2, 0, 0xFFFF, _sequence(_short, _opaque))),
}
_ech = _whole(_sequence(_fixed(6), _vector(2, 0, 0xFFFF, _byte), _opaque))
_front = _sequence(_fixed(34), _vector(1, 0, 32, _byte))
_suites = _vector(2, 2, 0xFFFF, _short)
_compression = _vector(1, 1, 255, _byte)


def is_client_hello(body: bytes) -> bool:
    """Whether the body of a handshake message is a ClientHello."""
    try:
        behind_suites = _suites(_front(body))
        behind = _compression(behind_suites)
        if body[:2] not in (b"\3\0", b"\3\1", b"\3\2", b"\3\3") or 0 not in behind_suites[1 : 1 + behind_suites[0]]:
            return False
        if not behind:
            return True
        return _vector(2, 0, 0xFFFF, _sequence(_short, _vector(2, 0, 0xFFFF, _byte)))(
            behind
        ) == b"" and _are_extensions(behind[2:])
    except ValueError:
        return False


def _are_extensions(octets: bytes) -> bool:
    kinds: list[int] = []
    while octets:
        kind, length = int.from_bytes(octets[:2], "big"), int.from_bytes(octets[2:4], "big")
        inside, octets = octets[4 : 4 + length], octets[4 + length :]
        kinds.append(kind)
        if kind in _GRAMMARS and not _GRAMMARS[kind](inside):
            return False
        if kind == 43 and not {inside[at : at + 2] for at in range(1, len(inside), 2)} & {
            bytes((3, minor)) for minor in range(5)
        }:
            return False
        if kind == 0xFE0D and (not inside or (inside[0] == 0 and not _ech(inside))):
            return False
    return len(kinds) == len(set(kinds)) and 41 not in kinds[:-1]


_CONTROLS = {*range(0x20), 0x7F} - {9}


def canonical(host: bytes) -> str | None:
    """As policy writes a host, but with any xn-- labels; None: it is none."""
    try:
        # A label that policy calls no international name is not looked at here: that it cannot be told from the name.
        found = canonical_host(host.lower().replace(b"xn--", b"xn__"))
    except CanonicalError:
        return None
    return str(found).replace("xn__", "xn--")


def request_host(head: bytes) -> str | None:
    """The host of a request of HTTP/1, "" for none; None: it is not one, or in doubt."""
    *lines, last = head.split(b"\r\n")
    if last or not lines or any(octet in _CONTROLS for line in lines for octet in line):
        return None
    words = lines[0].split(b" ")
    fields = [line.partition(b":") for line in lines[1:]]
    if len(words) != 3 or b"\t" in lines[0] or not all(_is_token(name) and colon for name, colon, _ in fields):
        return None
    method, target, version = words
    hosts = [_host(value.strip(b" \t")) for name, _, value in fields if name.lower() == b"host"]
    if len(hosts) > 1 or version not in ([b"HTTP/1.0", b"HTTP/1.1"] if hosts else [b"HTTP/1.0"]):
        return None
    if len(method) > 32 or not _is_token(method) or not target:
        return None
    hosts += _target_hosts(method, target)
    return hosts[0] if len(set(hosts)) == 1 else None if hosts else ""


def _target_hosts(method: bytes, target: bytes) -> list[str | None]:
    if method == b"CONNECT":
        return [_host(target) if target.rpartition(b":")[2].isdigit() else None]
    if target.lower().startswith((b"http://", b"https://")):
        authority = target.partition(b"//")[2]
        for delimiter in (b"/", b"?", b"#"):
            authority = authority.partition(delimiter)[0]
        return [_host(authority)]
    return [] if target.startswith(b"/") or (method, target) == (b"OPTIONS", b"*") else [None]


def _is_token(word: bytes) -> bool:
    return word.isascii() and bool(word) and all(chr(octet).isalnum() or octet in b"!#$%&'*+-.^_`|~" for octet in word)


def _host(authority: bytes) -> str | None:
    if b"]" in authority:
        inside, _, behind = authority.partition(b"]")
        if not inside.startswith(b"[") or not (behind == b"" or behind.startswith(b":")) or b"%" in inside:
            return None
        try:
            address = IPv6Address(inside[1:].decode("latin-1"))
        except ValueError:
            return None
        port = behind[1:]
        found: str | None = str(address.ipv4_mapped or address)
    else:
        host, _, port = authority.partition(b":")
        found = canonical(host)
        if found is not None and host.endswith(b".") and _is_address(found):
            found = None  # an address has no dot at its end
    if port and (not port.isdigit() or len(port) > 5 or int(port) > 65_535):
        return None
    return found


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True
