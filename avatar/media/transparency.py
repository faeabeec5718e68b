"""Lay frames with an alpha channel over a color."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from lipsync.arrays import Images

# Pixel formats with an alpha channel, by ffmpeg's names; a palette may have transparent colors.
_WITH_ALPHA = re.compile(r"yuva|gbrap|rgba|bgra|argb|abgr|ya8|ya16|yaf|ayuv|vuya|uyva|pal8")


def has_alpha(pixel_format: str) -> bool:
    """Return whether a pixel format, by ffmpeg's name, has an alpha channel."""
    return bool(_WITH_ALPHA.match(pixel_format))


def flatten(frames: NDArray[np.uint8], color: tuple[int, int, int]) -> Images:
    """Lay frames UINT8 [n,H,W,4] BGRA over a color (RGB); opaque pixels keep their values. Return [n,H,W,3] BGR."""
    alpha = frames[..., 3:].astype(np.uint16)
    under = np.array(color[::-1], np.uint16)
    flat: Images = ((frames[..., :3] * alpha + under * (255 - alpha) + 127) // 255).astype(np.uint8)
    return flat
