"""Compare the labels of the exported segmentation with those of its TensorFlow graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lipsync.arrays import Image, Labels
from lipsync.tensors import SEGMENTATION

from ..errors import ExportError
from ..formats import onnx_model
from ..formats.tensorflow import FrozenGraph
from .accuracy import Result

MAX_DIFFERENT_LABELS = 0.001  # share of the pixels; rounding decides ties between classes
SIZES = ((96, 128), (101, 67))  # height and width of the images that are compared


def compare(frozen: FrozenGraph, exported: Path, weights: str) -> Result:
    """Run both graphs on synthetic images of `SIZES` and return how their labels compare.

    Args:
        frozen: the TensorFlow graph.
        exported: its ONNX export.
        weights: `real` or `stand-in`, for the report.

    Raises:
        ExportError: the labels differ in more than `MAX_DIFFERENT_LABELS` of the pixels, or have other shapes.
    """
    session = onnx_model.session(exported)
    shares = []
    with frozen.session() as run:
        for size in SIZES:
            image = _image(*size)
            (labels,) = onnx_model.run(session, SEGMENTATION, [image])
            shares.append(_different_share(run(image), labels))
    worst, mean = max(shares), float(np.mean(shares))
    return Result(weights, "images", len(shares), worst, mean, 1 - mean, 1 - worst, 1 - MAX_DIFFERENT_LABELS)


def _different_share(expected: Labels, labels: Labels) -> float:
    if expected.shape != labels.shape:
        raise ExportError(
            f"segmentation: `labels` has shape {list(labels.shape)}, expected {list(expected.shape)} as in TensorFlow"
        )
    share = float(np.mean(expected != labels))
    if share > MAX_DIFFERENT_LABELS:
        raise ExportError(
            f"segmentation: `labels` differ from TensorFlow's in {share:.2%} of the pixels, "
            f"at most {MAX_DIFFERENT_LABELS:.1%} are allowed"
        )
    return share


def _image(height: int, width: int) -> Image:
    """Return a skin-colored ellipse on a gradient, RGB."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    gradient = np.stack((60 + 40 * x, 120 + 60 * y, 160 - 50 * x), axis=2)
    return np.where((x**2 + y**2 < 0.4)[..., None], (210, 150, 120), gradient).astype(np.uint8)
