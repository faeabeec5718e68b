"""Measure the time that each stage of a job takes, and show it in the trace."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from . import tracing


class StageTimer:
    """Measure how long each stage had at least one call in progress.

    Calls of one stage may overlap: overlapping time counts once. Time that a call waits for a free slot counts too.
    In a trace, each stage is one span from its first call to the end of its last, below the span that is current when
    the timer is made.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._running: dict[str, int] = {}
        self._started: dict[str, float] = {}
        self._begin_span = tracing.stages()
        self._spans: dict[str, tracing.Stage] = {}

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
        if name not in self._spans:
            self._spans[name] = self._begin_span(name)
        try:
            with self._spans[name].current():
                yield
        finally:
            self._running[name] -= 1
            if not self._running[name]:
                self._seconds[name] += time.monotonic() - self._started[name]

    def close(self) -> None:
        """End the spans of the stages: no call follows."""
        for name, span in self._spans.items():
            span.end(busy_seconds=round(self._seconds[name], 6))
        self._spans.clear()
