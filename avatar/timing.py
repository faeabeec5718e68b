"""Measure the time that each stage of a job takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class StageTimer:
    """Measure how long each stage had at least one call in progress.

    Calls of one stage may overlap: overlapping time counts once. Time that a call waits for a free slot counts too.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._running: dict[str, int] = {}
        self._started: dict[str, float] = {}

    @property
    def seconds(self) -> Mapping[str, float]:
        """Return the seconds of each stage so far, in the order of the stages' first calls."""
        return dict(self._seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block as a call of stage `name`."""
        self._seconds.setdefault(name, 0.0)
        if not self._running.get(name):
            self._started[name] = time.monotonic()
        self._running[name] = self._running.get(name, 0) + 1
        try:
            yield
        finally:
            self._running[name] -= 1
            if not self._running[name]:
                self._seconds[name] += time.monotonic() - self._started[name]
