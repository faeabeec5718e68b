"""Generate the mouths with Wav2Lip, and paste or blend them into the frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np

from lipsync.arrays import Box, Image, Images
from lipsync.blend import feather
from lipsync.face_crop import paste

from ..context import JobContext
from ..faces.locator import LocatedFrame
from ..load import LOAD
from ..options import Blend
from ..streams import map_concurrent
from .chunks import FaceCropper, LipSyncChunk, chunk_frames, max_chunk_frames
from .mel import MelWindows

# Chunks in flight: one in the network, one that waits for its turn there, one on its way back. So the frames of a video
# that are in memory at the same time are at most those of CONCURRENCY chunks, of one that waits to be sent and one that
# is being pasted, and the few that detection, smoothing and the encoder hold.
CONCURRENCY = 3
# Chunks in flight of all jobs of this process: where many run, one chunk of each is enough to keep the network busy.
TOTAL_CONCURRENCY = 4 * CONCURRENCY


def chunks_in_flight() -> int:
    """Return how many chunks of one job may be in flight at this moment."""
    return min(CONCURRENCY, LOAD.share(TOTAL_CONCURRENCY))


def lip_sync(frames: AsyncGenerator[LocatedFrame], windows: MelWindows, job: JobContext) -> AsyncGenerator[Image]:
    """Yield each frame with its generated mouth, UINT8 [H,W,3] BGR, H and W even; frames without a box are unchanged.

    Raises as `InferenceClient.wav2lip` and `MelWindows.read`.
    """
    max_frames = max_chunk_frames(job.model_info.generator_net)
    return generate(chunk_frames(frames, windows, max_frames), job)


async def generate(chunks: AsyncGenerator[LipSyncChunk], job: JobContext) -> AsyncGenerator[Image]:
    """Yield the frames of the chunks, in order, as `lip_sync`."""
    cropper = FaceCropper()

    async def infer(chunk: LipSyncChunk) -> tuple[LipSyncChunk, Images | None]:
        if chunk.boxes is None:
            return chunk, None
        with job.timer.stage("generation"):
            faces = await asyncio.to_thread(cropper.crop, chunk.images, chunk.boxes)
            return chunk, await job.models.wav2lip(faces, chunk.windows, job.options.model)

    blend = _feathered if job.options.blend is Blend.FEATHER else _pasted
    async with aclosing(map_concurrent(chunks, infer, chunks_in_flight)) as generated:
        async for chunk, mouths in generated:
            if chunk.boxes is None or mouths is None:
                for image in chunk.images:
                    yield _pad_to_even(image)
                continue
            for image, box, mouth in zip(chunk.images, chunk.boxes, mouths, strict=True):
                with job.timer.stage("paste"):
                    frame = await asyncio.to_thread(blend, image, box, mouth)
                yield frame


def to_even(side: int) -> int:
    """Return a side of the result, in pixels, for a side of the image: the next even number."""
    return side + side % 2


def _pasted(image: Image, box: Box, mouth: Image) -> Image:
    return _pad_to_even(paste(image[None], box[None], mouth[None])[0])


def _feathered(image: Image, box: Box, mouth: Image) -> Image:
    return _pad_to_even(feather(image, box, mouth))


def _pad_to_even(frame: Image) -> Image:
    """Repeat an odd last row or column: the encoder takes even sizes only."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, to_even(height) - height), (0, to_even(width) - width), (0, 0)), mode="edge")
    return np.ascontiguousarray(frame)
