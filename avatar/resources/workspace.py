"""Temporary folders: one for the process, in it one for each request, and none when they are over."""

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

_PREFIX = "avatar-work-"  # the same for every process that does jobs: each cleans up after any of them
_RETRY_DELAYS = (0.05, 0.5, 2.0)  # seconds
_UNWIND_SECONDS = 10.0  # seconds; cancelled jobs end their ffmpeg processes within it


class Workspace:
    """The process's own folder inside `parent`.

    The folder is locked as long as the process lives, so that the next one can tell what a killed
    process left behind, and removes it. Methods without `async` touch the disk: not for the event loop.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._lock: int | None = None
        self._in_use: set[Path] = set()
        self._unused = asyncio.Event()
        self._unused.set()

    def open(self) -> None:
        """Remove what killed processes left, and make this process's folder. Raises OSError."""
        for left in self._parent.glob(f"{_PREFIX}*"):
            _remove_if_abandoned(left)
        while not self._take():
            pass

    def _take(self) -> bool:
        """Make and lock the folder. False where a process that starts just now took it for an abandoned one."""
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
        try:
            self._lock = _lock(self.root)
        except (BlockingIOError, FileNotFoundError):
            return False
        except OSError:  # the file system knows no locks: then nobody can take the folder either
            self._lock = None
            return True
        if self.root.exists():
            return True
        os.close(self._lock)
        return False

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        _remove(self.root)
        if self._lock is not None:
            os.close(self._lock)

    async def wait_unused(self) -> None:
        """Return when no request's folder is left, or after a few seconds."""
        try:
            await asyncio.wait_for(self._unused.wait(), _UNWIND_SECONDS)
        except asyncio.TimeoutError:  # noqa: UP041 - another class in Python 3.10
            logger.warning("%d requests did not end in %g s", len(self._in_use), _UNWIND_SECONDS)

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """An empty folder for one request; removed at the end, however it comes."""
        path = self.root / secrets.token_hex(8)
        self._in_use.add(path)
        self._unused.clear()
        try:
            await asyncio.to_thread(path.mkdir, 0o700)
            yield path
        finally:
            try:
                # A second cancellation ends the wait, but not what may still stand in line for a thread.
                await asyncio.shield(asyncio.to_thread(_remove, path))
            finally:
                self._in_use.discard(path)
                if not self._in_use:
                    self._unused.set()


def _remove(folder: Path) -> None:
    # A thread of a cancelled job may still write one last file while its folder is emptied: look again.
    for pause in _RETRY_DELAYS:
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(pause)
    logger.error("a temporary folder could not be removed: %s", folder)


def _lock(folder: Path) -> int:
    """An open descriptor of the folder that holds its lock. Raises OSError: BlockingIOError where it is taken."""
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
    except OSError:  # in use, or somebody else's
        return
    try:
        _remove(folder)
    finally:
        os.close(descriptor)
    logger.info("removed what a killed process left: %s", folder)
