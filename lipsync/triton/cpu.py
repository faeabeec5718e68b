"""How many cores this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> int:
    """Cores by affinity, and by the container's quota where there is one; at least 1.

    Threads beyond the quota only take time slices from each other: onnxruntime with 64 threads on a
    quota of 2 cores is many times slower than with 2.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text().split()
        cores = min(cores, math.ceil(int(limit) / int(period)))
    except (OSError, ValueError):
        pass  # no quota: the file is missing, or says "max"
    return max(1, cores)
