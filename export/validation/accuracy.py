"""Measure how far an export's outputs are from those of its network, and check the result against a threshold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lipsync import face_detection, tensors
from lipsync.arrays import Array, Floats, Sets
from lipsync.boxes import iou
from lipsync.tensors import Model

from ..errors import ExportError
from ..variants import Precision

if TYPE_CHECKING:
    from .runtimes import Run  # it imports torch, which is missing where plans are judged

MIN_PSNR_DB: Mapping[Precision, float] = {Precision.FP32: 60.0, Precision.FP16: 45.0, Precision.INT8: 35.0}  # mouths
MIN_IOU: Mapping[Precision, float] = {Precision.FP32: 0.99, Precision.FP16: 0.99, Precision.INT8: 0.95}  # face boxes
MAX_PSNR_DB = 120.0  # reported for identical images, whose PSNR is infinite
# A face that one of the two finds may have a score lower by this much in the other and still counts as found.
SCORE_MARGIN = 0.1

_Pairs = Sequence[tuple[Sequence[Array], Sequence[Array]]]  # outputs of the network and of the export, per batch


class AccuracyError(ExportError):
    """An export differs too much from its network; the message names the threshold and the score."""


@dataclass(frozen=True)
class Result:
    """The comparison of an export with the FP32 network in PyTorch, on one set of samples.

    Attributes:
        weights: the network's weights: `real`, `stand-in` or `seeded random`.
        samples: name of the set.
        count: mouths, or faces that either of the two found.
        worst, mean: absolute differences, in gray levels of mouths or pixels of box corners.
        score: PSNR in dB over all mouths, or mean IoU over all faces; None if neither found a face.
        lowest: the score of the worst single mouth or face.
        threshold: the lowest `score` that passes.
    """

    weights: str
    samples: str
    count: int
    worst: float
    mean: float
    score: float | None
    lowest: float | None
    threshold: float

    @property
    def passed(self) -> bool:
        """Return whether the score reaches the threshold, or there was nothing to compare."""
        return self.score is None or self.score >= self.threshold


class ReferenceOutputs:
    """The network's own outputs for all samples, computed once; every variant is compared with them.

    Args:
        model: the table's entry.
        network: runs the network in PyTorch.
        sets: the samples.
        weights: the network's weights, as the report calls them.
    """

    def __init__(self, model: Model, network: Run, sets: Sets, weights: str) -> None:
        self.model, self.sets, self.weights = model, sets, weights
        self.outputs = {name: [network(batch) for batch in batches] for name, batches in sets.items()}

    @classmethod
    def recorded(
        cls, model: Model, sets: Sets, outputs: Mapping[str, Sequence[Sequence[Array]]], weights: str
    ) -> ReferenceOutputs:
        """Return reference outputs that were computed earlier."""
        recorded = iter([list(each) for name in sets for each in outputs[name]])
        return cls(model, lambda _: next(recorded), sets, weights)

    def compare(self, export: Run, precision: Precision) -> list[Result]:
        """Return one result per set.

        Raises:
            ExportError: the export cannot run, its outputs have other shapes or types, or neither of the two finds a
                face in any set, so that there is nothing to compare.
        """
        results = []
        for name, batches in self.sets.items():
            pairs = [(expected, export(batch)) for expected, batch in zip(self.outputs[name], batches, strict=True)]
            for expected, outputs in pairs:
                _check_outputs(self.model, expected, outputs)
            measure = _measure_boxes if self.model is tensors.S3FD else _measure_mouths
            results.append(measure(self.weights, name, pairs, precision))
        if all(result.score is None for result in results):
            raise ExportError(
                f"{self.model.name}: no face found in any image, so the export cannot be evaluated; "
                "choose images with faces (--frames)"
            )
        return results


def check_thresholds(model: Model, variant: object, results: Iterable[Result]) -> None:
    """Check every result against its threshold.

    Raises:
        AccuracyError: naming every set whose score is below its threshold.
    """
    unit, name = ("IoU", "boxes") if model is tensors.S3FD else ("dB", "mouths")
    failures = [
        f"{name} of {result.samples} ({result.weights} weights) reach {result.score:.4g} {unit}, "
        f"the threshold is {result.threshold:g}"
        for result in results
        if not result.passed
    ]
    if failures:
        raise AccuracyError(f"{model.name} as {variant}: not accurate enough, not written: {'; '.join(failures)}")


def _measure_mouths(weights: str, samples: str, pairs: _Pairs, precision: Precision) -> Result:
    difference = np.concatenate([np.abs(expected[0].astype(np.int16) - outputs[0]) for expected, outputs in pairs])
    squares = np.square(difference, dtype=np.float64).mean(axis=(1, 2, 3))
    return Result(
        weights,
        samples,
        len(difference),
        float(difference.max()),
        float(difference.mean()),
        _psnr(float(squares.mean())),
        _psnr(float(squares.max())),
        MIN_PSNR_DB[precision],
    )


def _psnr(square: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared difference of 8-bit images."""
    return min(MAX_PSNR_DB, 10 * math.log10(255**2 / square)) if square else MAX_PSNR_DB


def _measure_boxes(weights: str, samples: str, pairs: _Pairs, precision: Precision) -> Result:
    overlaps, distances = [], []
    for expected, outputs in pairs:
        for n in range(len(expected[0])):
            one, other = ((boxes[n], scores[n]) for boxes, scores in (expected, outputs))
            for overlap, distance in (*_matches(one, other), *_matches(other, one)):
                overlaps.append(overlap)
                distances.append(distance)
    threshold = MIN_IOU[precision]
    if not overlaps:
        return Result(weights, samples, 0, 0.0, 0.0, None, None, threshold)
    score, lowest = float(np.mean(overlaps)), float(np.min(overlaps))
    worst, mean = float(np.max(distances)), float(np.mean(distances))
    return Result(weights, samples, len(overlaps) // 2, worst, mean, score, lowest, threshold)


def _matches(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> Iterator[tuple[float, float]]:
    """Yield, for each face of `one`, its IoU with the best box of `other` and the largest distance of their corners.

    All boxes of `other` before NMS are candidates: which of two overlapping boxes of equal score NMS keeps depends on
    rounding and says nothing about either. A face that `other` does not find has an IoU of 0.
    """
    kept, scores = face_detection.non_max_suppression(one[0][None], one[1][None])
    candidates = other[0][other[1] > face_detection.FACE_SCORE - SCORE_MARGIN]
    for box in kept[0][scores[0] > 0]:
        if not len(candidates):
            yield 0.0, float(np.max(box[2:] - box[:2]))
            continue
        overlaps = iou(box, candidates)
        best = int(overlaps.argmax())
        yield float(overlaps[best]), float(np.abs(candidates[best] - box).max())


def _check_outputs(model: Model, expected: Sequence[Array], outputs: Sequence[Array]) -> None:
    for tensor, wanted, got in zip(model.outputs, expected, outputs, strict=True):
        if wanted.shape != got.shape or not tensor.accepts(got, batched=True):
            raise ExportError(
                f"{model.name}: `{tensor.name}` is {got.dtype} {list(got.shape)}, "
                f"expected {tensor.dtype} {list(wanted.shape)} as in PyTorch"
            )
        if not np.isfinite(got).all():
            raise ExportError(f"{model.name}: `{tensor.name}` has values that are not finite")
