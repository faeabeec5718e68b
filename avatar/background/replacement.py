"""What stands behind the person: the picture's own background, a colour, another picture, or nothing at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lipsync.tensors import BACKGROUND_FILE

from ..context import JobContext
from ..errors import InvalidField
from ..media import image
from ..media.image import Picture
from ..options import EdgeMode
from ..request import RGB, AvatarRequest, Background
from ..resources.avatar_cache import ImageWithAlpha, BackgroundCache, file_digest
from ..streams import map_concurrent
from . import pixellib

CONCURRENCY = 2  # frames of a video in segmentation


class BackgroundReplacer:
    """The background of one job.

    Attributes:
        colour: what transparent parts of a picture are laid over; None for the usual white.
        is_changed: whether there is anything to do.
        is_transparent: whether the result has an alpha channel.
    """

    def __init__(self, request: AvatarRequest, job: JobContext) -> None:
        self._job, self._folder = job, request.folder
        self._file: Path | None = request.background_file
        self.is_transparent = self._file is None and request.background is Background.TRANSPARENT
        self.color: RGB | None = None if self._file else request.background.rgb
        self.enabled = self.is_transparent or self.color is not None or self._file is not None

    async def replace_still(self, picture: Picture, looks: BackgroundCache) -> ImageWithAlpha:
        """The still with its background changed, and its alpha channel UINT8 [H,W] where it has one.

        `looks` are of this file before this background: what was computed once is taken from there.

        Raises as `background.change`, and InvalidField for a `background_file` that cannot be read.
        """
        if not self.enabled:
            return picture, None
        look = await looks.get()
        if look is None:
            look = await self._replaced_still(picture)
            await looks.put(*look)
        return look

    def cache_key(self) -> tuple[object, ...]:
        """What stands behind, as a part of a cache's key; reads the file, where it is one."""
        if self._file:
            return (file_digest(self._file), self._job.options.edge)
        return (self.color, self.is_transparent, self._job.options.edge if self.enabled else None)

    async def _replaced_still(self, picture: Picture) -> ImageWithAlpha:
        with self._job.timer.stage("background"):
            if self.color and self._job.options.edge is EdgeMode.HARD:
                return await pixellib.replace_with_color(picture, self.color, self._folder, self._job.models), None
            behind = await asyncio.to_thread(self._image, picture.shape[1], picture.shape[0])
            shown = await self._matte(picture)
            if behind is None:
                return picture, shown
            return await asyncio.to_thread(pixellib.composite, picture, shown, behind), None

    async def replace_frames(self, frames: AsyncGenerator[Picture]) -> AsyncGenerator[Picture]:
        """A video's finished frames, each with its background changed: [H,W,3], or [H,W,4] with an alpha channel."""
        behind: Picture | None = None

        async def change(frame: Picture) -> Picture:
            nonlocal behind
            with self._job.timer.stage("background"):
                if behind is None:
                    behind = await asyncio.to_thread(self._image, frame.shape[1], frame.shape[0])
                shown = await self._matte(frame)
                if behind is None:
                    return np.dstack((frame, shown))
                return await asyncio.to_thread(pixellib.composite, frame, shown, behind)

        async with aclosing(map_concurrent(frames, change, CONCURRENCY)) as changed:
            async for frame in changed:
                yield frame

    async def _matte(self, picture: Picture) -> NDArray[np.uint8]:
        mask = await pixellib.person_mask(picture, self._job.models)
        return await asyncio.to_thread(pixellib.alpha_matte, mask, self._job.options.edge)

    def _image(self, width: int, height: int) -> Picture | None:
        """A picture of this size; None where nothing is behind."""
        if self._file:
            try:
                return pixellib.resize_to_cover(image.read(self._file, self._job.limits), width, height)
            except InvalidField as error:
                raise InvalidField(BACKGROUND_FILE, error.reason) from error
        return pixellib.solid_color(self.color, width, height) if self.color else None


async def with_alpha(frames: AsyncGenerator[Picture], alpha: NDArray[np.uint8]) -> AsyncGenerator[Picture]:
    """Frames [H,W,3] with the same alpha channel each, [H,W,4]; it is repeated at the edge where they are larger."""
    async with aclosing(frames):
        async for frame in frames:
            height, width = frame.shape[:2]
            margins = ((0, height - alpha.shape[0]), (0, width - alpha.shape[1]))
            yield np.dstack((frame, np.pad(alpha, margins, mode="edge")))
