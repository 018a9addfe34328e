"""The certificates are what their names say: a client that verifies takes the good one and no other."""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.directories.authority import NAMES, Authority, Certificate
from tests.directories.scripted import ScriptedServer

# What OpenSSL says, x509_vfy.h.
EXPIRED, SELF_SIGNED, UNKNOWN_ISSUER, OTHER_NAME, OTHER_ADDRESS = 10, 18, 20, 62, 64


def _shake_hands(authority: Authority, certificate: Certificate, name: str) -> str:
    context = authority.client_context()
    context.hostname_checks_common_name = False
    with ScriptedServer(tls=certificate.context()) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            with context.wrap_socket(sock, server_hostname=name) as wrapped:
                return str(wrapped.version())


@pytest.mark.parametrize("name", NAMES)
def test_the_good_one_is_for_every_name_of_the_tests(tmp_path: Path, name: str) -> None:
    """A handshake with verification succeeds, by name and by address."""
    authority = Authority(tmp_path)
    assert _shake_hands(authority, authority.good(), name) == "TLSv1.3"


@pytest.mark.parametrize(
    ("make", "name", "code"),
    [
        (Authority.other_host, "localhost", OTHER_NAME),
        (Authority.other_host, "127.0.0.1", OTHER_ADDRESS),
        (Authority.expired, "localhost", EXPIRED),
        (Authority.other_authority, "localhost", UNKNOWN_ISSUER),
        (Authority.self_signed, "localhost", SELF_SIGNED),
        (Authority.common_name_only, "localhost", OTHER_NAME),
    ],
)
def test_the_others_are_wrong_in_one_way(
    tmp_path: Path, make: Callable[[Authority], Certificate], name: str, code: int
) -> None:
    """Case 54: each is refused for its own reason."""
    authority = Authority(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError) as refused:
        _shake_hands(authority, make(authority), name)
    assert code == refused.value.verify_code


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Mode 0600, as servers want it."""
    authority = Authority(tmp_path)
    keys = [authority.good().key, authority.self_signed().key]
    assert [key.stat().st_mode & 0o777 for key in keys] == [0o600, 0o600]
