"""Put a whole folder in the place of another in one step, so that no reader sees half of one or none."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL}


def put_in_place(staged: Path, target: Path) -> None:
    """Rename `staged` to `target`; what was there, if anything, is at `staged` afterwards.

    Both are on one file system. Linux exchanges two folders in one step. Where a file system cannot do that, the target
    is missing for the time between two renames.
    """
    if not target.exists():
        staged.rename(target)
        return
    try:
        _exchange(staged, target)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _in_two_steps(staged, target)


def _exchange(first: Path, second: Path) -> None:
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError as error:  # a C library without it
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from error
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(second))


def _in_two_steps(staged: Path, target: Path) -> None:
    aside = staged.with_name(staged.name + ".old")
    target.rename(aside)
    try:
        staged.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    aside.rename(staged)
