"""Replace the background of a still or of each frame of a video: by a color, an image, or transparency."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np

from lipsync.arrays import Image
from lipsync.tensors import BACKGROUND_FILE
from lipsync.yuv import Planes, to_yuv420

from ..context import JobContext
from ..errors import InvalidField
from ..inference.protocol import ModelInfo
from ..media.image import LoadedImage, load_image
from ..media.playback import FrameReader, play
from ..media.video import Video
from ..options import EdgeMode
from ..request import RGB, AvatarRequest, Background
from ..resources.avatar_cache import BackgroundCache, ImageWithAlpha, file_digest
from ..streams import map_concurrent
from . import pixellib
from .compositing import Matte, alpha_matte, composite, pad_matte, resize_to_cover, solid_color, with_alpha

CONCURRENCY = 2  # frames of a video in segmentation
ALPHA_FRAMES = 4  # of a video's own alpha channel, read at once


def replace_background(
    frames: AsyncGenerator[Planes | Image],
    replacer: BackgroundReplacer | None,
    alpha: Matte | None,
    frame_count: int = 0,
) -> AsyncGenerator[Planes]:
    """Yield finished frames with the background that the result has, as planes (`lipsync.yuv`).

    Args:
        frames: UINT8 [H,W,3] BGR if there is a replacer, otherwise planes.
        replacer: replaces it in each frame; None if the frames already have their background.
        alpha: the alpha channel UINT8 [H,W] of a still, which every frame gets.
        frame_count: how many frames there are.
    """
    if alpha is not None:
        return with_alpha(frames, alpha)
    return frames if replacer is None else replacer.replace_frames(frames, frame_count)


class BackgroundReplacer:
    """Replaces the background as one request says.

    Attributes:
        color: true RGB, also used behind transparent parts of the face image; None for white there.
        enabled: whether the background is to be replaced at all.
        is_transparent: whether the result has an alpha channel.
    """

    def __init__(self, request: AvatarRequest, job: JobContext) -> None:
        self._job, self._folder = job, request.folder
        self._alpha_of: Video | None = None
        self._file: Path | None = request.background_file
        self.is_transparent = self._file is None and request.background is Background.TRANSPARENT
        self.color: RGB | None = None if self._file else request.background.rgb
        self.enabled = self.is_transparent or self.color is not None or self._file is not None

    def served_as(self, model_info: ModelInfo) -> None:
        """Use the versions of the models that were chosen for the job."""
        self._job = self._job.served_as(model_info)

    def use_alpha_of(self, video: Video) -> None:
        """Take the alpha channel of the video whose frames are replaced for the person, instead of segmentation."""
        self._alpha_of = replace(video, only_alpha=True)

    async def replace_still(self, still: LoadedImage, cache: BackgroundCache) -> ImageWithAlpha:
        """Return the still [H,W,3] with its background replaced, and its alpha channel UINT8 [H,W] or None.

        The alpha channel of a cut-out takes the place of segmentation.

        Args:
            still: laid over `color`, if there is one.
            cache: of this image with this background; a result in it is used, a new one is put there.

        Raises:
            InvalidField: `background_file` cannot be read, or as `pixellib.replace_with_color`.
            Unavailable: as `InferenceClient`.
        """
        if not self.enabled:
            return still.image, None
        if still.is_cutout and still.own is not None and still.alpha is not None:
            return await self._cutout(still.image, still.own, still.alpha)
        result = await cache.get(still.image.shape[1], still.image.shape[0])
        if result is None:
            result = await self._replaced_still(still.image)
            await cache.put(*result)
        return result

    def cache_key(self) -> tuple[object, ...]:
        """Return what identifies the background in the key of a cache. Reads the background file, if there is one."""
        if self._file:
            return (file_digest(self._file), self._job.options.edge)
        return (self.color, self.is_transparent, self._job.options.edge if self.enabled else None)

    async def replace_frames(self, frames: AsyncGenerator[Image], frame_count: int = 0) -> AsyncGenerator[Planes]:
        """Yield a video's finished frames [H,W,3] with their background replaced, or an alpha channel, as planes.

        `frame_count`: how many there are; needed after `use_alpha_of`. Raises as `replace_still`.
        """
        background: Image | None = None

        async def replace(framed: tuple[Image, Matte | None]) -> Planes:
            nonlocal background
            frame, own = framed
            with self._job.timer.stage("background"):
                if background is None:
                    background = await asyncio.to_thread(self._image, frame.shape[1], frame.shape[0])
                matte = await self._matte(frame) if own is None else pad_matte(own, *frame.shape[1::-1])
                return await asyncio.to_thread(_finished, frame, matte, background)

        framed = self._with_own_alpha(frames, frame_count)
        async with aclosing(map_concurrent(framed, replace, CONCURRENCY)) as replaced:
            async for frame in replaced:
                yield frame

    async def _with_own_alpha(
        self, frames: AsyncGenerator[Image], frame_count: int
    ) -> AsyncGenerator[tuple[Image, Matte | None]]:
        """Yield each frame with the alpha channel that its video has for it; None without `use_alpha_of`."""
        if self._alpha_of is None:
            async with aclosing(frames):
                async for frame in frames:
                    yield frame, None
            return
        reader = FrameReader(self._alpha_of, ALPHA_FRAMES, self._job.timer, self._job.log)
        alphas = play(reader, frame_count, self._job.options.extend)
        async with aclosing(frames), aclosing(alphas):
            async for frame in frames:
                yield frame, await anext(alphas)

    async def _cutout(self, over_color: Image, own: Image, alpha: Matte) -> ImageWithAlpha:
        """Return the still as `replace_still`, by its own alpha channel."""
        if self.color:
            return over_color, None
        background = await asyncio.to_thread(self._image, own.shape[1], own.shape[0])
        if background is None:
            return own, alpha
        return await asyncio.to_thread(composite, own, alpha, background), None

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


def _finished(frame: Image, matte: Matte, background: Image | None) -> Planes:
    """Return a frame over its background, or with an alpha channel, as planes."""
    if background is None:
        return np.vstack((to_yuv420(frame), matte))
    return to_yuv420(composite(frame, matte, background))
