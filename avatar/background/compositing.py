"""Compose a person with a new background, or with an alpha channel instead of one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync.arrays import Image
from lipsync.yuv import Planes

from ..options import EdgeMode
from ..request import RGB

Mask: TypeAlias = NDArray[np.bool_]  # [H,W]
Matte: TypeAlias = NDArray[np.uint8]  # [H,W], the opacity of each pixel, 0 to 255

SOFT_SIGMA = 0.005  # standard deviation of a soft edge, as a share of the image's shorter side


def alpha_matte(mask: Mask, edge: EdgeMode) -> Matte:
    """Return the person's opacity, UINT8 [H,W] up to 255, for a mask bool [H,W].

    A soft edge is as wide as about two hundredths of the image's shorter side.
    """
    hard = mask.astype(np.uint8) * np.uint8(255)
    if edge is EdgeMode.HARD:
        return hard
    sigma = max(0.8, min(mask.shape) * SOFT_SIGMA)
    # the mask is shrunk first, so that the edge shows the new background through it and not the old one
    inner = cv2.erode(hard, np.ones((3, 3), np.uint8), iterations=max(1, round(sigma)))
    return np.asarray(cv2.GaussianBlur(inner, (0, 0), sigma), np.uint8)


def composite(image: Image, matte: Matte, background: Image) -> Image:
    """Lay an image UINT8 [H,W,3] with the opacity UINT8 [H,W] over a background of its size."""
    share = matte[:, :, None].astype(np.uint16)
    mixed: Image = ((image * share + background * (255 - share) + 127) // 255).astype(np.uint8)
    return mixed


def resize_to_cover(image: Image, width: int, height: int) -> Image:
    """Scale an image to cover a size in its own proportions; what exceeds the size is cut off equally on both sides."""
    own_height, own_width = image.shape[:2]
    factor = max(width / own_width, height / own_height)
    size = max(width, round(own_width * factor)), max(height, round(own_height * factor))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width], np.uint8)


def solid_color(color: RGB, width: int, height: int) -> Image:
    """Return an image of one color, UINT8 [height,width,3] BGR."""
    return np.full((height, width, 3), color[::-1], np.uint8)


async def with_alpha(frames: AsyncGenerator[Planes], matte: Matte) -> AsyncGenerator[Planes]:
    """Yield planes [3/2 · H, W] with the same alpha channel each, as [5/2 · H, W].

    The edge of the alpha channel is repeated for larger frames.
    """
    async with aclosing(frames):
        async for planes in frames:
            height, width = planes.shape[0] * 2 // 3, planes.shape[1]
            yield np.vstack((planes, pad_matte(matte, width, height)))


def pad_matte(matte: Matte, width: int, height: int) -> Matte:
    """Return an alpha channel in a size that is larger: its edge is repeated."""
    return np.pad(matte, ((0, height - matte.shape[0]), (0, width - matte.shape[1])), mode="edge")
