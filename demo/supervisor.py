"""Keep servers running: start each again when it ends by itself, after a pause that grows.

It never gives up: a machine that is short of memory or of a file now may have it in an hour. The pause keeps the cost
of useless starts low, and every attempt is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .child import START_SECONDS, Child

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 8.0
STABLE_SECONDS = 20.0  # of readiness, after which the next pause is the first one again
POLL_SECONDS = 0.2

Report = Callable[[str], None]
Clock = Callable[[], float]


def pause_before(restart: int) -> float:
    """Return the seconds to wait before the n-th restart in a row, counted from 1."""
    return float(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (restart - 1)))


@dataclass
class _Kept:
    """A server, and what the supervisor knows of it.

    Attributes:
        restarts: starts since the server was last stable.
        ended_at: when it was last noticed to have ended.
        started_at, ready_at: of the process that runs; `ready_at` is None until it answers.
        restart_at: when it is started again; None while it runs.
    """

    child: Child
    started_at: float
    ready_at: float | None
    restarts: int = 0
    ended_at: float = 0.0
    restart_at: float | None = None


class Supervisor:
    """Restarts children that were started, and were ready, before."""

    def __init__(self, children: Iterable[Child], report: Report, clock: Clock = time.monotonic) -> None:
        """Take over running children; `report` takes a line about each restart."""
        self._report, self._clock = report, clock
        self._kept = [_Kept(child, clock(), clock()) for child in children]

    def run(self) -> None:
        """Watch and restart until an exception, such as KeyboardInterrupt, ends it. The caller stops the children."""
        while True:
            self.look()
            time.sleep(POLL_SECONDS)

    def look(self) -> None:
        """Look at each child once, and do what is due."""
        for kept in self._kept:
            if kept.restart_at is not None:
                self._restart_if_due(kept)
            elif kept.child.process.poll() is not None:
                self._plan_restart(kept, f"ended by itself ({kept.child.describe_end()})")
            elif kept.ready_at is None:
                self._check_start(kept)
            elif self._clock() - kept.ready_at >= STABLE_SECONDS:
                kept.restarts = 0

    def _plan_restart(self, kept: _Kept, what: str) -> None:
        kept.child.kill()  # what is left of its group
        kept.restarts += 1
        now, pause = self._clock(), pause_before(kept.restarts)
        if kept.restarts == 1:
            kept.ended_at = now
        kept.restart_at = now + pause
        self._report(f"{kept.child.package} {what}; restart {kept.restarts} in {pause:g} s")

    def _restart_if_due(self, kept: _Kept) -> None:
        now = self._clock()
        if kept.restart_at is None or now < kept.restart_at:
            return
        kept.child.start()
        kept.started_at, kept.ready_at, kept.restart_at = now, None, None

    def _check_start(self, kept: _Kept) -> None:
        now = self._clock()
        if kept.child.is_ready():
            kept.ready_at = now
            self._report(f"{kept.child.package} is ready again, {now - kept.ended_at:.1f} s after its end")
        elif now - kept.started_at > START_SECONDS:
            self._plan_restart(kept, f"was not ready after {START_SECONDS:.0f} s")
