"""Files that are whole or not there."""

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
    """Write a file under another name beside `path`; leaving the block without an error gives it its own.

    What is no regular file (a pipe, `/dev/null`) is written as it is, for a rename would put a file in its place.

    Raises:
        OSError: it cannot be written there. This is found out at the begin.
    """
    target = Path(os.path.realpath(path))  # not the symbolic link, but what it means
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if target.exists() and not target.is_file():
        with target.open("wb") as there:
            yield there
        return
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with _open(part, str(path)) as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _open(part: Path, path: str) -> BinaryIO:
    """A new file; an error names the path that was asked for."""
    try:
        return part.open("xb")
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path) from None
