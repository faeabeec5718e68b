"""How much memory each process takes at most, by looking every tenth of a second."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

LOOK_SECONDS = 0.1  # at the processes that are known; each costs microseconds
FIND_EVERY = 5  # looks between two searches for new ones, which read every process of the machine


@dataclass(frozen=True)
class Peak:
    """Of the processes of one name: resident bytes, all of them together, and how many there were at once, at most.

    Pages that processes share (a server's with its models') count for each of them.
    """

    bytes: int = 0
    processes: int = 0


class Watch:
    """`with Watch("service", {"gateway": pid, …}) as watch: …`, then `watch.peaks`.

    Attributes:
        peaks: by the name of a root, or for its children by the root's and the program's; and of all of them.
    """

    def __init__(self, whole: str, roots: Mapping[str, int]) -> None:
        self._whole = f"{whole}, together"
        self._roots = {name: psutil.Process(pid) for name, pid in roots.items()}
        self._known: dict[int, tuple[psutil.Process, str]] = {}
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self.peaks: dict[str, Peak] = {}

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        looks = 0
        while True:
            if looks % FIND_EVERY == 0:
                self._find()
            self._look()
            looks += 1
            if self._over.wait(LOOK_SECONDS):
                return

    def _find(self) -> None:
        for name, root in self._roots.items():
            try:
                for process in (root, *root.children(recursive=True)):
                    if process.pid not in self._known:
                        self._known[process.pid] = (process, name if process == root else _label(name, process))
            except psutil.Error:
                continue  # it ended while we looked

    def _look(self) -> None:
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
    """The root's name and the program's; a process that serves one model of Triton is named after the model."""
    words = process.cmdline()
    program = Path(words[0]).name if words else process.name()
    if program == "triton_python_backend_stub":
        return f"{root}: {Path(words[1]).parents[1].name}"  # MODEL/VERSION/FILE
    return f"{root}: {'ffmpeg' if program.startswith('ffmpeg') else program}"
