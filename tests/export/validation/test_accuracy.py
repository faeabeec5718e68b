"""The bars, on answers that are off by a known amount."""

from __future__ import annotations

import numpy as np
import pytest

from export.errors import ExportError
from export.formats.onnx_model import Array
from export.validation import accuracy
from export.validation.accuracy import AccuracyError, ReferenceOutputs
from export.validation.runtimes import Run
from export.validation.samples import Batch
from export.variants import ONNX_FP32, Precision
from lipsync import tensors

MOUTHS = {"crops": [(np.full((n, 96, 96, 3), 100, np.uint8), np.zeros((n, 80, 16), np.float32)) for n in (1, 2)]}
PICTURES = {"pictures": [(np.zeros((1, 64, 64, 3), np.uint8),)] * 2}
FACE = (100.0, 100.0, 200.0, 200.0)


def echo(batch: Batch) -> list[Array]:
    return [batch[0]]


def off_by(levels: int) -> Run:
    return lambda batch: [batch[0] + np.uint8(levels)]


def detector(*faces: tuple[float, float, float, float], score: float = 0.9) -> Run:
    """Finds just these in every picture."""

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
    return ReferenceOutputs(tensors.S3FD, run, PICTURES, "stand-in")


def test_an_export_that_agrees_passes_every_bar() -> None:
    (result,) = mouths().compare(echo, Precision.FP32)
    assert (result.count, result.worst, result.score, result.passed) == (3, 0, accuracy.SAME, True)
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
def test_mouths_are_held_to_the_bar_of_their_precision(
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
def test_boxes_are_held_to_the_bar_of_their_precision(
    precision: Precision, moved: float, overlap: float, passes: bool
) -> None:
    x1, y1, x2, y2 = FACE
    (result,) = boxes(detector(FACE)).compare(detector((x1 + moved, y1, x2 + moved, y2)), precision)
    assert result.score == pytest.approx(overlap, abs=0.001)
    assert (result.worst, result.passed) == (moved, passes)


def test_a_face_that_is_lost_or_made_up_counts_as_no_overlap() -> None:
    other = (300.0, 300.0, 400.0, 400.0)
    (lost,) = boxes(detector(FACE, other)).compare(detector(FACE), Precision.INT8)
    (made_up,) = boxes(detector(FACE)).compare(detector(FACE, other), Precision.INT8)
    for result in (lost, made_up):
        assert result.score == pytest.approx(2 / 3)  # of three matches, one to and fro and one that fails
        assert (result.lowest, result.passed) == (0, False)


def test_a_face_that_slips_a_little_below_the_threshold_is_not_lost() -> None:
    (result,) = boxes(detector(FACE, score=0.52)).compare(detector(FACE, score=0.48), Precision.INT8)
    assert result.score == 1


def test_pictures_without_a_face_for_either_of_them_judge_nothing() -> None:
    with pytest.raises(ExportError, match=r"s3fd: no face in any of the pictures.*--frames"):
        boxes(detector()).compare(detector(), Precision.FP32)


def test_every_missed_bar_is_named_with_what_was_reached() -> None:
    results = mouths().compare(off_by(9), Precision.INT8)
    with pytest.raises(AccuracyError) as caught:
        accuracy.check_thresholds(tensors.WAV2LIP, ONNX_FP32, results)
    assert str(caught.value) == (
        "wav2lip as onnx fp32: below its bar, not written: mouths on crops (real weights) reach 29.05 dB, 35 asked"
    )
    accuracy.check_thresholds(tensors.WAV2LIP, ONNX_FP32, mouths().compare(echo, Precision.FP32))


def test_other_shapes_or_types_than_the_networks_are_refused() -> None:
    with pytest.raises(ExportError, match=r"wav2lip: `mouth` is float32 \[1, 96, 96, 3\], PyTorch's \[1, 96, 96, 3\]"):
        mouths().compare(lambda batch: [batch[0].astype(np.float32)], Precision.FP32)
    with pytest.raises(ExportError, match=r"`mouth` is uint8 \[1, 48, 96, 3\]"):
        mouths().compare(lambda batch: [batch[0][:, :48]], Precision.FP32)


def test_values_that_are_no_numbers_are_refused() -> None:
    def broken(batch: Batch) -> list[Array]:
        found, scores = detector(FACE)(batch)
        return [found * np.float32("nan"), scores]

    with pytest.raises(ExportError, match="s3fd: `boxes` has values that are no numbers"):
        boxes(detector(FACE)).compare(broken, Precision.INT8)
