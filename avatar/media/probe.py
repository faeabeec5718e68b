"""Find out what a video file is: its size, exact frame rate, number of frames and codec."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from lipsync.tensors import FACE_FILE

from ..errors import InvalidField
from ..limits import Limits, check_not_empty
from ..streams import both
from . import ffmpeg, ffmpeg_args, ffmpeg_output
from .diagnosis import rule_out_machine, run_on

NOT_A_VIDEO = "not a video that can be read, or a video without frames"
TOO_SLOW = "reading the video takes too long"
GUESSED_FRAMES = 2.0  # by which ffmpeg's guess of a time may be wrong
# A video with a variable frame rate is converted to a constant one: to the rate that its container claims, unless that
# is higher than any rate in use (containers that count in milliseconds claim 1000); then to the next of these rates
# above the mean.
STANDARD_RATES = tuple(
    Fraction(rate) for rate in ("24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60")
)


@dataclass(frozen=True)
class VideoFacts:
    """What ffmpeg says about a video file, whatever is done with it.

    Attributes:
        width, height: of the upright frames, in pixels.
        sample_aspect: width to height of a pixel, as ffmpeg writes it; empty if the file does not say.
        first_frame: what the filter showinfo logs of the first frame: see `ffmpeg_output.parse_showinfo`.
        codec: ffmpeg's name of the codec.
        alpha_codec: the codec of a separate alpha channel; empty if there is none.
        is_rotated: whether ffmpeg rotates or flips the frames.
        fps: the exact frame rate; of a variable rate, the constant one to convert it to.
        frame_count: number of frames by the file's timestamps; a damaged file may have fewer.
        is_constant: whether the file has that rate already.
        is_whole: whether all packets could be read; the count and the rate are a guess otherwise.
    """

    width: int
    height: int
    sample_aspect: str
    first_frame: Mapping[str, str]
    codec: str
    alpha_codec: str
    is_rotated: bool
    fps: Fraction
    frame_count: int
    is_constant: bool
    is_whole: bool

    @property
    def pixel_format(self) -> str:
        """Return ffmpeg's name of the frames' pixel format; empty if it is unknown."""
        return self.first_frame.get("fmt", "")

    def to_json(self) -> bytes:
        """Return the facts as JSON, for `from_json`."""
        return json.dumps({**asdict(self), "fps": str(self.fps)}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> VideoFacts:
        """Return the facts that `to_json` wrote.

        Raises:
            ValueError: it did not write this.
        """
        try:
            fields = json.loads(data)
            facts = cls(**{**fields, "fps": Fraction(fields["fps"])})
            numbers, texts = (facts.width, facts.height, facts.frame_count), (facts.codec, facts.sample_aspect)
            is_valid = (
                facts.to_json() == data
                and all(isinstance(number, int) and number > 0 for number in numbers)
                and all(isinstance(text, str) for text in (*texts, *facts.first_frame.values()))
            )
        except (TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
            raise ValueError(f"not the facts of a video: {error}") from error
        if not is_valid:
            raise ValueError("not the facts of a video")
        return facts


async def read_facts(path: Path, limits: Limits) -> VideoFacts:
    """Ask ffmpeg about a video. The result depends on the file, the limits and ffmpeg.

    The frame rate of a video with a constant rate is the one that OpenCV reads from the same file, as in the original
    service, but as a fraction.

    Raises:
        InvalidField: `face_file` is empty, not a video, has no frames, or is too large.
        MachineFault: the machine fails, and not the file.
    """
    check_not_empty(FACE_FILE, path)
    (stream, stderr), packets = await both(_probe_first_frame(path, limits), _list_packets(path, limits))
    fps, frame_count, is_constant = await asyncio.to_thread(_frame_timing, packets, 1 / Fraction(stream["tb"]))
    return VideoFacts(
        *_size(stream),
        stream.get("sar", ""),
        ffmpeg_output.parse_showinfo(stderr),
        ffmpeg_output.video_codec(stderr),
        ffmpeg_output.alpha_codec(stderr),
        ffmpeg_output.is_rotated(stderr),
        fps,
        frame_count,
        is_constant,
        is_whole=bool(packets),
    )


async def _probe_first_frame(path: Path, limits: Limits) -> tuple[dict[str, str], str]:
    """Return the first frame's description by the muxer, and what ffmpeg logs."""
    try:
        text, stderr = await run_on(path, ffmpeg_args.probe_video_args(path, limits.max_pixels))
    except ffmpeg.FfmpegError as error:
        if isinstance(error, ffmpeg.FfmpegTimeout):
            raise InvalidField(FACE_FILE, TOO_SLOW) from error
        is_too_large = ffmpeg_output.OVER_MAX_PIXELS in error.stderr_tail
        raise InvalidField(FACE_FILE, limits.too_large if is_too_large else NOT_A_VIDEO) from error
    stream = ffmpeg_output.parse_probe(text.decode(errors="replace"))
    if not {"dimensions", "tb"} <= stream.keys():
        await rule_out_machine(path)
        raise InvalidField(FACE_FILE, NOT_A_VIDEO)
    limits.check_image_size(FACE_FILE, *_size(stream))
    return stream, stderr


def _size(stream: dict[str, str]) -> tuple[int, int]:
    """Return the width and height of the upright frames."""
    width, height = stream["dimensions"].split("x")
    return int(width), int(height)


async def _list_packets(path: Path, limits: Limits) -> str:
    """Return the list of the video's packets with their times; empty for a video that is damaged."""
    try:
        text, _ = await run_on(path, ffmpeg_args.packet_times_args(path, limits.max_pixels, limits.max_frames))
        if b"#tb 0: " not in text:  # not even the header of the list
            await rule_out_machine(path)
    except ffmpeg.FfmpegError as error:
        if isinstance(error, ffmpeg.FfmpegTimeout):
            raise InvalidField(FACE_FILE, TOO_SLOW) from error
        return ""  # damaged after the first frame: the frames that can be decoded are used with the claimed rate
    return text.decode(errors="replace")


def _frame_timing(packets: str, claimed: Fraction) -> tuple[Fraction, int, bool]:
    """Return the frame rate, the number of frames, and whether the file has a constant rate already."""
    found = ffmpeg_output.parse_packet_times(packets)
    if not found or len(found.seconds) < 2:
        return claimed, max(1, len(ffmpeg_output.shown_packets(packets))), True
    times = found.seconds
    if is_constant_rate(times, claimed, 0.5 if found.exact else GUESSED_FRAMES):
        return claimed, len(times), True
    span = times[-1] - times[0]
    fps = claimed
    if span and claimed > STANDARD_RATES[-1]:
        mean = (len(times) - 1) / span
        fps = next((rate for rate in STANDARD_RATES if rate >= mean * Fraction(98, 100)), STANDARD_RATES[-1])
    return fps, max(1, round(span * fps) + 1), False


def is_constant_rate(times: Sequence[Fraction], fps: Fraction, tolerance: float = 0.5) -> bool:
    """Return whether each time (seconds) is less than `tolerance` frames from its place at the constant rate `fps`."""
    offsets = np.array([float(time - times[0]) for time in times]) * float(fps)
    return bool((np.abs(offsets - np.arange(len(offsets))) < tolerance).all())
