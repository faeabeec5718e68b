"""What was measured of one work, and what follows from it: ratios, their spread, and which goals are met."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .memory_monitor import Peak
from .workloads import Work

ORIGINAL = "the original algorithm"
COLD, FIRST, AGAIN = "service, cold", "service, a new avatar", "service, the same again"
APART, TOGETHER = "one after another", "at once"
ENCODER, WHOLE_ENCODER = "encoder alone", "x264 alone, every core"


def bare(runtime: str) -> str:
    """Who the bare nets in that runtime are."""
    return f"bare nets, {runtime}"


@dataclass(frozen=True)
class Timing:
    """One measurement.

    Attributes:
        who: one of the names above.
        turn: the round; what has the same one was measured right after another. 0: before all rounds.
        seconds: the whole, of the original and the floor scaled up where only a part ran.
        stages: seconds by stage; those of the service overlap.
        waits: seconds that each of several forms waited for its answer.
    """

    who: str
    turn: int
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    waits: tuple[float, ...] = ()


@dataclass(frozen=True)
class Spread:
    """Median, least and most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None of no values."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class Verdict:
    """A goal, what came of it, and whether that is enough; `met` is None where there is nothing to judge by."""

    goal: str
    value: float | None
    limit: float
    met: bool | None

    @property
    def text(self) -> str:
        """In a line."""
        if self.value is None:
            return f"{self.goal} {self.limit:g}: not measured"
        return f"{self.goal} {self.limit:g}: {figure(self.value)}, {'met' if self.met else 'MISSED'}"


@dataclass
class Measured:
    """One work, measured.

    Attributes:
        variant: what the nets were served as, as `openvino int8`.
        served: the runtime behind it.
        frames: of one result.
        batch: pictures that the original's detector was given at once.
        scaled: what only a part of was run, to how many of how many frames.
        memory: peaks while the original worked, and while the service did.
        failure: why there is no more.
    """

    work: Work
    variant: str = ""
    served: str = ""
    frames: int = 0
    batch: int = 0
    timings: list[Timing] = field(default_factory=list)
    scaled: dict[str, tuple[int, int]] = field(default_factory=dict)
    memory: dict[str, Peak] = field(default_factory=dict)
    failure: str = ""

    @property
    def who(self) -> list[str]:
        """Everyone that was measured, in order."""
        return list(dict.fromkeys(timing.who for timing in self.timings))

    def seconds(self, who: str) -> Spread | None:
        """What it took them."""
        return Spread.of([timing.seconds for timing in self.timings if timing.who == who])

    def stages(self, who: str) -> dict[str, float]:
        """Medians of the seconds by stage."""
        of = [timing.stages for timing in self.timings if timing.who == who]
        names = dict.fromkeys(name for stages in of for name in stages)
        return {name: statistics.median(stages.get(name, 0.0) for stages in of) for name in names}

    def ratio(self, over: str, under: str) -> Spread | None:
        """The time of one ÷ that of the other, round by round."""
        return Spread.of([over_.seconds / under_.seconds for over_, under_ in self._pairs(over, under)])

    @property
    def speedup(self) -> Spread | None:
        """The original ÷ this service, the avatar not seen before."""
        return self.ratio(ORIGINAL, FIRST)

    @property
    def again(self) -> Spread | None:
        """The same avatar again ÷ (the bare generator in the served runtime + the encoder alone)."""
        parts = []
        for timing, nets in self._pairs(AGAIN, bare(self.served)):
            coded = [each.seconds for each in self.timings if each.who == ENCODER and each.turn == timing.turn]
            parts += [timing.seconds / (nets.stages["generation"] + one) for one in coded]
        return Spread.of(parts)

    @property
    def unfairness(self) -> Spread | None:
        """Of forms at once, the longest wait ÷ the mean one."""
        return Spread.of(
            [max(each.waits) / statistics.mean(each.waits) for each in self.timings if each.who == TOGETHER]
        )

    @property
    def beside_encoder(self) -> Spread | None:
        """Frames a second of all forms at once ÷ those of x264 alone on every core."""
        alone = self._pairs(WHOLE_ENCODER, TOGETHER)
        return Spread.of([self.work.forms * one.seconds / all_.seconds for one, all_ in alone])

    def verdicts(self) -> list[Verdict]:
        """Each goal of the work."""
        goals, first = self.work.goals, self.seconds(FIRST)
        judged = (
            _at_least("original ÷ service ≥", self.speedup, goals.first),
            _at_most("seconds ≤ the clip's", first, self.work.seconds if goals.real_time else None),
            _at_most("the same again ÷ (bare generator + encoder) ≤", self.again, goals.again),
            _at_most("at once ÷ one after another ≤", self.ratio(TOGETHER, APART), goals.together),
            _at_most("longest wait ÷ mean wait ≤", self.unfairness, goals.fair),
            _at_least("frames a second ÷ those of x264 alone ≥", self.beside_encoder, goals.beside_encoder),
        )
        return [verdict for verdict in judged if verdict]

    def _pairs(self, one: str, other: str) -> Iterator[tuple[Timing, Timing]]:
        others = {timing.turn: timing for timing in self.timings if timing.who == other}
        return ((each, others[each.turn]) for each in self.timings if each.who == one and each.turn in others)


def figure(value: float) -> str:
    """Three digits, as many as such a measurement bears."""
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
