"""The GPU while something runs: how busy it is, its memory and its power."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

from embedded.progress import read_page

SECONDS = 0.25  # between two samples
Sample = tuple[float, ...]  # percent, MiB, W
NAMES = ("gpu_percent", "gpu_mib", "gpu_watts")
_QUERY = ("nvidia-smi", "--query-gpu=utilization.gpu,memory.used,power.draw", "--format=csv,noheader,nounits")
_METRICS = (
    ("nv_gpu_utilization", 100.0),
    ("nv_gpu_memory_used_bytes", 1 / (1 << 20)),
    ("nv_gpu_power_usage", 1.0),
)


class CardMonitor:
    """`with CardMonitor(device, metrics) as card: …; card.means`.

    Args:
        device: nothing is sampled for `cpu`.
        metrics: address of the server's metrics, for a machine without nvidia-smi; or empty.
    """

    def __init__(self, device: str, metrics: str = "") -> None:
        read = _reader(metrics) if device == "cuda" else None
        self._samples: list[Sample] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, args=(read,), daemon=True) if read else None

    @property
    def means(self) -> dict[str, float]:
        """The mean of the first GPU's samples by name; empty where nothing could be read."""
        if not self._samples:
            return {}
        return dict(zip(NAMES, np.mean(self._samples, axis=0).round(1).tolist(), strict=True))

    def __enter__(self) -> Self:
        if self._thread:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread:
            self._thread.join()

    def _sample(self, read: Callable[[], str]) -> None:
        while not self._end.is_set():
            begin = time.monotonic()
            if sample := parse(read()):
                self._samples.append(sample)
            self._end.wait(max(0.0, begin + SECONDS - time.monotonic()))


def parse(text: str) -> Sample | None:
    """Return the first GPU's sample in the output of nvidia-smi or a page of Triton's metrics; None if not there."""
    if found := [re.search(rf"^{name}\{{.*\}} (\S+)$", text, re.M) for name, _ in _METRICS]:
        values = [float(each[1]) * factor for each, (_, factor) in zip(found, _METRICS, strict=True) if each]
        if len(values) == len(NAMES):
            return tuple(values)
    fields = text.strip().splitlines()[0].split(",") if text.strip() else []
    try:
        return tuple(float(field) for field in fields) if len(fields) == len(NAMES) else None
    except ValueError:  # "[N/A]"
        return None


def _reader(metrics: str) -> Callable[[], str] | None:
    if shutil.which(_QUERY[0]):
        return lambda: subprocess.run(_QUERY, capture_output=True, text=True).stdout
    return (lambda: read_page(metrics, SECONDS * 4) or "") if metrics else None
