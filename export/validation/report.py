"""The verification report of one export: a table for the terminal, JSON for the version directory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from lipsync import tensors
from lipsync.tensors import Model

from ..variants import Precision, Variant
from . import samples
from .accuracy import Result
from .runtimes import Run

BATCHES = (1, 8, 32)
_ROUNDS, _BUDGET = 3, 1.0  # timed runs of one batch at most, and the seconds after which one is enough
_LONG = 10.0  # seconds: FP16 on a CPU that has no instructions for it
_CPU = Path("/proc/cpuinfo")
# by model: what its score is, what differences are counted in, and how a score is written
_UNITS = {
    tensors.S3FD.name: ("IoU", "px", ".4f"),
    tensors.SEGMENTATION.name: ("same labels", "share", ".4f"),
}
# what makes int8 fast, by the kernel's names
VNNI, AMX = ("avx512_vnni", "avx_vnni"), ("amx_int8",)


@dataclass(frozen=True)
class Report:
    """What is known of one export.

    Attributes:
        results: the comparisons with the FP32 network, one a set of samples and filling of weights.
        milliseconds: name of a runtime to milliseconds a frame at each of `BATCHES`, all timed in one run; empty
            where the timing was left out.
        size: bytes of the exported files.
        machine: the processor that it was timed on.
    """

    model: Model
    variant: Variant
    results: Sequence[Result]
    milliseconds: Mapping[str, Sequence[float]]
    size: int
    machine: str

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain types."""
        return {
            "model": self.model.name,
            "format": self.variant.format.value,
            "precision": self.variant.precision.value,
            "bytes": self.size,
            "machine": self.machine,
            "int8_instructions": int8_instructions(),
            "judged_on_real_weights": any(result.weights == "real" for result in self.results),
            "results": [asdict(result) | {"passed": result.passed} for result in self.results],
            "batches": list(BATCHES),
            "milliseconds_a_frame": {name: list(values) for name, values in self.milliseconds.items()},
        }

    def lines(self) -> list[str]:
        """The tables."""
        unit, far, form = _UNITS.get(self.model.name, ("PSNR dB", "grey levels", ".1f"))
        head = ["weights", "samples", "n", f"worst {far}", f"mean {far}", unit, "lowest", "bar", ""]
        rows = [
            [
                *(r.weights, r.samples, r.count, f"{r.worst:.2f}", f"{r.mean:.3f}"),
                *(format(value, form) if value is not None else "no face" for value in (r.score, r.lowest)),
                f"{r.threshold:g}",
                "passed" if r.passed else "MISSED",
            ]
            for r in self.results
        ]
        lines = [f"{self.model.name} as {self.variant}, {self.size / 1e6:.1f} MB", *_table(rows, head)]
        if not any(result.weights == "real" for result in self.results):
            lines.append("judged without the published weights; with them it is judged again")
        if self.milliseconds:
            base = next(iter(self.milliseconds.values()))
            timed = [
                [name, *(f"{value:.1f} (×{first / value:.1f})" for value, first in zip(values, base, strict=True))]
                for name, values in self.milliseconds.items()
            ]
            head = ["ms a frame", *(f"batch {batch}" for batch in BATCHES)]
            lines += [*_table(timed, head), self._where()]
        return ["    " + line if i else line for i, line in enumerate(lines)]

    def _where(self) -> str:
        what = (
            f"{samples.TIMING_SIZE[1]}×{samples.TIMING_SIZE[0]} pictures on " if self.model is tensors.S3FD else "on "
        )
        lacks = self.variant.precision is Precision.INT8 and not int8_instructions()
        return f"{what}{self.machine}" + ("; it lacks VNNI, which int8 gets its speed from" if lacks else "")


def time_runs(model: Model, runs: Mapping[str, Run]) -> dict[str, list[float]]:
    """Milliseconds a frame of each at each of `BATCHES`, turn by turn, so that all meet the same machine."""
    best: dict[str, list[float]] = {name: [] for name in runs}
    for size in BATCHES:
        batch = samples.timing(model, size)
        took = {name: seconds(run, batch) for name, run in runs.items()}
        for name, value in took.items():
            best[name].append(1000 * value / size)
    return best


def seconds(run: Run, batch: samples.Batch) -> float:
    """The shortest of a few runs, after one to warm up; that one, where it took so long that warmth is no matter."""
    begin = time.perf_counter()
    run(batch)
    shortest = time.perf_counter() - begin
    if shortest > _LONG:
        return shortest
    for turn in range(_ROUNDS):
        start = time.perf_counter()
        run(batch)
        took = time.perf_counter() - start
        shortest = min(shortest, took) if turn else took
        if time.perf_counter() - begin > _BUDGET:
            break
    return shortest


def machine() -> str:
    """Name and int8 instructions of this processor."""
    name = next((line.partition(":")[2].strip() for line in _cpu() if line.startswith("model name")), "unknown CPU")
    return f"{name} ({', '.join(int8_instructions()) or 'no VNNI'})"


def int8_instructions() -> list[str]:
    """The instructions of this processor that int8 is fast with, by their usual names."""
    flags = next((line.partition(":")[2].split() for line in _cpu() if line.startswith("flags")), [])
    return [name for name, wanted in (("VNNI", VNNI), ("AMX", AMX)) if any(flag in flags for flag in wanted)]


def _cpu() -> list[str]:
    try:
        return _CPU.read_text("utf-8").splitlines()
    except OSError:
        return []


def _table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> list[str]:
    return str(tabulate(rows, head, tablefmt="presto", disable_numparse=True)).splitlines()
