"""The mel windows of an audio track: which part of the mel spectrogram each frame is generated from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from fractions import Fraction

import numpy as np

from lipsync.arrays import Floats
from lipsync.mel import HOP_LENGTH, SAMPLE_RATE
from lipsync.mel_windows import window_starts
from lipsync.tensors import MEL_BANDS, WINDOW_COLUMNS

from ..context import JobContext
from ..errors import AvatarError
from ..media.audio import Speech
from ..streams import cancel_and_wait

# Columns of the mel spectrogram per request: half a minute. A multiple of a window's width, so that adjacent windows
# are the spectrogram itself.
CHUNK_COLUMNS = 150 * WINDOW_COLUMNS
# Columns requested in addition on either side of a chunk. A column depends on 25 ms of audio around it, which is two
# columns, and pre-emphasis adds one sample. So each column is computed from the same samples as in the whole.
CONTEXT_COLUMNS = 3
ADJACENT_WINDOWS_PER_SECOND = float(SAMPLE_RATE / HOP_LENGTH / WINDOW_COLUMNS)  # rate at which windows do not overlap


class MelWindows:
    """The mel windows of an audio track, computed in chunks, in order, at most one chunk before it is requested.

    They equal the windows of the whole track: each column is computed from all samples that it depends on.
    """

    def __init__(self, speech: Speech, fps: Fraction, job: JobContext) -> None:
        self._speech, self._job = speech, job
        self._columns = speech.samples // HOP_LENGTH + 1
        self._starts = window_starts(self._columns, float(fps))
        self._chunks = self._compute()
        self._next: asyncio.Task[Floats] | None = None
        self._buffer = np.empty((MEL_BANDS, 0), np.float32)  # columns from `_first` on
        self._first = 0

    def start(self) -> None:
        """Start to compute the next windows. Their errors are raised when they are read."""
        if self._next is None:
            self._next = asyncio.create_task(self._advance())

    async def read(self, first: int, count: int) -> Floats:
        """Return the windows of `count` frames from `first` on, FP32 [count,80,16].

        The last window is repeated for frames after the end. Later calls may not ask for frames before `first`.
        """
        frames = np.minimum(np.arange(first, first + count), len(self._starts) - 1)
        starts = self._starts[frames]
        while self._first + self._buffer.shape[1] < starts[-1] + WINDOW_COLUMNS:
            self.start()
            self._buffer = np.concatenate((self._buffer, await self._take()), axis=1)
            if self._first + self._buffer.shape[1] < self._columns:
                self.start()
        self._buffer, self._first = self._buffer[:, starts[0] - self._first :], int(starts[0])
        columns = (starts - self._first)[:, None] + np.arange(WINDOW_COLUMNS)
        return np.ascontiguousarray(self._buffer[:, columns].transpose(1, 0, 2))

    async def aclose(self) -> None:
        """Stop the computation of further windows."""
        if self._next:
            await cancel_and_wait(self._take())
        await self._chunks.aclose()

    async def _advance(self) -> Floats:
        return await anext(self._chunks)

    def _take(self) -> asyncio.Task[Floats]:
        """Return the task of the next windows. It is no longer held here: it may hold an error, and that this frame."""
        task, self._next = self._next, None
        if task is None:
            raise RuntimeError("no windows are being computed")
        return task

    async def _compute(self) -> AsyncGenerator[Floats]:
        for first in range(0, self._columns, CHUNK_COLUMNS):
            yield await self._chunk(first, min(first + CHUNK_COLUMNS, self._columns))

    async def _chunk(self, first: int, end: int) -> Floats:
        """Return the columns from `first` up to, not including, `end`, FP32 [80,n]."""
        low, high = max(0, first - CONTEXT_COLUMNS), min(self._columns, end + CONTEXT_COLUMNS)
        low = max(0, min(low, high - 1 - WINDOW_COLUMNS))  # at least one window
        last_sample = self._speech.samples if high == self._columns else (high - 1) * HOP_LENGTH
        with self._job.timer.stage("speech"):
            samples = await asyncio.to_thread(self._speech.read, low * HOP_LENGTH, last_sample)
            windows = await self._job.models.mel_windows(samples, ADJACENT_WINDOWS_PER_SECOND)
        columns = len(samples) // HOP_LENGTH + 1
        if low + columns != high:
            raise AvatarError(f"expected {high - low} mel columns, got {columns}")
        # the last window ends with the last column, and overlaps the one before it but for `rest` columns
        rest = columns - WINDOW_COLUMNS * (len(windows) - 1)
        mel = np.concatenate((*windows[:-1], windows[-1][:, WINDOW_COLUMNS - rest :]), axis=1)
        chunk: Floats = mel[:, first - low : end - low]
        return chunk
