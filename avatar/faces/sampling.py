"""Check some frames of a longer clip for a face first, so that a clip that will be rejected fails early."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial

from lipsync.arrays import Images

from ..context import JobContext
from ..errors import FaceNotFound
from ..media.playback import FrameReader
from ..options import Detection
from ..streams import map_concurrent
from . import detection
from .detection import Detections

MIN_STEP = 50  # frames from one sample to the next; a clip of fewer than two steps is not sampled
MAX_SAMPLES = 24


async def sample_faces(reader: FrameReader, frame_count: int, job: JobContext) -> dict[int, Detections]:
    """Detect faces in frames that are spread over the first `frame_count` frames of a video.

    Returns:
        The detections by frame index if they are those that exact detection makes of the whole frame, otherwise none.

    Raises:
        FaceNotFound: a sampled frame shows no face. The error names the first frame of the stretch without a face.
    """
    known: dict[int, Detections] = {}
    if frame_count < 2 * MIN_STEP:
        return known
    step = max(MIN_STEP, -(-frame_count // MAX_SAMPLES))
    chunks = reader.read(max_frames=-(-frame_count // step), step=step)
    index = 0
    async with aclosing(map_concurrent(chunks, partial(_detect, job=job), detection.CONCURRENCY)) as detected:
        async for detections in detected:
            for found in detections:
                if not detection.has_face(found):
                    raise FaceNotFound(await _first_missing(reader, index - step, index, job) / reader.video.fps)
                if job.options.detection is Detection.EXACT:
                    known[index] = found
                index += step
    return known


async def _first_missing(reader: FrameReader, present: int, missing: int, job: JobContext) -> int:
    """Return, by bisection, the first frame without a face after `present`, which has one (or is less than 0)."""
    present = max(present, -1)
    while missing - present > 1:
        middle = (present + missing) // 2
        (found,) = await _detect((await reader.frame(middle))[None], job)
        present, missing = (middle, missing) if detection.has_face(found) else (present, middle)
    return missing


async def _detect(frames: Images, job: JobContext) -> list[Detections]:
    """Detect faces in frames UINT8 [n,H,W,3]; unless detection is exact, just well enough to tell if there are any."""
    if job.options.detection is Detection.EXACT:
        return await detection.detect_batch(frames, job)
    return [await detection.detect_full_frame(frame, job, detection.COARSE_PIXELS) for frame in frames]
