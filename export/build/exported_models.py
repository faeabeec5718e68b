"""The exported networks, and everything that decides what an export of each looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as installed_version

import lipsync
from lipsync import tensors
from lipsync.tensors import Model

from ..checkpoints.checkpoint_set import CheckpointSet
from ..checkpoints.provenance import Provenance
from ..checkpoints.registry import S3FD_FILE, SEGMENTATION_FILE, WAV2LIP_FILE, WAV2LIP_GAN_FILE
from ..files import sha256
from ..validation.sample_media import Media
from ..variants import Precision, Variant
from .source_files import ROOT, imported_files


@dataclass(frozen=True)
class ExportedModel:
    """One exported network.

    Attributes:
        model: its entry in the table.
        checkpoint: the official name of its weights.
        modules: the modules that decide what the export looks like, with all that they import.
        packages: the packages whose versions decide it too.
    """

    model: Model
    checkpoint: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]


_TORCH_SOURCES = ("export.build.variant_builder", "export.checkpoints.load")
_TENSORFLOW_SOURCES = ("export.formats.tensorflow", "export.validation.segmentation")
_TORCH_PACKAGES = ("nncf", "onnx", "onnxruntime", "openvino", "torch")
_TENSORFLOW_PACKAGES = ("onnx", "tensorflow-cpu", "tf2onnx")

EXPORTED_MODELS = (
    ExportedModel(tensors.S3FD, S3FD_FILE, _TORCH_SOURCES, _TORCH_PACKAGES),
    ExportedModel(tensors.WAV2LIP, WAV2LIP_FILE, _TORCH_SOURCES, _TORCH_PACKAGES),
    ExportedModel(tensors.WAV2LIP_GAN, WAV2LIP_GAN_FILE, _TORCH_SOURCES, _TORCH_PACKAGES),
    ExportedModel(tensors.SEGMENTATION, SEGMENTATION_FILE, _TENSORFLOW_SOURCES, _TENSORFLOW_PACKAGES),
)


class ExportInputs:
    """The inputs of every export of one run; their hash is the export's name (`versions.export_name`).

    Args:
        checkpoints: the checkpoints.
        media: the files to calibrate int8 with.
        candidates: the variants to choose from.
        gpu: name of the GPU that runs them, empty without one.
    """

    def __init__(self, checkpoints: CheckpointSet, media: Media, candidates: Sequence[Variant], gpu: str = "") -> None:
        self._media, self._candidates, self._gpu = media, candidates, gpu
        self.provenances = {
            name: Provenance(sha256(path), name in checkpoints.stand_ins) for name, path in checkpoints.paths.items()
        }

    def of(self, exported: ExportedModel) -> dict[str, object]:
        """Return everything that decides what the export is, in plain types."""
        inputs: dict[str, object] = {
            "checkpoint": {exported.checkpoint: self.provenances[exported.checkpoint].sha256},
            "stand_in": self.provenances[exported.checkpoint].stand_in,
            "project": lipsync.__version__,
            "code": {str(path.relative_to(ROOT)): sha256(path) for path in imported_files(exported.modules)},
            "packages": {name: installed_version(name) for name in exported.packages},
        }
        if exported.model is tensors.SEGMENTATION:
            return inputs
        inputs["candidates"] = [str(variant) for variant in self._candidates]
        if any(variant.precision is Precision.INT8 for variant in self._candidates):
            # the detector finds the faces for the calibration
            inputs["calibration"] = self._media_hashes | {"detector": self.provenances[S3FD_FILE].sha256}
        if len(self._candidates) > 1:
            from ..validation import timing

            inputs["machine"] = timing.machine(self._gpu)  # the fastest candidate is measured on it
        return inputs

    @cached_property
    def _media_hashes(self) -> dict[str, object]:
        return dict(self._media.hashes())
