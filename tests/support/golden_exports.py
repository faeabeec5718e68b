"""Exports of the two networks with the golden weights; a test process makes each variant once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from google.protobuf import text_format

from export.build.variant_builder import VariantBuilder
from export.checkpoints.load import load_s3fd
from export.checkpoints.provenance import Provenance
from export.checkpoints.registry import S3FD_FILE
from export.networks import random_weights
from export.networks.inference import S3FDGraph, Wav2LipGraph
from export.triton_config import model_config
from export.validation.sample_media import Media
from export.validation.samples import Samples
from export.variants import ONNX_FP32, Variant
from lipsync import tensors
from lipsync.arrays import Batch
from lipsync.tensors import Model

PYTHON = (tensors.MEL_SPECTROGRAM, tensors.FACE_CROP, tensors.FACE_PASTE, tensors.FACE_NMS)
ENSEMBLES = (tensors.DETECT_FACES, tensors.LIPSYNC, tensors.LIPSYNC_CLIP)


class GoldenBuilder(VariantBuilder):
    """Builds variants of `s3fd` or `wav2lip` with the golden weights, which the exporter calls seeded random.

    Args:
        model: the table's entry of the network.
        provenance: recorded in the exported files.
        stand_ins: the folder of the stand-ins, whose detector finds the faces to calibrate int8 with.
        folder: an empty folder to work in.
    """

    def __init__(self, model: Model, provenance: Provenance, stand_ins: Path, folder: Path) -> None:
        is_s3fd = model is tensors.S3FD
        self.graph = S3FDGraph(random_weights.s3fd()) if is_s3fd else Wav2LipGraph(random_weights.wav2lip())
        self.graph.eval()

        def calibration() -> list[Batch]:
            detector = S3FDGraph(load_s3fd(stand_ins / S3FD_FILE)).eval()
            return Samples(Media.shipped(), detector, print).calibration(model)

        super().__init__(model, self.graph, provenance, "golden", calibration=calibration, evaluation={}, folder=folder)

    def file(self, variant: Variant) -> Path:
        """Return the exported file of a variant."""
        return self.build(variant) / variant.format.exported_file


def write_repository(builders: dict[str, GoldenBuilder], repository: Path) -> None:
    """Write the models whose numbers the golden data has: not the streaming ones, and no warm-up."""
    for model in (*PYTHON, *ENSEMBLES):
        shutil.copytree(model_config.committed() / model.name, repository / model.name)
        (repository / model.name / "1").mkdir(exist_ok=True)
    for model in (tensors.S3FD, tensors.WAV2LIP, tensors.WAV2LIP_GAN):
        version = repository / model.name / "1"
        version.mkdir(parents=True)
        config = model_config.config(model)
        del config.model_warmup[:]
        (version.parent / model_config.CONFIG_FILE).write_text(text_format.MessageToString(config))
        network = tensors.S3FD if model is tensors.S3FD else tensors.WAV2LIP
        os.link(builders[network.name].file(ONNX_FP32), version / "model.onnx")
