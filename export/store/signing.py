"""Sign and check manifests with Ed25519, in files as `openssl genpkey -algorithm ed25519` writes them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import StoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAX_BYTES = 1024  # of a signature's file
_CONTEXT = b"talking-avatar manifest sha256:"  # so that a signature counts for nothing else


def sign(digest: str, key_file: Path) -> bytes:
    """Return the signature of a manifest's hash, in base64. Raises StoreError."""
    return base64.b64encode(_private_key(key_file).sign(_CONTEXT + digest.encode())) + b"\n"


def verify(digest: str, signature: bytes, key_file: Path) -> None:
    """Return if the signature of a manifest's hash was made with the private half of this key. Raises StoreError."""
    key = _public_key(key_file)
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(base64.b64decode(signature.strip(), validate=True), _CONTEXT + digest.encode())
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise StoreError(f"the signature of sha256:{digest} was not made with the key of {key_file}") from error


def _private_key(path: Path) -> Ed25519PrivateKey:
    with _package():
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    try:
        key = serialization.load_pem_private_key(_read(path), None)
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path}: no private key in PEM without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreError(f"{path}: not an Ed25519 key; make one with `openssl genpkey -algorithm ed25519`")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    with _package():
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    try:
        key = serialization.load_pem_public_key(_read(path))
    except ValueError as error:
        raise StoreError(f"{path}: no public key in PEM; make one with `openssl pkey -in KEY -pubout`") from error
    if not isinstance(key, Ed25519PublicKey):
        raise StoreError(f"{path}: not an Ed25519 key; make one with `openssl genpkey -algorithm ed25519`")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: the key cannot be read: {error.strerror}") from error


@contextmanager
def _package() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise StoreError("signatures need the package `cryptography`, which is not installed here") from error
