"""Pad, smooth and compare face boxes.

A box is x1 y1 x2 y2 in int pixels, x2 and y2 exclusive.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array, Boxes, Floats
from .errors import InvalidInput

PADS = (0, 10, 0, 0)  # pixels added at the top, bottom, left, right
SMOOTHING = 5  # boxes per mean


def pad(boxes: Boxes, width: int, height: int, pads: tuple[int, int, int, int] = PADS) -> Boxes:
    """Grow boxes INT32 [n,4] by `pads` (top, bottom, left, right) and clip them to the image."""
    top, bottom, left, right = pads
    grown = boxes + np.array((-left, -top, right, bottom), np.int32)
    low, high = (0, 0, 0, 0), (width, height, width, height)
    clipped: Boxes = np.clip(grown, low, high).astype(np.int32)
    return clipped


class Smoother:
    """Smooths boxes while they arrive, with a look-ahead of four.

    Box i becomes the truncated mean of boxes i … i+4. In the last four boxes of a clip the window is
    the slice `[n-5:]` of the array as already changed; for clips of fewer than five, its start is
    negative, with Python's meaning. This is the original's rule, bit by bit. Boxes fed in pieces of any
    size give the same result as all at once.
    """

    def __init__(self) -> None:
        self._waiting: Boxes = np.empty((0, 4), np.int32)  # not smoothed yet
        self._last: Boxes = np.empty((0, 4), np.int32)  # the last smoothed one, for the tail's slice

    def feed(self, boxes: Boxes) -> Boxes:
        """Take boxes INT32 [n,4], and return those whose window of five is complete, INT32 [m,4]."""
        self._waiting = np.concatenate((self._waiting, boxes.astype(np.int32)))
        whole = len(self._waiting) - SMOOTHING + 1
        if whole <= 0:
            return np.empty((0, 4), np.int32)
        smooth = np.stack([_mean(self._waiting[i : i + SMOOTHING]) for i in range(whole)])
        self._waiting, self._last = self._waiting[whole:], smooth[-1:]
        return smooth

    def finish(self) -> Boxes:
        """Return the clip's last boxes (up to four), INT32 [m,4]; the smoother is empty afterwards."""
        # the slice [n-5:] begins with the last smoothed box, or for n < 5 at n-5 counted from the end
        tail = np.concatenate((self._last, self._waiting))
        start = len(tail) - SMOOTHING
        for i in range(len(self._last), len(tail)):
            tail[i] = _mean(tail[start:])
        smooth = tail[len(self._last) :]
        self._waiting = self._last = np.empty((0, 4), np.int32)
        return smooth


def smooth(boxes: Boxes) -> Boxes:
    """Smooth the boxes of a whole clip, INT32 [n,4] to INT32 [n,4]; see `Smoother`."""
    smoother = Smoother()
    return np.concatenate((smoother.feed(boxes), smoother.finish()))


def check(boxes: Boxes, width: int, height: int) -> None:
    """Raise InvalidInput for a box that is empty or reaches outside an image of this size."""
    x1, y1, x2, y2 = boxes.T
    bad = (x1 < 0) | (y1 < 0) | (x2 > width) | (y2 > height) | (x1 >= x2) | (y1 >= y2)
    if bad.any():
        first = int(np.argmax(bad))
        raise InvalidInput(f"boxes[{first}]: {boxes[first].tolist()} is empty or outside the {width}x{height} image")


def iou(box: Array, boxes: Array) -> Floats:
    """Return the intersection over union of one box [4] with each of `boxes` [n,4], as FP32 [n] from 0 to 1.

    Boxes are x1 y1 x2 y2, integers or floats; the arithmetic is done in their type.
    """
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(0, high - low), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2]) - shared
    share: Floats = (shared / np.maximum(areas, 1e-6)).astype(np.float32)
    return share


def _mean(boxes: Boxes) -> Boxes:
    mean: Boxes = np.mean(boxes, axis=0).astype(np.int32)
    return mean
