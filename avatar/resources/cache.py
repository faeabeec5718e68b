"""Small arrays that are costly to compute, remembered in memory and on disk.

One folder serves all processes of a machine. An entry is one file, named by its key, which comes in by a rename and is
never changed: whoever reads finds a whole one or none. What was used longest ago goes first when there is no room.
"""

from __future__ import annotations

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

SUFFIX = ".npz"
MEMORY_SHARE = 0.25  # the share of the disk's bytes that is held in memory too
EVICT_TO = 0.9  # of what is allowed is left after something had to go, so that it is not looked for at every entry
STALE_SECONDS = 600.0  # a half-written file that is older belongs to a process that died

logger = logging.getLogger(__name__)


def open_cache(folder: Path, max_bytes: int) -> Cache | None:
    """A cache of `most` bytes, none where that is 0. A folder that does not do is no reason not to work."""
    if not max_bytes:
        return None
    try:
        return Cache(folder, max_bytes)
    except OSError as error:
        logger.warning("avatars are not remembered: %s", error)
        return None


class Cache:
    """Bounded, least recently used first out; safe for threads, and for processes that share the folder.

    Nothing that goes wrong with it is an error for its user: what cannot be read was never there, what cannot be
    written is not kept, and the log says so.

    Args:
        folder: made if it is missing, and for its owner alone.
        most: bytes on disk.

    Attributes:
        hits: how often `get` had something, since this object was made.
        misses: and how often nothing.

    Raises:
        OSError: the folder cannot be made, or belongs to somebody else, who could put anything into it.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._lock = Lock()
        self._in_memory: OrderedDict[str, bytes] = OrderedDict()
        self.hits = self.misses = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
            raise PermissionError(f"{folder}: belongs to somebody else")

    def get(self, key: str) -> dict[str, NDArray[Any]] | None:
        """What was put under this key, or None."""
        arrays = self._read(key)
        with self._lock:
            if arrays is None:
                self.misses += 1
            else:
                self.hits += 1
        return arrays

    def put(self, key: str, arrays: Arrays) -> None:
        """Keep arrays under a key, if there is room for them at all."""
        room = io.BytesIO()
        np.savez(room, **arrays)
        data = room.getvalue()
        if len(data) > self._max_bytes * EVICT_TO:
            return
        self._keep_in_memory(key, data)
        temporary = self._folder / f"{secrets.token_hex(8)}.part"
        try:
            temporary.write_bytes(data)
            temporary.replace(self._path(key))
            self._evict()
        except OSError as error:
            logger.warning("the cache cannot be written: %s", error)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _read(self, key: str) -> dict[str, NDArray[Any]] | None:
        with self._lock:
            data = self._in_memory.get(key)
            if data is not None:
                self._in_memory.move_to_end(key)
        path = self._path(key)
        if data is None:
            try:
                data = path.read_bytes()
            except OSError:
                return None
            self._keep_in_memory(key, data)
        with suppress(OSError):  # another process has dropped it
            os.utime(path)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except Exception as error:  # whatever a damaged file makes of NumPy's reader
            logger.warning("a damaged entry of the cache is dropped: %s", error)
            self._drop(key)
            return None

    def _keep_in_memory(self, key: str, data: bytes) -> None:
        most = int(self._max_bytes * MEMORY_SHARE)
        with self._lock:
            self._in_memory.pop(key, None)
            if len(data) > most:
                return
            self._in_memory[key] = data
            while sum(map(len, self._in_memory.values())) > most:
                self._in_memory.popitem(last=False)

    def _drop(self, key: str) -> None:
        with self._lock:
            self._in_memory.pop(key, None)
        with suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def _evict(self) -> None:
        """Let go of the oldest where the folder holds too much. Two processes at once let go of a few more."""
        entries: list[tuple[float, int, Path]] = []
        now = self._folder.stat().st_mtime  # an entry has just come in; by the clock that dates the files
        for path in self._folder.iterdir():
            with suppress(OSError):
                about = path.stat()
                if path.suffix == SUFFIX or now - about.st_mtime > STALE_SECONDS:
                    entries.append((about.st_mtime, about.st_size, path))
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
