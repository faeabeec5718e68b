"""The GPU while something runs: how busy it is, its memory and its power."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable

import numpy as np

from embedded.progress import read_page

from ..sampler import Sampler

SECONDS = 0.25  # from one sample to the next
Sample = tuple[float, ...]  # percent, MiB, W
NAMES = ("gpu_percent", "gpu_mib", "gpu_watts")
_QUERY = ("nvidia-smi", "--query-gpu=utilization.gpu,memory.used,power.draw", "--format=csv,noheader,nounits")
_METRICS = (
    ("nv_gpu_utilization", 100.0),
    ("nv_gpu_memory_used_bytes", 1 / (1 << 20)),
    ("nv_gpu_power_usage", 1.0),
)


class CardMonitor(Sampler):
    """`with CardMonitor(device, metrics) as card: …; card.means`.

    Args:
        device: nothing is sampled for `cpu`.
        metrics: address of the server's metrics, for a machine without nvidia-smi; or empty.
    """

    def __init__(self, device: str, metrics: str = "") -> None:
        super().__init__(SECONDS)
        self._read = _reader(metrics) if device == "cuda" else None
        self._samples: list[Sample] = []

    @property
    def means(self) -> dict[str, float]:
        """The mean of the first GPU's samples by name; empty where nothing could be read."""
        if not self._samples:
            return {}
        return dict(zip(NAMES, np.mean(self._samples, axis=0).round(1).tolist(), strict=True))

    def sample(self) -> None:
        """Read what the GPU does at this moment."""
        if self._read and (sample := parse(self._read())):
            self._samples.append(sample)


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
