"""The speech: what is heard of it, how long it is, and its mel windows, piece by piece."""

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

from .. import limits as intake
from ..context import JobContext
from ..errors import InvalidField
from . import ffmpeg, ffmpeg_args

MAY_HOLD_NAN = ("pcm_f", "wavpack")  # codecs (by ffmpeg's names) that store floats as they are
SHORTEST = int(ffmpeg_args.SHORTEST * SAMPLE_RATE)  # samples
SAMPLES = "speech.f32"  # in the request's folder
SAMPLE_BYTES = 4


@dataclass(frozen=True)
class Speech:
    """A decoded recording.

    Attributes:
        path: the file, for the sound of the result.
        decoded: its samples, a file of FP32, 16 kHz mono.
        samples: how many, those of silence that follow included; at least 0.2 s.
        sane: whether its codec cannot hold NaN or infinities; if not, `media.SANE` goes before anything else.
    """

    path: Path
    decoded: Path
    samples: int
    sane: bool

    @property
    def duration(self) -> Fraction:
        """Seconds, exact."""
        return Fraction(self.samples, SAMPLE_RATE)

    def frames(self, fps: Fraction) -> int:
        """Frames that a picture of this length has, the last one begun counted whole."""
        return -int(-self.duration * fps // 1)

    def lasting(self, duration: Fraction) -> Speech:
        """The same, followed by silence where it is shorter than so many seconds."""
        return replace(self, samples=max(self.samples, round(duration * SAMPLE_RATE)))

    def read(self, first: int, after: int) -> Floats:
        """Samples from `first` up to `after`, FP32; beyond the recording there is silence."""
        with self.decoded.open("rb") as file:
            file.seek(first * SAMPLE_BYTES)
            heard = np.fromfile(file, "<f4", after - first)
        return np.pad(heard, (0, after - first - len(heard)))


@contextmanager
def file_of_samples(folder: Path) -> Iterator[Path]:
    """Where `hear` puts the samples; gone afterwards."""
    path = folder / SAMPLES
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


async def hear(path: Path, decoded: Path, job: JobContext) -> Speech:
    """Decode a recording of any kind into the file `decoded`.

    Raises:
        InvalidField: `audio_file` is empty, cannot be read, holds no sound, or too much of it.
    """
    intake.check_not_empty(SPEECH_FILE, path)
    limits = job.limits
    sane = not (await _codec(path, limits)).startswith(MAY_HOLD_NAN)
    try:
        await ffmpeg.output(
            ffmpeg_args.speech_args(path, limits.max_pixels, decoded, sane=sane, seconds=limits.max_audio_seconds + 1)
        )
    except ffmpeg.FfmpegFailed as error:
        slow = isinstance(error, ffmpeg.TookTooLong)
        reason = "the sound takes too long to decode" if slow else "the sound cannot be decoded"
        raise InvalidField(SPEECH_FILE, reason) from error
    samples = await asyncio.to_thread(_size, decoded) // SAMPLE_BYTES
    if not samples:
        raise InvalidField(SPEECH_FILE, "there is no sound in the file")
    if samples > limits.max_audio_seconds * SAMPLE_RATE:
        raise InvalidField(SPEECH_FILE, limits.too_long)
    return Speech(path, decoded, max(samples, SHORTEST), sane)


def _size(file: Path) -> int:
    return file.stat().st_size


async def _codec(path: Path, limits: intake.Limits) -> str:
    try:
        text, _ = await ffmpeg.output(ffmpeg_args.probe_speech_args(path, limits.max_pixels))
    except ffmpeg.FfmpegFailed as error:
        silent = "matches no streams" in error.words
        reason = "there is no sound in the file" if silent else "not a sound file that can be read"
        raise InvalidField(SPEECH_FILE, reason) from error
    about = ffmpeg_args.parse_probe(text.decode())
    if not about:
        raise InvalidField(SPEECH_FILE, "there is no sound in the file")
    return about.get("codec_id", "")
