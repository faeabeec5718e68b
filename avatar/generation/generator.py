"""The face made to speak: windows of speech matched with frames, mouths generated, put back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipsync.arrays import Boxes, Floats, Images
from lipsync.blend import feather
from lipsync.crop import paste
from lipsync.tensors import WAV2LIP_BATCH

from ..context import JobContext
from ..faces.locator import Seen
from .mel import MelWindows
from ..media.image import Picture
from ..options import Blend
from ..streams import map_concurrent

# Half a batch of the net: two shots under way fill one batch, and the first frames come out sooner.
CHUNK_FRAMES = WAV2LIP_BATCH // 2
# A shot of a video keeps its frames until the mouths are there: 16 of 720p, 7 of 1080p, 2 of 4K.
CHUNK_PIXELS = 16_000_000
CONCURRENCY = 3  # shots under way: one in the net, one waiting for its turn there, one on its way back
# So the frames of a video that are in memory at the same time are at most those of AT_ONCE shots, of one that waits
# for a place and one that is being pasted, and the few that detection, smoothing and the encoder hold.


@dataclass(frozen=True)
class LipSyncChunk:
    """Some frames in a row.

    Attributes:
        pictures: BGR [H,W,3] each; for a still the same object again and again.
        boxes: INT32 [n,4], or None where they show no face and pass as they are.
        windows: FP32 [n,80,16].
    """

    images: list[Picture]
    boxes: Boxes | None
    windows: Floats

    @property
    def is_still(self) -> bool:
        """Whether one picture serves all frames."""
        return all(picture is self.images[0] for picture in self.images)


async def chunk_frames(seen: AsyncGenerator[Seen], windows: MelWindows) -> AsyncGenerator[LipSyncChunk]:
    """Frames cut into shots, each frame with its window; frames without a face are shots of their own."""
    pictures: list[Picture] = []
    boxes: list[Boxes | None] = []
    done = 0

    async def shot() -> LipSyncChunk:
        nonlocal done, pictures, boxes
        heard = await windows.take(done, len(pictures))
        placed = [box for box in boxes if box is not None]
        made = LipSyncChunk(pictures, np.stack(placed) if placed else None, heard)
        done, pictures, boxes = done + len(pictures), [], []
        return made

    async with aclosing(seen):
        async for picture, box in seen:
            if boxes and (box is None) != (boxes[-1] is None):
                yield await shot()
            pictures.append(picture)
            boxes.append(box)
            if len(pictures) == _max_frames(pictures):
                yield await shot()
    if pictures:
        yield await shot()


async def generate(chunks: AsyncGenerator[LipSyncChunk], job: JobContext) -> AsyncGenerator[Picture]:
    """Each frame with its mouth put back, BGR [H,W,3] on an even number of rows and columns."""

    async def generate(shot: LipSyncChunk) -> tuple[LipSyncChunk, Images | None]:
        if shot.boxes is None:
            return shot, None
        with job.timer.stage("generation"):
            faces, boxes = crop_to_boxes(shot.images, shot.boxes, still=shot.is_still)
            return shot, await job.models.lipsync(faces, boxes, shot.windows, job.options.model)

    blend = _feathered if job.options.blend is Blend.FEATHER else _pasted
    async with aclosing(map_concurrent(chunks, generate, CONCURRENCY)) as generated:
        async for shot, mouths in generated:
            if shot.boxes is None or mouths is None:
                for picture in shot.images:
                    yield _pad_to_even(picture)
                continue
            for picture, box, mouth in zip(shot.images, shot.boxes, mouths, strict=True):
                with job.timer.stage("paste"):
                    frame = await asyncio.to_thread(blend, picture, box, mouth)
                yield frame


def crop_to_boxes(pictures: list[Picture], boxes: Boxes, *, still: bool) -> tuple[list[Picture], Boxes]:
    """The rectangle that holds the boxes, cut out of every picture (of a still, the first), and the boxes in it.

    The crops are the same as from whole frames, at a twentieth of the bytes.

    Returns:
        n views UINT8 [h,w,3] and INT32 [n,4]; n is 1 for a still. Nothing is copied: that is for who sends them.
    """
    left, top = boxes[:, :2].min(axis=0)
    right, bottom = boxes[:, 2:].max(axis=0)
    count = 1 if still else len(pictures)
    faces = [picture[top:bottom, left:right] for picture in pictures[:count]]
    moved = (boxes - (left, top, left, top)).astype(np.int32)
    return faces, moved[:count]


def to_even(side: int) -> int:
    """A side of the result, in pixels, for a side of the picture."""
    return side + side % 2


def _max_frames(pictures: list[Picture]) -> int:
    """How many frames the shot that begins so may have: a still's are one in memory."""
    if len(pictures) > 1 and pictures[0] is pictures[-1]:
        return CHUNK_FRAMES
    height, width = pictures[0].shape[:2]
    return min(CHUNK_FRAMES, max(2, CHUNK_PIXELS // (width * height)))


def _pasted(picture: Picture, box: NDArray[np.int32], mouth: Picture) -> Picture:
    return _pad_to_even(paste(picture[None], box[None], mouth[None])[0])


def _feathered(picture: Picture, box: NDArray[np.int32], mouth: Picture) -> Picture:
    return _pad_to_even(feather(picture, box, mouth))


def _pad_to_even(frame: Picture) -> Picture:
    """An odd last row or column is repeated, for the encoder takes even sizes only."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, to_even(height) - height), (0, to_even(width) - width), (0, 0)), mode="edge")
    return np.ascontiguousarray(frame)
