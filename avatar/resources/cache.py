"""Cache small arrays that are costly to compute, in memory and on disk.

All processes of a machine share one folder. An entry is one file, named by its key; it is created by a rename and never
changed, so a reader finds a complete entry or none. When the space runs out, the least recently used entries are
removed.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import secrets
import stat
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock

import numpy as np

from lipsync.arrays import Array

SUFFIX = ".npz"
MEMORY_SHARE = 0.25  # the share of the disk's bytes that is also held in memory
EVICT_TO = 0.9  # the share of `max_bytes` that remains after an eviction, so that not every new entry causes one
STALE_SECONDS = 600.0  # an incomplete file that is older was left by a process that died

logger = logging.getLogger(__name__)

# NumPy reads the header of an array with `ast`. In CPython 3.11, two threads that do so at the same time may get a
# SystemError (https://github.com/python/cpython/issues/106905).
_PARSING = Lock()


def open_cache(folder: Path, max_bytes: int, memory_share: float = MEMORY_SHARE) -> Cache | None:
    """Return a cache of `max_bytes`, or None if that is 0 or the folder cannot be used; the service works without."""
    if not max_bytes:
        return None
    try:
        return Cache(folder, max_bytes, memory_share)
    except OSError as error:
        logger.warning("the avatar cache is disabled: %s", error)
        return None


class Cache:
    """A bounded cache that removes the least recently used entries first.

    It is safe for threads, and for processes that share the folder. No failure of the cache is an error for its user:
    an entry that cannot be read counts as missing, one that cannot be written is not stored, and a warning is logged.

    Args:
        folder: created if it is missing, accessible by its owner only; created again if it is removed later.
        max_bytes: on disk.
        memory_share: the share of them that is also held in memory.

    Attributes:
        hits: number of calls of `get` that found an entry, since this object was created.
        misses: number of calls of `get` that found none.

    Raises:
        OSError: the folder cannot be created, or another user could write any content to it.
    """

    def __init__(self, folder: Path, max_bytes: int, memory_share: float = MEMORY_SHARE) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._max_memory = int(max_bytes * memory_share)
        self._lock = Lock()
        self._in_memory: OrderedDict[str, bytes] = OrderedDict()
        self.hits = self.misses = 0
        _create_private(folder)

    def get(self, key: str) -> dict[str, Array] | None:
        """Return the arrays that were stored under this key, or None. The caller may change them."""
        arrays = self._read(key)
        with self._lock:
            if arrays is None:
                self.misses += 1
            else:
                self.hits += 1
        return arrays

    def put(self, key: str, arrays: Mapping[str, Array]) -> None:
        """Store arrays under a key, unless they are larger than the whole cache."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        data = buffer.getvalue()
        if len(data) > self._max_bytes * EVICT_TO:
            return
        self._keep_in_memory(key, data)
        temporary = self._folder / f"{secrets.token_hex(8)}.part"
        try:
            if not self._folder.exists():  # a program that cleans temporary folders removed it
                _create_private(self._folder)
            temporary.write_bytes(data)
            temporary.replace(self._path(key))
            self._evict()
        except OSError as error:
            logger.warning("cannot write to the cache: %s", error)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def discard(self, key: str, reason: str) -> None:
        """Remove an entry that was found and is of no use."""
        logger.warning("removed an entry of the cache: %s", reason)
        self._remove(key)

    def _read(self, key: str) -> dict[str, Array] | None:
        with self._lock:
            data = self._in_memory.get(key)
            if data is not None:
                self._in_memory.move_to_end(key)
        path = self._path(key)
        if data is None:
            try:
                data = _read_file(path, self._max_bytes)
            except FileNotFoundError:
                return None
            except ValueError as error:
                self.discard(key, str(error))
                return None
            except OSError as error:
                logger.warning("cannot read from the cache: %s", error)
                return None
            self._keep_in_memory(key, data)
        with suppress(OSError):  # another process may have removed it
            os.utime(path)
        try:
            with _PARSING, np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except SystemError as error:  # of Python's parser, not of the entry
            logger.warning("cannot read an entry of the cache now: %s", error)
            return None
        except Exception as error:  # NumPy's reader raises many types for a damaged file
            self.discard(key, f"it is damaged: {error}")
            return None

    def _keep_in_memory(self, key: str, data: bytes) -> None:
        with self._lock:
            self._in_memory.pop(key, None)
            if len(data) > self._max_memory:
                return
            self._in_memory[key] = data
            while sum(map(len, self._in_memory.values())) > self._max_memory:
                self._in_memory.popitem(last=False)

    def _remove(self, key: str) -> None:
        with self._lock:
            self._in_memory.pop(key, None)
        with suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def _evict(self) -> None:
        """Remove the oldest entries if the folder holds too much. Two processes at a time remove a few more."""
        entries: list[tuple[float, int, Path]] = []
        now = self._folder.stat().st_mtime  # an entry has just been added; this clock also dates the files
        for path in self._folder.iterdir():
            with suppress(OSError):
                status = path.lstat()
                if path.suffix == SUFFIX or now - status.st_mtime > STALE_SECONDS:
                    entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        if total <= self._max_bytes:
            return
        for _, size, path in sorted(entries, key=lambda entry: entry[0]):
            if total <= self._max_bytes * EVICT_TO:
                return
            with suppress(OSError):
                path.unlink(missing_ok=True)
            total -= size

    def _path(self, key: str) -> Path:
        return self._folder / (hashlib.sha256(key.encode()).hexdigest() + SUFFIX)


def _create_private(folder: Path) -> None:
    """Create the folder if it is missing. Raises OSError if another user owns it, or can write to it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} must be a directory that belongs to the user of this process")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder} must be writable by its owner only: chmod go-w {folder}")


def _read_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a file, without waiting where a pipe has its name.

    Raises:
        ValueError: it is not a regular file, or it is larger than `max_bytes`.
        OSError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link or a socket
            raise ValueError(f"not a regular file: {path}") from error
        raise
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"not a regular file: {path}")
        if status.st_size > max_bytes:
            raise ValueError(f"larger than the whole cache: {path}")
        return file.read()
