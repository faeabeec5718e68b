"""Post forms one after another and at once, and measure both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from demo import client

from ..comparison.generated_media import Files
from ..comparison.results import Spread, Verdict
from .forms import FormMaker
from .meter import TOTAL, Meter

MAX_RATIO = 0.95  # total at once ÷ total one after another
MAX_UNFAIRNESS = 1.5  # longest wait ÷ mean wait at once
MAX_MEMORY_RATIO = 1.5  # memory of the most forms at once ÷ memory of the fewest


@dataclass(frozen=True)
class Block:
    """One measurement.

    Attributes:
        forms: number of forms.
        at_once: whether all were posted at once, or each after the response to the one before.
        round: from 1; 0 where memory was sampled, which takes time.
        seconds: from the first request to the last response.
        waits: seconds of each form, from its request to the end of its response.
        memory: peak bytes of the processes, by name; empty where it was not sampled.
        cpu: seconds of processor time, by name.
    """

    forms: int
    at_once: bool
    round: int
    seconds: float
    waits: tuple[float, ...]
    memory: Mapping[str, int]
    cpu: Mapping[str, float]

    @property
    def unfairness(self) -> float:
        """Longest wait ÷ mean wait."""
        return max(self.waits) / statistics.mean(self.waits)

    @property
    def busy_cores(self) -> float:
        """Mean number of cores that the service kept busy."""
        return sum(self.cpu.values()) / self.seconds


def blocks(url: str, pids: Mapping[str, int], maker: FormMaker, numbers: Sequence[int], rounds: int) -> Iterator[Block]:
    """Yield the measurements: in every round and for each number of forms, one after another and at once.

    Before them, all numbers are posted at once while memory is sampled. The order changes from round to round, because
    other work on the machine changes too.

    Raises:
        FormError, OSError: a form failed.
    """
    _post_all(url, maker.make(min(numbers)), 2)  # nothing is measured before every part has worked once
    for number in numbers:
        yield _measured(url, pids, maker.make(number), 0, at_once=True)
    for round_ in range(1, rounds + 1):
        for number in numbers:
            for at_once in (False, True) if round_ % 2 else (True, False):
                yield _measured(url, pids, maker.make(number), round_, at_once=at_once)


def _measured(url: str, pids: Mapping[str, int], forms: Sequence[Files], round_: int, *, at_once: bool) -> Block:
    with Meter(pids, memory=not round_) as meter:
        start = time.perf_counter()
        waits = _post_all(url, forms, len(forms) if at_once else 1)
        seconds = time.perf_counter() - start
    return Block(len(forms), at_once, round_, seconds, waits, meter.peaks, meter.cpu)


def _post_all(url: str, forms: Sequence[Files], callers: int) -> tuple[float, ...]:
    def post(form: Files) -> float:
        start = time.perf_counter()
        client.post(url, form.face, form.speech)
        return time.perf_counter() - start

    with ThreadPoolExecutor(callers) as pool:
        return tuple(pool.map(post, forms))


@dataclass(frozen=True)
class Result:
    """All measurements of a run, and what follows from them."""

    blocks: Sequence[Block]

    @property
    def numbers(self) -> list[int]:
        """The numbers of forms, in the order of measurement."""
        return list(dict.fromkeys(block.forms for block in self.blocks))

    def of(self, forms: int, *, at_once: bool) -> list[Block]:
        """Return the measurements with this number of forms, without those for memory."""
        return [block for block in self.blocks if block.forms == forms and block.at_once == at_once and block.round]

    def ratio(self, forms: int) -> Spread | None:
        """Return total at once ÷ total one after another, computed per round."""
        serial = {block.round: block.seconds for block in self.of(forms, at_once=False)}
        many = self.of(forms, at_once=True)
        return Spread.of([block.seconds / serial[block.round] for block in many if block.round in serial])

    def unfairness(self, forms: int) -> Spread | None:
        """Return longest ÷ mean wait of forms at once."""
        return Spread.of([block.unfairness for block in self.of(forms, at_once=True)])

    def peak(self, forms: int) -> int:
        """Return the peak bytes of the whole service, with this number of forms at once."""
        found = (block.memory for block in self.blocks if block.forms == forms and block.at_once)
        return max((memory.get(TOTAL, 0) for memory in found), default=0)

    @property
    def memory_ratio(self) -> float | None:
        """Peak memory with the most forms at once ÷ with the fewest."""
        fewest = self.peak(min(self.numbers))
        return self.peak(max(self.numbers)) / fewest if fewest and len(self.numbers) > 1 else None

    def verdicts(self) -> list[Verdict]:
        """Return a verdict for each goal."""
        found = []
        for forms in self.numbers:
            found += [
                _at_most(f"{forms} forms, at once ÷ one after another ≤", self.ratio(forms), MAX_RATIO),
                _at_most(f"{forms} forms, longest ÷ mean wait ≤", self.unfairness(forms), MAX_UNFAIRNESS),
            ]
        if (memory := self.memory_ratio) is not None:
            goal = f"memory of {max(self.numbers)} ÷ memory of {min(self.numbers)} forms ≤"
            found.append(Verdict(goal, memory, MAX_MEMORY_RATIO, memory <= MAX_MEMORY_RATIO))
        return found


def _at_most(goal: str, found: Spread | None, limit: float) -> Verdict:
    value = found.median if found else None
    return Verdict(goal, value, limit, None if value is None else value <= limit)
