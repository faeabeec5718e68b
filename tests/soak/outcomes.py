"""What callers observed: counts, failures, and how long the service took to recover."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict


class Outcomes:
    """Thread-safe record of a run.

    Attributes:
        counts: number of outcomes per caller and outcome.
        failures: one line per outcome that must not happen.
        recoveries: seconds from a kill to the next good form, per victim.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []
        self.recoveries: defaultdict[str, list[float]] = defaultdict(list)
        self._started = time.monotonic()
        self._last_fault = float("-inf")
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Seconds since the run started."""
        return time.monotonic() - self._started

    def count(self, caller: str, outcome: str) -> None:
        """Count an expected outcome."""
        with self._lock:
            self.counts[caller, outcome] += 1

    def fail(self, caller: str, reason: str) -> None:
        """Record an outcome that must not happen."""
        with self._lock:
            self.counts[caller, "FAILED"] += 1
            self.failures.append(f"{self.seconds:7.1f} s  {caller}: {reason}")

    def total(self, caller: str) -> int:
        """Return the number of all outcomes of a caller."""
        with self._lock:
            return sum(number for (name, _), number in self.counts.items() if name == caller)

    def fault(self) -> None:
        """Remember that a process is killed now."""
        self._last_fault = time.monotonic()

    def since_fault(self) -> float:
        """Return the seconds since the last kill."""
        return time.monotonic() - self._last_fault

    def recovered(self, victim: str, seconds: float) -> None:
        """Record the seconds from a kill to the next good form."""
        with self._lock:
            self.recoveries[victim].append(seconds)
