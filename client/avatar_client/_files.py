"""Files that are complete or not there, and pipes."""

from __future__ import annotations

import errno
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDOUT = 1  # the file descriptor
STDOUT_PATHS = frozenset({"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file under a temporary name in the same folder; rename it when the block ends without an error.

    What is not a regular file (a pipe, `/dev/stdout`, `/dev/null`) is written directly, each piece at once, because a
    rename would replace it.

    Raises:
        OSError: the file cannot be written. This is found out before the block starts.
    """
    if is_stdout(path):
        with _Immediate(io.FileIO(os.dup(STDOUT), "wb")) as file:
            yield file
        return
    target = Path(os.path.realpath(path))  # the file that a symbolic link points to, not the link
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if Path(path).exists() and not Path(path).is_file():  # the real path of a pipe's descriptor names no file
        with _Immediate(io.FileIO(path, "wb")) as pipe:
            yield pipe
        return
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with _open(part, str(path)) as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def is_stdout(path: str | os.PathLike[str]) -> bool:
    """Return whether the path names the standard output of this process."""
    return os.fspath(path) in STDOUT_PATHS


class _Immediate(io.BufferedWriter):
    """Writes each piece at once: the reader of a pipe plays it while the next one is made."""

    def write(self, buffer: ReadableBuffer, /) -> int:
        written = super().write(buffer)
        self.flush()
        return written


def _open(part: Path, path: str) -> BinaryIO:
    """Open a new file; an error names the path that the caller gave."""
    try:
        return part.open("xb")
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path) from None
