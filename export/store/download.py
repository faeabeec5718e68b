"""Fetch contents by their hash: some at the same time, resumed after an interruption, bounded in tries and in time."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..files import TEMPORARY, ProgressCallback, sha256
from .blobs import Blobs
from .errors import Interrupted, NotStored, StoreError
from .layout import blob_key
from .manifest import Manifest, StoredFile
from .transfers import AT_ONCE, Transfer, wait_for_all

TRIES = 5  # of each file, beyond what obstore repeats by itself
_PAUSE_SECONDS = 1.0  # before the second try; doubled before each further one
_RESERVE_BYTES = 64 << 20  # of disk space that stay free


class Download:
    """One download of several contents into a folder, each under its hash.

    Args:
        store: where they come from.
        folder: created if it does not exist; what is there already is not fetched again.
        on_progress: takes one line of progress at a time.
        timeout: seconds for all of them together.
        pause: seconds before the second try of a file.
    """

    def __init__(
        self,
        store: Blobs,
        folder: Path,
        on_progress: ProgressCallback,
        timeout: float,
        pause: float = _PAUSE_SECONDS,
    ) -> None:
        self._store, self._folder, self._on_progress = store, folder, on_progress
        self._timeout, self._pause = timeout, pause
        self._end = time.monotonic() + timeout
        self._stopped = threading.Event()

    def fetch(self, manifest: Manifest, present: Collection[str]) -> None:
        """Fetch the contents of a manifest but those whose hashes are in `present`.

        Raises:
            StoreError: one cannot be fetched, or does not have its hash. What was fetched stays.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        missing = {file.sha256: file for file in manifest.files if file.sha256 not in present}
        self._remove_others(missing)
        missing = {digest: file for digest, file in missing.items() if not self._is_whole(self._folder / digest, file)}
        total = sum(file.size - self._size(self._part(file)) for file in missing.values())
        self._check_space(total)
        self._on_progress(f"{len(missing)} of {len(manifest.files)} files are fetched, {total / 1e6:.1f} MB")
        self._transfer = Transfer(total, self._on_progress)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            try:
                wait_for_all(threads, [threads.submit(self._fetch_one, file) for file in missing.values()])
            except BaseException:
                self._stopped.set()
                raise

    def _fetch_one(self, file: StoredFile) -> None:
        """Fetch one content, in several tries if need be."""
        for tries_left in reversed(range(TRIES)):
            try:
                self._append(file)
            except NotStored as error:
                raise NotStored(f"{self._store.location}: the content of {file.path} is missing; push again") from error
            except Interrupted as error:
                if not tries_left:
                    raise
                pause = self._pause * 2 ** (TRIES - 1 - tries_left)
                self._on_progress(f"{file.path}: {error}; next try in {pause:.0f} s")
                self._wait(pause)
                continue
            if self._is_whole(self._part(file), file):
                self._part(file).replace(self._folder / file.sha256)
                return
            self._part(file).unlink()  # an earlier part may have been the wrong one: once more from the start
        raise StoreError(f"{self._store.location}: the content of {file.path} does not have its hash; push again")

    def _append(self, file: StoredFile) -> None:
        """Go on where the last try ended."""
        part = self._part(file)
        done = self._size(part)
        if done >= file.size:
            part.touch()
            return
        with part.open("ab") as opened:
            for chunk in self._store.chunks(blob_key(file.sha256), done):
                self._check_time()
                done += len(chunk)
                if done > file.size:
                    raise StoreError(f"{self._store.location}: the content of {file.path} is larger than it must be")
                opened.write(chunk)
                self._transfer.add(len(chunk))
            opened.flush()
            os.fsync(opened.fileno())

    def _part(self, file: StoredFile) -> Path:
        return self._folder / f"{file.sha256}{TEMPORARY}"

    def _remove_others(self, wanted: Collection[str]) -> None:
        """Remove what a pull of another repository has left."""
        for path in self._folder.iterdir():
            if path.name.removesuffix(TEMPORARY) not in wanted:
                path.unlink()

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if needed + _RESERVE_BYTES > free:
            raise StoreError(
                f"{self._folder.parent.parent}: {needed / 1e6:.0f} MB are needed, and {free / 1e6:.0f} MB are free"
            )

    def _check_time(self) -> None:
        if self._stopped.is_set():
            raise StoreError("stopped")  # another file failed, whose error is the one that is shown
        if time.monotonic() > self._end:
            raise StoreError(
                f"{self._store.location}: not complete after {self._timeout:.0f} s (--timeout); the next pull goes on "
                "from there"
            )

    def _wait(self, seconds: float) -> None:
        self._stopped.wait(min(seconds, max(0.0, self._end - time.monotonic())))
        self._check_time()

    @staticmethod
    def _is_whole(path: Path, file: StoredFile) -> bool:
        return path.is_file() and path.stat().st_size == file.size and sha256(path) == file.sha256

    @staticmethod
    def _size(path: Path) -> int:
        return path.stat().st_size if path.is_file() else 0
