"""Make some transfers at the same time, and show how many bytes they have moved: one line every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from ..files import ProgressCallback

AT_ONCE = 4  # transfers
_LINE_SECONDS = 5.0


class Transfer:
    """Counts the bytes of one transfer. For any thread."""

    def __init__(self, total: int, on_progress: ProgressCallback) -> None:
        self._total, self._on_progress = total, on_progress
        self._lock = threading.Lock()
        self._done = 0
        self._start = self._last = time.monotonic()

    def add(self, count: int) -> None:
        """Count bytes, and write a line unless the last one is too recent."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._last < _LINE_SECONDS:
                return
            self._last = now
            speed = self._done / (now - self._start)
        self._on_progress(f"{self._done / 1e6:.1f} of {self._total / 1e6:.1f} MB, {speed / 1e6:.1f} MB/s")


def wait_for_all(threads: ThreadPoolExecutor, running: Sequence[Future[None]]) -> None:
    """Wait for all transfers; raise the first error as soon as there is one, and start no further transfer then."""
    try:
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        for each in done:
            each.result()
    except BaseException:
        threads.shutdown(wait=False, cancel_futures=True)
        raise
