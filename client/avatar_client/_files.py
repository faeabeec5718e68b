"""Files that are complete or not there."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file under a temporary name in the same folder; rename it when the block ends without an error.

    What is not a regular file (a pipe, `/dev/null`) is written directly, because a rename would replace it.

    Raises:
        OSError: the file cannot be written. This is found out before the block starts.
    """
    target = Path(os.path.realpath(path))  # the file that a symbolic link points to, not the link
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            yield file
        return
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with _open(part, str(path)) as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _open(part: Path, path: str) -> BinaryIO:
    """Open a new file; an error names the path that the caller gave."""
    try:
        return part.open("xb")
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path) from None
