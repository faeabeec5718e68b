"""Sign results with a C2PA manifest, which says by a certificate who made a video and how.

The package `c2pa` (the extra `c2pa`) is imported only where a certificate is configured, and only here. Nothing is sent
over the network: no time stamp is asked for, and no revocation list is read.
Source: C2PA Technical Specification 2.2: credentials, the assertion of actions, manifests in ISO base media files.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import cv2
import numpy as np

import lipsync

from .synthetic import DIGITAL_SOURCE_TYPE, GENERATOR

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

CERTIFICATE, KEY = "AVATAR_C2PA_CERTIFICATE", "AVATAR_C2PA_KEY"
MP4, JPEG = "video/mp4", "image/jpeg"  # what is signed: results, and the trial
_EC_ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}  # by the curve of the key
_ACTION = {"action": "c2pa.created", "digitalSourceType": DIGITAL_SOURCE_TYPE}
_MANIFEST = {
    "claim_generator_info": [{"name": GENERATOR, "version": lipsync.__version__}],
    "assertions": [{"label": "c2pa.actions", "data": {"actions": [_ACTION]}}],
}


class CannotSign(Exception):
    """The certificate or its key cannot be used. The message is for the operator, and names the setting."""


class SigningFailed(Exception):
    """One result could not be signed."""


class Signer:
    """A certificate and its key, ready to sign."""

    def __init__(self, certificates: bytes, key: bytes, algorithm: str) -> None:
        """Keep what a signature needs.

        Args:
            certificates: the chain as PEM, the signer's own certificate first.
            key: its private key as PEM (PKCS #8).
            algorithm: C2PA's name of the algorithm, such as `es256`.
        """
        self._certificates, self._key = certificates, key
        self.algorithm = algorithm
        # The library holds a video of up to 512 MiB in memory while it signs, and as much of it again for its hash.
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    def load(cls, certificate: Path, key: Path) -> Signer:
        """Read the files, and check that they belong together and are valid now. Raises CannotSign."""
        _require_package()
        chain = _read(certificate, CERTIFICATE)
        private = _private_key(_read(key, KEY))
        own = _own_certificate(chain)
        _check(own, private)
        return cls(chain, _as_pkcs8(private), _algorithm(private))

    def try_out(self) -> None:
        """Sign a picture of one color. Raises CannotSign with the reason that C2PA gives."""
        _, picture = cv2.imencode(".jpg", np.full((16, 16, 3), 128, np.uint8))
        try:
            self._sign(JPEG, io.BytesIO(picture.tobytes()), io.BytesIO())
        except SigningFailed as error:
            raise CannotSign(
                f"{CERTIFICATE}: C2PA does not accept the certificate ({error}); it has to allow digitalSignature and "
                "an extended key usage of C2PA, such as emailProtection, and may not be self-signed"
            ) from error

    async def sign(self, path: Path) -> None:
        """Sign an MP4 in place. The file is unchanged if that fails. Raises SigningFailed."""
        async with self._one_at_a_time:
            await asyncio.to_thread(self._sign_file, path)

    def _sign_file(self, path: Path) -> None:
        signed = path.with_name(f"{path.name}.signed")
        try:
            with path.open("rb") as source, signed.open("w+b") as target:
                self._sign(MP4, source, cast("BinaryIO", target))
            signed.replace(path)
        except OSError as error:
            raise SigningFailed(str(error)) from error
        finally:
            signed.unlink(missing_ok=True)

    def _sign(self, kind: str, source: BinaryIO, target: BinaryIO) -> None:
        import c2pa

        try:
            info = c2pa.C2paSignerInfo(self.algorithm, self._certificates, self._key, None)
            with c2pa.Signer.from_info(info) as signer, c2pa.Builder(_MANIFEST) as builder:
                builder.sign(signer, kind, source, target)
        except c2pa.C2paError as error:
            raise SigningFailed(str(error)) from error


def _require_package() -> None:
    try:
        import c2pa  # noqa: F401 - its library is loaded, too
    except (ImportError, OSError, RuntimeError) as error:
        raise CannotSign(
            f"AVATAR_MARK=c2pa needs the package c2pa-python ({error}); install it with: pip install c2pa-python"
        ) from error


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CannotSign(
            f"{setting}: {path}: {error.strerror or error}; give the path of a readable PEM file"
        ) from error


def _own_certificate(chain: bytes) -> Certificate:
    from cryptography import x509

    try:
        certificates: Sequence[Certificate] = x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        raise CannotSign(
            f"{CERTIFICATE}: the file holds no PEM certificate ({error}); give the certificate of the signer, followed "
            "by those that issued it"
        ) from error
    return certificates[0]


def _private_key(pem: bytes) -> PrivateKeyTypes:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, password=None)
    except TypeError as error:  # what `cryptography` raises for a key with a password
        raise CannotSign(f"{KEY}: the key has a password; give a key without one") from error
    except ValueError as error:
        raise CannotSign(f"{KEY}: the file holds no PEM private key; give the key of the certificate") from error


def _check(own: Certificate, private: PrivateKeyTypes) -> None:
    """Raise CannotSign unless the key is the certificate's, and the certificate is valid now."""
    if own.public_key() != private.public_key():
        raise CannotSign(
            f"{KEY}: the key does not belong to the first certificate of {CERTIFICATE}; give its key, and put the "
            "certificate of the signer first"
        )
    first, last = own.not_valid_before_utc, own.not_valid_after_utc
    if not first <= datetime.now(UTC) <= last:
        raise CannotSign(
            f"{CERTIFICATE}: the certificate is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d} only; renew it"
        )


def _algorithm(key: PrivateKeyTypes) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _EC_ALGORITHMS:
        return _EC_ALGORITHMS[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    raise CannotSign(
        f"{KEY}: C2PA does not sign with this kind of key; use one of the curves P-256, P-384 or P-521, Ed25519, or RSA"
    )


def _as_pkcs8(key: PrivateKeyTypes) -> bytes:
    """Return the key in the form that the C2PA library reads; OpenSSL writes keys of curves in another one, too."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
