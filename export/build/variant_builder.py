"""One filled network to any of its variants, each made once and judged once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from lipsync.tensors import Model

from ..formats import onnx_export
from ..formats.onnx_model import Provenance
from ..networks.inference import S3FDGraph, Wav2LipGraph, to_half
from ..validation import accuracy, runtimes, samples
from ..validation.accuracy import Result
from ..validation.runtimes import Run
from ..validation.samples import Batch, Sets
from ..variants import ONNX_FP32, Format, Precision, Variant

NETWORK = "PyTorch fp32"


class VariantBuilder:
    """Exports of one network.

    Args:
        model: the table's entry that the exports are of.
        graph: the network with its arithmetic, FP32.
        provenance: what the files say that they were made from.
        weights: what the network is filled with, as the report calls it.
        calibration: gives batches to calibrate int8 with; asked for only then.
        verification: sets to judge on.
        folder: an empty folder to work in.
    """

    def __init__(
        self,
        model: Model,
        graph: Wav2LipGraph | S3FDGraph,
        provenance: Provenance,
        weights: str,
        *,
        calibration: Callable[[], Sequence[Batch]],
        verification: Sets,
        folder: Path,
    ) -> None:
        self._model, self._graph, self._origin, self._weights = model, graph, provenance, weights
        self._calibration, self._sets, self._folder = calibration, verification, folder
        self._made: dict[Variant, Path] = {}

    def build(self, variant: Variant) -> Path:
        """A folder with the variant's files and nothing else.

        Raises:
            ExportError: it cannot be made.
        """
        if variant not in self._made:
            folder = self._folder / f"{variant.format}-{variant.precision}"
            folder.mkdir(parents=True)
            self._write(variant, folder / variant.format.file)
            self._made[variant] = folder
        return self._made[variant]

    def run(self, variant: Variant) -> Run:
        """The variant, loaded."""
        return runtimes.load(self._model, self.build(variant) / variant.format.file)

    def network(self) -> Run:
        """The network itself."""
        return runtimes.pytorch(self._graph)

    def evaluate(self, variant: Variant) -> list[Result]:
        """The variant held to the network."""
        return self._references.compare(self.run(variant), variant.precision)

    @cached_property
    def _references(self) -> accuracy.ReferenceOutputs:
        return accuracy.ReferenceOutputs(self._model, self.network(), self._sets, self._weights)

    def _write(self, variant: Variant, path: Path) -> None:
        match variant:
            case Variant(Format.ONNX, Precision.INT8):
                from ..formats import quantize

                fp32 = self.build(ONNX_FP32) / Format.ONNX.file
                quantize.save(self._model, fp32, path, self._calibration(), self._origin)
            case Variant(Format.OPENVINO, precision):
                from ..formats import openvino_ir

                source = Variant(Format.ONNX, Precision.INT8) if precision is Precision.INT8 else ONNX_FP32
                openvino_ir.save(self._model, self.build(source) / Format.ONNX.file, path, precision, self._origin)
            case Variant(format, precision):
                from ..formats import torchscript

                graph = to_half(self._graph) if precision is Precision.FP16 else self._graph
                save = onnx_export.save if format is Format.ONNX else torchscript.save
                save(self._model, graph, samples.timing(self._model, 2), path, self._origin)
