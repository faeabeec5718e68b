"""Track a box from one image to the next by the motion inside it, so that a detector need not run on every frame.

Pyramidal Lucas–Kanade flow tracks corners (Shi and Tomasi) inside the box into the next image and back. RANSAC fits a
shift and a scale to the corners that return to their place. The module works for any object, not only for faces.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .arrays import Floats, Image

SEARCH_MARGIN = 0.5  # share of the box on each side that is searched: the largest motion in one step
HEIGHT = 96  # pixels to which the box is scaled down: enough corners, and a millisecond per step
MAX_CORNERS, MIN_CORNERS = 60, 8  # corners that are tracked; corners that have to agree with the fit
MIN_AGREEING = 0.5  # share of the tracked corners that has to agree
MAX_RETURN_PIXELS = 0.7  # largest distance between a corner and its place after the way back
MAX_FIT_PIXELS = 1.5  # largest distance between an agreeing corner and the fit
MAX_SCALE = 1.15  # largest change of size in one step
PATCH = 24  # pixels per side of the template, a small gray copy of the inside of the box
MIN_CORRELATION = 0.8  # with the template of the first image; a talking, blinking face stays over 0.9
MIN_CONTRAST = 2.0  # gray levels; a correlation says nothing about a template with less contrast


class MotionTracker:
    """Tracks one box.

    Args:
        image: UINT8 [H,W,3] BGR.
        box: FP32 [4], x1 y1 x2 y2 in pixels: the place of the face in the image.
    """

    def __init__(self, image: Image, box: Floats) -> None:
        self._image, self.box = image, box.astype(np.float32)
        self._reference = _template(image, self.box)

    def update(self, image: Image) -> bool:
        """Track the box into the next image, which has the same size.

        Returns:
            whether `box` is reliable. If not, the detector has to find the face again.
        """
        moved = _moved(self._image, image, self.box)
        self._image = image
        if moved is None:
            return False
        self.box = moved
        return _similar(self._reference, _template(image, moved))


def _moved(before: Image, after: Image, box: Floats) -> Floats | None:
    """Return the box FP32 [4] in the image `after`, or None if too few corners agree on it."""
    region = _region(box, before.shape)
    if region is None:
        return None
    (left, top, right, bottom), factor = region
    one, other = (_gray(image[top:bottom, left:right], factor) for image in (before, after))
    inside = np.zeros(one.shape, np.uint8)
    x1, y1, x2, y2 = np.round((box - (left, top, left, top)) * factor).astype(int)
    inside[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)] = 255
    start = cv2.goodFeaturesToTrack(one, MAX_CORNERS, 0.01, 4, mask=inside)
    if start is None or len(start) < MIN_CORNERS:
        return None
    there, found = _flow(one, other, np.asarray(start, np.float32))
    back, returned = _flow(other, one, there)
    came_back = np.abs(back - start).max(axis=(1, 2)) < MAX_RETURN_PIXELS
    good = came_back & found & returned
    if good.sum() < max(MIN_CORNERS, MIN_AGREEING * len(start)):
        return None
    fit, agree = cv2.estimateAffinePartial2D(start[good], there[good], ransacReprojThreshold=MAX_FIT_PIXELS)
    if fit is None or agree.sum() < max(MIN_CORNERS, MIN_AGREEING * len(start)):
        return None
    scale = float(np.hypot(fit[0, 0], fit[1, 0]))
    if not 1 / MAX_SCALE < scale < MAX_SCALE:
        return None
    middle = ((box[:2] + box[2:]) / 2 - (left, top)) * factor
    moved = (fit[:, :2] @ middle + fit[:, 2]) / factor + (left, top)
    half = (box[2:] - box[:2]) / 2 * scale
    return np.asarray(np.concatenate((moved - half, moved + half)), np.float32)


def _flow(one: Image, other: Image, points: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return where points FP32 [n,1,2] of one image are in the other, and whether each was found."""
    guess: Any = None
    there, found, _ = cv2.calcOpticalFlowPyrLK(one, other, points, guess, winSize=(15, 15), maxLevel=3)
    return np.asarray(there, np.float32), np.asarray(found)[:, 0] == 1


def _region(box: Floats, shape: tuple[int, ...]) -> tuple[tuple[int, int, int, int], float] | None:
    """Return the searched rectangle inside the image and the factor of its scaling, or None if it is too small."""
    size = box[2:] - box[:2]
    low = np.floor(np.maximum(box[:2] - size * SEARCH_MARGIN, 0)).astype(int)
    high = np.ceil(np.minimum(box[2:] + size * SEARCH_MARGIN, (shape[1], shape[0]))).astype(int)
    if (high - low < 8).any() or size[1] < 8:
        return None
    return (int(low[0]), int(low[1]), int(high[0]), int(high[1])), min(1.0, HEIGHT / float(size[1]))


def _gray(part: Image, factor: float) -> Image:
    size = max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor))
    small = part if factor == 1 else cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)


def _template(image: Image, box: Floats) -> Floats | None:
    """Return the inside of the box as FP32 [24,24] gray levels, or None if the box is outside the image."""
    x1, y1 = np.maximum(np.floor(box[:2]), 0).astype(int)
    x2, y2 = np.ceil(box[2:]).astype(int)
    part = image[y1:y2, x1:x2]
    if min(part.shape[:2]) < 2:
        return None
    small = cv2.resize(part, (PATCH, PATCH), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.float32)


def _similar(one: Floats | None, other: Floats | None) -> bool:
    if one is None or other is None:
        return False
    a, b = one - one.mean(), other - other.mean()
    if min(a.std(), b.std()) < MIN_CONTRAST:
        return bool(np.abs(one - other).mean() < MIN_CONTRAST)
    return bool((a * b).mean() / (a.std() * b.std()) > MIN_CORRELATION)
