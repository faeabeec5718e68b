"""The speech: what is heard of it, and how long it is."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from lipsync.mel import SAMPLE_RATE

from . import ffmpeg, intake, media
from .errors import InvalidField
from .models import Floats

MAY_HOLD_NAN = ("pcm_f", "wavpack")  # codecs (by ffmpeg's names) that store floats as they are
SHORTEST = int(media.SHORTEST * SAMPLE_RATE)  # samples


@dataclass(frozen=True)
class Speech:
    """A decoded recording.

    Attributes:
        path: the file, for the sound of the result.
        samples: FP32 [n], 16 kHz mono, at least 0.2 s (silence added where it is shorter).
        sane: whether its codec cannot hold NaN or infinities; if not, `media.SANE` goes before anything else.
    """

    path: Path
    samples: Floats
    sane: bool

    @property
    def duration(self) -> Fraction:
        """Seconds, exact."""
        return Fraction(len(self.samples), SAMPLE_RATE)

    def frames(self, fps: Fraction) -> int:
        """Frames that a picture of this length has, the last one begun counted whole."""
        return -int(-self.duration * fps // 1)


async def hear(path: Path) -> Speech:
    """Decode a recording of any kind.

    Raises:
        InvalidField: `audio_file` is empty, cannot be read, holds no sound, or more than an hour of it.
    """
    intake.refuse_empty(intake.SPEECH, path)
    sane = not (await _codec(path)).startswith(MAY_HOLD_NAN)
    try:
        sound = await ffmpeg.output(media.speech_args(path, sane=sane, seconds=intake.MAX_SPEECH + 1))
    except ffmpeg.FfmpegFailed as error:
        raise InvalidField(intake.SPEECH, "the sound cannot be decoded") from error
    samples = np.frombuffer(sound, "<f4")
    if not samples.size:
        raise InvalidField(intake.SPEECH, "there is no sound in the file")
    if samples.size > intake.MAX_SPEECH * SAMPLE_RATE:
        raise InvalidField(intake.SPEECH, intake.TOO_LONG)
    missing = max(0, SHORTEST - samples.size)
    return Speech(path, np.pad(samples, (0, missing)) if missing else samples, sane)


async def _codec(path: Path) -> str:
    try:
        about = media.parse_probe((await ffmpeg.output(media.probe_speech_args(path))).decode())
    except ffmpeg.FfmpegFailed as error:
        silent = "matches no streams" in error.words
        reason = "there is no sound in the file" if silent else "not a sound file that can be read"
        raise InvalidField(intake.SPEECH, reason) from error
    if not about:
        raise InvalidField(intake.SPEECH, "there is no sound in the file")
    return about.get("codec_id", "")
