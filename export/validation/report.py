"""The report of one export: tables for the terminal, JSON for the version directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from tabulate import tabulate

from lipsync import tensors
from lipsync.tensors import Model

from ..variants import Precision, Variant
from . import samples
from .accuracy import Result
from .timing import BATCHES, int8_instructions

# by model: name of its score, unit of the differences, format of the score
_UNITS = {
    tensors.S3FD.name: ("IoU", "px", ".4f"),
    tensors.SEGMENTATION.name: ("same labels", "share", ".4f"),
}


@dataclass(frozen=True)
class Report:
    """The facts about one export.

    Attributes:
        results: the comparisons with the FP32 network, one per set of samples and set of weights.
        milliseconds: name of a runtime to milliseconds per frame at each of `batches`, all timed in one run; empty if
            the timing was left out.
        size: bytes of the exported files.
        machine: the processor on which the export was timed.
        batches: the timed batch sizes.
    """

    model: Model
    variant: Variant
    results: Sequence[Result]
    milliseconds: Mapping[str, Sequence[float]]
    size: int
    machine: str
    batches: Sequence[int] = BATCHES

    def to_json(self) -> dict[str, object]:
        """Return all facts in plain types."""
        return {
            "model": self.model.name,
            "format": self.variant.format.value,
            "precision": self.variant.precision.value,
            "bytes": self.size,
            "machine": self.machine,
            "int8_instructions": int8_instructions(),
            "evaluated_on_real_weights": self._has_real_weights(),
            "results": [asdict(result) | {"passed": result.passed} for result in self.results],
            "batches": list(self.batches),
            "milliseconds_per_frame": {name: list(values) for name, values in self.milliseconds.items()},
        }

    def lines(self) -> list[str]:
        """Return the tables, line by line."""
        lines = [f"{self.model.name} as {self.variant}, {self.size / 1e6:.1f} MB", *self._accuracy_table()]
        if not self._has_real_weights():
            lines.append("evaluated without the published weights; exporting those evaluates again")
        if self.milliseconds:
            lines += [*self._timing_table(), self._timing_note()]
        return ["    " + line if i else line for i, line in enumerate(lines)]

    def _has_real_weights(self) -> bool:
        return any(result.weights == "real" for result in self.results)

    def _accuracy_table(self) -> list[str]:
        score, unit, form = _UNITS.get(self.model.name, ("PSNR dB", "gray levels", ".1f"))
        head = ["weights", "samples", "n", f"worst {unit}", f"mean {unit}", score, "lowest", "threshold", ""]
        rows = [
            [
                *(r.weights, r.samples, r.count, f"{r.worst:.2f}", f"{r.mean:.3f}"),
                *(format(value, form) if value is not None else "no face" for value in (r.score, r.lowest)),
                f"{r.threshold:g}",
                "passed" if r.passed else "FAILED",
            ]
            for r in self.results
        ]
        return _table(rows, head)

    def _timing_table(self) -> list[str]:
        base = next(iter(self.milliseconds.values()))
        rows = [
            [name, *(f"{value:.1f} (×{first / value:.1f})" for value, first in zip(values, base, strict=True))]
            for name, values in self.milliseconds.items()
        ]
        return _table(rows, ["ms per frame", *(f"batch {batch}" for batch in self.batches)])

    def _timing_note(self) -> str:
        height, width = samples.TIMING_SIZE
        images = f"{width}×{height} images on " if self.model is tensors.S3FD else "on "
        slow = self.variant.precision is Precision.INT8 and not int8_instructions()
        return f"{images}{self.machine}" + ("; it lacks VNNI, the instructions that make int8 fast" if slow else "")


def _table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> list[str]:
    return str(tabulate(rows, head, tablefmt="presto", disable_numparse=True)).splitlines()
