"""Pull a repository out of a store: everything is fetched and checked next to it, then put in its place in one step.

What an interrupted pull has fetched stays in the folder `.NAME.pull`, and the next one goes on from there.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..build.release import KNOWN
from ..errors import ExportError
from ..files import ProgressCallback, exclusive_lock, sha256
from . import signing
from .blobs import Blobs
from .download import Download
from .errors import NotStored, StoreError
from .layout import manifest_key, signature_key, tag_key
from .location import HASH, parse_source
from .manifest import MAX_BYTES, Manifest, digest_of, parse
from .snapshot import ORIGIN_FILE, is_kept
from .swap import put_in_place

TIMEOUT_SECONDS = 3600.0
_TAG_BYTES = 1024


@dataclass(frozen=True)
class PullOptions:
    """How a repository is pulled.

    Attributes:
        verify_key: a PEM file with the Ed25519 public key whose signature the manifest must have.
        timeout: seconds that all transfers together may take.
    """

    verify_key: Path | None = None
    timeout: float = TIMEOUT_SECONDS


def pull(
    source: str, repository: Path, on_progress: ProgressCallback = print, options: PullOptions | None = None
) -> str:
    """Make `repository` what the source says; return the hash of its manifest.

    Files that are there already are not fetched. A running Triton sees the old repository or the new one.

    Args:
        source: `LOCATION`, `LOCATION@TAG` or `LOCATION@sha256:HASH`.
        repository: the folder, created if it does not exist, but not a mount point.
        on_progress: takes one line of progress at a time.
        options: by default without a signature.

    Raises:
        ExportError: the store cannot be used, a content does not have its hash, the signature is missing or wrong, or
            the folder is not a repository that may be replaced. The folder is unchanged.
    """
    options = options or PullOptions()
    wanted = parse_source(source)
    store = Blobs.open(wanted.location)
    digest = wanted.digest or _read_tag(store, wanted.tag)
    manifest = _read_manifest(store, digest, options.verify_key)
    _check_target(repository)
    repository.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as locks:
        locks.enter_context(exclusive_lock(repository.parent, on_progress))
        if repository.is_dir():
            locks.enter_context(exclusive_lock(repository, on_progress))
        _replace(store, manifest, repository, on_progress, options)
    on_progress(f"{repository}: {wanted.location}@sha256:{digest}, {len(manifest.files)} files, complete and checked")
    return digest


def _read_tag(store: Blobs, tag: str) -> str:
    try:
        digest = store.read(tag_key(tag), _TAG_BYTES).decode("ascii", "replace").strip()
    except NotStored as error:
        raise NotStored(f"{store.location}: nothing was pushed here as {tag!r}") from error
    if not HASH.fullmatch(digest):
        raise StoreError(f"{store.location}: the tag {tag!r} is damaged; push again")
    return digest


def _read_manifest(store: Blobs, digest: str, verify_key: Path | None) -> Manifest:
    """Return the manifest of a hash. Raises StoreError if it is another one, or not signed as it must be."""
    if verify_key:
        try:
            signature = store.read(signature_key(digest), signing.MAX_BYTES)
        except NotStored as error:
            raise NotStored(f"{store.location}@sha256:{digest}: not signed; push with --sign-key") from error
        signing.verify(digest, signature, verify_key)
    try:
        content = store.read(manifest_key(digest), MAX_BYTES)
    except NotStored as error:
        raise NotStored(f"{store.location}: the store has no manifest sha256:{digest}") from error
    if digest_of(content) != digest:
        raise StoreError(f"{store.location}: the manifest does not have the hash sha256:{digest}")
    return parse(content)


def _check_target(repository: Path) -> None:
    """Reject a folder that is no repository of this project: it would be replaced with all that is in it."""
    real = repository.resolve()
    if os.path.ismount(real):
        raise ExportError(f"{repository} is a mount point, so nothing can take its place; use a folder inside it")
    if real == Path(__file__).parents[2] / "model_repository":
        raise ExportError(f"{repository} holds the committed models of the project; pull into another folder")
    if not repository.exists() or (repository / ORIGIN_FILE).is_file():
        return
    if others := sorted(path.name for path in repository.iterdir() if path.is_dir() and path.name not in KNOWN):
        raise ExportError(
            f"{repository}: {others[0]} is no model of this project and would be removed; pull into another folder"
        )


def _replace(
    store: Blobs, manifest: Manifest, repository: Path, on_progress: ProgressCallback, options: PullOptions
) -> None:
    local = {path: sha256(repository / path) for path in _local_files(repository)}
    same = local == {file.path: file.sha256 for file in manifest.files}
    if same and all((repository / folder).is_dir() for folder in manifest.folders):
        on_progress(f"{repository}: up to date")
        return
    staging = repository.resolve().parent / f".{repository.resolve().name}.pull"
    contents = {digest: repository / path for path, digest in local.items()}
    Download(store, staging / "blobs", on_progress, options.timeout).fetch(manifest, contents)
    tree = staging / "repository"
    shutil.rmtree(tree, ignore_errors=True)
    _build_tree(tree, manifest, staging / "blobs", contents)
    (tree / ORIGIN_FILE).write_text(json.dumps({"location": store.location}) + "\n", "utf-8")
    put_in_place(tree, repository.resolve())
    shutil.rmtree(staging)


def _local_files(repository: Path) -> list[str]:
    paths = (path for path in repository.rglob("*") if path.is_file() and not path.is_symlink())
    return [str(path.relative_to(repository)) for path in paths if is_kept(path, repository)]


def _build_tree(tree: Path, manifest: Manifest, blobs: Path, contents: dict[str, Path]) -> None:
    """Make the repository of hard links to what was fetched and to what the old one has."""
    for folder in manifest.folders:
        (tree / folder).mkdir(parents=True)
    for file in manifest.files:
        target = tree / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(contents.get(file.sha256) or blobs / file.sha256, target)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
