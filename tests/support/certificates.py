"""Certificates for C2PA: a root that signs others, and a signer's certificate with its key, as files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = CertificateIssuerPrivateKeyTypes


@dataclass(frozen=True)
class Authority:
    """A root certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(
        self,
        folder: Path,
        key: Key | None = None,
        *,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
        days: tuple[int, int] = (-1, 30),
        key_format: PrivateFormat = PrivateFormat.PKCS8,
    ) -> tuple[Path, Path]:
        """Write `chain.pem` and `key.pem` of a signer; the certificate is valid between these days from now."""
        folder.mkdir(exist_ok=True)
        key = key or ec.generate_private_key(ec.SECP256R1())
        own = _certificate("A signer", key, self.certificate.subject, self.key, days, usage)
        chain, secret = folder / "chain.pem", folder / "key.pem"
        chain.write_bytes(own.public_bytes(Encoding.PEM) + self.pem.encode())
        secret.write_bytes(key.private_bytes(Encoding.PEM, key_format, NoEncryption()))
        return chain, secret


def make_authority() -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    return Authority(_certificate("A root", key, _name("A root"), key, (-2, 60), None), key)


def _name(text: str) -> x509.Name:
    parts = ((NameOID.COUNTRY_NAME, "DE"), (NameOID.ORGANIZATION_NAME, "Tests"), (NameOID.COMMON_NAME, text))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _certificate(
    subject: str,
    key: Key,
    issuer: x509.Name,
    issuer_key: Key,
    days: tuple[int, int],
    usage: x509.ObjectIdentifier | None,
) -> x509.Certificate:
    """Return a certificate; of an authority if it has no extended usage."""
    is_authority, now = usage is None, datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(issuer, _name(subject), key.public_key(), x509.random_serial_number())
        .not_valid_before(now + timedelta(days[0]))
        .not_valid_after(now + timedelta(days[1]))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(_key_usage(is_authority=is_authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
