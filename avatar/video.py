"""Videos: their size and frame rate, and their frames as a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import ffmpeg, intake, media
from .errors import InvalidField
from .job import Job

MAX_FPS = 240
NOT_A_VIDEO = "not a video that can be read, or one without frames"


@dataclass(frozen=True)
class Video:
    """An uploaded video: the size of its frames (upright) and its exact frame rate."""

    path: Path
    width: int
    height: int
    fps: Fraction


async def look(path: Path) -> Video:
    """Ask ffmpeg what the video is.

    The frame rate is the one that OpenCV gives for the same file, and so the original's, but as a fraction.

    Raises:
        InvalidField: `face_file` is empty, no video, without frames, too large, or of a senseless frame rate.
    """
    intake.refuse_empty(intake.FACE, path)
    try:
        about = media.parse_probe((await ffmpeg.output(media.probe_video_args(path))).decode())
    except ffmpeg.FfmpegFailed as error:
        reason = intake.TOO_LARGE if media.OVER_MAX_PIXELS in error.words else NOT_A_VIDEO
        raise InvalidField(intake.FACE, reason) from error
    if not about:
        raise InvalidField(intake.FACE, NOT_A_VIDEO)
    width, height = map(int, about["dimensions"].split("x"))
    intake.refuse_large(intake.FACE, width, height)
    frame_seconds = Fraction(about["tb"])
    if frame_seconds * MAX_FPS < 1:
        raise InvalidField(intake.FACE, f"a frame rate over {MAX_FPS} a second")
    return Video(path, width, height, 1 / frame_seconds)


async def read_frames(video: Video, most: int, piece: int, job: Job) -> AsyncGenerator[NDArray[np.uint8]]:
    """The video's first `most` frames, or all where it has fewer, `piece` at a time: UINT8 [n,H,W,3] BGR.

    A video that breaks off gives what comes before. Raises InvalidField where that is nothing.
    """
    given = 0
    frame_bytes = video.width * video.height * 3
    async with ffmpeg.Process(media.decode_args(video.path)) as process:
        while given < most:
            room = np.empty((min(piece, most - given), video.height, video.width, 3), np.uint8)
            with job.clock.stage("decode"):
                whole = await process.read_into(room.reshape(-1).data) // frame_bytes
            given += whole
            if whole:
                yield room[:whole]
            if whole < len(room):
                await _ended(process, given, job)
                return


async def _ended(process: ffmpeg.Process, given: int, job: Job) -> None:
    failure: ffmpeg.FfmpegFailed | None = None
    try:
        await process.finish()
    except ffmpeg.FfmpegFailed as error:
        failure = error
    if not given:
        raise InvalidField(intake.FACE, NOT_A_VIDEO) from failure
    if failure and failure.exit_status < 0:
        raise failure  # killed from outside: what came before is not the whole of what there is
    if failure:
        job.log.warning("the video broke off after %d frames: %s", given, failure.words)
