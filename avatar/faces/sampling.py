"""Check some frames of a longer clip for a face while it is processed, so that a rejected clip fails early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import TypeVar

from lipsync.arrays import Images

from ..context import JobContext
from ..errors import ClientError, FaceNotFound
from ..media.playback import FrameReader
from ..options import Detection
from ..streams import cancel_and_wait, map_concurrent
from . import detection
from .detection import Detections, Known

T = TypeVar("T")

MIN_STEP = 50  # frames from one sample to the next; a clip of fewer than two steps is not sampled
MAX_SAMPLES = 24
TASK_NAME = "face samples"


class FaceSamples:
    """Faces in frames that are spread over the first frames of a video.

    Attributes:
        known: the detections by frame index, as soon as they are made, if they are those that exact detection makes of
            the whole frame; otherwise none.
    """

    def __init__(self, reader: FrameReader, frame_count: int, job: JobContext) -> None:
        """Prepare to sample the first `frame_count` frames."""
        self._reader, self._job = reader, job
        self._step = max(MIN_STEP, -(-frame_count // MAX_SAMPLES))
        self._count = -(-frame_count // self._step) if frame_count >= 2 * MIN_STEP else 0
        self._checking: asyncio.Task[None] | None = None
        self.known: Known = {}
        if job.options.detection is Detection.EXACT:
            loop = asyncio.get_running_loop()
            self.known = {n * self._step: loop.create_future() for n in range(self._count)}

    async def check_during(self, frames: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Yield the same frames, and check the samples meanwhile.

        An error of the samples is raised at the next frame, and takes precedence over an error of the caller's file in
        `frames`: which of the two is found first does not matter.

        Raises:
            FaceNotFound: a sampled frame shows no face. The error names the first frame of the stretch without a face.
        """
        self._checking = asyncio.create_task(self._check(), name=TASK_NAME)
        try:
            async with aclosing(frames):
                async for frame in frames:
                    if self._checking.done():
                        self._checking.result()
                    yield frame
            await self.finished()
        except ClientError:
            await self.finished()
            raise
        finally:
            await cancel_and_wait(self._checking)

    async def finished(self) -> None:
        """Wait until the samples are checked. Raises as `check_during`."""
        if self._checking:
            await self._checking

    async def _check(self) -> None:
        waiting = dict(self.known)  # `known` loses those that are used
        try:
            await self._sample(waiting)
        except Exception as error:
            for future in waiting.values():
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # it is raised here, too: nobody has to wait for it
            raise
        for future in waiting.values():
            if not future.done():  # the video has fewer frames
                future.set_result(None)

    async def _sample(self, waiting: Known) -> None:
        chunks = self._reader.read(max_frames=self._count, step=self._step)
        index = 0
        async with aclosing(map_concurrent(chunks, partial(_detect, job=self._job), detection.CONCURRENCY)) as detected:
            async for detections in detected:
                for found in detections:
                    if not detection.has_face(found):
                        first = await self._first_missing(index - self._step, index)
                        raise FaceNotFound(first / self._reader.video.fps)
                    if index in waiting:
                        waiting[index].set_result(found)
                    index += self._step

    async def _first_missing(self, present: int, missing: int) -> int:
        """Return, by bisection, the first frame without a face after `present`, which has one (or is less than 0)."""
        present = max(present, -1)
        while missing - present > 1:
            middle = (present + missing) // 2
            (found,) = await _detect((await self._reader.frame(middle))[None], self._job)
            present, missing = (middle, missing) if detection.has_face(found) else (present, middle)
        return missing


async def _detect(frames: Images, job: JobContext) -> list[Detections]:
    """Detect faces in frames UINT8 [n,H,W,3]; unless detection is exact, just well enough to tell if there are any."""
    if job.options.detection is Detection.EXACT:
        return await detection.detect_batch(frames, job)
    return [await detection.detect_full_frame(frame, job, detection.COARSE_PIXELS) for frame in frames]
