"""Replace the background of a still or of each frame of a video: by a color, an image, or transparency."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import numpy as np

from lipsync.arrays import Image
from lipsync.tensors import BACKGROUND_FILE

from ..context import JobContext
from ..errors import InvalidField
from ..media.image import load_image
from ..options import EdgeMode
from ..request import RGB, AvatarRequest, Background
from ..resources.avatar_cache import BackgroundCache, ImageWithAlpha, file_digest
from ..streams import map_concurrent
from . import pixellib
from .compositing import Matte, alpha_matte, composite, resize_to_cover, solid_color, with_alpha

CONCURRENCY = 2  # frames of a video in segmentation


def replace_background(
    frames: AsyncGenerator[Image], replacer: BackgroundReplacer | None, alpha: Matte | None
) -> AsyncGenerator[Image]:
    """Yield finished frames [H,W,3] with the background that the result has.

    Args:
        replacer: replaces it in each frame; None if the frames already have their background.
        alpha: the alpha channel UINT8 [H,W] of a still, which every frame gets: [H,W,4].
    """
    if alpha is not None:
        return with_alpha(frames, alpha)
    return frames if replacer is None else replacer.replace_frames(frames)


class BackgroundReplacer:
    """Replaces the background as one request says.

    Attributes:
        color: true RGB, also used behind transparent parts of the face image; None for white there.
        enabled: whether the background is to be replaced at all.
        is_transparent: whether the result has an alpha channel.
    """

    def __init__(self, request: AvatarRequest, job: JobContext) -> None:
        self._job, self._folder = job, request.folder
        self._file: Path | None = request.background_file
        self.is_transparent = self._file is None and request.background is Background.TRANSPARENT
        self.color: RGB | None = None if self._file else request.background.rgb
        self.enabled = self.is_transparent or self.color is not None or self._file is not None

    async def replace_still(self, image: Image, cache: BackgroundCache) -> ImageWithAlpha:
        """Return the still [H,W,3] with its background replaced, and its alpha channel UINT8 [H,W] or None.

        Args:
            cache: of this image with this background; a result in it is used, a new one is put there.

        Raises:
            InvalidField: `background_file` cannot be read, or as `pixellib.replace_with_color`.
            Unavailable: as `InferenceClient`.
        """
        if not self.enabled:
            return image, None
        result = await cache.get(image.shape[1], image.shape[0])
        if result is None:
            result = await self._replaced_still(image)
            await cache.put(*result)
        return result

    def cache_key(self) -> tuple[object, ...]:
        """Return what identifies the background in the key of a cache. Reads the background file, if there is one."""
        if self._file:
            return (file_digest(self._file), self._job.options.edge)
        return (self.color, self.is_transparent, self._job.options.edge if self.enabled else None)

    async def replace_frames(self, frames: AsyncGenerator[Image]) -> AsyncGenerator[Image]:
        """Yield a video's finished frames with their background replaced: [H,W,3], or [H,W,4] with an alpha channel.

        Raises as `replace_still`.
        """
        background: Image | None = None

        async def replace(frame: Image) -> Image:
            nonlocal background
            with self._job.timer.stage("background"):
                if background is None:
                    background = await asyncio.to_thread(self._image, frame.shape[1], frame.shape[0])
                matte = await self._matte(frame)
                if background is None:
                    return np.dstack((frame, matte))
                return await asyncio.to_thread(composite, frame, matte, background)

        async with aclosing(map_concurrent(frames, replace, CONCURRENCY)) as replaced:
            async for frame in replaced:
                yield frame

    async def _replaced_still(self, image: Image) -> ImageWithAlpha:
        with self._job.timer.stage("background"):
            if self.color and self._job.options.edge is EdgeMode.HARD:
                return await pixellib.replace_with_color(image, self.color, self._folder, self._job.models), None
            background = await asyncio.to_thread(self._image, image.shape[1], image.shape[0])
            matte = await self._matte(image)
            if background is None:
                return image, matte
            return await asyncio.to_thread(composite, image, matte, background), None

    async def _matte(self, image: Image) -> Matte:
        mask = await pixellib.person_mask(image, self._job.models)
        return await asyncio.to_thread(alpha_matte, mask, self._job.options.edge)

    def _image(self, width: int, height: int) -> Image | None:
        """Return the background at this size, or None if it is transparent."""
        if self._file:
            try:
                return resize_to_cover(load_image(self._file, self._job.limits), width, height)
            except InvalidField as error:
                raise InvalidField(BACKGROUND_FILE, error.reason) from error
        return solid_color(self.color, width, height) if self.color else None
