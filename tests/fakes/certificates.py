"""Certificates for 127.0.0.1, made on the spot: trusted by a CA of the test's own, self-signed, or expired."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class CertificateAuthority:
    """Signs server certificates; `folder` keeps the files that OpenSSL wants to read."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    folder: Path

    @classmethod
    def make(cls, folder: Path) -> CertificateAuthority:
        """A new authority that no client trusts yet."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("A test's own CA")
        certificate = (
            _builder(name, name, key, DAY, key).add_extension(_SIGNS, critical=True).sign(key, hashes.SHA256())
        )
        return cls(key, certificate, folder)

    @property
    def ca_file(self) -> str:
        """Path of the file by which a client trusts this authority."""
        path = self.folder / "ca.pem"
        if not path.exists():
            path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return str(path)

    def server_context(self, address: str = "127.0.0.1", *, valid_for: datetime.timedelta = DAY) -> ssl.SSLContext:
        """Make the certificate of a server at `address`; a negative `valid_for` makes an expired one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_files(address, valid_for=valid_for))
        return context

    def server_files(self, address: str = "127.0.0.1", *, valid_for: datetime.timedelta = DAY) -> str:
        """Path of a file with the key and the certificate of a server at `address`."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(address), self.certificate.subject, key, valid_for, self.key)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        path = self.folder / f"{certificate.serial_number}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return str(path)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    valid_for: datetime.timedelta,
    signing_key: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 10 * DAY)
        .not_valid_after(now + valid_for)
        .add_extension(x509.BasicConstraints(ca=subject == issuer, path_length=None), critical=True)
        # Python 3.13 refuses a certificate without these.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(signed_by, critical=False)
    )
