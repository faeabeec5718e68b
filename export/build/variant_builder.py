"""Build the variants of one network, and evaluate each against the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from lipsync.arrays import Batch, Sets
from lipsync.tensors import Model

from ..checkpoints.provenance import Provenance
from ..formats import onnx_export
from ..networks.inference import S3FDGraph, Wav2LipGraph, to_half
from ..validation import accuracy, runtimes, samples, stored_samples
from ..validation.accuracy import Result
from ..validation.gpu import NO_GPU, Gpu
from ..validation.runtimes import Run
from ..variants import ONNX_FP32, Format, Precision, Variant

NETWORK = "PyTorch fp32"


class VariantBuilder:
    """Builds the variants of one network. Each is built once and kept.

    Args:
        model: the table's entry of the exports.
        graph: the network with its arithmetic, FP32.
        provenance: recorded in the exported files.
        weights: the network's weights, as the report calls them.
        calibration: returns batches to calibrate int8 with; called only for int8.
        evaluation: the sets of samples for the evaluation.
        folder: an empty folder to work in.
        gpu: runs the variants that it can, so that they are judged and timed where they will be served.
    """

    def __init__(
        self,
        model: Model,
        graph: Wav2LipGraph | S3FDGraph,
        provenance: Provenance,
        weights: str,
        *,
        calibration: Callable[[], Sequence[Batch]],
        evaluation: Sets,
        folder: Path,
        gpu: Gpu = NO_GPU,
    ) -> None:
        self._model, self._graph, self._provenance, self._weights = model, graph, provenance, weights
        self._calibration, self._sets, self._folder = calibration, evaluation, folder
        self._gpu = gpu
        self._built: dict[Variant, Path] = {}

    def build(self, variant: Variant) -> Path:
        """Return a folder that holds the variant's files and nothing else.

        Raises:
            ExportError: the variant cannot be built.
        """
        if variant not in self._built:
            folder = self._folder / f"{variant.format}-{variant.precision}"
            folder.mkdir(parents=True)
            self._write(variant, folder / variant.format.exported_file)
            self._built[variant] = folder
        return self._built[variant]

    def run(self, variant: Variant) -> Run:
        """Return a run of the variant."""
        file = self.build(variant) / variant.format.exported_file
        return self._gpu.load(self._model, file, variant) or runtimes.load(self._model, file)

    def network(self) -> Run:
        """Return a run of the network itself."""
        return runtimes.pytorch(self._graph)

    def evaluate(self, variant: Variant) -> list[Result]:
        """Compare the variant with the network."""
        return self._references.compare(self.run(variant), variant.precision)

    def save_samples(self, path: Path) -> None:
        """Write the samples and the network's outputs for them to `path`, to judge a plan where it is built."""
        stored_samples.save(self._references, path)

    @cached_property
    def _references(self) -> accuracy.ReferenceOutputs:
        return accuracy.ReferenceOutputs(self._model, self.network(), self._sets, self._weights)

    def _write(self, variant: Variant, path: Path) -> None:
        match variant:
            case Variant(Format.ONNX, Precision.INT8):
                from ..formats import quantize

                fp32 = self.build(ONNX_FP32) / Format.ONNX.file
                quantize.save(self._model, fp32, path, self._calibration(), self._provenance)
            case Variant(Format.OPENVINO, precision):
                from ..formats import openvino_ir

                source = Variant(Format.ONNX, Precision.INT8) if precision is Precision.INT8 else ONNX_FP32
                openvino_ir.save(self._model, self.build(source) / Format.ONNX.file, path, precision, self._provenance)
            case Variant(format, precision):
                from ..formats import torchscript

                graph = to_half(self._graph) if precision is Precision.FP16 else self._graph
                save = torchscript.save if format is Format.TORCHSCRIPT else onnx_export.save
                save(self._model, graph, samples.timing(self._model, 2), path, self._provenance)
