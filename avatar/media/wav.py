"""Read WAV files of plain PCM without ffmpeg: nothing in them has to be guessed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lipsync.arrays import Floats

_RIFF = struct.Struct("<4sI4s")  # magic, size of what follows the size, type
_CHUNK = struct.Struct("<4sI")  # name, size; a chunk of an odd size is followed by a byte
_FORMAT = struct.Struct("<HHIIHH")  # tag, channels, rate, bytes per second, bytes per frame, bits per sample
_DTYPES = {(1, 16): "<i2", (3, 32): "<f4"}  # tag and bits to the type of the samples
_SKIPPED = frozenset({b"LIST", b"fact", b"PEAK", b"JUNK", b"bext", b"id3 ", b"ID3 "})  # chunks without audio
MAX_CHUNKS = 64
_FULL_SCALE = np.float32(1 / 32768)
MAX_LEVEL = 10.0  # as `ffmpeg_args.SANITIZE`


@dataclass(frozen=True)
class PcmFile:
    """Uncompressed audio in a file.

    Attributes:
        path: the file.
        samples: number of samples per channel.
        dtype: of a sample, `<i2` or `<f4`.
        offset: where the samples start in the file, in bytes.
        channels: 1 or 2; the samples of the channels alternate.
        rate: samples per second.
    """

    path: Path
    samples: int
    dtype: str = "<f4"
    offset: int = 0
    channels: int = 1
    rate: int = 0

    @property
    def is_finite(self) -> bool:
        """Return whether the samples cannot be NaN or infinite."""
        return self.dtype != "<f4"

    def read(self, first: int, end: int) -> Floats:
        """Return the mean of the channels from sample `first` up to, not including, `end`; zeros after the last one.

        The values are those that ffmpeg gives, to the bit.

        Returns:
            FP32 [n], full scale ±1; NaN and infinities are 0.
        """
        count = max(0, min(end, self.samples) - first)
        with self.path.open("rb") as file:
            file.seek(self.offset + first * self.channels * np.dtype(self.dtype).itemsize)
            samples = _to_floats(np.fromfile(file, self.dtype, count * self.channels))
        if self.channels == 2:
            samples = samples[: samples.size // 2 * 2].reshape(-1, 2)
            samples = samples[:, 0] * np.float32(0.5) + samples[:, 1] * np.float32(0.5)
        return np.pad(samples, (0, end - first - len(samples)))


def read_wav(path: Path) -> PcmFile | None:
    """Return what a WAV file holds; None if it is not one, or not plain: then ffmpeg has to judge it.

    Plain is a complete file of 16-bit integers or 32-bit floats with one or two channels, and of one recording.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_RIFF.size)
        if len(head) < _RIFF.size or _RIFF.unpack(head) != (b"RIFF", size - 8, b"WAVE"):
            return None
        form, data = b"", range(0)
        for name, chunk in _chunks(file, size):
            if name == b"fmt " and not form and len(chunk) in (16, 18):
                form = file.read(_FORMAT.size)
            elif name == b"data" and form and not data:
                data = chunk
            elif name not in _SKIPPED:
                return None
    return _pcm_file(path, form, data) if len(form) == _FORMAT.size else None


def _chunks(file: BinaryIO, size: int) -> Iterator[tuple[bytes, range]]:
    """Yield the name and the byte range of each chunk; the name is empty where the file is damaged or has too many."""
    start = _RIFF.size
    for _ in range(MAX_CHUNKS):
        if start >= size:
            return
        file.seek(start)
        head = file.read(_CHUNK.size)
        name, length = _CHUNK.unpack(head) if len(head) == _CHUNK.size else (b"", 0)
        chunk = range(start + _CHUNK.size, start + _CHUNK.size + length)
        yield (name if chunk.stop <= size else b""), chunk
        start = chunk.stop + length % 2
    yield b"", range(0)


def _pcm_file(path: Path, form: bytes, data: range) -> PcmFile | None:
    tag, channels, rate, _, frame_bytes, bits = _FORMAT.unpack(form)
    dtype = _DTYPES.get((tag, bits))
    if dtype is None or channels not in (1, 2) or not rate or frame_bytes != channels * bits // 8:
        return None
    if not data or len(data) % frame_bytes:
        return None
    return PcmFile(path, len(data) // frame_bytes, dtype, data.start, channels, rate)


def _to_floats(samples: NDArray[np.int16] | Floats) -> Floats:
    if samples.dtype == np.int16:
        return samples.astype(np.float32) * _FULL_SCALE
    clipped: Floats = np.where(np.isfinite(samples), samples, np.float32(0)).clip(-MAX_LEVEL, MAX_LEVEL)
    return clipped
