"""Group frames and their mel windows into chunks, one per call of the generator."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from lipsync.arrays import Box, Boxes, Floats, Image, Images
from lipsync.face_crop import crop

from ..faces.locator import LocatedFrame
from ..inference.protocol import ServedNet
from .mel import MelWindows

# A chunk has half of the network's largest batch, so that two chunks in flight fill one batch and the first frames are
# finished sooner. It has no more than this however large the batch is: beyond it, a call costs less than its frames.
MAX_CHUNK_FRAMES = 64
# A chunk of a video keeps its frames until its mouths are generated: 17 frames of 720p, 7 of 1080p, 2 of 4K. So the
# memory of a job does not grow with the network's batch.
CHUNK_PIXELS = 16_000_000
# The first chunk is small and each one after it twice as large, so that the network and the encoder start early.
FIRST_FRAMES = 4


@dataclass(frozen=True)
class LipSyncChunk:
    """Successive frames.

    Attributes:
        images: UINT8 [H,W,3] BGR each; for a still, the same object repeated.
        boxes: INT32 [n,4], or None if the frames show no face and stay unchanged.
        windows: FP32 [n,80,16].
    """

    images: list[Image]
    boxes: Boxes | None
    windows: Floats


def max_chunk_frames(net: ServedNet) -> int:
    """Return how many frames a chunk has at most for a generator that is served in this way."""
    return max(1, min(MAX_CHUNK_FRAMES, net.max_batch // 2))


async def chunk_frames(
    frames: AsyncGenerator[LocatedFrame], windows: MelWindows, max_frames: int
) -> AsyncGenerator[LipSyncChunk]:
    """Yield the frames in chunks, each frame with its mel window; frames without a face form chunks of their own."""
    growing = min(FIRST_FRAMES, max_frames)
    images: list[Image] = []
    boxes: list[Box | None] = []
    first = 0

    async def chunk() -> LipSyncChunk:
        nonlocal first, growing, images, boxes
        mel = await windows.read(first, len(images))
        present = [box for box in boxes if box is not None]
        result = LipSyncChunk(images, np.stack(present) if present else None, mel)
        first, images, boxes = first + len(images), [], []
        growing = min(2 * growing, max_frames)
        return result

    async with aclosing(frames):
        async for image, box, _ in frames:
            if boxes and (box is None) != (boxes[-1] is None):
                yield await chunk()
            images.append(image)
            boxes.append(box)
            if len(images) >= _max_frames(images, growing):
                yield await chunk()
    if images:
        yield await chunk()


class FaceCropper:
    """Crops the faces of chunks for the generator, as `lipsync.face_crop.crop`; of a still only once."""

    def __init__(self) -> None:
        self._last: tuple[Image, Box, Images] | None = None

    def crop(self, images: list[Image], boxes: Boxes) -> Images:
        """Return the faces UINT8 [n,96,96,3]; if they are all the same, a view of one."""
        if len({id(image) for image in images}) > 1 or (boxes != boxes[0]).any():
            return np.concatenate([_face(image, box) for image, box in zip(images, boxes, strict=True)])
        last = self._last
        if last is None or last[0] is not images[0] or not np.array_equal(last[1], boxes[0]):
            last = self._last = images[0], boxes[0], _face(images[0], boxes[0])
        return np.broadcast_to(last[2], (len(images), *last[2].shape[1:]))


def _face(image: Image, box: Box) -> Images:
    return crop(image[None], box[None])


def _max_frames(images: list[Image], most: int) -> int:
    """Return how many frames the chunk that starts with these images may have; those of a still are one in memory."""
    if len(images) > 1 and images[0] is images[-1]:
        return most
    height, width = images[0].shape[:2]
    return min(most, max(2, CHUNK_PIXELS // (width * height)))
