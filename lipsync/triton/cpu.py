"""CPU cores and threads: how many cores a process may use, and how many threads a model gets.

Only the standard library is imported here at first: `embedded` uses this module before any package is installed.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

# Environment variable: threads per model. The embedded server sets it, its backends read it.
THREADS_VARIABLE = "EMBEDDED_THREADS"

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = _CGROUPS) -> int:
    """Return the number of cores that this process may use, at least 1.

    Affinity alone is not enough: in a container with a quota (`--cpus 2`) it still shows every core of the machine.
    Threads beyond the quota only take time slices from each other: onnxruntime with 64 threads on a quota of 2 cores is
    many times slower than with 2.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroups)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def threads_per_model(cgroups: Path = _CGROUPS) -> int:
    """Return the number of threads for each model; 0 leaves it to the runtime, which takes every core that it sees.

    The embedded server sets the number. Without it, as in Triton's container, a quota sets it: runtimes do not read
    quotas.
    """
    given = int(os.environ.get(THREADS_VARIABLE) or 0)
    cores = usable_cores(cgroups)
    return given or (cores if cores < len(os.sched_getaffinity(0)) else 0)


def _quota(cgroups: Path) -> float | None:
    """Return the quota of this process's control group in cores, None without one.

    A container sees its own group as the root. Version 2 has one file with both numbers, version 1 has two files.
    """
    try:
        limit, period = (cgroups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit, period = ((cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        quota = int(limit) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return quota if quota > 0 else None  # version 1 writes -1 for no quota


def use_one_blas_thread() -> None:
    """Limit OpenBLAS to one thread, for a process that often multiplies small matrices (mel spectrograms).

    More threads would win nothing there, and between two calls they spin on cores that the networks could use.
    """
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")
