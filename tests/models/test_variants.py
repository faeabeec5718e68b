"""Every format and precision of the two networks, with the golden weights, reproduces the golden data."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from embedded.server import Triton
from export.triton_config import model_config
from export.validation.accuracy import MIN_IOU, MIN_PSNR_DB
from export.variants import Format, Precision, Profile, Variant
from lipsync import face_detection, tensors
from tests.support.golden_exports import GoldenBuilder
from tests.support.triton_calls import Caller, caller, rejection

VARIANTS = [
    Variant(format, precision)
    for format in Format
    if format is not Format.TENSORRT  # needs a GPU; `export.plans` judges its plans there
    for precision in Precision
    if (format, precision) not in ((Format.TORCHSCRIPT, Precision.INT8), (Format.ONNX, Precision.FP32))
]  # the other tests of a live server cover ONNX FP32
NETWORKS = (tensors.WAV2LIP, tensors.S3FD)
# Quantization runs both networks over all calibration images, and TorchScript and ONNX in FP16 are meant for a GPU: on
# a CPU they take minutes, and run with `make test-long`.
SLOW = [variant for variant in VARIANTS if variant.precision is Precision.INT8]
SLOW += [Variant(format, Precision.FP16) for format in (Format.TORCHSCRIPT, Format.ONNX)]
QUICK = [variant for variant in VARIANTS if variant not in SLOW]
every_variant = pytest.mark.parametrize(
    ("call", "variant"),
    [
        *(pytest.param(QUICK, variant, id=str(variant)) for variant in QUICK),
        *(pytest.param(SLOW, variant, id=str(variant), marks=pytest.mark.slow) for variant in SLOW),
    ],
    indirect=["call"],
    scope="module",
)


def name_of(network: tensors.Model, variant: Variant) -> str:
    return f"{network.name}_{variant.format}_{variant.precision}"


@pytest.fixture(scope="module")
def call(
    request: pytest.FixtureRequest,
    golden_builders: dict[str, GoldenBuilder],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Caller]:
    """A server with one model for each network and each variant of the parameter."""
    repository = tmp_path_factory.mktemp("variants")
    for network in NETWORKS:
        for variant in request.param:
            config = model_config.config(network, variant=variant, profile=Profile.CPU)
            config.name = name_of(network, variant)
            del config.model_warmup[:]
            (repository / config.name).mkdir()
            (repository / config.name / model_config.CONFIG_FILE).write_text(text_format.MessageToString(config))
            exported = golden_builders[network.name].build(variant)
            shutil.copytree(exported, repository / config.name / "1", copy_function=os.link)
    with Triton(repository) as triton, caller(triton.grpc_address) as connection:
        yield connection


@every_variant
def test_mouths_equal_the_golden_ones_within_the_limit_of_the_precision(
    call: Caller, variant: Variant, golden: Path
) -> None:
    with np.load(golden / "wav2lip.npz") as data:
        inputs, expected = {"face": data["faces"], "mel": data["mel"]}, data["mouths"]
    mouths = call(name_of(tensors.WAV2LIP, variant), inputs)["mouth"]
    assert (mouths.dtype, mouths.shape) == (np.uint8, expected.shape)
    error = np.square(mouths.astype(float) - expected).mean()
    assert error == 0 or 10 * math.log10(255**2 / error) >= MIN_PSNR_DB[variant.precision]
    (alone,) = call(name_of(tensors.WAV2LIP, variant), {name: array[:1] for name, array in inputs.items()})["mouth"]
    assert np.abs(alone.astype(int) - mouths[0]).max() <= 2  # a batch of another size uses another kernel


@every_variant
def test_faces_equal_the_golden_ones_within_the_limit_of_the_precision(
    call: Caller, variant: Variant, golden: Path
) -> None:
    with np.load(golden / "s3fd.npz") as data:
        frames, expected = data["frames"], data["best"]
    outputs = call(name_of(tensors.S3FD, variant), {"image": frames})
    assert (np.diff(outputs["scores"]) <= 0).all()
    for boxes, scores, best in zip(outputs["boxes"], outputs["scores"], expected, strict=True):
        candidates = boxes[scores > face_detection.FACE_SCORE - 0.1]
        overlap = max(_overlap(box, best[:4]) for box in candidates)
        assert overlap >= MIN_IOU[variant.precision]


@every_variant
def test_images_of_other_sizes_and_counts_are_accepted(call: Caller, variant: Variant) -> None:
    for count, size in ((1, (96, 128)), (3, (160, 90)), (2, (64, 64))):
        images = np.random.default_rng(count).integers(0, 256, (count, *size, 3), np.uint8)
        outputs = call(name_of(tensors.S3FD, variant), {"image": images})
        assert {name: array.shape for name, array in outputs.items()} == {
            "boxes": (count, tensors.CANDIDATES, 4),
            "scores": (count, tensors.CANDIDATES),
        }


@every_variant
def test_a_tensor_of_another_shape_than_in_the_table_is_invalid_input(call: Caller, variant: Variant) -> None:
    inputs: dict[str, np.ndarray] = {
        "face": np.zeros((1, 48, 96, 3), np.uint8),
        "mel": np.zeros((1, 80, 16), np.float32),
    }
    status, _ = rejection(call, name_of(tensors.WAV2LIP, variant), inputs)
    assert status == "StatusCode.INVALID_ARGUMENT"


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared)
