"""Videos: what one is, on a clock that runs evenly, and its frames as a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lipsync.tensors import FACE_FILE

from .. import limits as intake
from ..context import JobContext
from ..errors import InvalidField
from ..limits import Limits
from . import ffmpeg, ffmpeg_args
from .transform import Framing

NOT_A_VIDEO = "not a video that can be read, or one without frames"
TOO_SLOW = "the video takes too long to read"
MAY_BE_SLOW = Fraction(1, 1000)  # frames a second; a slower one is a lie, or a slide show of hours
# A video whose frames come at odd times gets an even clock. That of its container, unless it is finer than people
# use (containers that count in milliseconds claim 1000 a second): then the next of these over the mean.
USUAL = tuple(Fraction(rate) for rate in ("24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60"))


@dataclass(frozen=True)
class Video:
    """An uploaded video, as it is worked on.

    Attributes:
        path: the file.
        size: width and height of its frames as they are decoded, upright.
        framing: what is worked on of them.
        fps: its exact frame rate.
        count: frames that it should have, by its clock; a damaged one may have fewer.
        filters: what ffmpeg makes its frames even, progressive, SDR and of `size` with.
        aspect: width to height of a pixel where it is not square, as `4:3`.
    """

    path: Path
    size: tuple[int, int]
    framing: Framing
    fps: Fraction
    count: int
    filters: tuple[str, ...] = ()
    aspect: str = ""

    @property
    def width(self) -> int:
        """Of the frames that are worked on, in pixels."""
        return int(self.framing.width)

    @property
    def height(self) -> int:
        """Of the frames that are worked on, in pixels."""
        return self.framing.height


async def look(path: Path, job: JobContext) -> Video:
    """Ask ffmpeg what the video is.

    The frame rate of an even video is the one that OpenCV gives for the same file, and so the original's, but as a
    fraction.

    Raises:
        InvalidField: `face_file` is empty, no video, without frames, too large, or of a senseless frame rate.
    """
    intake.check_not_empty(FACE_FILE, path)
    limits = job.limits
    about, shown = await _probe(path, limits)
    width, height = map(int, about["dimensions"].split("x"))
    limits.check_image_size(FACE_FILE, width, height)
    filters = []
    if shown.get("i") in ("T", "B"):
        filters.append(ffmpeg_args.DEINTERLACE)
    if shown.get("color_trc") in ffmpeg_args.HDR_TRANSFERS:
        filters.append(ffmpeg_args.TO_SDR)
    size = intake.fit_within(width, height, limits.max_work_pixels)
    if size != (width, height):
        filters.append(f"scale={size[0]}:{size[1]}:flags=area")

    fps, count, is_even = await _clock(path, 1 / Fraction(about["tb"]), limits)
    if not MAY_BE_SLOW <= fps <= limits.max_fps:
        raise InvalidField(FACE_FILE, f"a frame rate over {limits.max_fps} a second, or hardly any")
    if not is_even:
        filters.append(f"fps={fps.numerator}/{fps.denominator}")
    if count > limits.max_frames:
        count = limits.max_frames
    aspect = about.get("sar", "")
    square = "" if aspect in ("0/1", "1/1") or "/" not in aspect or job.options.rotate else aspect.replace("/", ":")
    return Video(path, size, Framing(*size, job.options), fps, count, tuple(filters), square)


async def _probe(path: Path, limits: Limits) -> tuple[dict[str, str], dict[str, str]]:
    """The first frame's description, by the muxer and by the filter showinfo."""
    try:
        text, words = await ffmpeg.output(ffmpeg_args.probe_video_args(path, limits.max_pixels))
    except ffmpeg.FfmpegFailed as error:
        raise InvalidField(FACE_FILE, _reason(error, limits)) from error
    about = ffmpeg_args.parse_probe(text.decode())
    if not about:
        raise InvalidField(FACE_FILE, NOT_A_VIDEO)
    return about, ffmpeg_args.parse_shown(words)


async def _clock(path: Path, claimed: Fraction, limits: Limits) -> tuple[Fraction, int, bool]:
    """Frames a second, their number, and whether they come evenly already: each within half a frame of its time."""
    try:
        text, _ = await ffmpeg.output(ffmpeg_args.times_args(path, limits.max_pixels, limits.max_frames))
    except ffmpeg.FfmpegFailed as error:
        if isinstance(error, ffmpeg.TookTooLong):
            raise InvalidField(FACE_FILE, TOO_SLOW) from error
        text = b""  # damaged behind the first frame: what can be decoded is taken as it comes
    times = ffmpeg_args.parse_times(text.decode(errors="replace"))
    if not times or len(times) < 2:
        return claimed, len(times or [0]), True
    if is_even(times, claimed):
        return claimed, len(times), True
    span = times[-1] - times[0]
    fps = claimed
    if span and claimed > USUAL[-1]:
        mean = (len(times) - 1) / span
        fps = next((usual for usual in USUAL if usual >= mean * Fraction(98, 100)), USUAL[-1])
    return fps, max(1, round(span * fps) + 1), False


def is_even(times: Sequence[Fraction], fps: Fraction) -> bool:
    """Whether frames shown at these times stay within half a frame of an even clock that starts with the first."""
    shown = np.array([float(time - times[0]) for time in times]) * float(fps)
    return bool((np.abs(shown - np.arange(len(shown))) < 0.5).all())


def _reason(error: ffmpeg.FfmpegFailed, limits: Limits) -> str:
    if isinstance(error, ffmpeg.TookTooLong):
        return TOO_SLOW
    return limits.too_large if ffmpeg_args.OVER_MAX_PIXELS in error.words else NOT_A_VIDEO


async def read_frames(
    video: Video, piece: int, job: JobContext, *, first: int = 0, most: int, step: int = 1
) -> AsyncGenerator[NDArray[np.uint8]]:
    """`most` frames of the video, or as many as there are, `piece` at a time: UINT8 [n,H,W,3] BGR, framed.

    Args:
        first: the first frame that is wanted, `step`: every which one from there on.

    Raises:
        InvalidField: there is not one frame.
    """
    given = 0
    width, height = video.size
    filters = [*video.filters]
    if first or step > 1:  # frames that are dropped here are neither converted nor piped
        filters.append(rf"select='gte(n\,{first})*not(mod(n-{first}\,{step}))'")
    async with ffmpeg.Process(ffmpeg_args.decode_args(video.path, job.limits.max_pixels, filters)) as process:
        while given < most:
            room = np.empty((min(piece, most - given), height, width, 3), np.uint8)
            with job.timer.stage("decode"):
                try:
                    whole = await process.read_into(room.reshape(-1).data) // (width * height * 3)
                except ffmpeg.TookTooLong as error:
                    raise InvalidField(FACE_FILE, TOO_SLOW) from error
            given += whole
            if whole:
                yield video.framing(room[:whole])
            if whole < len(room):
                await _ended(process, first + given, job)
                return


async def _ended(process: ffmpeg.Process, given: int, job: JobContext) -> None:
    failure: ffmpeg.FfmpegFailed | None = None
    try:
        await process.finish()
    except ffmpeg.FfmpegFailed as error:
        failure = error
    if not given:
        raise InvalidField(FACE_FILE, NOT_A_VIDEO) from failure
    if failure and failure.exit_status < 0:
        raise failure  # killed from outside: what came before is not the whole of what there is
    if failure:
        job.log.warning("the video broke off after %d frames: %s", given, failure.words)
