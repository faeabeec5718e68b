"""Files of /dev/shm, each the memory of one region: made, mapped, and removed when their time is over.

Shared by the client and the service; not for callers of the client.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path("/dev/shm")  # noqa: S108 - where the server's shm_open looks


def boot_seconds() -> float:
    """Return the seconds since the machine started: the same clock in all of its containers, and never set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def make_file(name: str, size: int) -> NDArray[np.uint8]:
    """Make a file of /dev/shm and return it mapped: UINT8 [size]. The mapping ends with the last array over it.

    Raises:
        OSError: there is no /dev/shm, or it would be more than half full.
    """
    stats = os.statvfs(FOLDER)
    if stats.f_bavail * stats.f_frsize - size < stats.f_blocks * stats.f_frsize // 2:
        raise OSError(errno.ENOSPC, f"{FOLDER} is small or full")  # others need it too, such as Triton's Python models
    path = FOLDER / name
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        os.posix_fallocate(file, 0, size)  # without it, writing to a full /dev/shm would raise SIGBUS
        return np.frombuffer(mmap.mmap(file, size), np.uint8)
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(file)


def remove_name(name: str) -> None:
    """Remove a file's name; its mappings stay."""
    (FOLDER / name).unlink(missing_ok=True)


def remove_expired(prefix: str, now: float) -> None:
    """Remove the files that killed processes left: those with the prefix whose time is over."""
    for path in FOLDER.glob(f"{prefix}*"):
        if is_expired(path.name, prefix, now):
            with suppress(OSError):  # another process was first, or it is another user's
                path.unlink()


def is_expired(name: str, prefix: str, now: float) -> bool:
    """Return whether a region has the prefix and the time in its name is over."""
    end = name.removeprefix(prefix).partition("-")[0]
    return name.startswith(prefix) and end.isdecimal() and int(end) < now
