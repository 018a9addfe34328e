"""ldap3 as a client of the tests' own servers, which closes what it has opened."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ldap3

from tests.system.waiting import PATIENCE_S

__all__ = ["OF_LDAP3", "client"]

# A filter for the warnings: before Python 3.12 ldap3 compares names with it.
OF_LDAP3 = r"ignore:ssl.match_hostname\(\) is deprecated:DeprecationWarning"


@contextmanager
def client(
    port: int, dn: str | None = None, password: str | None = None, *, ca: Path | None = None, start_tls: bool = True
) -> Iterator[ldap3.Connection]:
    """A connection to localhost, open and not bound yet.

    Args:
        port: of the server.
        dn: for `bind`.
        password: for `bind`.
        ca: whom to trust.
        start_tls: at once, if somebody is trusted.
    """
    tls = ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=str(ca)) if ca else None
    server = ldap3.Server("localhost", port, tls=tls, get_info=ldap3.NONE, connect_timeout=PATIENCE_S)
    how = {"auto_referrals": False, "return_empty_attributes": False, "receive_timeout": int(PATIENCE_S)}
    connection = ldap3.Connection(server, dn, password, **how)
    try:
        connection.open()
        if tls and start_tls:
            connection.start_tls()
        yield connection
    finally:
        if connection.socket is not None:  # `unbind` is not enough: after an error it leaves the socket open
            connection.socket.close()
