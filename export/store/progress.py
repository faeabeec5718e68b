"""Show how many bytes have been transferred: one line every few seconds, from any thread."""

from __future__ import annotations

import threading
import time

from ..files import ProgressCallback

_LINE_SECONDS = 5.0


class Transfer:
    """Counts the bytes of one transfer."""

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
