"""Provide temporary folders: one per process, inside it one per request, each removed at the end.

A program that cleans temporary folders may remove the process's folder. systemd-tmpfiles does not, because the folder
is locked; others do. The folder is then created again for the next request.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Lock

from ..errors import MachineFault
from ..faults import check_writable, machine_fault, storage_fault

logger = logging.getLogger(__name__)

_PREFIX = "avatar-work-"  # the same for every process that runs jobs: each removes what any of them left
_RETRY_DELAYS = (0.05, 0.5, 2.0)  # seconds
_UNWIND_SECONDS = 10.0  # cancelled jobs end their ffmpeg processes within this time


class Workspace:
    """The process's own folder inside `parent`.

    The folder is locked while the process lives, so that the next process can identify and remove the folder that a
    killed process left. Methods without `async` block on the disk: do not call them in the event loop.

    Attributes:
        root: the folder; it exists from `open` to `close`.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._parent_identity = self._root_identity = _identity(parent)
        self._lock: int | None = None
        self._opening = Lock()
        self._in_use: set[object] = set()  # one for each folder
        self._left: list[Path] = []  # folders that could not be removed
        self._unused = asyncio.Event()
        self._unused.set()

    def open(self) -> None:
        """Remove the folders that killed processes left, and create this process's folder. Raises OSError."""
        for left in self._parent.glob(f"{_PREFIX}*"):
            _remove_if_abandoned(left)
        while not self._take():
            pass

    async def _remove_when_made(self, making: asyncio.Future[Path]) -> None:
        """Remove the folder, unless it could not be created; its creation may still be running."""
        with suppress(MachineFault):
            await asyncio.to_thread(self._remove_made, await making)

    def check(self) -> None:
        """Write a block to the folder and remove it; create the folder again if it was removed. Raises MachineFault."""
        self._renew()
        self._remove_left()
        check_writable(self.root)

    def _renew(self) -> None:
        """Create the folder again if it was removed. Raises MachineFault."""
        with self._opening:
            if _identity(self.root) == self._root_identity:
                return
            logger.warning("the work folder was removed; it is created again")
            try:
                if _identity(self._parent) != self._parent_identity:
                    self._parent_identity = _create_parent(self._parent)
                if self._lock is not None:
                    os.close(self._lock)
                    self._lock = None
                while not self._take():
                    pass
            except OSError as error:
                raise storage_fault(error) from error

    def _make(self) -> Path:
        """Create a folder for one request. Raises MachineFault."""
        self._renew()
        self._remove_left()
        path = self.root / secrets.token_hex(8)
        try:
            path.mkdir(0o700)
        except OSError as error:
            raise storage_fault(error) from error
        return path

    def _remove_made(self, path: Path) -> None:
        """Remove a request's folder; where that fails, for example without a free descriptor, try again later."""
        if not _remove(path):
            self._left.append(path)

    def _remove_left(self) -> None:
        left, self._left = self._left, []
        self._left += [path for path in left if not _removed(path)]

    def _take(self) -> bool:
        """Create and lock the folder. Return False if another process that is starting took it for an abandoned one."""
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
        self._root_identity = _identity(self.root)
        try:
            self._lock = _lock(self.root)
        except (BlockingIOError, FileNotFoundError):
            return False
        except OSError as error:
            if machine_fault(error):
                self.root.rmdir()
                raise
            self._lock = None  # the file system has no locks: then no process can take the folder either
            return True
        if self.root.exists():
            return True
        os.close(self._lock)
        return False

    def close(self) -> None:
        """Remove the folder and everything in it."""
        _remove(self.root)
        if self._lock is not None:
            os.close(self._lock)

    async def wait_unused(self) -> None:
        """Wait until no request has a folder any more, at most a few seconds."""
        try:
            await asyncio.wait_for(self._unused.wait(), _UNWIND_SECONDS)
        except TimeoutError:
            logger.warning("%d requests did not end in %g s", len(self._in_use), _UNWIND_SECONDS)

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """Create an empty folder for one request; it is removed at the end of the block, also after an error.

        Raises:
            MachineFault: it cannot be created.
        """
        token = object()
        self._in_use.add(token)
        self._unused.clear()
        making = asyncio.ensure_future(asyncio.to_thread(self._make))
        try:
            yield await asyncio.shield(making)
        finally:
            try:
                # A second cancellation ends the wait, but not the removal, which may still wait for a thread.
                await asyncio.shield(self._remove_when_made(making))
            finally:
                self._in_use.discard(token)
                if not self._in_use:
                    self._unused.set()


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what distinguishes a folder from a later one of the same name; None if there is none."""
    try:
        status = folder.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _create_parent(parent: Path) -> tuple[int, int] | None:
    """Create the configured folder, which was removed, and return its identity.

    Raises:
        OSError: it cannot be created, or another user could write to the one that was created meanwhile.
    """
    with suppress(FileExistsError):
        parent.mkdir(0o700)
    status = parent.lstat()
    is_shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, os.geteuid()) or is_shared:
        raise PermissionError(errno.EACCES, "another user can write to the work folder")
    return _identity(parent)


def _remove(folder: Path) -> bool:
    """Remove the folder and return True; return False, and log it, where that fails."""
    # A thread of a cancelled job may still write a last file while its folder is being removed: try again.
    for pause in _RETRY_DELAYS:
        if _removed(folder):
            return True
        time.sleep(pause)
    logger.error("cannot remove a temporary folder: %s", folder)
    return False


def _removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _lock(folder: Path) -> int:
    """Return an open descriptor that holds the folder's lock. Raises OSError; BlockingIOError if it is locked."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_if_abandoned(folder: Path) -> None:
    try:
        descriptor = _lock(folder)
    except OSError:  # in use, or of another user
        return
    try:
        _remove(folder)
    finally:
        os.close(descriptor)
    logger.info("removed a folder that a killed process left: %s", folder)
