"""An authority of the tests' own, and the certificates of servers that are right or wrong in one way each."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import attrs
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

__all__ = ["NAMES", "Authority", "Certificate"]

# What a directory of the tests is called: the last for those that look names up themselves.
NAMES: Final = ("localhost", "127.0.0.1", "ldap.campus.example")
ELSEWHERE: Final = "ldap.elsewhere.example"


@attrs.frozen
class Certificate:
    """The two files that a server wants.

    Attributes:
        chain: its certificate.
        key: its private key, of mode 0600.
    """

    chain: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """TLS as a server with it speaks it."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain, self.key)
        return context


class Authority:
    """A certification authority.

    Attributes:
        pem: its own certificate, as a client's `ca_file` wants it.

    Args:
        folder: for its files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA(organization_name="trioproxy tests")
        self.pem = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.pem)

    def client_context(self) -> ssl.SSLContext:
        """TLS as a client speaks it that trusts this authority alone; it verifies chain and name."""
        return ssl.create_default_context(cafile=self.pem)

    def good(self, *names: str) -> Certificate:
        """One that is right, for `NAMES` or for these names."""
        return self._keep("good" + "".join(f"-{name}" for name in names), self._ca.issue_cert(*(names or NAMES)))

    def other_host(self) -> Certificate:
        """One for another machine."""
        return self._keep("other-host", self._ca.issue_cert(ELSEWHERE))

    def expired(self) -> Certificate:
        """One that was right until yesterday."""
        now = datetime.now(UTC)
        issued = self._ca.issue_cert(*NAMES, not_before=now - timedelta(days=30), not_after=now - timedelta(days=1))
        return self._keep("expired", issued)

    def other_authority(self) -> Certificate:
        """One with the right names, from an authority of the same name that nobody trusts."""
        return self._keep("other-authority", trustme.CA(organization_name="trioproxy tests").issue_cert(*NAMES))

    def self_signed(self) -> Certificate:
        """One with the right names that vouches for itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([x509.DNSName(NAMES[0]), x509.DNSName(NAMES[2])])
        subject = _common_name(NAMES[0])
        builder = _builder(subject, key.public_key()).issuer_name(subject).add_extension(alternatives, critical=False)
        return self._write("self-signed", builder.sign(key, SHA256()).public_bytes(Encoding.PEM), _pem(key))

    def common_name_only(self) -> Certificate:
        """One that has the name of the host as people did before RFC 6125: in the subject, and nowhere else."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        signer = load_pem_private_key(self._ca.private_key_pem.bytes(), password=None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = _builder(_common_name(NAMES[0]), key.public_key()).issuer_name(own.subject)
        signed = builder.add_extension(issuer_key, critical=False).sign(signer, SHA256())
        return self._write("common-name-only", signed.public_bytes(Encoding.PEM), _pem(key))

    def _keep(self, name: str, issued: trustme.LeafCert) -> Certificate:
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        return self._write(name, chain, issued.private_key_pem.bytes())

    def _write(self, name: str, chain: bytes, key: bytes) -> Certificate:
        files = Certificate(chain=self._folder / f"{name}.pem", key=self._folder / f"{name}.key")
        files.chain.write_bytes(chain)
        files.key.touch(mode=0o600)
        files.key.write_bytes(key)
        return files


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    """A certificate for a server, of today, without issuer and names yet."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
