"""Transform frames as the original tool does (`resize_factor`, `rotate`, `crop`), and limit their height."""

from __future__ import annotations

import cv2
import numpy as np

from lipsync.arrays import Image, Images

from ..errors import InvalidField
from ..options import Options, Sides


class FrameTransform:
    """Resizes, rotates and crops frames of one size as the options say, in the original tool's order.

    Attributes:
        width, height: size of the transformed frames, in pixels.
    """

    def __init__(self, width: int, height: int, options: Options) -> None:
        """Plan the transform of frames of this size. Raises InvalidField if nothing would be left of them."""
        self.width: int
        self.height: int
        self._input_size = (width, height)
        self._resized = (width // options.resize_factor, height // options.resize_factor)
        if min(self._resized) < 1:
            reason = f"too large for the {width}x{height} image: nothing would be left of it"
            raise InvalidField("resize_factor", reason)
        self._rotate = options.rotate
        wide, high = self._resized[::-1] if options.rotate else self._resized
        self._rows, self._columns = _crop_slices(options.crop, wide, high)
        wide, high = self._columns.stop - self._columns.start, self._rows.stop - self._rows.start
        self._cropped = (wide, high)
        if options.max_height and high > options.max_height:
            wide, high = max(1, round(wide * options.max_height / high)), options.max_height
        self.width, self.height = wide, high

    def __call__(self, frames: Images) -> Images:
        """Transform frames UINT8 [n,H,W,3] to [n,height,width,3]; return `frames` itself if nothing changes."""
        if (self.width, self.height) == self._input_size and not self._rotate:
            return frames
        return np.stack([self._transform(frame) for frame in frames])

    def _transform(self, frame: Image) -> Image:
        if self._resized != self._input_size:
            frame = np.asarray(cv2.resize(frame, self._resized), np.uint8)  # bilinear, as in the original tool
        if self._rotate:
            frame = np.rot90(frame, -1)
        frame = frame[self._rows, self._columns]
        if (self.width, self.height) != self._cropped:
            size = (self.width, self.height)
            frame = np.asarray(cv2.resize(np.ascontiguousarray(frame), size, interpolation=cv2.INTER_AREA), np.uint8)
        return frame


def _crop_slices(crop: Sides, width: int, height: int) -> tuple[slice, slice]:
    """Return the rows and columns that are kept. A crop that reaches outside is cut off, as by a Python slice."""
    top, bottom, left, right = crop
    rows = slice(top, height if bottom == -1 else min(bottom, height))
    columns = slice(left, width if right == -1 else min(right, width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise InvalidField("crop", f"outside the {width}x{height} image")
    return rows, columns
