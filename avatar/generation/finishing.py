"""Put generated mouths into frames, and convert the frames for the encoder."""

from __future__ import annotations

import numpy as np

from lipsync.arrays import Box, Image
from lipsync.blend import feather
from lipsync.face_crop import paste
from lipsync.yuv import Planes, put, to_yuv420

from ..options import Blend


class FrameFinisher:
    """Puts mouths into the frames of one job, in order.

    A frame is converted as it is, and then the rectangle around its mouth once more, with the mouth. So where
    successive frames are the same image, as in a still, only that rectangle is converted from the third on.
    """

    def __init__(self, blend: Blend) -> None:
        self._blend = blend
        self._image: Image | None = None  # the last one
        self._planes: Planes | None = None  # of that image without a mouth; a frame of a video needs them only once

    def finish(self, image: Image, box: Box | None, mouth: Image | None) -> Planes:
        """Return the planes of the image with its mouth, UINT8 [3/2 · H, W]; H and W even, see `pad_to_even`.

        Args:
            image: UINT8 [H,W,3] BGR.
            box: INT32 [4]; None leaves the image unchanged.
            mouth: UINT8 [96,96,3] BGR, or None.
        """
        is_new, self._image = image is not self._image, image
        if is_new or self._planes is None:
            self._planes = to_yuv420(pad_to_even(image))
        if box is None or mouth is None:
            return self._planes
        left, top, right, bottom = _around(box, *image.shape[1::-1])
        part = self.blended(image[top:bottom, left:right], box - np.array((left, top, left, top), box.dtype), mouth)
        planes = self._planes
        if is_new:
            self._planes = None
        else:
            planes = planes.copy()
        put(planes, to_even(image.shape[0]), left, top, pad_to_even(part))
        return planes

    def finish_bgr(self, image: Image, box: Box | None, mouth: Image | None) -> Image:
        """Return the image with its mouth as it is, UINT8 [H,W,3] BGR, H and W even; for a background replacer."""
        return pad_to_even(image if box is None or mouth is None else self.blended(image, box, mouth))

    def blended(self, image: Image, box: Box, mouth: Image) -> Image:
        """Return a copy of the image with the mouth in the box."""
        if self._blend is Blend.FEATHER:
            return feather(image, box, mouth)
        pasted: Image = paste(image[None], box[None], mouth[None])[0]
        return pasted


def to_even(side: int) -> int:
    """Return a side of the result, in pixels, for a side of the image: the next even number."""
    return side + side % 2


def pad_to_even(frame: Image) -> Image:
    """Repeat an odd last row or column: the encoder takes even sizes only."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, to_even(height) - height), (0, to_even(width) - width), (0, 0)), mode="edge")
    return np.ascontiguousarray(frame)


def _around(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Return a rectangle with even corners, or those of the image, and at least one pixel around the box.

    A pixel, because `feather` fades the mouth out where the image continues, and not at the edges of the image.
    """
    x1, y1, x2, y2 = (int(corner) for corner in box)
    left, top = (max(0, corner - 1) // 2 * 2 for corner in (x1, y1))
    return left, top, min(width, (x2 + 2) // 2 * 2), min(height, (y2 + 2) // 2 * 2)
