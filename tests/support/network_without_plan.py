"""A network as `export models --format tensorrt` leaves it: the plan is built on the machine with the GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.build import versions
from export.triton_config import alternatives, model_config
from export.validation import stored_samples
from export.validation.accuracy import ReferenceOutputs
from export.variants import Format, Precision, Profile, Variant
from lipsync.arrays import Array, Batch
from lipsync.tensors import CANDIDATES, S3FD, Model
from tests.support.fake_trtexec_program import FACE, SCORE


def write(model: Model, onnx: bytes, repository: Path, number: int = 1) -> Path:
    """Write a version whose plan is still to be built."""
    version = repository / model.name / str(number)
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(onnx)
    draw = np.random.default_rng(3)
    if model is S3FD:
        batches: list[Batch] = [(np.zeros((n, 64, 96, 3), np.uint8),) for n in (1, 2)]
    else:
        faces, mel = draw.integers(0, 256, (1, 96, 96, 3), np.uint8), np.zeros((1, 80, 16), np.float32)
        batches = [(faces, mel)]
    references = ReferenceOutputs(model, _detect if model is S3FD else _echo, {"crops": batches}, "real")
    stored_samples.save(references, version / stored_samples.SAMPLES_FILE)
    versions.write_record(version, {"number": number}, {"format": "tensorrt", "precision": "fp16"})

    def render(format: Format) -> str:
        return model_config.render(model, variant=Variant(format, Precision.FP16), profile=Profile.GPU)

    alternatives.write(repository / model.name, version, render)
    return version


def _echo(batch: Batch) -> list[Array]:
    return [batch[0]]


def _detect(batch: Batch) -> list[Array]:
    count = len(batch[0])
    boxes, scores = np.zeros((count, CANDIDATES, 4), np.float32), np.zeros((count, CANDIDATES), np.float32)
    boxes[:, 0], scores[:, 0] = FACE, SCORE
    return [boxes, scores]
