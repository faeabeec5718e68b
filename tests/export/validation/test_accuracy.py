"""The accuracy thresholds, on outputs with a known error."""

from __future__ import annotations

import numpy as np
import pytest

from export.errors import ExportError
from export.validation import accuracy
from export.validation.accuracy import AccuracyError, ReferenceOutputs
from export.validation.runtimes import Run
from export.variants import ONNX_FP32, Precision
from lipsync import tensors
from lipsync.arrays import Array, Batch

MOUTHS = {"crops": [(np.full((n, 96, 96, 3), 100, np.uint8), np.zeros((n, 80, 16), np.float32)) for n in (1, 2)]}
IMAGES = {"images": [(np.zeros((1, 64, 64, 3), np.uint8),)] * 2}
FACE = (100.0, 100.0, 200.0, 200.0)


def echo(batch: Batch) -> list[Array]:
    return [batch[0]]


def off_by(levels: int) -> Run:
    return lambda batch: [batch[0] + np.uint8(levels)]


def detector(*faces: tuple[float, float, float, float], score: float = 0.9) -> Run:
    """Return a detector that finds exactly these faces in every image."""

    def run(batch: Batch) -> list[Array]:
        count = len(batch[0])
        boxes = np.zeros((count, tensors.CANDIDATES, 4), np.float32)
        scores = np.zeros((count, tensors.CANDIDATES), np.float32)
        for i, face in enumerate(faces):
            boxes[:, i], scores[:, i] = face, score
        return [boxes, scores]

    return run


def mouths() -> ReferenceOutputs:
    return ReferenceOutputs(tensors.WAV2LIP, echo, MOUTHS, "real")


def boxes(run: Run) -> ReferenceOutputs:
    return ReferenceOutputs(tensors.S3FD, run, IMAGES, "stand-in")


def test_identical_outputs_pass_every_threshold() -> None:
    (result,) = mouths().compare(echo, Precision.FP32)
    assert (result.count, result.worst, result.score, result.passed) == (3, 0, accuracy.MAX_PSNR_DB, True)
    (result,) = boxes(detector(FACE)).compare(detector(FACE), Precision.FP32)
    assert (result.count, result.worst, result.score, result.passed) == (2, 0, 1, True)


@pytest.mark.parametrize(
    # PSNR of an error of n everywhere: 20·log10(255/n)
    ("precision", "levels", "decibels", "passes"),
    [
        (Precision.FP32, 1, 48.1, False),
        (Precision.FP16, 1, 48.1, True),
        (Precision.FP16, 2, 42.1, False),
        (Precision.INT8, 4, 36.1, True),
        (Precision.INT8, 5, 34.2, False),
    ],
)
def test_mouths_have_a_threshold_per_precision(
    precision: Precision, levels: int, decibels: float, passes: bool
) -> None:
    (result,) = mouths().compare(off_by(levels), precision)
    assert result.score == pytest.approx(decibels, abs=0.05)
    assert (result.worst, result.mean, result.passed) == (levels, levels, passes)


@pytest.mark.parametrize(
    # a box of 100 moved by n overlaps by (100-n)/(100+n)
    ("precision", "moved", "overlap", "passes"),
    [
        (Precision.FP32, 0.25, 0.995, True),
        (Precision.FP16, 1, 0.980, False),
        (Precision.INT8, 2, 0.961, True),
        (Precision.INT8, 3, 0.942, False),
    ],
)
def test_boxes_have_a_threshold_per_precision(precision: Precision, moved: float, overlap: float, passes: bool) -> None:
    x1, y1, x2, y2 = FACE
    (result,) = boxes(detector(FACE)).compare(detector((x1 + moved, y1, x2 + moved, y2)), precision)
    assert result.score == pytest.approx(overlap, abs=0.001)
    assert (result.worst, result.passed) == (moved, passes)


def test_a_missing_or_additional_face_counts_as_no_overlap() -> None:
    other = (300.0, 300.0, 400.0, 400.0)
    (missing,) = boxes(detector(FACE, other)).compare(detector(FACE), Precision.INT8)
    (additional,) = boxes(detector(FACE)).compare(detector(FACE, other), Precision.INT8)
    for result in (missing, additional):
        assert result.score == pytest.approx(2 / 3)  # of three matches: one in each direction, and one that fails
        assert (result.lowest, result.passed) == (0, False)


def test_a_face_just_below_the_detection_threshold_still_counts() -> None:
    (result,) = boxes(detector(FACE, score=0.52)).compare(detector(FACE, score=0.48), Precision.INT8)
    assert result.score == 1


def test_images_without_any_face_cannot_be_evaluated() -> None:
    with pytest.raises(ExportError, match=r"s3fd: no face found in any image.*--frames"):
        boxes(detector()).compare(detector(), Precision.FP32)


def test_every_missed_threshold_is_named_with_the_score() -> None:
    results = mouths().compare(off_by(9), Precision.INT8)
    with pytest.raises(AccuracyError) as caught:
        accuracy.check_thresholds(tensors.WAV2LIP, ONNX_FP32, results)
    assert str(caught.value) == (
        "wav2lip as onnx fp32: not accurate enough, not written: "
        "mouths of crops (real weights) reach 29.05 dB, the threshold is 35"
    )
    accuracy.check_thresholds(tensors.WAV2LIP, ONNX_FP32, mouths().compare(echo, Precision.FP32))


def test_outputs_with_other_shapes_or_types_than_the_network_are_rejected() -> None:
    with pytest.raises(
        ExportError, match=r"wav2lip: `mouth` is float32 \[1, 96, 96, 3\], expected UINT8 \[1, 96, 96, 3\]"
    ):
        mouths().compare(lambda batch: [batch[0].astype(np.float32)], Precision.FP32)
    with pytest.raises(ExportError, match=r"`mouth` is uint8 \[1, 48, 96, 3\]"):
        mouths().compare(lambda batch: [batch[0][:, :48]], Precision.FP32)


def test_values_that_are_not_finite_are_rejected() -> None:
    def faulty(batch: Batch) -> list[Array]:
        boxes_found, scores = detector(FACE)(batch)
        return [boxes_found * np.float32("nan"), scores]

    with pytest.raises(ExportError, match="s3fd: `boxes` has values that are not finite"):
        boxes(detector(FACE)).compare(faulty, Precision.INT8)
