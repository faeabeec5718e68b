"""Generate the mouths with Wav2Lip, and paste or blend them into the frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeAlias

from lipsync.arrays import Box, Image, Images
from lipsync.yuv import Planes

from ..context import JobContext
from ..faces.locator import LocatedFrame
from ..load import LOAD
from ..media.threads import frames_per_turn
from ..streams import map_concurrent
from .chunks import FaceCropper, LipSyncChunk, chunk_frames, max_chunk_frames
from .finishing import FrameFinisher
from .mel import MelWindows

Finish: TypeAlias = Callable[[Image, Box | None, Image | None], Planes | Image]

# Chunks in flight: one in the network, one that waits for its turn there, one on its way back. So the frames of a video
# that are in memory at the same time are at most those of CONCURRENCY chunks, of one that waits to be sent and one that
# is being pasted, and the few that detection, smoothing and the encoder hold.
CONCURRENCY = 3
# Chunks in flight of all jobs of this process: where many run, one chunk of each is enough to keep the network busy.
TOTAL_CONCURRENCY = 4 * CONCURRENCY


def chunks_in_flight() -> int:
    """Return how many chunks of one job may be in flight at this moment."""
    return min(CONCURRENCY, LOAD.share(TOTAL_CONCURRENCY))


def lip_sync(
    frames: AsyncGenerator[LocatedFrame], windows: MelWindows, job: JobContext, *, keep_bgr: bool = False
) -> AsyncGenerator[Planes | Image]:
    """Yield each frame with its generated mouth as the encoder takes it, UINT8 [3/2 · H, W] (`lipsync.yuv`).

    H and W are even; frames without a box are unchanged. With `keep_bgr` the frames stay UINT8 [H,W,3] BGR, for a
    replacer of their background.

    Raises as `InferenceClient.wav2lip` and `MelWindows.read`.
    """
    max_frames = max_chunk_frames(job.model_info.generator_net)
    return generate(chunk_frames(frames, windows, max_frames), job, keep_bgr=keep_bgr)


async def generate(
    chunks: AsyncGenerator[LipSyncChunk], job: JobContext, *, keep_bgr: bool = False
) -> AsyncGenerator[Planes | Image]:
    """Yield the frames of the chunks, in order, as `lip_sync`."""
    cropper = FaceCropper()

    async def infer(chunk: LipSyncChunk) -> tuple[LipSyncChunk, Images | None]:
        if chunk.boxes is None:
            return chunk, None
        with job.timer.stage("generation"):
            faces = await asyncio.to_thread(cropper.crop, chunk.images, chunk.boxes)
            return chunk, await job.models.wav2lip(faces, chunk.windows, job.options.model)

    finisher = FrameFinisher(job.options.blend)
    finish = finisher.finish_bgr if keep_bgr else finisher.finish
    size = 1  # of the first turn: ffmpeg opens the encoder when it has a frame
    async with aclosing(map_concurrent(chunks, infer, chunks_in_flight)) as generated:
        async for chunk, mouths in generated:
            rest = range(len(chunk.images))
            while rest:
                turn, rest = rest[:size], rest[size:]
                with job.timer.stage("paste"):
                    frames = await asyncio.to_thread(_finished, finish, chunk, mouths, turn)
                for frame in frames:
                    yield frame
                height, width = chunk.images[0].shape[:2]
                size = frames_per_turn(width, height)


def _finished(finish: Finish, chunk: LipSyncChunk, mouths: Images | None, turn: range) -> list[Planes | Image]:
    """Return these frames of a chunk with their mouths."""
    if chunk.boxes is None or mouths is None:
        return [finish(chunk.images[n], None, None) for n in turn]
    return [finish(chunk.images[n], chunk.boxes[n], mouths[n]) for n in turn]
