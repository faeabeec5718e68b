"""Tell a cut from one scene to another from a face that is lost for a moment."""

from __future__ import annotations

import cv2
import numpy as np

from lipsync.arrays import Floats, Image
from lipsync.motion import MotionTracker

THUMBNAIL = 24  # pixels per side of the small gray copies that are compared
MIN_CHANGE = 10.0  # gray levels by which two scenes differ in the mean; less is noise
MAX_CORRELATION = 0.6  # of two scenes; a flash, or a hand before the face, leaves it higher

INNER = 0.2  # share of each side that is left out of the box whose motion is tracked: it has to stay in the picture


def is_cut(before: Image, after: Image) -> bool:
    """Return whether two successive frames UINT8 [H,W,3] show two scenes.

    They do if the pictures differ, and no motion of the picture explains that.
    """
    one, other = _thumbnail(before), _thumbnail(after)
    if float(np.abs(one - other).mean()) < MIN_CHANGE or _correlation(one, other) > MAX_CORRELATION:
        return False
    height, width = before.shape[:2]
    middle = np.array([width * INNER, height * INNER, width * (1 - INNER), height * (1 - INNER)], np.float32)
    return not MotionTracker(before, middle).update(after)


def _thumbnail(image: Image) -> Floats:
    small = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.float32)


def _correlation(one: Floats, other: Floats) -> float:
    """Return the correlation, 0 where a picture has no contrast."""
    spread = float(one.std() * other.std())
    return float(((one - one.mean()) * (other - other.mean())).mean()) / spread if spread > 1 else 0.0
