"""Which of several faces is meant, and where it is in the next frame."""

from __future__ import annotations

import numpy as np

from lipsync.arrays import Floats

from ..errors import InvalidField
from ..options import FaceIndex, FacePoint, FaceOrder, FaceSelection

# Two boxes of one face in neighbouring frames overlap by far more (intersection over union); boxes of two people
# beside each other hardly at all.
MATCH_IOU = 0.2


class FaceSelector:
    """Chooses a face in the first frame that shows one, and follows it by overlap from then on.

    Where nothing overlaps with it any more (a cut), the choice is made anew.
    """

    def __init__(self, which: FaceSelection) -> None:
        self._which = which
        self._last: Floats | None = None

    def select(self, boxes: Floats, scores: Floats) -> Floats | None:
        """The face of the next frame, from those found in it.

        Args:
            boxes: FP32 [F,4], scores: FP32 [F], both best first; a score of 0 pads.

        Returns:
            FP32 [4], or None where there is no face.

        Raises:
            InvalidField: `face` is a number, and there are not so many.
        """
        found = boxes[scores > 0]
        if not len(found):
            return None
        chosen = None if self._last is None else match(self._last, boxes, scores)
        if chosen is None:
            chosen = found[self._pick(found)]
        self._last = chosen
        return chosen

    def update(self, box: Floats) -> None:
        """The face was last seen here, FP32 [4]."""
        self._last = box

    def _pick(self, found: Floats) -> int:
        x1, y1, x2, y2 = found.T
        across, down = (x1 + x2) / 2, (y1 + y2) / 2
        match self._which:
            case FaceOrder.BEST:
                return 0
            case FaceOrder.LARGEST:
                return int(np.argmax((x2 - x1) * (y2 - y1)))
            case FaceOrder.LEFT:
                return int(np.argmin(across))
            case FaceOrder.RIGHT:
                return int(np.argmax(across))
            case FaceIndex(number):
                if number >= len(found):
                    raise InvalidField("face", f"there is no face {number}: {len(found)} found, counted from 0")
                return int(np.argsort(across, kind="stable")[number])
            case FacePoint(x, y):
                outside = np.maximum(0, np.maximum(x1 - x, x - x2)) + np.maximum(0, np.maximum(y1 - y, y - y2))
                # within several boxes, or outside of all: whose middle is nearest
                return int(np.argmin(outside * 1e6 + np.hypot(across - x, down - y)))


def match(box: Floats, boxes: Floats, scores: Floats) -> Floats | None:
    """The face FP32 [4], of those found, that overlaps most with a box FP32 [4]; None where none does."""
    found = boxes[scores > 0]
    if not len(found):
        return None
    overlaps = overlap(box, found)
    nearest = int(np.argmax(overlaps))
    return np.asarray(found[nearest], np.float32) if overlaps[nearest] > MATCH_IOU else None


def overlap(box: Floats, boxes: Floats) -> Floats:
    """Intersection over union of one box [4] with each of `boxes` [n,4]: FP32 [n]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(0, high - low), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2]) - shared
    share: Floats = (shared / np.maximum(areas, 1e-6)).astype(np.float32)
    return share
