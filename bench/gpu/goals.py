"""The goals of a GPU, and whether a run meets them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .rows import Row, largest, number, of_table
from .settings import LIVE_GOAL_SESSIONS

WAV2LIP_FRAMES = 20_000.0  # frames per second through gRPC, on an H100
SPEEDUP = 10.0  # original ÷ service, 10 s of 720p
ENCODER_RATIO = 0.8  # frames per second of many clips at once ÷ those of x264 alone
LIVE_MS = 100.0  # p95 of the latency
TINY = "loads"  # name of a row about the machine, which only runs with `--quick` have


@dataclass(frozen=True)
class Goal:
    """A goal: what is measured, its limit, and how the value is found in the rows."""

    name: str
    limit: float
    value: Callable[[Sequence[Row]], float | None]
    at_most: bool = False


@dataclass(frozen=True)
class Verdict:
    """The value of a goal, None if it was not measured; and whether it is met, None if it was not judged."""

    goal: str
    limit: float
    value: float | None
    met: bool | None

    @property
    def text(self) -> str:
        """`met`, `MISSED`, `not judged` or `not measured`."""
        if self.met is None:
            return "not measured" if self.value is None else "not judged"
        return "met" if self.met else "MISSED"


def _served_frames(rows: Sequence[Row]) -> float | None:
    served = [row for row in of_table(rows, "speed") if row["path"] == "gRPC"]
    return largest(served, "frames_per_second")


def _speedup(rows: Sequence[Row]) -> float | None:
    return _verdict(rows, "original ÷ service")


def _encoder_ratio(rows: Sequence[Row]) -> float | None:
    return _verdict(rows, "frames/s ÷ x264 alone")


def _verdict(rows: Sequence[Row], start: str) -> float | None:
    found = [row for row in of_table(rows, "verdicts") if str(row["goal"]).startswith(start)]
    return number(found[0], "value") if found else None


def _latency(rows: Sequence[Row]) -> float | None:
    found = [row for row in of_table(rows, "live") if row["sessions"] == LIVE_GOAL_SESSIONS]
    return number(found[0], "p95_ms") if found else None


GOALS = (
    Goal("wav2lip through gRPC on an H100, frames/s ≥", WAV2LIP_FRAMES, _served_frames),
    Goal("10 s of 720p, original ÷ service ≥", SPEEDUP, _speedup),
    Goal("many clips at once, frames/s ÷ x264 alone ≥", ENCODER_RATIO, _encoder_ratio),
    Goal(f"{LIVE_GOAL_SESSIONS} live sessions, p95 in ms ≤", LIVE_MS, _latency, at_most=True),
)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Return a verdict for each goal; without the name of a GPU in the rows, or with tiny loads, none is judged."""
    on_gpu = any(row["name"] == "GPU" for row in of_table(rows, "machine"))
    is_tiny = any(row["name"] == TINY for row in of_table(rows, "machine"))
    found = []
    for goal in GOALS:
        value = goal.value(rows)
        met = None
        if value is not None and on_gpu and not is_tiny:
            met = value <= goal.limit if goal.at_most else value >= goal.limit
        found.append(Verdict(goal.name, goal.limit, value, met))
    return found
