"""Select one of several faces, and find the same face in the next frame."""

from __future__ import annotations

import numpy as np

from lipsync.arrays import Floats
from lipsync.boxes import iou

from ..errors import InvalidField
from ..options import FaceIndex, FaceOrder, FacePoint, FaceSelection

# The boxes of one face in two successive frames overlap by far more than this (intersection over union); those of two
# people next to each other hardly overlap at all.
MATCH_IOU = 0.2


class FaceSelector:
    """Selects a face in the first frame that shows one, and from then on the face that overlaps with the last one.

    If no face overlaps any more (after a cut), the selection is made again.
    """

    def __init__(self, selection: FaceSelection) -> None:
        self._selection = selection
        self._last: Floats | None = None

    def select(self, boxes: Floats, scores: Floats) -> Floats | None:
        """Return the face of the next frame, of those detected in it.

        Args:
            boxes: FP32 [F,4], scores: FP32 [F], both best first; a score of 0 pads.

        Returns:
            FP32 [4], or None if there is no face.

        Raises:
            InvalidField: `face` is an index, and fewer faces are found.
        """
        found = boxes[scores > 0]
        if not len(found):
            return None
        selected = None if self._last is None else match(self._last, boxes, scores)
        if selected is None:
            selected = found[self._index(found)]
        self._last = selected
        return selected

    def update(self, box: Floats) -> None:
        """Set where the face was last, FP32 [4]."""
        self._last = box

    def _index(self, found: Floats) -> int:
        """Return the index of the face that the selection means."""
        x1, y1, x2, y2 = found.T
        center_x, center_y = (x1 + x2) / 2, (y1 + y2) / 2
        match self._selection:
            case FaceOrder.BEST:
                return 0
            case FaceOrder.LARGEST:
                return int(np.argmax((x2 - x1) * (y2 - y1)))
            case FaceOrder.LEFT:
                return int(np.argmin(center_x))
            case FaceOrder.RIGHT:
                return int(np.argmax(center_x))
            case FaceIndex(index):
                if index >= len(found):
                    raise InvalidField("face", f"no face with index {index}; {len(found)} found, counted from 0")
                return int(np.argsort(center_x, kind="stable")[index])
            case FacePoint(x, y):
                outside = np.maximum(0, np.maximum(x1 - x, x - x2)) + np.maximum(0, np.maximum(y1 - y, y - y2))
                # among boxes that contain the point, or if none does: the one with the nearest center
                return int(np.argmin(outside * 1e6 + np.hypot(center_x - x, center_y - y)))


def match(box: Floats, boxes: Floats, scores: Floats) -> Floats | None:
    """Return the detected face FP32 [4] that overlaps most with a box FP32 [4], or None if none overlaps enough.

    `boxes` FP32 [F,4] and `scores` FP32 [F] are as in `FaceSelector.select`.
    """
    found = boxes[scores > 0]
    if not len(found):
        return None
    overlaps = iou(box, found)
    nearest = int(np.argmax(overlaps))
    return np.asarray(found[nearest], np.float32) if overlaps[nearest] > MATCH_IOU else None
