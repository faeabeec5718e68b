"""Write files into the folder of a store so that a reader sees a whole file or none, also after a crash."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path

from avatar.errors import StorageFault

PARTIAL = ".partial"  # folder of the files that are being written; a killed writer leaves its file there
_BLOCK = 1 << 20
_PRIVATE = 0o700
_TRIES = 5  # a deletion may remove the empty parent folder between its creation and the renaming


def create_folder(root: Path) -> None:
    """Create the folder of a store, closed to other users. A folder that exists keeps its mode.

    Raises:
        StorageFault: the folder, or a link in its place, belongs to another user, or everybody can write to it.
    """
    root.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    owners = {root.lstat().st_uid, root.stat().st_uid}
    if not owners <= {0, os.geteuid()} or root.stat().st_mode & stat.S_IWOTH:
        raise StorageFault("the folder of the store belongs to another user, or everybody can write to it")
    (root / PARTIAL).mkdir(mode=_PRIVATE, exist_ok=True)


def write_atomically(root: Path, key: str, source: Path) -> tuple[int, str]:
    """Copy `source` to `root/key` and return its size and its SHA-256; the data is on the disk afterwards."""
    (root / PARTIAL).mkdir(mode=_PRIVATE, exist_ok=True)
    partial = root / PARTIAL / secrets.token_hex(16)
    try:
        size, digest = _copy(source, partial)
        _place(root, partial, root / key)
    finally:
        partial.unlink(missing_ok=True)
    return size, digest


def hash_file(path: Path) -> tuple[int, str]:
    """Return the size and the SHA-256 of a file."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def remove_partial(root: Path, older_than: float) -> int:
    """Remove the files of killed writers and empty folders that nobody changed for `older_than` seconds.

    Returns:
        how many files were removed.
    """
    end = time.time() - older_than
    removed = 0
    for folder, _, files in os.walk(root, topdown=False):
        path = Path(folder)
        if path.name == PARTIAL:
            removed += sum(_remove_old(path / name, end) for name in files)
        elif path != root:
            with suppress(OSError):  # not empty, or removed by another process
                if path.stat().st_mtime < end:
                    path.rmdir()
    return removed


def _copy(source: Path, target: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    with source.open("rb") as reader, open(target, "xb", opener=_open_private) as writer:
        while block := reader.read(_BLOCK):
            digest.update(block)
            writer.write(block)
            size += len(block)
        writer.flush()
        os.fsync(writer.fileno())
    return size, digest.hexdigest()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _place(root: Path, partial: Path, target: Path) -> None:
    """Rename the file to its place; make the new names last: of the file, and of every folder above it."""
    for tries_left in reversed(range(_TRIES)):
        try:
            target.parent.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            partial.replace(target)
            break
        except (FileNotFoundError, FileExistsError):  # a folder was removed while it was looked for
            if not tries_left or not partial.exists():
                raise
    folder = target.parent
    while True:
        _sync_folder(folder)
        if folder == root:
            return
        folder = folder.parent


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_old(path: Path, end: float) -> int:
    with suppress(OSError):
        if path.stat().st_mtime < end:
            path.unlink()
            return 1
    return 0
