"""What stands behind the person: the picture's own background, a colour, another picture, or nothing at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lipsync.tensors import BACKGROUND_FILE

from ..context import Job
from ..errors import InvalidField
from ..media import image
from ..media.image import Picture
from ..options import Edge
from ..request import RGB, AvatarRequest, Background
from ..resources.avatar_cache import Look, Looks, content
from ..streams import together
from . import pixellib

AT_ONCE = 2  # frames of a video in segmentation


class Scenery:
    """The background of one job.

    Attributes:
        colour: what transparent parts of a picture are laid over; None for the usual white.
        is_changed: whether there is anything to do.
        is_transparent: whether the result has an alpha channel.
    """

    def __init__(self, request: AvatarRequest, job: Job) -> None:
        self._job, self._folder = job, request.folder
        self._file: Path | None = request.background_file
        self.is_transparent = self._file is None and request.background is Background.TRANSPARENT
        self.colour: RGB | None = None if self._file else request.background.rgb
        self.is_changed = self.is_transparent or self.colour is not None or self._file is not None

    async def behind_still(self, picture: Picture, looks: Looks) -> Look:
        """The still with its background changed, and its alpha channel UINT8 [H,W] where it has one.

        `looks` are of this file before this background: what was computed once is taken from there.

        Raises as `background.change`, and InvalidField for a `background_file` that cannot be read.
        """
        if not self.is_changed:
            return picture, None
        look = await looks.recall()
        if look is None:
            look = await self._changed_still(picture)
            await looks.keep(*look)
        return look

    def describe(self) -> tuple[object, ...]:
        """What stands behind, as a part of a cache's key; reads the file, where it is one."""
        if self._file:
            return (content(self._file), self._job.options.edge)
        return (self.colour, self.is_transparent, self._job.options.edge if self.is_changed else None)

    async def _changed_still(self, picture: Picture) -> Look:
        with self._job.timer.stage("background"):
            if self.colour and self._job.options.edge is Edge.HARD:
                return await pixellib.change(picture, self.colour, self._folder, self._job.models), None
            behind = await asyncio.to_thread(self._behind, picture.shape[1], picture.shape[0])
            shown = await self._shown(picture)
            if behind is None:
                return picture, shown
            return await asyncio.to_thread(pixellib.over, picture, shown, behind), None

    async def behind_frames(self, frames: AsyncGenerator[Picture]) -> AsyncGenerator[Picture]:
        """A video's finished frames, each with its background changed: [H,W,3], or [H,W,4] with an alpha channel."""
        behind: Picture | None = None

        async def change(frame: Picture) -> Picture:
            nonlocal behind
            with self._job.timer.stage("background"):
                if behind is None:
                    behind = await asyncio.to_thread(self._behind, frame.shape[1], frame.shape[0])
                shown = await self._shown(frame)
                if behind is None:
                    return np.dstack((frame, shown))
                return await asyncio.to_thread(pixellib.over, frame, shown, behind)

        async with aclosing(together(frames, change, AT_ONCE)) as changed:
            async for frame in changed:
                yield frame

    async def _shown(self, picture: Picture) -> NDArray[np.uint8]:
        mask = await pixellib.person(picture, self._job.models)
        return await asyncio.to_thread(pixellib.opacity, mask, self._job.options.edge)

    def _behind(self, width: int, height: int) -> Picture | None:
        """A picture of this size; None where nothing is behind."""
        if self._file:
            try:
                return pixellib.covering(image.read(self._file, self._job.limits), width, height)
            except InvalidField as error:
                raise InvalidField(BACKGROUND_FILE, error.reason) from error
        return pixellib.plain(self.colour, width, height) if self.colour else None


async def with_alpha(frames: AsyncGenerator[Picture], alpha: NDArray[np.uint8]) -> AsyncGenerator[Picture]:
    """Frames [H,W,3] with the same alpha channel each, [H,W,4]; it is repeated at the edge where they are larger."""
    async with aclosing(frames):
        async for frame in frames:
            height, width = frame.shape[:2]
            margins = ((0, height - alpha.shape[0]), (0, width - alpha.shape[1]))
            yield np.dstack((frame, np.pad(alpha, margins, mode="edge")))
