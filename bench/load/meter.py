"""Record what the processes of the service use: memory, by sampling, and processor time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

import psutil

from ..sampler import Sampler

# Reading the memory of a process costs milliseconds, for the kernel walks through all of its pages. For all processes
# of the service that is a sixth of a core, so times are not compared where memory is sampled.
SAMPLE_SECONDS = 0.5
TOTAL = "all"


class Meter(Sampler):
    """`with Meter({"gateway": pid, …}, memory=True) as meter: …`, then `meter.peaks` and `meter.cpu`.

    Attributes:
        peaks: by name of a root, the most bytes that its processes had together at one moment, and `TOTAL` for all.
            Pages that several processes share count in parts, one for each (PSS). Empty without `memory`.
        cpu: by name of a root, seconds of processor time of its processes, those that ended included.
    """

    def __init__(self, roots: Mapping[str, int], *, memory: bool) -> None:
        super().__init__(SAMPLE_SECONDS)
        self._memory = memory
        self._roots = {name: psutil.Process(pid) for name, pid in roots.items()}
        self.peaks: dict[str, int] = {}
        self.cpu: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._cpu_before = self._cpu_seconds()
        return super().__enter__() if self._memory else self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._memory:
            super().__exit__(kind, error, trace)
        self.cpu = {name: after - self._cpu_before[name] for name, after in self._cpu_seconds().items()}

    def sample(self) -> None:
        """Add the memory of this moment to the peaks."""
        held = Counter[str]()
        for name, process in self._processes():
            with suppress(psutil.Error):  # it ended meanwhile
                size = process.memory_full_info().pss
                held[name] += size
                held[TOTAL] += size
        for name, size in held.items():
            self.peaks[name] = max(self.peaks.get(name, 0), size)

    def _cpu_seconds(self) -> dict[str, float]:
        seconds = dict.fromkeys(self._roots, 0.0)
        for name, process in self._processes():
            with suppress(psutil.Error):
                times = process.cpu_times()
                seconds[name] += times.user + times.system + times.children_user + times.children_system
        return seconds

    def _processes(self) -> Iterator[tuple[str, psutil.Process]]:
        for name, root in self._roots.items():
            with suppress(psutil.Error):
                for process in (root, *root.children(recursive=True)):
                    yield name, process
