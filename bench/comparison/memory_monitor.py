"""Record the peak memory of processes by sampling ten times per second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..sampler import Sampler

SAMPLE_SECONDS = 0.1  # a sample of a known process costs microseconds
SEARCH_EVERY = 5  # samples between two searches for new processes, which read all processes of the machine


@dataclass(frozen=True)
class Peak:
    """Peak of all processes of one name: their resident bytes in total, and their number.

    Shared pages (for example, of a server and its models) count for each process.
    """

    bytes: int = 0
    processes: int = 0


class MemoryMonitor(Sampler):
    """`with Watch("service", {"gateway": pid, …}) as memory: …`, then `memory.peaks`.

    Attributes:
        peaks: by name: that of a root process; for its children `root: program`; and `…, total` for all of them.
    """

    def __init__(self, whole: str, roots: Mapping[str, int]) -> None:
        super().__init__(SAMPLE_SECONDS)
        self._whole = f"{whole}, total"
        self._roots = {name: psutil.Process(pid) for name, pid in roots.items()}
        self._known: dict[int, tuple[psutil.Process, str]] = {}
        self._samples = 0
        self.peaks: dict[str, Peak] = {}

    def sample(self) -> None:
        """Take a sample of the known processes, now and then of new ones, too."""
        if self._samples % SEARCH_EVERY == 0:
            self._find()
        self._sample_known()
        self._samples += 1

    def _find(self) -> None:
        for name, root in self._roots.items():
            try:
                for process in (root, *root.children(recursive=True)):
                    if process.pid not in self._known:
                        self._known[process.pid] = (process, name if process == root else _label(name, process))
            except psutil.Error:
                continue  # the process ended during the search

    def _sample_known(self) -> None:
        held, count = Counter[str](), Counter[str]()
        for pid, (process, label) in list(self._known.items()):
            try:
                resident = process.memory_info().rss
            except psutil.Error:
                del self._known[pid]
                continue
            for name in (label, self._whole):
                held[name] += resident
                count[name] += 1
        for name, resident in held.items():
            before = self.peaks.get(name, Peak())
            self.peaks[name] = Peak(max(before.bytes, resident), max(before.processes, count[name]))


def _label(root: str, process: psutil.Process) -> str:
    """Return `root: program`; for a process that serves one Python model of Triton, `root: model`."""
    words = process.cmdline()
    program = Path(words[0]).name if words else process.name()
    if program == "triton_python_backend_stub":
        return f"{root}: {Path(words[1]).parents[1].name}"  # MODEL/VERSION/FILE
    return f"{root}: {'ffmpeg' if program.startswith('ffmpeg') else program}"
