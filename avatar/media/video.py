"""The caller's video as it is decoded: the filters that it needs, and its transform."""

from __future__ import annotations

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
from ..limits import Limits, fit_within
from ..options import Options
from . import ffmpeg_args
from .hardware import CPU, CUDA, HARDWARE, HardwareDecoding
from .probe import VideoFacts
from .transform import FrameTransform
from .transparency import flatten, has_alpha

RGB: TypeAlias = "tuple[int, int, int]"
Logger: TypeAlias = "logging.Logger | logging.LoggerAdapter[logging.Logger]"

MIN_FPS = Fraction(1, 1000)  # a lower rate is an error in the file, or a slide show of hours
_YUV = ("yuv", "nv", "p0", "p2", "p4")  # starts of ffmpeg's names of pixel formats
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # ffmpeg's own decoders ignore the alpha channel of a WebM


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


def open_video(path: Path, facts: VideoFacts, options: Options, limits: Limits) -> Video:
    """Return the video with these facts, as it is decoded.

    Raises:
        InvalidField: `face_file` has an invalid frame rate.
    """
    decoder = _ALPHA_DECODERS.get(facts.alpha_codec, "")
    size = fit_within(facts.width, facts.height, limits.max_work_pixels)
    filters = _filters(facts)
    if size != (facts.width, facts.height):
        filters.append(f"scale={size[0]}:{size[1]}:flags=area")
    _check_rate(facts.fps, limits)
    if not facts.is_constant:
        filters.append(f"fps={facts.fps.numerator}/{facts.fps.denominator}")
    return Video(
        path,
        size,
        FrameTransform(*size, options),
        facts.fps,
        min(facts.frame_count, limits.max_frames),
        limits.max_pixels,
        tuple(filters),
        aspect="" if options.rotate else _pixel_aspect(facts.sample_aspect),
        has_alpha=bool(decoder) or has_alpha(facts.pixel_format),
        decoder=decoder,
        hardware=None if decoder else _hardware(facts, filters),
        pin=() if facts.is_rotated else _pin(facts, decoder),
    )


def _hardware(facts: VideoFacts, filters: Sequence[str]) -> HardwareDecoding | None:
    """Return the state of decoding on the GPU; None for a video that the CPU decodes, such as interlaced and HDR."""
    if ffmpeg_args.DEINTERLACE in filters or ffmpeg_args.TO_SDR in filters:
        return None
    return HARDWARE.decoding(facts.codec, facts.pixel_format, facts.width, facts.height)


def _check_rate(fps: Fraction, limits: Limits) -> None:
    """Raise InvalidField if the frame rate is too high or too low."""
    if not MIN_FPS <= fps <= limits.max_fps:
        reason = f"the frame rate is invalid: at most {limits.max_fps} frames per second, at least {float(MIN_FPS):g}"
        raise InvalidField(FACE_FILE, reason)


def _pin(facts: VideoFacts, alpha_decoder: str) -> tuple[str, ...]:
    """Return the filters that give every frame the size and format of the first one.

    Not for a video that ffmpeg rotates: it does so before the first filter, and only for frames of one size.
    """
    formats = facts.pixel_format
    if not formats:
        return ()
    if alpha_decoder:
        formats = f"yuva{formats[3:]}|{formats}"
    return f"scale={facts.width}:{facts.height}", f"format={formats}"


def _filters(facts: VideoFacts) -> list[str]:
    """Return the ffmpeg filters that make the frames progressive and SDR, by the first frame's description."""
    filters, first_frame = [], facts.first_frame
    is_hd = facts.width >= ffmpeg_args.HD_WIDTH or facts.height >= ffmpeg_args.HD_HEIGHT
    if is_hd and first_frame.get("color_space") == "unknown" and facts.pixel_format.startswith(_YUV):
        filters.append(ffmpeg_args.AS_BT709)
    if first_frame.get("i") in ("T", "B"):
        filters.append(ffmpeg_args.DEINTERLACE)
    if first_frame.get("color_trc") in ffmpeg_args.HDR_TRANSFERS:
        filters.append(ffmpeg_args.TO_SDR)
    return filters


def _pixel_aspect(sar: str) -> str:
    """Return ffmpeg's sample aspect ratio `4/3` as `4:3`; empty for square pixels and where the file has none."""
    return "" if sar in ("0/1", "1/1") or "/" not in sar else sar.replace("/", ":")
