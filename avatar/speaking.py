"""The face made to speak: windows of speech matched with frames, mouths generated, put back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipsync.boxes import Boxes
from lipsync.crop import paste
from lipsync.tensors import WAV2LIP_BATCH

from .flow import together
from .job import Job
from .models import Floats, Pictures
from .pictures import Picture
from .tracking import Seen

# Half a batch of the net: two shots under way fill one batch, and the first frames come out sooner.
SHOT_FRAMES = WAV2LIP_BATCH // 2
# A shot of a video keeps its frames until the mouths are there: 16 of 720p, 7 of 1080p, 2 of 4K.
SHOT_PIXELS = 16_000_000
AT_ONCE = 3  # shots under way: one in the net, one waiting for its turn there, one on its way back
# So the frames of a video that are in memory at the same time are at most those of AT_ONCE shots, of one that waits
# for a place and one that is being pasted, and the few that detection, smoothing and the encoder hold.


@dataclass(frozen=True)
class Shot:
    """Some frames in a row.

    Attributes:
        pictures: BGR [H,W,3] each; for a still the same object again and again.
        boxes: INT32 [n,4].
        windows: FP32 [n,80,16].
    """

    pictures: list[Picture]
    boxes: Boxes
    windows: Floats

    @property
    def is_still(self) -> bool:
        """Whether one picture serves all frames."""
        return all(picture is self.pictures[0] for picture in self.pictures)


async def shots(seen: AsyncGenerator[Seen], windows: Floats) -> AsyncGenerator[Shot]:
    """Frames cut into shots, each frame with its window; the last window is held where there are more frames."""
    pictures: list[Picture] = []
    boxes: list[Boxes] = []
    done = 0

    def shot() -> Shot:
        heard = np.minimum(np.arange(done, done + len(pictures)), len(windows) - 1)
        return Shot(pictures, np.stack(boxes), windows[heard])

    async with aclosing(seen):
        async for picture, box in seen:
            pictures.append(picture)
            boxes.append(box)
            if len(pictures) == _longest(pictures):
                yield shot()
                done += len(pictures)
                pictures, boxes = [], []
    if pictures:
        yield shot()


async def speak(cut: AsyncGenerator[Shot], job: Job) -> AsyncGenerator[Picture]:
    """Each frame with its mouth put back, BGR [H,W,3] on an even number of rows and columns."""

    async def generate(shot: Shot) -> tuple[Shot, Pictures]:
        with job.clock.stage("generation"):
            faces, boxes = await asyncio.to_thread(closest, shot)
            return shot, await job.models.lipsync(faces, boxes, shot.windows)

    async with aclosing(together(cut, generate, AT_ONCE)) as generated:
        async for shot, mouths in generated:
            for picture, box, mouth in zip(shot.pictures, shot.boxes, mouths, strict=True):
                with job.clock.stage("paste"):
                    frame = await asyncio.to_thread(_paste, picture, box, mouth)
                yield frame


def closest(shot: Shot) -> tuple[Pictures, Boxes]:
    """The rectangle that holds the shot's boxes, cut out of every frame, and the boxes moved into it.

    The crops are the same as from whole frames, at a twentieth of the bytes.

    Returns:
        UINT8 [n,h,w,3] and INT32 [n,4]; n is 1 for a still.
    """
    left, top = shot.boxes[:, :2].min(axis=0)
    right, bottom = shot.boxes[:, 2:].max(axis=0)
    count = 1 if shot.is_still else len(shot.pictures)
    faces = np.stack([picture[top:bottom, left:right] for picture in shot.pictures[:count]])
    moved = (shot.boxes - (left, top, left, top)).astype(np.int32)
    return faces, moved[:count]


def even(side: int) -> int:
    """A side of the result, in pixels, for a side of the picture."""
    return side + side % 2


def _longest(pictures: list[Picture]) -> int:
    """How many frames the shot that begins so may have: a still's are one in memory."""
    if len(pictures) > 1 and pictures[0] is pictures[-1]:
        return SHOT_FRAMES
    height, width = pictures[0].shape[:2]
    return min(SHOT_FRAMES, max(2, SHOT_PIXELS // (width * height)))


def _paste(picture: Picture, box: NDArray[np.int32], mouth: Picture) -> Picture:
    """One finished frame; an odd last row or column is repeated, for the encoder takes even sizes only."""
    frame: Picture = paste(picture[None], box[None], mouth[None])[0]
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, even(height) - height), (0, even(width) - width), (0, 0)), mode="edge")
    return frame
