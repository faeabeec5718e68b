"""Time the runs of exported models, and describe this machine's processor."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lipsync.arrays import Batch
from lipsync.tensors import Model

from . import samples
from .runtimes import Run

BATCHES = (1, 8, 32)
_ROUNDS, _BUDGET_SECONDS = 3, 1.0  # timed runs per batch size, fewer once this time is spent
# Where kernels are compiled or chosen in the first runs of a batch size: TorchScript compiles at the second one.
GPU_WARM_UP = 3
_SLOW_SECONDS = 10.0  # a run this slow (FP16 on a CPU without instructions for it) is not repeated
_CPU = Path("/proc/cpuinfo")
# instructions that make int8 fast, by the kernel's names
_VNNI, _AMX = ("avx512_vnni", "avx_vnni"), ("amx_int8",)


def time_runs(
    model: Model, runs: Mapping[str, Run], batches: Sequence[int] = BATCHES, warm_up: int = 1
) -> dict[str, list[float]]:
    """Return milliseconds per frame of each run at each of the batch sizes.

    The runs take turns at each batch size, so that changes of the machine's speed affect all of them.
    """
    best: dict[str, list[float]] = {name: [] for name in runs}
    for size in batches:
        batch = samples.timing(model, size)
        times = {name: seconds(run, batch, warm_up) for name, run in runs.items()}
        for name, value in times.items():
            best[name].append(1000 * value / size)
    return best


def seconds(run: Run, batch: Batch, warm_up: int = 1) -> float:
    """Return the shortest time of a few runs after `warm_up` others, or a warm-up's time if it is very slow."""
    for _ in range(warm_up):
        begin = time.perf_counter()
        run(batch)
        shortest = time.perf_counter() - begin
    if shortest > _SLOW_SECONDS:
        return shortest
    for turn in range(_ROUNDS):
        start = time.perf_counter()
        run(batch)
        elapsed = time.perf_counter() - start
        shortest = min(shortest, elapsed) if turn else elapsed
        if time.perf_counter() - begin > _BUDGET_SECONDS:
            break
    return shortest


def machine(gpu: str = "") -> str:
    """Return the name and the int8 instructions of this processor, and the name of the GPU if there is one."""
    names = (line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name"))
    processor = f"{next(names, 'unknown CPU')} ({', '.join(int8_instructions()) or 'no VNNI'})"
    return f"{gpu}, {processor}" if gpu else processor


def int8_instructions() -> list[str]:
    """Return this processor's instruction sets that make int8 fast, by their usual names."""
    flags = next((line.partition(":")[2].split() for line in _cpu_info() if line.startswith("flags")), [])
    return [name for name, wanted in (("VNNI", _VNNI), ("AMX", _AMX)) if any(flag in flags for flag in wanted)]


def _cpu_info() -> list[str]:
    try:
        return _CPU.read_text("utf-8").splitlines()
    except OSError:
        return []
