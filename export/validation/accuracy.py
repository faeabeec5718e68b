"""How far an export is from the network that it was made from, and the bar that it has to reach."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipsync import face_detection, tensors
from lipsync.tensors import Model

from ..errors import ExportError
from ..formats.onnx_model import Array
from ..variants import Precision
from .runtimes import Run
from .samples import Sets

Floats = NDArray[np.float32]

MIN_PSNR_DB: Mapping[Precision, float] = {Precision.FP32: 60.0, Precision.FP16: 45.0, Precision.INT8: 35.0}  # dB, PSNR
MIN_IOU: Mapping[Precision, float] = {Precision.FP32: 0.99, Precision.FP16: 0.99, Precision.INT8: 0.95}  # IoU
SAME = 120.0  # dB that stand for "no difference at all"
# A face that one of the two finds may score so much less in the other and still count as found.
SCORE_MARGIN = 0.1


class AccuracyError(ExportError):
    """An export is too far from its network; the message says which bar it missed and by how much."""


@dataclass(frozen=True)
class Result:
    """One set of samples: the export against the FP32 network in PyTorch.

    Attributes:
        weights: what the network was filled with: `real`, `stand-in` or `seeded random`.
        samples: name of the set.
        count: mouths, or faces found by either of the two.
        worst, mean: absolute differences; grey levels of mouths, pixels of box corners.
        score: PSNR in dB over all mouths, or mean IoU over all faces; None where neither finds a face.
        lowest: the same of the worst single mouth or face.
        bar: what `score` has to reach.
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
        """Whether the bar is reached, or nothing was there to judge."""
        return self.score is None or self.score >= self.threshold


class ReferenceOutputs:
    """What the network itself answers, kept: every variant of a net is held to the same."""

    def __init__(self, model: Model, network: Run, sets: Sets, weights: str) -> None:
        self.model, self.sets, self.weights = model, sets, weights
        self._answers = {name: [network(batch) for batch in batches] for name, batches in sets.items()}

    def compare(self, export: Run, precision: Precision) -> list[Result]:
        """One result a set.

        Raises:
            ExportError: the export cannot run, answers in other shapes or types, or neither of the two finds any
                face in any set, so that nothing can be said.
        """
        results = []
        for name, batches in self.sets.items():
            pairs = [(want, export(batch)) for want, batch in zip(self._answers[name], batches, strict=True)]
            for want, have in pairs:
                _check_shapes(self.model, want, have)
            measure = _measure_boxes if self.model is tensors.S3FD else _measure_mouths
            results.append(measure(self.weights, name, pairs, precision))
        if all(result.score is None for result in results):
            raise ExportError(
                f"{self.model.name}: no face in any of the pictures, so the export cannot be judged; "
                "name pictures with faces (--frames)"
            )
        return results


def check_thresholds(model: Model, variant: object, results: Iterable[Result]) -> None:
    """Raise what the results miss.

    Raises:
        BarMissed: naming every set that is below its bar.
    """
    unit, name = ("IoU", "boxes") if model is tensors.S3FD else ("dB", "mouths")
    missed = [
        f"{name} on {result.samples} ({result.weights} weights) reach {result.score:.4g} {unit}, {result.threshold:g} asked"
        for result in results
        if not result.passed
    ]
    if missed:
        raise AccuracyError(f"{model.name} as {variant}: below its bar, not written: {'; '.join(missed)}")


def _measure_mouths(
    weights: str, samples: str, pairs: Sequence[tuple[Sequence[Array], Sequence[Array]]], precision: Precision
) -> Result:
    difference = np.concatenate([np.abs(want[0].astype(np.int16) - have[0]) for want, have in pairs])
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
    """Peak signal-to-noise ratio of a mean squared difference of 8-bit pictures, in dB."""
    return min(SAME, 10 * math.log10(255**2 / square)) if square else SAME


def _measure_boxes(
    weights: str, samples: str, pairs: Sequence[tuple[Sequence[Array], Sequence[Array]]], precision: Precision
) -> Result:
    overlaps, distances = [], []
    for want, have in pairs:
        for n in range(len(want[0])):
            one, other = ((boxes[n], scores[n]) for boxes, scores in (want, have))
            for overlap, distance in (*_matches(one, other), *_matches(other, one)):
                overlaps.append(overlap)
                distances.append(distance)
    bar = MIN_IOU[precision]
    if not overlaps:
        return Result(weights, samples, 0, 0.0, 0.0, None, None, bar)
    score, lowest = float(np.mean(overlaps)), float(np.min(overlaps))
    return Result(
        weights, samples, len(overlaps) // 2, float(np.max(distances)), float(np.mean(distances)), score, lowest, bar
    )


def _matches(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> Iterator[tuple[float, float]]:
    """For each face that one finds in a picture: its IoU with, and corners' distance to, the other's nearest box.

    The nearest among the other's boxes before NMS: which of two overlapping boxes of equal score NMS keeps hangs on
    a rounding, and says nothing of either. A face that the other does not find overlaps by 0.
    """
    kept, scores = face_detection.non_max_suppression(one[0][None], one[1][None])
    found = other[0][other[1] > face_detection.FACE_SCORE - SCORE_MARGIN]
    for box in kept[0][scores[0] > 0]:
        if not len(found):
            yield 0.0, float(np.max(box[2:] - box[:2]))
            continue
        overlaps = _overlap(box, found)
        best = int(overlaps.argmax())
        yield float(overlaps[best]), float(np.abs(found[best] - box).max())


def _overlap(box: Floats, others: Floats) -> Floats:
    """Intersection over union of a box [4] with others [n,4]."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return np.asarray(shared / (areas - shared), np.float32)


def _check_shapes(model: Model, want: Sequence[Array], have: Sequence[Array]) -> None:
    for tensor, wanted, got in zip(model.outputs, want, have, strict=True):
        if wanted.shape != got.shape or not tensor.accepts(got, batched=True):
            raise ExportError(
                f"{model.name}: `{tensor.name}` is {got.dtype} {list(got.shape)}, PyTorch's {list(wanted.shape)}"
            )
        if not np.isfinite(got).all():
            raise ExportError(f"{model.name}: `{tensor.name}` has values that are no numbers")
