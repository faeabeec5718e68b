"""Convert BGR images to planar YUV 4:2:0, as video encoders take it: BT.601, limited range.

The planes are one array, UINT8 [3/2 · H, W]: H rows of luma, then both planes of chroma, one after the other, half as
wide and half as high. A plane of opacity may follow, H more rows: ffmpeg's `yuv420p` and `yuva420p`.

A sample of chroma is computed from the mean color of its 2×2 pixels. So a change within a rectangle with even corners
changes the samples of that rectangle only, and `put` converts nothing else.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from .arrays import Image
from .errors import InvalidInput

Planes: TypeAlias = NDArray[np.uint8]  # [3/2 · H, W], or [5/2 · H, W] with opacity

# Chroma of BT.601 in limited range from B, G, R and 1. The third row is empty: OpenCV is fastest with three of each.
_CHROMA = np.array(
    [
        [112 / 255, -0.331264 * 224 / 255, -0.168736 * 224 / 255, 128],
        [-0.081312 * 224 / 255, -0.418688 * 224 / 255, 112 / 255, 128],
        [0, 0, 0, 0],
    ],
    np.float32,
)


def to_yuv420(image: Image) -> Planes:
    """Convert an image UINT8 [H,W,3] BGR of even sides to planes UINT8 [3/2 · H, W].

    Each sample differs by at most one level from exact arithmetic, and from swscale's `area+accurate_rnd`.

    Raises:
        InvalidInput: an array of another shape or type, or an odd side.
    """
    _check(image)
    height, width = image.shape[:2]
    # OpenCV's own conversion takes the chroma of one pixel of four: only its luma is kept.
    planes: Planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)  # type: ignore[assignment]
    means = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    chroma = cv2.transform(means, _CHROMA)
    for channel, plane in enumerate(split(planes, height)[1:3]):
        cv2.extractChannel(chroma, channel, plane)
    return planes


def split(planes: Planes, height: int) -> tuple[Planes, Planes, Planes]:
    """Return views of the luma UINT8 [H,W] and of both planes of chroma UINT8 [H/2,W/2]."""
    width = planes.shape[1]
    samples, quarter = planes.reshape(-1), height * width // 4
    luma = samples[: 4 * quarter].reshape(height, width)
    first, second = (samples[n * quarter : (n + 1) * quarter].reshape(height // 2, width // 2) for n in (4, 5))
    return luma, first, second


def put(planes: Planes, height: int, left: int, top: int, image: Image) -> None:
    """Convert an image UINT8 [h,w,3] BGR into the planes of a larger one, in place.

    Args:
        planes: of an image of `height` rows.
        height: of the larger image.
        left, top: where the image belongs, in pixels; even.
        image: of even sides.
    """
    rows, columns = image.shape[:2]
    for n, (target, part) in enumerate(zip(split(planes, height), split(to_yuv420(image), rows), strict=True)):
        shift = min(n, 1)
        y, x = top >> shift, left >> shift
        target[y : y + (rows >> shift), x : x + (columns >> shift)] = part


def _check(image: Image) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InvalidInput(f"image: UINT8 [H,W,3] expected, got {image.dtype} {list(image.shape)}")
    if image.shape[0] % 2 or image.shape[1] % 2 or not image.size:
        raise InvalidInput(f"image: even sides expected, got {image.shape[1]}x{image.shape[0]}")
