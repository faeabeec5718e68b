"""The measurements of one workload, and what follows from them: ratios, their range, and which goals are met."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .memory_monitor import Peak
from .workloads import Workload

ORIGINAL = "the original algorithm"
COLD, NEW_AVATAR, CACHED_AVATAR = "service, cold", "service, new avatar", "service, same avatar"
SEQUENTIAL, CONCURRENT = "sequential", "concurrent"
ENCODER, ENCODER_ALL_CORES = "encoder alone", "x264 alone, all cores"


def bare_networks(runtime: str) -> str:
    """Return the subject name of the bare networks in this runtime."""
    return f"bare networks, {runtime}"


@dataclass(frozen=True)
class Timing:
    """One measurement.

    Attributes:
        subject: what was measured; one of the names above.
        round: number of the round, from 1; 0: before all rounds. Measurements of one round follow each other directly.
        seconds: time of the whole clip; scaled up if only a part of the clip was processed.
        stages: seconds by stage; the stages of the service overlap.
        waits: response time of each form, in seconds, if several forms were posted.
    """

    subject: str
    round: int
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    waits: tuple[float, ...] = ()


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of the values, or None if there are none."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class Verdict:
    """A goal, the measured value, and whether the goal is met; `met` is None if nothing was measured."""

    goal: str
    value: float | None
    limit: float
    met: bool | None

    @property
    def text(self) -> str:
        """The verdict in one line."""
        if self.value is None:
            return f"{self.goal} {self.limit:g}: not measured"
        return f"{self.goal} {self.limit:g}: {three_digits(self.value)}, {'met' if self.met else 'MISSED'}"


@dataclass
class WorkloadResult:
    """The measurements of one workload.

    Attributes:
        variant: format and precision of the served networks, for example `openvino int8`.
        served: the runtime that serves them.
        frames: number of frames in the result.
        batch: batch size of the original's detector.
        scaled: by part of which only some frames were processed: how many, and of how many.
        memory: peaks by process, while the original and while the service worked.
        failure: why the measurement ended early, or empty.
    """

    workload: Workload
    variant: str = ""
    served: str = ""
    frames: int = 0
    batch: int = 0
    timings: list[Timing] = field(default_factory=list)
    scaled: dict[str, tuple[int, int]] = field(default_factory=dict)
    memory: dict[str, Peak] = field(default_factory=dict)
    failure: str = ""

    @property
    def subjects(self) -> list[str]:
        """All subjects, in the order of their first measurement."""
        return list(dict.fromkeys(timing.subject for timing in self.timings))

    def seconds(self, subject: str) -> Spread | None:
        """Return the seconds of this subject over all rounds, or None."""
        return Spread.of([timing.seconds for timing in self.timings if timing.subject == subject])

    def stages(self, subject: str) -> dict[str, float]:
        """Return the median seconds of each stage."""
        of = [timing.stages for timing in self.timings if timing.subject == subject]
        names = dict.fromkeys(name for stages in of for name in stages)
        return {name: statistics.median(stages.get(name, 0.0) for stages in of) for name in names}

    def ratio(self, over: str, under: str) -> Spread | None:
        """Return the time of `over` ÷ that of `under`, computed per round."""
        return Spread.of([over_.seconds / under_.seconds for over_, under_ in self._pairs(over, under)])

    @property
    def speedup(self) -> Spread | None:
        """Time of the original ÷ time of the service with a new avatar."""
        return self.ratio(ORIGINAL, NEW_AVATAR)

    @property
    def cached_ratio(self) -> Spread | None:
        """Time of the service with a cached avatar ÷ (bare generator in the served runtime + encoder alone)."""
        parts = []
        for timing, nets in self._pairs(CACHED_AVATAR, bare_networks(self.served)):
            coded = [each.seconds for each in self.timings if each.subject == ENCODER and each.round == timing.round]
            parts += [timing.seconds / (nets.stages["generation"] + one) for one in coded]
        return Spread.of(parts)

    @property
    def unfairness(self) -> Spread | None:
        """Longest ÷ mean response time of concurrent forms."""
        return Spread.of(
            [max(each.waits) / statistics.mean(each.waits) for each in self.timings if each.subject == CONCURRENT]
        )

    @property
    def encoder_ratio(self) -> Spread | None:
        """Frames per second of concurrent forms ÷ frames per second of x264 alone on all cores."""
        alone = self._pairs(ENCODER_ALL_CORES, CONCURRENT)
        return Spread.of([self.workload.forms * one.seconds / all_.seconds for one, all_ in alone])

    def verdicts(self) -> list[Verdict]:
        """Return a verdict for each goal of the workload."""
        goals, first = self.workload.goals, self.seconds(NEW_AVATAR)
        judged = (
            _at_least("original ÷ service ≥", self.speedup, goals.speedup),
            _at_most("real time: seconds ≤", first, self.workload.seconds if goals.real_time else None),
            _at_most("same avatar ÷ (bare generator + encoder) ≤", self.cached_ratio, goals.cached_ratio),
            _at_most("concurrent ÷ sequential ≤", self.ratio(CONCURRENT, SEQUENTIAL), goals.concurrent_ratio),
            _at_most("longest wait ÷ mean wait ≤", self.unfairness, goals.unfairness),
            _at_least("frames/s ÷ x264 alone ≥", self.encoder_ratio, goals.encoder_ratio),
        )
        return [verdict for verdict in judged if verdict]

    def _pairs(self, one: str, other: str) -> Iterator[tuple[Timing, Timing]]:
        others = {timing.round: timing for timing in self.timings if timing.subject == other}
        return ((each, others[each.round]) for each in self.timings if each.subject == one and each.round in others)


def three_digits(value: float) -> str:
    """Format with three digits: timings are not more precise."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _at_least(goal: str, found: Spread | None, limit: float | None) -> Verdict | None:
    if limit is None:
        return None
    value = found.median if found else None
    return Verdict(goal, value, limit, None if value is None else value >= limit)


def _at_most(goal: str, found: Spread | None, limit: float | None) -> Verdict | None:
    if limit is None:
        return None
    value = found.median if found else None
    return Verdict(goal, value, limit, None if value is None else value <= limit)
