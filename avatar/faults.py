"""Tell the faults of the machine from those of the input and from defects of the service."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from .errors import MachineFault, ResourceFault, StorageFault

NO_SPACE = "no space left on the disk"
WORK_FOLDER_REMOVED = "the work folder was removed"
_STORAGE = {
    errno.ENOSPC: NO_SPACE,
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reports an input/output error",
    errno.EFBIG: "a file reached the file size limit of the process",
    errno.ESTALE: "the network file system lost a file",
    errno.ENODEV: "the device of the file system is gone",
}
_RESOURCES = {
    errno.EMFILE: "too many open files in the process",
    errno.ENFILE: "too many open files on the machine",
    errno.ENOMEM: "not enough memory",
}
# A path that has just been there is missing, or closed to this process.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM)
_OUT_OF_MEMORY = _RESOURCES[errno.ENOMEM]
_NO_THREAD = "can't start new thread"  # the message of Python's RuntimeError
_PROBE_BYTES = 4096  # one block of a disk
_ALLOCATION_BYTES = 256 << 20  # an allocation that succeeds unless memory is limited or used up


def machine_fault(error: BaseException) -> MachineFault | None:
    """Return the fault of the machine that an exception shows, with the exception as its cause; None if it shows none.

    A MemoryError shows one only if an ordinary allocation fails too: a damaged file can ask for any amount of memory.
    """
    fault = error if isinstance(error, MachineFault) else _fault(error)
    if fault is not None and fault is not error:
        fault.__cause__ = error
    return fault


def storage_fault(error: OSError) -> MachineFault:
    """Return the fault that an error in the work folder shows; there, every error is one."""
    reason = f"the work folder cannot be used ({os.strerror(error.errno) if error.errno else 'unknown error'})"
    fault = machine_fault(error) or StorageFault(reason)
    fault.__cause__ = error
    return fault


def check_writable(folder: Path) -> None:
    """Write a block to a new file in the folder and remove the file. Raises StorageFault or ResourceFault."""
    probe = folder / f"probe-{secrets.token_hex(8)}"
    try:
        try:
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
    except OSError as error:
        raise storage_fault(error) from error


def _fault(error: BaseException) -> MachineFault | None:
    if isinstance(error, MemoryError):
        return None if _can_allocate() else ResourceFault(_OUT_OF_MEMORY)
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return ResourceFault("no more threads can be started")
    if not isinstance(error, OSError) or error.errno is None:
        return None
    if error.errno in _STORAGE:
        return StorageFault(_STORAGE[error.errno])
    if error.errno in _RESOURCES:
        return ResourceFault(_RESOURCES[error.errno])
    if error.errno in _GONE and isinstance(error.filename, str | os.PathLike) and not _has_parent(error.filename):
        return StorageFault(WORK_FOLDER_REMOVED)
    return None


def _has_parent(path: str | os.PathLike[str]) -> bool:
    return Path(path).parent.exists()


def _can_allocate() -> bool:
    try:
        bytearray(_ALLOCATION_BYTES)
    except MemoryError:
        return False
    return True
