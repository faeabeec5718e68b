"""Show the progress of downloads: bars in a terminal, a line every few seconds in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich import progress

from ..files import ProgressCallback

_LINE_SECONDS = 5.0


class DownloadProgress(Protocol):
    """Shows how much of a file has been received."""

    def update(self, name: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` bytes of the file have been received."""
        ...


class ProgressLines:
    """Progress for a log: one line every few seconds."""

    def __init__(self, on_progress: ProgressCallback) -> None:
        self._on_progress = on_progress
        self._name, self._began, self._last, self._start = "", 0.0, 0.0, 0

    def update(self, name: str, done: int, total: int | None) -> None:
        """Write a line, unless the last one is too recent."""
        now = time.monotonic()
        if name != self._name:
            self._name, self._began, self._last, self._start = name, now, now, done
        if now - self._last < _LINE_SECONDS:
            return
        self._last = now
        speed = max(1.0, (done - self._start) / (now - self._began))
        rest = f" of {total / 1e6:.1f} MB, {(total - done) / speed:.0f} s left" if total else " MB"
        self._on_progress(f"{name}: {done / 1e6:.1f}{rest}, {speed / 1e6:.1f} MB/s")


class ProgressBars:
    """Progress for a terminal: one bar per file."""

    def __init__(self, bars: progress.Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, progress.TaskID] = {}

    def update(self, name: str, done: int, total: int | None) -> None:
        """Move the file's bar."""
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)


@contextmanager
def show_progress(on_progress: ProgressCallback) -> Iterator[DownloadProgress]:
    """Yield bars if standard output is a terminal, otherwise lines."""
    if not sys.stdout.isatty():
        yield ProgressLines(on_progress)
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns) as bars:
        yield ProgressBars(bars)
