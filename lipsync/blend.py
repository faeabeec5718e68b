"""Paste a generated face softly: only the lower face, with matched colors and no visible rectangle.

`face_crop.paste` replaces the whole box, as the original does. Here a mask fades the generated face in below the eyes
and out again before the box ends, and a slowly varying color is added to it, so that the two agree where they meet.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from .arrays import Box, Floats, Image
from .boxes import check
from .errors import InvalidInput
from .tensors import FACE_SIZE

# Heights are shares of the box, from its top. The network gets everything above 0.5 as input and hardly changes it.
TOP = (0.42, 0.58)  # from nothing to all: under the eyes, above the upper lip
ROUNDNESS = 3.0  # the exponent of the super-ellipse that fills the lower face: 2 cuts off jaws, 4 shows corners
FADE = 0.24  # the share of its radius over which it fades: 12 % of the box's width or height

GRID = 24  # colors are compared on a grid with this number of squares per side
SPREAD_SIGMA = GRID / 8  # sigma with which a square's difference spreads, in squares
OUTLIER_LEVELS = 24.0  # levels (all channels together) off the usual difference at which a square counts a quarter
PRIOR_WEIGHT = 0.02  # weight of the usual difference, which counts far from every measured square


def feather(frame: Image, box: Box, mouth: Image) -> Image:
    """Paste the lower half of a generated face with a soft edge and matched colors, on a copy.

    Nothing outside the box changes, nor do its uppermost two fifths, nor its outermost pixels where the image continues
    beyond them. Boxes too small to fade in (two pixels wide, say) change nothing.

    Args:
        frame: UINT8 [H,W,3] BGR.
        box: INT32 [4], x1 y1 x2 y2 in pixels, inside the image.
        mouth: UINT8 [96,96,3] BGR, the whole generated face.

    Returns:
        UINT8 [H,W,3] BGR.

    Raises:
        InvalidInput: an array of another shape or type, or a box that is empty or outside the image.
    """
    _check(frame, box, mouth)
    x1, y1, x2, y2 = box.tolist()
    height, width = frame.shape[:2]
    cut = (x1 == 0, x2 == width, y2 == height)
    result = np.array(frame, order="C")
    face = result[y1:y2, x1:x2]
    matched = cv2.resize(_matched(face, mouth, cut), (x2 - x1, y2 - y1))
    skip, mask = _mask(x2 - x1, y2 - y1, cut)
    # blendLinear divides by the sum of the weights + 1e-5: too little to move a byte
    face[skip:] = cv2.blendLinear(face[skip:], matched[skip:], 1 - mask, mask)
    return result


def _matched(face: Image, mouth: Image, cut: tuple[bool, bool, bool]) -> Image:
    """Return the generated face, UINT8 [96,96,3], with the colors that the frame has where the mask fades.

    The difference is measured on that ring, where both images show the same, and extended into the inside, where they
    may not. Squares that differ in an unusual way (a chin that has moved) hardly count.
    """
    seen = cv2.resize(face, (FACE_SIZE, FACE_SIZE))
    difference = cv2.subtract(seen, mouth, dtype=cv2.CV_32F)
    difference = cv2.resize(difference, (GRID, GRID), interpolation=cv2.INTER_AREA)
    ring = _ring(cut)
    usual = np.median(difference[ring > 0.25], axis=0)
    rest = difference - usual
    counts = ring / (1 + np.einsum("ijk,ijk->ij", rest, rest) / OUTLIER_LEVELS**2) ** 2
    weighed = np.dstack((rest * counts[..., None], counts))
    spread = cv2.GaussianBlur(weighed, (0, 0), SPREAD_SIGMA, borderType=cv2.BORDER_CONSTANT)
    field = usual + spread[..., :3] / (spread[..., 3:] + PRIOR_WEIGHT)
    smooth = cv2.resize(field, (FACE_SIZE, FACE_SIZE))
    matched: Image = cv2.add(mouth, smooth, dtype=cv2.CV_8U)  # type: ignore[assignment]  # rounds and saturates
    return matched


@lru_cache(maxsize=8)  # a still has one size of box, a video a few; a mask may take megabytes
def _mask(width: int, height: int, cut: tuple[bool, bool, bool]) -> tuple[int, Floats]:
    """Return the number of rows at the top that stay unchanged, and the weights of the generated face below them.

    The weights are FP32 [rows,width], 0 (only the frame) to 1 (only the generated face).

    Args:
        width: width of the box in pixels.
        height: height of the box in pixels.
        cut: whether the left, right and lower sides of the box are edges of the image: nothing fades there.
    """
    left, right, below = (not side for side in cut)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    last_x, last_y = max(width - 1, 1), max(height - 1, 1)
    skip = min(int(TOP[0] * last_y), height - 1)
    # 0 in the middle of the box, 1 on its outermost pixels; a box one pixel wide has only outermost pixels
    aside = np.maximum(left * (1 - 2 * x / last_x), right * (1 - 2 * (width - 1 - x) / last_x)).clip(0)
    down = (below * (1 - 2 * (height - 1 - y) / last_y)).clip(0)
    radius = (aside[None] ** ROUNDNESS + down[skip:, None] ** ROUNDNESS) ** (1 / ROUNDNESS)
    mask = _ease((1 - radius) / FADE) * _ease((y[skip:, None] / last_y - TOP[0]) / (TOP[1] - TOP[0]))
    mask = mask.astype(np.float32)
    mask.flags.writeable = False  # every caller gets the same array
    return skip, mask


@lru_cache(maxsize=8)  # all eight values of `cut`
def _ring(cut: tuple[bool, bool, bool]) -> Floats:
    """Return how far the mask is from both 0 and 1, as FP32 [GRID,GRID] 0 … 1; `cut` as in `_mask`."""
    skip, mask = _mask(FACE_SIZE, FACE_SIZE, cut)
    ring = np.pad(4 * mask * (1 - mask), ((skip, 0), (0, 0)))
    squares: Floats = cv2.resize(ring, (GRID, GRID), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    squares.flags.writeable = False
    return squares


def _ease(share: Floats) -> Floats:
    """Map shares to a smooth curve from 0 to 1, clipped outside: a kink would be visible as a line on skin."""
    share = share.clip(0, 1)
    eased: Floats = np.minimum(share**3 * (share * (share * 6 - 15) + 10), 1)  # rounding may pass 1
    return eased


def _check(frame: Image, box: Box, mouth: Image) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise InvalidInput(f"frame: UINT8 [H,W,3] expected, got {frame.dtype} {list(frame.shape)}")
    if box.shape != (4,) or not np.issubdtype(box.dtype, np.integer):
        raise InvalidInput(f"box: INT32 [4] expected, got {box.dtype} {list(box.shape)}")
    if mouth.shape != (FACE_SIZE, FACE_SIZE, 3) or mouth.dtype != np.uint8:
        raise InvalidInput(f"mouth: UINT8 [{FACE_SIZE},{FACE_SIZE},3] expected, got {mouth.dtype} {list(mouth.shape)}")
    check(box[None], frame.shape[1], frame.shape[0])
