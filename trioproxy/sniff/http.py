"""The first request of an HTTP connection (RFC 9112), as far as it says what it is and which host it is for.

Whatever two servers might read in two ways is not taken for HTTP: a host that is judged here must be the one that the
server serves.
"""

import re
from typing import Final

from trioproxy.sniff.names import canonical_authority
from trioproxy.sniff.octets import MalformedError

__all__ = ["HEAD_END", "HTTP2_PREFACE", "is_request_line", "request_host_untrusted"]

HEAD_END: Final = b"\r\n\r\n"
HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4; the hosts behind it are compressed

# A method, a target, a version, with single spaces between. The longest registered method has 17 letters. Octets above
# ASCII are no URI, but curl and others send them as they were typed.
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])\r\n")
# Strict about what RFC 9112 section 2.2, 5.1 and 5.2 let servers mend each in its own way: lines end in CR LF, no space
# stands before the colon, and no line goes on in the next one.
_FIELDS: Final = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)*")
_HOST: Final = re.compile(rb"^host:([^\r]*)\r", re.IGNORECASE | re.MULTILINE)
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)(?:[/?#].*)?", re.IGNORECASE | re.DOTALL)


def is_request_line(line: bytes) -> bool:
    """Whether a line, its end included, is that of a request of HTTP/1.0 or HTTP/1.1."""
    return _REQUEST_LINE.fullmatch(line) is not None


def request_host_untrusted(head: bytes) -> str | None:
    """The canonical host that a request is for, without its port.

    Args:
        head: from the request line to the last field; without the empty line behind them.

    Returns:
        A name, or an address as text; None: an HTTP/1.0 request that names none.

    Raises:
        MalformedError: it is no request, or one whose host is in doubt.
    """
    line = _REQUEST_LINE.match(head)
    if line is None or not _FIELDS.fullmatch(head, line.end()):
        raise MalformedError("not the head of a request")
    method, target, minor = line.groups()
    named = _named_by_field(_HOST.findall(head, line.end()))
    if named is None and minor == b"1":
        raise MalformedError("a request of HTTP/1.1 without its host")
    targeted = _named_by_target(method, target)
    # RFC 9112 section 3.2.2: the target's host is served, whatever the field says. But a client MUST send the same in
    # both, and there are servers that go by the field: with two hosts it is in doubt which one is served.
    if named is not None and targeted is not None and named != targeted:
        raise MalformedError("two hosts")
    return targeted or named


def _named_by_field(values: list[bytes]) -> str | None:
    if not values:
        return None
    if len(values) > 1:
        raise MalformedError("the host twice")
    return _host(values[0].strip(b"\t "))


def _named_by_target(method: bytes, target: bytes) -> str | None:
    """The host inside the target (RFC 9112 section 3.2); None where it has none."""
    if method == b"CONNECT":
        return _host(target, port_needed=True)
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise MalformedError("a target of no known form")
    return _host(absolute[1])


def _host(authority: bytes, *, port_needed: bool = False) -> str:
    found = canonical_authority(authority)
    if found is None or (port_needed and found[1] is None):
        raise MalformedError("no host")
    return found[0]
