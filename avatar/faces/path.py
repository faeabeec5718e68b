"""Correct the path of a face, as the motion of the image gives it, by what a wavering detector finds in some frames."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from lipsync.arrays import Floats
from lipsync.boxes import iou


class Knot(NamedTuple):
    """A frame in which the detector ran.

    Attributes:
        place: index of the frame, counted from the start of the path.
        box: FP32 [4], the box of the path.
        error: FP32 [4], the detected box minus that of the path.
    """

    place: int
    box: Floats
    error: Floats


class CorrectedPath:
    """The boxes of successive frames of one scene: the path of the motion, corrected by the detections.

    The motion drifts slowly from the face, and the detector wavers from frame to frame. So the correction of a frame is
    a weighted mean of the errors at the three nearest knots (a quadratic B-spline): it follows the drift, and averages
    what the detector wavers.

    A frame in the first half between two knots is final as soon as the second knot is known; one in the second half
    waits for the knot after that.
    """

    def __init__(self, box: Floats) -> None:
        """Start with the detected box FP32 [4] of the first frame."""
        self._waiting = deque([box])  # the path's boxes in the frames that are not returned yet
        self._first = 0  # index of the first of them
        self._end = box  # the path's box in the last frame
        self._knots = [Knot(0, box, np.zeros(4, np.float32))]

    def expected(self) -> Floats:
        """Return where the face is expected in the last frame, FP32 [4], by the mean error of the last three knots."""
        return np.asarray(self._end + np.mean([knot.error for knot in self._knots[-3:]], axis=0), np.float32)

    def extend(self, start: Floats, boxes: list[Floats], detected: Floats | None = None) -> None:
        """Add frames.

        Args:
            start: FP32 [4], a box in the last frame so far.
            boxes: FP32 [4] each, where the motion took that box in the new frames.
            detected: FP32 [4], the box that the detector found in the last of them, if it ran.
        """
        if not boxes:
            return
        moved = [np.asarray(self._end + (box - start), np.float32) for box in boxes]
        self._waiting += moved
        self._end = moved[-1]
        if detected is not None:
            self._knots.append(Knot(self._first + len(self._waiting) - 1, self._end, detected - self._end))

    def steadiness(self) -> float | None:
        """Return how steady the detector is: 1 if it would not have been needed at the last knot but one.

        That is the overlap (IoU) of the box detected there with the path's box corrected by the knots before and after.
        A steady drift of the motion cancels out, and what the detector wavers does not. None: there are two knots only.
        """
        if len(self._knots) < 3:
            return None
        before, knot, after = self._knots[-3:]
        share = (knot.place - before.place) / (after.place - before.place)
        between = np.asarray(knot.box + (1 - share) * before.error + share * after.error, np.float32)
        return float(iou(between, (knot.box + knot.error)[None])[0])

    def take_final(self) -> list[Floats]:
        """Return the boxes FP32 [4] of the next frames that no later detection changes."""
        if len(self._knots) < 2:
            return []
        before, last = self._knots[-2:]
        return self._take((before.place + last.place) // 2)

    def take_all(self) -> list[Floats]:
        """Return the boxes FP32 [4] of all frames that are left, with the knots that are known."""
        return self._take(self._first + len(self._waiting) - 1)

    def _take(self, last: int) -> list[Floats]:
        """Return the boxes of the frames up to index `last`."""
        boxes = []
        while self._first <= last:
            boxes.append(np.asarray(self._waiting.popleft() + self._correction(self._first), np.float32))
            self._first += 1
        while len(self._knots) > 3 and self._knots[2].place < self._first:
            del self._knots[0]
        return boxes

    def _correction(self, index: int) -> Floats:
        """Return the correction of a frame, FP32 [4]."""
        errors = [self._knots[0].error, *(knot.error for knot in self._knots), self._knots[-1].error]
        at = float(np.interp(index, [knot.place for knot in self._knots], range(len(self._knots))))
        nearest = round(at)
        offset = at - nearest
        weights = ((0.5 - offset) ** 2 / 2, 0.75 - offset**2, (0.5 + offset) ** 2 / 2)
        near = errors[nearest : nearest + 3]
        return np.asarray(sum(weight * error for weight, error in zip(weights, near, strict=True)), np.float32)
