"""Encode and decode on an NVIDIA GPU where there is one: found out by a trial at start, left again where it fails."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from lipsync.yuv import to_yuv420

from ..errors import FfmpegFault, MachineFault
from ..options import Quality
from . import ffmpeg
from .codecs import Codec, codec_args
from .ffmpeg_args import HARDWARE_DECODER, QUIET_ARGS, VideoFormat
from .memory_file import memory_file

logger = logging.getLogger("avatar")

AUTO, X264, NVENC, CPU, CUDA = "auto", "x264", "nvenc", "cpu", "cuda"  # values of the settings
TRIAL_SECONDS = 10.0  # deadline of a trial; starting CUDA takes up to some seconds
RETRY_SECONDS = 60.0  # after a failure the CPU does the work for so long
# The frame of the trial, larger than the smallest that any card takes
SIDE, GRAY, TOLERANCE = 256, 160, 8
# What NVENC takes as H.264, and NVDEC of every codec below
MIN_WIDTH, MIN_HEIGHT, MAX_SIDE = 160, 64, 4096
# Codecs that define each bit of a decoded frame, so that a GPU and the CPU give the same
DECODED_CODECS = frozenset({"h264", "hevc", "vp9", "av1"})
DECODED_FORMAT = "yuv420p"  # of 8 bits; NVDEC takes more, but other formats differ between cards
_LOGGED_BY = re.compile(r"^(\[[^]]* @ 0x[0-9a-f]+\] ?)*")  # the part of ffmpeg that logs a line


@dataclass
class HardwareDecoding:
    """Whether the video of one job is still decoded on the GPU: until that fails once."""

    works: bool = True


class Hardware:
    """What the GPU of this machine does for the jobs of this process. Without `choose`, nothing."""

    def __init__(self) -> None:
        self._encodes = self._decodes = False
        self._encoder_failed = self._decoder_failed = -RETRY_SECONDS

    async def choose(self, encoder: str, decoder: str) -> None:
        """Find out what works, by a trial of each part that the settings do not exclude.

        Args:
            encoder: `auto`, `x264` or `nvenc`.
            decoder: `auto`, `cpu` or `cuda`.

        Raises:
            FfmpegFault: a trial failed, and the setting requires the hardware.
        """
        self._encodes = encoder != X264 and await _works(try_encoder, "NVENC", required=encoder == NVENC)
        self._decodes = decoder != CPU and await _works(try_decoder, "NVDEC", required=decoder == CUDA)
        self._encoder_failed = self._decoder_failed = -RETRY_SECONDS

    def codec(self, video: VideoFormat) -> Codec:
        """Return the codec for a result: NVENC if it works here and takes the format."""
        if video.alpha:
            return Codec.VP9
        fits = MIN_WIDTH <= video.width <= MAX_SIDE and MIN_HEIGHT <= video.height <= MAX_SIDE
        is_usable = self._encodes and time.monotonic() - self._encoder_failed >= RETRY_SECONDS
        return Codec.NVENC if fits and is_usable else Codec.X264

    def decoding(self, codec: str, pixel_format: str, width: int, height: int) -> HardwareDecoding | None:
        """Return the state of a job whose video is decoded on the GPU; None if the CPU decodes it.

        Args:
            codec, pixel_format: ffmpeg's names.
            width, height: size of the frames in pixels.
        """
        fits = max(width, height) <= MAX_SIDE and not width % 2 and not height % 2
        is_usable = self._decodes and time.monotonic() - self._decoder_failed >= RETRY_SECONDS
        if is_usable and fits and codec in DECODED_CODECS and pixel_format == DECODED_FORMAT:
            return HardwareDecoding()
        return None

    def encoder_failed(self) -> None:
        """Use x264 for the next RETRY_SECONDS: all sessions of the card are taken, or it is lost."""
        self._encoder_failed = time.monotonic()

    def decoder_failed(self, decoding: HardwareDecoding) -> None:
        """Use the CPU for the rest of this job, and for other jobs for RETRY_SECONDS."""
        decoding.works = False
        self._decoder_failed = time.monotonic()


HARDWARE = Hardware()  # of this process: all jobs run the same program on the same machine


async def _works(trial: Callable[[], Awaitable[None]], name: str, *, required: bool) -> bool:
    try:
        async with asyncio.timeout(TRIAL_SECONDS):
            await trial()
    except (TimeoutError, OSError, ffmpeg.FfmpegError, MachineFault) as error:
        cause = error.stderr_tail if isinstance(error, ffmpeg.FfmpegError) else str(error)
        reason = _LOGGED_BY.sub("", (cause.strip().splitlines() or ["no answer"])[0])
        if required:
            raise FfmpegFault(f"{name} is required by the settings and does not work ({reason})") from error
        logger.debug("%s is not used: %s", name, reason)
        return False
    logger.info("%s is used", name)
    return True


async def try_encoder() -> None:
    """Encode one frame with NVENC. Raises FfmpegError or MachineFault if it does not work."""
    await _encode(Codec.NVENC)


async def try_decoder() -> None:
    """Decode one frame with NVDEC. Raises as `try_encoder`."""
    with memory_file(await _encode(Codec.X264)) as clip:
        # frames that stay on the GPU first: otherwise ffmpeg decodes on the CPU where the GPU does not
        on_gpu = [*HARDWARE_DECODER, "-hwaccel_output_format", "cuda", "-f", "h264", "-i", f"file:{clip}"]
        download = ["-vf", "hwdownload,format=nv12", "-frames:v", "1", "-f", "rawvideo", "pipe:1"]
        pixels, _ = await ffmpeg.run([*QUIET_ARGS, *on_gpu, *download], TRIAL_SECONDS)
    luma = np.frombuffer(pixels, np.uint8)[: SIDE * SIDE]
    expected = float(_frame()[0, 0])
    if luma.size != SIDE * SIDE or abs(float(luma.mean()) - expected) > TOLERANCE:
        raise FfmpegFault("the decoded frame is not the one that was encoded")


async def _encode(codec: Codec) -> bytes:
    raw = ["-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", f"{SIDE}x{SIDE}", "-i", "pipe:0"]
    args = [*QUIET_ARGS, *raw, *codec_args(codec, Quality.STANDARD), "-f", "h264", "pipe:1"]
    async with ffmpeg.FfmpegProcess(args, stdin=True, stdout=True) as process:
        await process.write(_frame().reshape(-1).data)
        await process.finish(TRIAL_SECONDS)
        encoded = process.read_available()
    if not encoded:
        raise FfmpegFault("the encoder gave nothing")
    return encoded


def _frame() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return to_yuv420(np.full((SIDE, SIDE, 3), GRAY, np.uint8))
