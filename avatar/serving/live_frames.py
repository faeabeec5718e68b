"""The outputs of a live session's frames: mouths are generated for speech, and once per image for rests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import numpy as np

from lipsync.arrays import Array, Image
from lipsync.mel_stream import SILENT_WINDOW

from ..inference.bls_client import BlsInferenceClient
from .live_avatar import LiveAvatar
from .live_timeline import PlannedFrame

WINDOWS_AT_ONCE = 8  # that are generated before the first of their frames is sent

Outputs = dict[str, Array]


class FrameMaker:
    """Makes the frames of one session.

    Attributes:
        avatar: that of the session.
        frame_format: one of `FORMATS`.
        without_face: number of frames so far in which no face was found.
    """

    def __init__(self, avatar: LiveAvatar, frame_format: str, models: BlsInferenceClient) -> None:
        self.avatar, self.frame_format = avatar, frame_format
        self._models = models
        self.without_face = 0
        self._resting: dict[int, Image] = {}  # the mouth at rest, by the image: 27 kB each, far less than the images
        self._still: Outputs | None = None  # of a still at rest

    async def outputs(self, frames: Sequence[PlannedFrame]) -> AsyncGenerator[Outputs]:
        """Yield the outputs of frames in their order, all but those of the timeline, a few generated at a time."""
        for start in range(0, len(frames), WINDOWS_AT_ONCE):
            part = frames[start : start + WINDOWS_AT_ONCE]
            images = [self.avatar.image_index(frame.position) for frame in part]
            mouths = await self._mouths(part, images)
            for frame, image, mouth in zip(part, images, mouths, strict=True):
                self.without_face += self.avatar.boxes[image] is None
                yield await self._compose(frame, image, mouth)

    async def one(self, frame: PlannedFrame) -> Outputs:
        """Return the outputs of one frame."""
        async with aclosing(self.outputs([frame])) as made:
            return await anext(made)

    async def _mouths(self, frames: Sequence[PlannedFrame], images: Sequence[int]) -> list[Image | None]:
        """Return the mouth of each frame UINT8 [96,96,3]; None where its image shows no face."""
        pairs = list(zip(frames, images, strict=True))
        pairs = [pair for pair in pairs if self.avatar.boxes[pair[1]] is not None]
        speaking = [(frame.index, image, frame.window) for frame, image in pairs if frame.window is not None]
        resting = {image for frame, image in pairs if frame.window is None} - self._resting.keys()
        chosen = [*(image for _, image, _ in speaking), *resting]
        spoken: dict[int, Image] = {}
        if chosen:
            windows = np.stack([*(window for _, _, window in speaking), *[SILENT_WINDOW] * len(resting)])
            crops = np.ascontiguousarray(self.avatar.crops[chosen])
            generated = await self._models.wav2lip(crops, windows, self.avatar.options.model)
            spoken = {index: mouth for (index, _, _), mouth in zip(speaking, generated, strict=False)}
            # copies: a view would keep the whole batch in memory
            closed = [mouth.copy() for mouth in generated[len(speaking) :]]
            self._resting.update(zip(resting, closed, strict=True))
        return [
            spoken.get(frame.index) if frame.window is not None else self._resting.get(image)
            for frame, image in zip(frames, images, strict=True)
        ]

    async def _compose(self, frame: PlannedFrame, image: int, mouth: Image | None) -> Outputs:
        is_still = frame.window is None and len(self.avatar.images) == 1
        if is_still and self._still:
            return self._still
        outputs = await asyncio.to_thread(self.avatar.compose_frame, image, mouth, self.frame_format)
        if is_still:
            self._still = outputs
        return outputs
