"""Decode the caller's audio file to a file of samples, and read parts of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from lipsync.arrays import Floats
from lipsync.mel import SAMPLE_RATE
from lipsync.tensors import SPEECH_FILE

from ..errors import InvalidField
from ..limits import Limits, check_not_empty
from ..timing import StageTimer
from . import ffmpeg, ffmpeg_args, ffmpeg_output
from .diagnosis import rule_out_machine, watched

FLOAT_CODECS = ("pcm_f", "wavpack")  # codecs, by ffmpeg's names, that can store NaN and infinities
MIN_SAMPLES = int(ffmpeg_args.MIN_AUDIO_SECONDS * SAMPLE_RATE)
PCM_NAME = "speech.f32"  # in the request's folder
SAMPLE_BYTES = 4


@dataclass(frozen=True)
class Speech:
    """Decoded audio.

    Attributes:
        path: the caller's file, for the audio track of the result.
        pcm_path: the decoded samples, a file of FP32, 16 kHz mono.
        samples: number of samples, including the silence that follows; at least 0.2 s.
        is_finite: whether the codec cannot store NaN or infinities; if it can, `ffmpeg_args.SANITIZE` is the first
            filter.
    """

    path: Path
    pcm_path: Path
    samples: int
    is_finite: bool

    @property
    def duration(self) -> Fraction:
        """Return the exact length in seconds."""
        return Fraction(self.samples, SAMPLE_RATE)

    def frame_count(self, fps: Fraction) -> int:
        """Return the number of frames that cover the audio; a last frame that is covered in part counts."""
        return -int(-self.duration * fps // 1)

    def padded_to(self, duration: Fraction) -> Speech:
        """Return the same audio, followed by silence if it is shorter than `duration` seconds."""
        return replace(self, samples=max(self.samples, round(duration * SAMPLE_RATE)))

    def read(self, first: int, end: int) -> Floats:
        """Return the samples from `first` up to, not including, `end`, FP32 [n]; zeros after the end of the audio."""
        with self.pcm_path.open("rb") as file:
            file.seek(first * SAMPLE_BYTES)
            samples = np.fromfile(file, "<f4", end - first)
        return np.pad(samples, (0, end - first - len(samples)))


@contextmanager
def pcm_file(folder: Path) -> Iterator[Path]:
    """Give the path at which `decode_audio` stores the samples; delete the file afterwards."""
    path = folder / PCM_NAME
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


async def decode_audio(path: Path, pcm_path: Path, limits: Limits, timer: StageTimer) -> Speech:
    """Decode an audio file of any supported format into the file `pcm_path`.

    Raises:
        InvalidField: `audio_file` is empty, cannot be decoded, has no audio stream, or is longer than allowed.
        MachineFault: the machine fails, and not the file.
    """
    with timer.stage("speech"):
        return await _decode_audio(path, pcm_path, limits)


async def _decode_audio(path: Path, pcm_path: Path, limits: Limits) -> Speech:
    check_not_empty(SPEECH_FILE, path)
    is_finite = not (await _probe_codec(path, limits)).startswith(FLOAT_CODECS)
    # one second more than allowed, to detect audio that is too long
    seconds = limits.max_audio_seconds + 1
    args = ffmpeg_args.decode_audio_args(path, limits.max_pixels, pcm_path, is_finite=is_finite, seconds=seconds)
    try:
        await watched(ffmpeg.run(args))
    except ffmpeg.FfmpegError as error:
        await rule_out_machine(path, error, writes=True)
        is_slow = isinstance(error, ffmpeg.FfmpegTimeout)
        reason = "decoding the audio takes too long" if is_slow else "the audio cannot be decoded"
        raise InvalidField(SPEECH_FILE, reason) from error
    samples = await asyncio.to_thread(_file_size, pcm_path) // SAMPLE_BYTES
    if not samples:
        await rule_out_machine(path)
        raise InvalidField(SPEECH_FILE, "the file contains no audio")
    if samples > limits.max_audio_seconds * SAMPLE_RATE:
        raise InvalidField(SPEECH_FILE, limits.too_long)
    return Speech(path, pcm_path, max(samples, MIN_SAMPLES), is_finite)


def _file_size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


async def _probe_codec(path: Path, limits: Limits) -> str:
    """Return ffmpeg's name of the first audio stream's codec."""
    try:
        text, _ = await watched(ffmpeg.run(ffmpeg_args.probe_audio_args(path, limits.max_pixels)))
    except ffmpeg.FfmpegError as error:
        await rule_out_machine(path, error)
        has_no_audio = ffmpeg_output.NO_SUCH_STREAM in error.stderr_tail
        reason = "the file contains no audio" if has_no_audio else "not an audio file that can be read"
        raise InvalidField(SPEECH_FILE, reason) from error
    properties = ffmpeg_output.parse_probe(text.decode(errors="replace"))
    if not properties:
        await rule_out_machine(path)
        raise InvalidField(SPEECH_FILE, "the file contains no audio")
    return properties.get("codec_id", "")
