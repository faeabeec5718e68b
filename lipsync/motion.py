"""How the inside of a box moves from one picture to the next: what lets a detector rest between two looks.

Corners inside the box (Shi and Tomasi) are followed by pyramidal Lucas–Kanade flow, there and back again; from those
that return, RANSAC fits a shift and a scale. Nothing here knows what a face is.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .arrays import Floats, Image

AROUND = 0.5  # of the box, on each side: as far as the inside may move in one step
HEIGHT = 96  # pixels that the box is brought to: enough corners, and a millisecond a step
POINTS, FEWEST = 60, 8  # corners that are followed, and that have to agree
AGREEING = 0.5  # the share of them that has to
RETURN_PIXELS = 0.7  # as far as a corner may come back from where it was
FIT_PIXELS = 1.5  # as far as an agreeing corner lies from the fit
FASTEST_SCALE = 1.15  # a face does not grow more in one step
PATCH = 24  # pixels a side of what is remembered of the looks of a box
ALIKE = 0.8  # correlation with the remembered patch; a talking, blinking face stays over 0.9
FLAT = 2.0  # grey levels; a patch with less contrast has no looks to compare


class MotionTracker:
    """Follows one box.

    Args:
        picture: UINT8 [H,W,3] BGR.
        box: FP32 [4], x1 y1 x2 y2 in pixels, where the face is in it.
    """

    def __init__(self, picture: Image, box: Floats) -> None:
        self._picture, self.box = picture, box.astype(np.float32)
        self._looks = _template(picture, self.box)

    def update(self, picture: Image) -> bool:
        """Follow the box into the next picture, of the same size.

        Returns:
            whether `box` can be trusted. If not, it is where it was, and somebody has to look.
        """
        moved = _moved(self._picture, picture, self.box)
        self._picture = picture
        if moved is None:
            return False
        self.box = moved
        return _similar(self._looks, _template(picture, moved))


def _moved(before: Image, after: Image, box: Floats) -> Floats | None:
    """The box FP32 [4] in the picture after, or None where too few corners agree on it."""
    region = _region(box, before.shape)
    if region is None:
        return None
    (left, top, right, bottom), factor = region
    one, other = (_gray(picture[top:bottom, left:right], factor) for picture in (before, after))
    inside = np.zeros(one.shape, np.uint8)
    x1, y1, x2, y2 = np.round((box - (left, top, left, top)) * factor).astype(int)
    inside[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)] = 255
    start = cv2.goodFeaturesToTrack(one, POINTS, 0.01, 4, mask=inside)
    if start is None or len(start) < FEWEST:
        return None
    there, found = _flow(one, other, start)
    back, returned = _flow(other, one, there)
    came_back = np.abs(back - start).max(axis=(1, 2)) < RETURN_PIXELS
    good = came_back & found & returned
    if good.sum() < max(FEWEST, AGREEING * len(start)):
        return None
    fit, agree = cv2.estimateAffinePartial2D(start[good], there[good], ransacReprojThreshold=FIT_PIXELS)
    if fit is None or agree.sum() < max(FEWEST, AGREEING * len(start)):
        return None
    scale = float(np.hypot(fit[0, 0], fit[1, 0]))
    if not 1 / FASTEST_SCALE < scale < FASTEST_SCALE:
        return None
    middle = ((box[:2] + box[2:]) / 2 - (left, top)) * factor
    moved = (fit[:, :2] @ middle + fit[:, 2]) / factor + (left, top)
    half = (box[2:] - box[:2]) / 2 * scale
    return np.asarray(np.concatenate((moved - half, moved + half)), np.float32)


def _flow(one: Image, other: Image, points: Any) -> tuple[Any, NDArray[np.bool_]]:  # noqa: ANN401 - OpenCV's points
    """Where points FP32 [n,1,2] of one picture are in the other, and whether each was found."""
    guess: Any = None
    there, found, _ = cv2.calcOpticalFlowPyrLK(one, other, points, guess, winSize=(15, 15), maxLevel=3)
    return there, np.asarray(found)[:, 0] == 1


def _region(box: Floats, shape: tuple[int, ...]) -> tuple[tuple[int, int, int, int], float] | None:
    """The box and what is around it, inside the picture, and what its pixels are scaled by; None where nothing is."""
    size = box[2:] - box[:2]
    low = np.floor(np.maximum(box[:2] - size * AROUND, 0)).astype(int)
    high = np.ceil(np.minimum(box[2:] + size * AROUND, (shape[1], shape[0]))).astype(int)
    if (high - low < 8).any() or size[1] < 8:
        return None
    return (int(low[0]), int(low[1]), int(high[0]), int(high[1])), min(1.0, HEIGHT / float(size[1]))


def _gray(part: Image, factor: float) -> Image:
    size = max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor))
    small = part if factor == 1 else cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)


def _template(picture: Image, box: Floats) -> Floats | None:
    """The looks of a box, FP32 [24,24] grey levels; None where it lies outside."""
    x1, y1 = np.maximum(np.floor(box[:2]), 0).astype(int)
    x2, y2 = np.ceil(box[2:]).astype(int)
    part = picture[y1:y2, x1:x2]
    if min(part.shape[:2]) < 2:
        return None
    small = cv2.resize(part, (PATCH, PATCH), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.float32)


def _similar(one: Floats | None, other: Floats | None) -> bool:
    if one is None or other is None:
        return False
    a, b = one - one.mean(), other - other.mean()
    if min(a.std(), b.std()) < FLAT:
        return bool(np.abs(one - other).mean() < FLAT)
    return bool((a * b).mean() / (a.std() * b.std()) > ALIKE)
