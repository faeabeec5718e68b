"""Decode the frames of a video, on the CPU or on the GPU."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np

from lipsync.arrays import Images
from lipsync.tensors import FACE_FILE

from ..errors import InvalidField, MachineFault
from ..timing import StageTimer
from . import ffmpeg
from .diagnosis import rule_out_machine, watched
from .hardware import HARDWARE
from .probe import NOT_A_VIDEO, TOO_SLOW
from .video import Logger, Video


class _GpuFailed(Exception):
    """The GPU could not decode further; the file may be damaged there."""


async def read_frames(
    video: Video,
    chunk_frames: int,
    timer: StageTimer,
    log: Logger,
    *,
    first: int = 0,
    max_frames: int,
    step: int = 1,
) -> AsyncGenerator[Images]:
    """Decode up to `max_frames` frames of the video and yield them in chunks.

    If decoding on the GPU fails, the CPU decodes the remaining frames.

    Args:
        video: what `open_video` returned.
        chunk_frames: frames per chunk, at most.
        timer: measures the stage `decode`.
        log: gets a warning if the video is damaged and ends early, or if the GPU fails.
        first: index of the first frame.
        max_frames: number of frames; fewer are yielded if the video ends.
        step: every `step`-th frame from `first` on is decoded.

    Yields:
        UINT8 [n,H,W,3] BGR, transformed; of a video with `only_alpha` UINT8 [n,H,W].

    Raises:
        InvalidField: the video has no frame at all, or decoding takes too long.
        MachineFault: the machine fails, and not the file.
    """
    decoded = 0
    while decoded < max_frames:
        reader = _Reader(video, chunk_frames, timer, log, first + decoded * step, max_frames - decoded, step)
        try:
            async with aclosing(reader.read()) as chunks:
                async for frames in chunks:
                    decoded += len(frames)
                    yield frames
            return
        except _GpuFailed as failure:
            log.warning("the GPU cannot decode the video after %d frames, the CPU goes on: %s", decoded, failure)


class _Reader:
    """Reads frames from one run of ffmpeg."""

    def __init__(
        self, video: Video, chunk_frames: int, timer: StageTimer, log: Logger, first: int, max_frames: int, step: int
    ) -> None:
        self._video, self._chunk_frames, self._timer, self._log = video, chunk_frames, timer, log
        self._first, self._max_frames, self._step = first, max_frames, step
        self._gpu = video.hardware if video.on_gpu else None

    async def read(self) -> AsyncGenerator[Images]:
        video, count = self._video, 0
        width, height = video.size
        async with ffmpeg.FfmpegProcess(video.decode_args(self._first, self._step)) as process:
            while count < self._max_frames:
                rows = min(self._chunk_frames, self._max_frames - count)
                buffer = np.empty((rows, height, width, video.channels), np.uint8)
                with self._timer.stage("decode"):
                    complete = await self._fill(process, buffer.reshape(-1).data) // buffer[0].nbytes
                count += complete
                if complete:
                    yield video.finish(buffer[:complete])
                if complete < len(buffer):
                    await self._check_end(process, count)
                    return

    async def _fill(self, process: ffmpeg.FfmpegProcess, buffer: memoryview) -> int:
        try:
            return await watched(process.read_into(buffer))
        except (ffmpeg.FfmpegTimeout, MachineFault) as error:
            self._leave_gpu(error)
            if isinstance(error, MachineFault):
                raise
            await rule_out_machine(self._video.path)
            raise InvalidField(FACE_FILE, TOO_SLOW) from error

    async def _check_end(self, process: ffmpeg.FfmpegProcess, count: int) -> None:
        """Judge the end of the video after `count` frames."""
        failure: ffmpeg.FfmpegError | None = None
        try:
            await process.finish(ffmpeg.STALL_TIMEOUT)
        except ffmpeg.FfmpegError as error:
            failure = error
            self._leave_gpu(error)
        except MachineFault as error:
            self._leave_gpu(error)
            raise
        shown = self._first + count
        if not shown:
            self._leave_gpu(None)
        if failure or not shown:
            await rule_out_machine(self._video.path)
        if not shown:
            raise InvalidField(FACE_FILE, NOT_A_VIDEO) from failure
        if failure:
            self._log.warning("the video is damaged after %d frames: %s", shown, failure.stderr_tail)

    def _leave_gpu(self, error: Exception | None) -> None:
        """Raise _GpuFailed if the video was decoded on the GPU."""
        if self._gpu is None:
            return
        HARDWARE.decoder_failed(self._gpu)
        raise _GpuFailed(
            error.stderr_tail if isinstance(error, ffmpeg.FfmpegError) else error or "no frames"
        ) from error
