"""CPU cores and threads: how many cores a process may use, and how many threads a model gets.

Only the standard library is imported here at first: `embedded` uses this module before any package is installed.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

# Environment variable: threads per model. The embedded server sets it, its backends read it.
THREADS_VARIABLE = "EMBEDDED_THREADS"

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> int:
    """Return the number of cores that this process may use, at least 1.

    Affinity alone is not enough: in a container with a quota (`--cpus 2`) it still shows every core of the machine.
    Threads beyond the quota only take time slices from each other: onnxruntime with 64 threads on a quota of 2 cores is
    many times slower than with 2.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text().split()
        cores = min(cores, math.ceil(int(limit) / int(period)))
    except (OSError, ValueError):
        pass  # no quota: the file is missing, or says "max"
    return max(1, cores)


def threads_per_model() -> int:
    """Return the number of threads that the embedded server gives each model; 0 leaves it to the runtime."""
    return int(os.environ.get(THREADS_VARIABLE, "0"))


def use_one_blas_thread() -> None:
    """Limit OpenBLAS to one thread, for a process that often multiplies small matrices (mel spectrograms).

    More threads would win nothing there, and between two calls they spin on cores that the networks could use.
    """
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")
