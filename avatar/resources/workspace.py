"""Provide temporary folders: one per process, inside it one per request, each removed at the end."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

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
        self._lock: int | None = None
        self._in_use: set[Path] = set()
        self._unused = asyncio.Event()
        self._unused.set()

    def open(self) -> None:
        """Remove the folders that killed processes left, and create this process's folder. Raises OSError."""
        for left in self._parent.glob(f"{_PREFIX}*"):
            _remove_if_abandoned(left)
        while not self._take():
            pass

    def _take(self) -> bool:
        """Create and lock the folder. Return False if another process that is starting took it for an abandoned one."""
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
        try:
            self._lock = _lock(self.root)
        except (BlockingIOError, FileNotFoundError):
            return False
        except OSError:  # the file system has no locks: then no process can take the folder either
            self._lock = None
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
        """Create an empty folder for one request; it is removed at the end of the block, also after an error."""
        path = self.root / secrets.token_hex(8)
        self._in_use.add(path)
        self._unused.clear()
        try:
            await asyncio.to_thread(path.mkdir, 0o700)
            yield path
        finally:
            try:
                # A second cancellation ends the wait, but not the removal, which may still wait for a thread.
                await asyncio.shield(asyncio.to_thread(_remove, path))
            finally:
                self._in_use.discard(path)
                if not self._in_use:
                    self._unused.set()


def _remove(folder: Path) -> None:
    # A thread of a cancelled job may still write a last file while its folder is being removed: try again.
    for pause in _RETRY_DELAYS:
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(pause)
    logger.error("cannot remove a temporary folder: %s", folder)


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
