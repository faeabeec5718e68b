"""Resample speech to the rate of the mel spectrogram, 16 kHz.

soxr's quality HQ is what librosa, by which the original reads a recording, resamples with today. A stream gives the
same samples for pieces of any size, as the whole speech at once.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import soxr

from lipsync.mel import SAMPLE_RATE

from ..faults import storage_fault
from ..files import opened
from .wav import PcmFile

RATES = range(4_000, 192_001)  # samples per second that people record with; ffmpeg judges others
BLOCK_SAMPLES = 1 << 18  # that a thread resamples at once: 5 ms, and 2 MB of memory


def resampler(rate: int) -> soxr.ResampleStream:
    """Return a resampler from `rate`, in Hz, of FP32 mono; its `resample_chunk` takes and gives FP32 [n]."""
    return soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")


async def store_resampled(source: PcmFile, target: Path) -> int:
    """Store the mean of a file's channels in the file `target`: FP32, 16 kHz; return the number of samples.

    Raises:
        MachineFault: one of the two files, both in the work folder, cannot be used.
    """
    stream = resampler(source.rate)

    def block(first: int) -> int:
        end = min(first + BLOCK_SAMPLES, source.samples)
        samples = stream.resample_chunk(source.read(first, end), last=end == source.samples)
        file.write(samples.data)
        return int(samples.size)

    count = 0
    try:
        async with opened(target, "wb") as file:
            for first in range(0, source.samples, BLOCK_SAMPLES):
                count += await asyncio.to_thread(block, first)
    except OSError as error:
        raise storage_fault(error) from error
    return count
