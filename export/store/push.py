"""Push a repository into a store: first the files that the store has not, then the manifest, at the end the tag."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import ExportError
from ..files import ProgressCallback, exclusive_lock
from . import signing, snapshot
from .blobs import Blobs
from .errors import NotStored
from .layout import blob_key, manifest_key, signature_key, tag_key
from .location import LATEST, check_tag
from .manifest import MAX_BYTES, digest_of
from .manifest import parse as parse_manifest
from .transfers import AT_ONCE, Transfer, wait_for_all


def push(
    repository: Path,
    location: str,
    on_progress: ProgressCallback = print,
    *,
    tag: str = LATEST,
    sign_key: Path | None = None,
) -> str:
    """Push a repository and let the tag name it; return the hash of its manifest.

    A push that is interrupted leaves the tag where it was, and the next one sends only what is missing.

    Args:
        repository: the folder.
        location: the store; a folder is created.
        on_progress: takes one line of progress at a time.
        tag: the name by which the repository is pulled.
        sign_key: a PEM file with an Ed25519 private key to sign the manifest with.

    Raises:
        ExportError: the repository or the store cannot be used.
    """
    check_tag(tag)
    if not repository.is_dir():
        raise ExportError(f"{repository}: no such folder")
    store = Blobs.open(location, create=True)
    before = _tagged(store, tag)  # a bucket that does not exist is noticed before anything is hashed
    with exclusive_lock(repository, on_progress):
        manifest, sources = snapshot.take(repository)
        content = manifest.to_bytes()
        parse_manifest(content)  # what cannot be pulled is not pushed
        digest = digest_of(content)
        signature = signing.sign(digest, sign_key) if sign_key else None
        _send_missing(store, sources, on_progress)
    store.put(manifest_key(digest), content)
    if signature:
        store.put(signature_key(digest), signature)
    store.put(tag_key(tag), f"{digest}\n".encode())
    moved = "already named it" if before == digest else "names it now"
    on_progress(f"{location}@sha256:{digest}: {len(manifest.files)} files, {manifest.size / 1e6:.1f} MB; {tag} {moved}")
    return digest


def _tagged(store: Blobs, tag: str) -> str:
    try:
        return store.read(tag_key(tag), MAX_BYTES).decode("ascii", "replace").strip()
    except NotStored:
        return ""


def _send_missing(store: Blobs, sources: Mapping[str, Path], on_progress: ProgressCallback) -> None:
    """Send each content that the store has not, some at the same time."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        sizes = list(threads.map(lambda digest: store.size(blob_key(digest)), sources))
        missing = {
            digest: path
            for (digest, path), size in zip(sources.items(), sizes, strict=True)
            if size != path.stat().st_size
        }
        total = sum(path.stat().st_size for path in missing.values())
        on_progress(f"{len(missing)} of {len(sources)} contents are new here, {total / 1e6:.1f} MB")
        transfer = Transfer(total, on_progress)

        def send(digest: str) -> None:
            store.put(blob_key(digest), missing[digest])
            transfer.add(missing[digest].stat().st_size)

        wait_for_all(threads, [threads.submit(send, digest) for digest in missing])
