"""Group frames and their mel windows into chunks, one per call of the generator."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from lipsync.arrays import Box, Boxes, Floats, Image
from lipsync.tensors import WAV2LIP_BATCH

from ..faces.locator import LocatedFrame
from .mel import MelWindows

# Half a batch of the network: two chunks in flight fill one batch, and the first frames are finished sooner.
CHUNK_FRAMES = WAV2LIP_BATCH // 2
# A chunk of a video keeps its frames until its mouths are generated: 16 frames of 720p, 7 of 1080p, 2 of 4K.
CHUNK_PIXELS = 16_000_000


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

    @property
    def is_still(self) -> bool:
        """Whether all frames are the same image."""
        return all(image is self.images[0] for image in self.images)


async def chunk_frames(frames: AsyncGenerator[LocatedFrame], windows: MelWindows) -> AsyncGenerator[LipSyncChunk]:
    """Yield the frames in chunks, each frame with its mel window; frames without a face form chunks of their own."""
    images: list[Image] = []
    boxes: list[Box | None] = []
    first = 0

    async def chunk() -> LipSyncChunk:
        nonlocal first, images, boxes
        mel = await windows.read(first, len(images))
        present = [box for box in boxes if box is not None]
        result = LipSyncChunk(images, np.stack(present) if present else None, mel)
        first, images, boxes = first + len(images), [], []
        return result

    async with aclosing(frames):
        async for image, box, _ in frames:
            if boxes and (box is None) != (boxes[-1] is None):
                yield await chunk()
            images.append(image)
            boxes.append(box)
            if len(images) == _max_frames(images):
                yield await chunk()
    if images:
        yield await chunk()


def crop_to_boxes(images: list[Image], boxes: Boxes, *, still: bool) -> tuple[list[Image], Boxes]:
    """Return the smallest rectangle that contains all boxes, cropped from each image, and the boxes relative to it.

    The faces that the model crops from it are the same as those from whole frames, for a twentieth of the bytes.

    Args:
        images: UINT8 [H,W,3] each; for a still only the first is used.
        boxes: INT32 [n,4].

    Returns:
        n views UINT8 [h,w,3] and INT32 [n,4]; n is 1 for a still. Nothing is copied; the inference client does that.
    """
    left, top = boxes[:, :2].min(axis=0)
    right, bottom = boxes[:, 2:].max(axis=0)
    count = 1 if still else len(images)
    crops = [image[top:bottom, left:right] for image in images[:count]]
    moved = (boxes - (left, top, left, top)).astype(np.int32)
    return crops, moved[:count]


def _max_frames(images: list[Image]) -> int:
    """Return how many frames the chunk that starts with these images may have; those of a still are one in memory."""
    if len(images) > 1 and images[0] is images[-1]:
        return CHUNK_FRAMES
    height, width = images[0].shape[:2]
    return min(CHUNK_FRAMES, max(2, CHUNK_PIXELS // (width * height)))
