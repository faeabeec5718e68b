"""The speech: what is heard of it, how long it is, and its mel windows, piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from lipsync.arrays import Floats
from lipsync.mel import HOP_LENGTH, SAMPLE_RATE
from lipsync.mel_windows import window_starts
from lipsync.tensors import MEL_BANDS, SPEECH_FILE, WINDOW_COLUMNS

from .. import limits as intake
from ..context import Job
from ..errors import AvatarError, InvalidField
from . import ffmpeg, ffmpeg_args

MAY_HOLD_NAN = ("pcm_f", "wavpack")  # codecs (by ffmpeg's names) that store floats as they are
SHORTEST = int(ffmpeg_args.SHORTEST * SAMPLE_RATE)  # samples
SAMPLES = "speech.f32"  # in the request's folder
SAMPLE_BYTES = 4

# Columns of the mel spectrogram that are asked for at once: half a minute. A multiple of a window's, so that windows
# side by side are the spectrogram itself.
PIECE = 150 * WINDOW_COLUMNS
# Columns asked for beyond a piece on either side. A column hears 25 ms around it, which is two; and pre-emphasis one
# sample more. So each column is computed from what it would hear in the whole.
MARGIN = 3
TILES_PER_SECOND = float(SAMPLE_RATE / HOP_LENGTH / WINDOW_COLUMNS)  # the rate at which windows lie side by side


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


async def hear(path: Path, decoded: Path, job: Job) -> Speech:
    """Decode a recording of any kind into the file `decoded`.

    Raises:
        InvalidField: `audio_file` is empty, cannot be read, holds no sound, or too much of it.
    """
    intake.refuse_empty(SPEECH_FILE, path)
    limits = job.limits
    sane = not (await _codec(path, limits)).startswith(MAY_HOLD_NAN)
    try:
        await ffmpeg.output(
            ffmpeg_args.speech_args(path, limits.pixels, decoded, sane=sane, seconds=limits.seconds + 1)
        )
    except ffmpeg.FfmpegFailed as error:
        slow = isinstance(error, ffmpeg.TookTooLong)
        reason = "the sound takes too long to decode" if slow else "the sound cannot be decoded"
        raise InvalidField(SPEECH_FILE, reason) from error
    samples = await asyncio.to_thread(_size, decoded) // SAMPLE_BYTES
    if not samples:
        raise InvalidField(SPEECH_FILE, "there is no sound in the file")
    if samples > limits.seconds * SAMPLE_RATE:
        raise InvalidField(SPEECH_FILE, limits.too_long)
    return Speech(path, decoded, max(samples, SHORTEST), sane)


def _size(file: Path) -> int:
    return file.stat().st_size


async def _codec(path: Path, limits: intake.Limits) -> str:
    try:
        text, _ = await ffmpeg.output(ffmpeg_args.probe_speech_args(path, limits.pixels))
    except ffmpeg.FfmpegFailed as error:
        silent = "matches no streams" in error.words
        reason = "there is no sound in the file" if silent else "not a sound file that can be read"
        raise InvalidField(SPEECH_FILE, reason) from error
    about = ffmpeg_args.parse_probe(text.decode())
    if not about:
        raise InvalidField(SPEECH_FILE, "there is no sound in the file")
    return about.get("codec_id", "")


class Windows:
    """The mel windows of a speech, computed in pieces as they are asked for, in order.

    They are the windows that the whole would have: each column is computed from all that it hears.
    """

    def __init__(self, speech: Speech, fps: Fraction, job: Job) -> None:
        self._speech, self._job = speech, job
        self._columns = speech.samples // HOP_LENGTH + 1
        self._starts = window_starts(self._columns, float(fps))
        self._pieces = self._read()
        self._have = np.empty((MEL_BANDS, 0), np.float32)  # columns from `_first` on
        self._first = 0

    async def take(self, first: int, count: int) -> Floats:
        """Windows of `count` frames from `first` on, FP32 [count,80,16]; beyond the last, the last.

        No frame before `first` can be asked for any more.
        """
        heard = np.minimum(np.arange(first, first + count), len(self._starts) - 1)
        starts = self._starts[heard]
        while self._first + self._have.shape[1] < starts[-1] + WINDOW_COLUMNS:
            self._have = np.concatenate((self._have, await anext(self._pieces)), axis=1)
        self._have, self._first = self._have[:, starts[0] - self._first :], int(starts[0])
        columns = (starts - self._first)[:, None] + np.arange(WINDOW_COLUMNS)
        return np.ascontiguousarray(self._have[:, columns].transpose(1, 0, 2))

    async def aclose(self) -> None:
        """No more are wanted."""
        await self._pieces.aclose()

    async def _read(self) -> AsyncGenerator[Floats]:
        for first in range(0, self._columns, PIECE):
            yield await self._piece(first, min(first + PIECE, self._columns))

    async def _piece(self, first: int, after: int) -> Floats:
        """Columns from `first` up to `after`, FP32 [80,n]."""
        low, high = max(0, first - MARGIN), min(self._columns, after + MARGIN)
        low = max(0, min(low, high - 1 - WINDOW_COLUMNS))  # a window's worth at least
        end = self._speech.samples if high == self._columns else (high - 1) * HOP_LENGTH
        with self._job.timer.stage("speech"):
            samples = await asyncio.to_thread(self._speech.read, low * HOP_LENGTH, end)
            tiles = await self._job.models.mel_windows(samples, TILES_PER_SECOND)
        columns = len(samples) // HOP_LENGTH + 1
        if low + columns != high:
            raise AvatarError(f"{columns} mel columns of {high - low}")
        last = columns - WINDOW_COLUMNS * (len(tiles) - 1)  # of the last tile, which ends with the last column
        mel = np.concatenate((*tiles[:-1], tiles[-1][:, WINDOW_COLUMNS - last :]), axis=1)
        piece: Floats = mel[:, first - low : after - low]
        return piece
