"""Compute what follows S3FD: prior decoding, non-maximum suppression, the best face.

`decode_boxes` is the reference for what the exported graph computes. The model `face_nms` runs `non_max_suppression`,
and its callers use `best_face`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import Box, Floats
from .errors import InvalidInput
from .tensors import FACES

STRIDES = (4, 8, 16, 32, 64, 128)  # pixels per cell of each score map
PRIOR_SIDE = 4  # strides
CENTER_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
CANDIDATE_SCORE = 0.05  # candidates below it take no part in NMS
NMS_OVERLAP = 0.3
FACE_SCORE = 0.5
RGB_MEANS = (104.0, 117.0, 123.0)  # BGR means, subtracted from RGB channels, as in the training of the weights


def decode_boxes(maps: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Decode S3FD's maps into boxes and scores, unsorted.

    Center = prior center + 0.1 · regression · prior side; side = prior side · exp(0.2 · regression)
    (SSD's encoding, Liu et al. 2016, with S3FD's anchors, Zhang et al. 2017).

    Args:
        maps: twelve arrays, score FP32 [N,2,H,W] (background, face) and regression FP32 [N,4,H,W]
            in turn, for strides 4 … 128.

    Returns:
        boxes FP32 [N,P,4] (x1 y1 x2 y2, pixels) and scores FP32 [N,P], P = all cells of all maps.
    """
    boxes, scores = [], []
    for stride, score, regression in zip(STRIDES, maps[::2], maps[1::2], strict=True):
        count, _, height, width = score.shape
        # softmax over two channels is a logistic of their difference
        scores.append((1 / (1 + np.exp(score[:, 0] - score[:, 1]))).reshape(count, -1))
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        prior = np.stack((x, y), axis=0) * stride + stride / 2
        side = np.float32(PRIOR_SIDE * stride)
        center = prior + CENTER_VARIANCE * side * regression[:, :2]
        size = side * np.exp(SIZE_VARIANCE * regression[:, 2:])
        corner = center - size / 2
        boxes.append(np.concatenate((corner, corner + size), axis=1).reshape(count, 4, -1))
    return (
        np.concatenate(boxes, axis=2).transpose(0, 2, 1).astype(np.float32),
        np.concatenate(scores, axis=1).astype(np.float32),
    )


def non_max_suppression(boxes: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Apply non-maximum suppression to the candidates of each image.

    It is greedy, best first: boxes that overlap a better one by more than 0.3 are removed. Areas and intersections are
    computed with +1 on each side, as in the original. Only scores over 0.5 are kept.

    Args:
        boxes: FP32 [N,K,4], x1 y1 x2 y2. scores: FP32 [N,K].

    Returns:
        boxes FP32 [N,16,4] and scores FP32 [N,16], best first, padded with zeros.

    Raises:
        InvalidInput: the shapes do not match.
    """
    if boxes.ndim != 3 or boxes.shape[2] != 4 or scores.shape != boxes.shape[:2]:
        raise InvalidInput(f"boxes [N,K,4] and scores [N,K] expected, got {list(boxes.shape)}, {list(scores.shape)}")
    kept_boxes = np.zeros((len(boxes), FACES, 4), np.float32)
    kept_scores = np.zeros((len(boxes), FACES), np.float32)
    for n, (image_boxes, image_scores) in enumerate(zip(boxes, scores, strict=True)):
        with np.errstate(all="ignore"):  # callers may send infinite coordinates; such boxes overlap nothing
            keep = _suppress_one(image_boxes, image_scores)
        kept_boxes[n, : len(keep)] = image_boxes[keep]
        kept_scores[n, : len(keep)] = image_scores[keep]
    return kept_boxes, kept_scores


def _suppress_one(boxes: Floats, scores: Floats) -> list[int]:
    """Return the indices of the faces of one image that are kept, best first, at most FACES."""
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    order = np.argsort(-scores, kind="stable")
    # a candidate between the two thresholds could only suppress others that are not kept either
    order = order[scores[order] > FACE_SCORE]
    keep: list[int] = []
    while order.size and len(keep) < FACES:
        best, rest = order[0], order[1:]
        keep.append(int(best))
        width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest]) + 1
        height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest]) + 1
        shared = np.maximum(0, width) * np.maximum(0, height)
        order = rest[shared / (areas[best] + areas[rest] - shared) <= NMS_OVERLAP]
    return keep


def best_face(boxes: Floats, scores: Floats) -> Box | None:
    """Return the best face of one image, INT32 [4] as `to_pixels` rounds it, or None.

    Args:
        boxes: FP32 [F,4], scores: FP32 [F], both best first, as `non_max_suppression` returns them.
    """
    if not len(scores) or scores[0] <= 0:
        return None
    return to_pixels(boxes[0])


def to_pixels(box: Floats) -> Box:
    """Return a box FP32 [4] in whole pixels, INT32 [4]: clipped at 0 and truncated, as in the original."""
    whole: Box = np.maximum(box, 0).astype(np.int32)
    return whole
