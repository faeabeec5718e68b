"""What of a picture is worked on: the original tool's `resize_factor`, `rotate` and `crop`, and a bounded height."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidField
from ..options import Options, Sides


class Framing:
    """Cuts and turns pictures of one size, as the options say, in the original tool's order.

    Attributes:
        width, height: of what comes out, in pixels.
    """

    def __init__(self, width: int, height: int, options: Options) -> None:
        """Raises InvalidField where nothing would be left of a picture of this size."""
        self.width: int
        self.height: int
        self._given = (width, height)
        self._resized = (width // options.resize_factor, height // options.resize_factor)
        if min(self._resized) < 1:
            raise InvalidField("resize_factor", f"nothing would be left of the {width}x{height} picture")
        self._rotate = options.rotate
        wide, high = self._resized[::-1] if options.rotate else self._resized
        self._rows, self._columns = _kept(options.crop, wide, high)
        wide, high = self._columns.stop - self._columns.start, self._rows.stop - self._rows.start
        self._cropped = (wide, high)
        if options.max_height and high > options.max_height:
            wide, high = max(1, round(wide * options.max_height / high)), options.max_height
        self.width, self.height = wide, high

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Frames UINT8 [n,H,W,3] of the size given, to [n,height,width,3]; themselves where nothing is to be done."""
        if (self.width, self.height) == self._given and not self._rotate:
            return frames
        return np.stack([self._framed(frame) for frame in frames])

    def _framed(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        changed: NDArray[np.uint8] = frame
        if self._resized != self._given:
            changed = cv2.resize(changed, self._resized)  # type: ignore[assignment]  # bilinear, as the original tool
        if self._rotate:
            changed = np.rot90(changed, -1)
        changed = changed[self._rows, self._columns]
        if (self.width, self.height) != self._cropped:
            changed = cv2.resize(  # type: ignore[assignment]
                np.ascontiguousarray(changed), (self.width, self.height), interpolation=cv2.INTER_AREA
            )
        return changed


def _kept(crop: Sides, width: int, height: int) -> tuple[slice, slice]:
    """Rows and columns that are kept; as a Python slice does it, what reaches outside is cut off."""
    top, bottom, left, right = crop
    rows = slice(top, height if bottom == -1 else min(bottom, height))
    columns = slice(left, width if right == -1 else min(right, width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise InvalidField("crop", f"it lies outside the {width}x{height} picture")
    return rows, columns
