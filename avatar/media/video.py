"""Probe videos: their size, exact frame rate, number of frames, and the filters that they need."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lipsync.arrays import Images
from lipsync.tensors import FACE_FILE

from ..errors import InvalidField
from ..limits import Limits, check_not_empty, fit_within
from ..options import Options
from ..streams import both
from . import ffmpeg, ffmpeg_args, ffmpeg_output
from .diagnosis import rule_out_machine, run_on
from .hardware import CPU, CUDA, HARDWARE, HardwareDecoding
from .transform import FrameTransform
from .transparency import flatten, has_alpha

RGB: TypeAlias = "tuple[int, int, int]"
Logger: TypeAlias = "logging.Logger | logging.LoggerAdapter[logging.Logger]"

NOT_A_VIDEO = "not a video that can be read, or a video without frames"
TOO_SLOW = "reading the video takes too long"
MIN_FPS = Fraction(1, 1000)  # a lower rate is an error in the file, or a slide show of hours
GUESSED_FRAMES = 2.0  # by which ffmpeg's guess of a time may be wrong
_YUV = ("yuv", "nv", "p0", "p2", "p4")  # starts of ffmpeg's names of pixel formats
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # ffmpeg's own decoders ignore the alpha channel of a WebM
# A video with a variable frame rate is converted to a constant one: to the rate that its container claims, unless that
# is higher than any rate in use (containers that count in milliseconds claim 1000); then to the next of these rates
# above the mean.
STANDARD_RATES = tuple(
    Fraction(rate) for rate in ("24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60")
)


@dataclass(frozen=True)
class Video:
    """The caller's video, as it is decoded and transformed.

    Attributes:
        path: the file.
        size: width and height of the decoded frames, upright, before the transform.
        transform: applied to each decoded frame.
        fps: the exact frame rate.
        frame_count: number of frames by the file's timestamps; a damaged file may have fewer.
        max_pixels: largest accepted frame, as it was probed with.
        filters: ffmpeg filters for a constant frame rate, progressive SDR frames, and `size`.
        aspect: width to height of a pixel if it is not square, as `4:3`.
        has_alpha: whether the frames have an alpha channel.
        matte: the RGB color that frames with an alpha channel are laid over; None to ignore the alpha channel.
        only_alpha: give the alpha channel UINT8 [n,H,W] in place of frames.
        decoder: ffmpeg's name of the decoder that reads the alpha channel; empty for its own choice.
        pin: the filters before `filters`, which give frames that change on the way the size and format of the first
            one; other frames pass them unchanged. Empty if ffmpeg has to set up the filters again instead.
        hardware: whether it is still decoded on the GPU; None if the CPU decodes it.
    """

    path: Path
    size: tuple[int, int]
    transform: FrameTransform
    fps: Fraction
    frame_count: int
    max_pixels: int
    filters: tuple[str, ...] = ()
    aspect: str = ""
    has_alpha: bool = False
    matte: RGB | None = None
    only_alpha: bool = False
    decoder: str = ""
    pin: tuple[str, ...] = ()
    hardware: HardwareDecoding | None = field(default=None, compare=False)

    @property
    def on_gpu(self) -> bool:
        """Return whether the video is decoded on the GPU."""
        return self.hardware is not None and self.hardware.works

    @property
    def decoded_by(self) -> str:
        """Return what decodes the video: `cuda` or `cpu`."""
        return CUDA if self.on_gpu else CPU

    @property
    def width(self) -> int:
        """Return the width of the transformed frames in pixels."""
        return self.transform.width

    @property
    def height(self) -> int:
        """Return the height of the transformed frames in pixels."""
        return self.transform.height

    @property
    def channels(self) -> int:
        """Return the number of bytes per pixel that ffmpeg decodes to: BGR or BGRA."""
        return 4 if self.has_alpha and (self.only_alpha or self.matte) else 3

    def decode_args(self, first: int, step: int) -> list[str]:
        """Return ffmpeg's arguments to decode every `step`-th frame from `first` on."""
        filters = [*self.pin, *self.filters]
        if first or step > 1:  # frames that are dropped here are neither converted nor piped
            filters.append(rf"select='gte(n\,{first})*not(mod(n-{first}\,{step}))'")
        alpha = self.channels == 4
        return ffmpeg_args.decode_video_args(
            self.path,
            self.max_pixels,
            filters,
            decoder=self.decoder if alpha else "",
            alpha=alpha,
            keeps_filters=bool(self.pin),
            on_gpu=self.on_gpu,
        )

    def finish(self, frames: NDArray[np.uint8]) -> Images:
        """Return decoded frames UINT8 [n,H,W,channels] as the caller gets them: see `decoding.read_frames`."""
        if self.only_alpha:
            return self.transform(frames[..., 3])
        return self.transform(flatten(frames, self.matte) if self.channels == 4 and self.matte else frames)


async def probe_video(path: Path, options: Options, limits: Limits) -> Video:
    """Probe a video with ffmpeg.

    The frame rate of a video with a constant rate is the one that OpenCV reads from the same file, as in the original
    service, but as a fraction.

    Raises:
        InvalidField: `face_file` is empty, not a video, has no frames, is too large, or has an invalid frame rate.
    """
    check_not_empty(FACE_FILE, path)
    (stream, stderr), packets = await both(_probe_first_frame(path, limits), _list_packets(path, limits))
    first_frame = ffmpeg_output.parse_showinfo(stderr)
    decoder = _ALPHA_DECODERS.get(ffmpeg_output.alpha_codec(stderr), "")
    width, height = _size(stream)
    size = fit_within(width, height, limits.max_work_pixels)
    filters = _filters(first_frame, width, height)
    if size != (width, height):
        filters.append(f"scale={size[0]}:{size[1]}:flags=area")

    fps, frame_count, is_constant = await asyncio.to_thread(_frame_timing, packets, 1 / Fraction(stream["tb"]))
    _check_rate(fps, limits)
    if not is_constant:
        filters.append(f"fps={fps.numerator}/{fps.denominator}")
    transform = FrameTransform(*size, options)
    aspect = "" if options.rotate else _pixel_aspect(stream.get("sar", ""))
    frame_count = min(frame_count, limits.max_frames)
    return Video(
        path,
        size,
        transform,
        fps,
        frame_count,
        limits.max_pixels,
        tuple(filters),
        aspect,
        has_alpha=bool(decoder) or has_alpha(first_frame.get("fmt", "")),
        decoder=decoder,
        hardware=None if decoder else _hardware(stderr, first_frame.get("fmt", ""), width, height, filters),
        pin=() if ffmpeg_output.is_rotated(stderr) else _pin(first_frame.get("fmt", ""), width, height, decoder),
    )


def _hardware(
    stderr: str, pixel_format: str, width: int, height: int, filters: Sequence[str]
) -> HardwareDecoding | None:
    """Return the state of decoding on the GPU; None for a video that the CPU decodes, such as interlaced and HDR."""
    if ffmpeg_args.DEINTERLACE in filters or ffmpeg_args.TO_SDR in filters:
        return None
    return HARDWARE.decoding(ffmpeg_output.video_codec(stderr), pixel_format, width, height)


def _check_rate(fps: Fraction, limits: Limits) -> None:
    """Raise InvalidField if the frame rate is too high or too low."""
    if not MIN_FPS <= fps <= limits.max_fps:
        reason = f"the frame rate is invalid: at most {limits.max_fps} frames per second, at least {float(MIN_FPS):g}"
        raise InvalidField(FACE_FILE, reason)


def _pin(pixel_format: str, width: int, height: int, alpha_decoder: str) -> tuple[str, ...]:
    """Return the filters that give every frame the size and format of the first one.

    Not for a video that ffmpeg rotates: it does so before the first filter, and only for frames of one size.
    """
    if not pixel_format:
        return ()
    formats = f"yuva{pixel_format[3:]}|{pixel_format}" if alpha_decoder else pixel_format
    return f"scale={width}:{height}", f"format={formats}"


def _filters(first_frame: dict[str, str], width: int, height: int) -> list[str]:
    """Return the ffmpeg filters that make the frames progressive and SDR, by the first frame's description."""
    filters = []
    is_hd = width >= ffmpeg_args.HD_WIDTH or height >= ffmpeg_args.HD_HEIGHT
    if is_hd and first_frame.get("color_space") == "unknown" and first_frame.get("fmt", "").startswith(_YUV):
        filters.append(ffmpeg_args.AS_BT709)
    if first_frame.get("i") in ("T", "B"):
        filters.append(ffmpeg_args.DEINTERLACE)
    if first_frame.get("color_trc") in ffmpeg_args.HDR_TRANSFERS:
        filters.append(ffmpeg_args.TO_SDR)
    return filters


def _pixel_aspect(sar: str) -> str:
    """Return ffmpeg's sample aspect ratio `4/3` as `4:3`; empty for square pixels and where the file has none."""
    return "" if sar in ("0/1", "1/1") or "/" not in sar else sar.replace("/", ":")


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
