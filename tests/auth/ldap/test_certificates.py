"""Whom we believe to be the directory: only the one with the right certificate (cases 54 and 55)."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

import auth
import trioproxy
from auth import Cause, Identity, Unavailable
from tests.auth.ldap.trying import of_slapd, trying
from tests.directories.authority import Authority, Certificate
from tests.directories.slapd import Slapd
from tests.directories.tree import SERVICE, dn_of

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One for all servers here."""
    return Authority(tmp_path_factory.mktemp("authority"))


WRONG: list[tuple[str, Callable[[Authority], Certificate], str, str]] = [
    ("self-signed", Authority.self_signed, "self-signed", "ca_file"),
    ("another host", Authority.other_host, "mismatch", "subjectAltName"),
    ("expired", Authority.expired, "expired", "new one"),
    ("another authority", Authority.other_authority, "", "ca_file"),
    ("the name in CN alone", Authority.common_name_only, "mismatch", "subjectAltName"),
]


@pytest.mark.parametrize(("make", "problem", "advice"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_certificate(
    authority: Authority,
    tmp_path: Path,
    make: Callable[[Authority], Certificate],
    problem: str,
    advice: str,
) -> None:
    """Self-signed, for another host, expired, by another authority, the name in CN alone: no bind is sent (case 54)."""
    with Slapd(tmp_path / "server", authority, certificate=make(authority)) as server:
        for url in (server.tls_url, server.url):
            with trying(of_slapd(server, url)) as campus:
                answer = campus.log_in("alice")
                assert isinstance(answer, Unavailable)
                assert answer.cause is Cause.TLS
                assert problem in answer.problem
                failure = campus.failures[0]
                assert failure.name in ("TLS", "StartTLS")
                assert advice in failure.advice
        assert server.binds(SERVICE) == 0


def test_right_certificate(authority: Authority, tmp_path: Path) -> None:
    """By name and by address, over either kind of TLS; the step shows names and expiry (case 54)."""
    with Slapd(tmp_path / "server", authority) as server:
        for url in (server.tls_url, server.url):
            for host in ("127.0.0.1", "localhost"):
                with trying(of_slapd(server, url.replace("localhost", host))) as campus:
                    assert isinstance(campus.log_in("alice"), Identity)
                    step = campus.step("TLS" if url.startswith("ldaps") else "StartTLS")
                    assert "ldap.campus.example" in step.detail
                    assert "valid until" in step.detail


def test_authorities_of_the_system(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `ca_file` those of the system count, and ours is none of them until OpenSSL is told so."""
    with Slapd(tmp_path / "server", authority) as server:
        settings = attrs.evolve(of_slapd(server), ca_file=None)
        with trying(settings) as campus:
            answer = campus.log_in("alice")
            assert isinstance(answer, Unavailable)
            assert answer.cause is Cause.TLS
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.pem))
        with trying(settings) as campus:
            assert isinstance(campus.log_in("alice"), Identity)


def test_authority_is_read_anew(authority: Authority, tmp_path: Path) -> None:
    """A new authority in `ca_file` needs no restart."""
    other = tmp_path / "other"
    other.mkdir()
    ca_file = tmp_path / "ca.pem"
    shutil.copy(Authority(other).pem, ca_file)
    with (
        Slapd(tmp_path / "server", authority) as server,
        trying(attrs.evolve(of_slapd(server), ca_file=str(ca_file))) as campus,
    ):
        assert isinstance(campus.log_in("alice"), Unavailable)
        shutil.copy(authority.pem, ca_file)
        assert isinstance(campus.log_in("alice"), Identity)


def test_plain_text_must_be_said(authority: Authority, tmp_path: Path) -> None:
    """ldap:// is StartTLS; a directory without TLS gets no password, unless the setting says so in so many words."""
    with Slapd(tmp_path / "server", authority) as server:
        plain = of_slapd(server, server.url, insecure_plaintext=True)
        with trying(plain) as campus:
            assert isinstance(campus.log_in("alice"), Identity)
            assert {"TLS", "StartTLS"}.isdisjoint(step.name for step in campus.steps)
    with Slapd(tmp_path / "strict", authority, tls_required=True) as server:
        with trying(of_slapd(server, server.url, insecure_plaintext=True)) as campus:
            answer = campus.log_in("alice")
            assert isinstance(answer, Unavailable)
        with trying(of_slapd(server, server.url)) as campus:
            assert isinstance(campus.log_in("alice"), Identity)


def test_swapped_ports(authority: Authority, tmp_path: Path) -> None:
    """TLS where plain text is spoken, and the other way round: told apart from a bad certificate."""
    with Slapd(tmp_path / "server", authority) as server:
        for url in (f"ldaps://127.0.0.1:{server.port}", f"ldap://127.0.0.1:{server.tls_port}"):
            with trying(of_slapd(server, url, answer_s=1.0, connect_s=1.0)) as campus:
                answer = campus.log_in("alice")
                assert isinstance(answer, Unavailable)
                assert answer.cause in (Cause.TLS, Cause.CONNECT, Cause.PROTOCOL, Cause.TIMEOUT)
                assert campus.failures[0].advice


def test_nothing_switches_verification_off() -> None:
    """Neither the code, nor what helps the tests, nor what the docs tell people to type (case 55)."""
    words = ("CERT_" + "NONE", "verify=" + "False", "check_hostname = " + "False", "TLS_REQCERT " + "never")
    code = [Path(package.__file__).parent for package in (auth, trioproxy) if package.__file__]
    places = [*code, *(ROOT / place for place in ("tests", "docs", "README.md"))]
    assert len(code) == 2
    command = ["grep", "-rnF", "--include=*.py", "--include=*.md", "--include=*.toml"]
    command += [part for word in words for part in ("-e", word)]
    found = subprocess.run([*command, *places], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, "")


def test_no_step_tells_a_password(authority: Authority, tmp_path: Path) -> None:
    """Neither the user's, right or wrong, nor our own (case 36)."""
    with Slapd(tmp_path / "server", authority) as server, trying(of_slapd(server)) as campus:
        campus.log_in("alice", "PW-CANARY")
        campus.log_in("alice")
        told = repr(campus.steps)
        assert dn_of("alice") in told
        assert not any(secret in told for secret in ("PW-CANARY", "alice-secret", "service-secret"))
