"""Mel windows of speech that arrives in pieces, each as soon as it is complete.

They equal, bit by bit, the windows that `mel_windows(mel_spectrogram(speech), fps)` cuts from the whole speech followed
by silence, for pieces of any size: each column is computed from all of its samples.
"""

from __future__ import annotations

import math

import numpy as np

from .arrays import Floats
from .errors import InvalidInput
from .mel import HOP_LENGTH, N_FFT, PEAK, SAMPLE_RATE, mel_spectrogram
from .mel_windows import columns_per_frame
from .tensors import MEL_BANDS, WINDOW_COLUMNS

# A column is centered: it takes this many samples before its own position, and as many from there on.
HALF_WINDOW = N_FFT // 2
# Samples from the start of a window to the last one that it takes, inclusive; 3400.
LOOKAHEAD = (WINDOW_COLUMNS - 1) * HOP_LENGTH + HALF_WINDOW
# Seconds, 0.2125: from the moment at which a frame is shown, `index / fps` of the speech, to the last sample of its
# window. No window is ready later than that; most are up to one column (12.5 ms) earlier, because windows start at
# whole columns.
LATENCY = LOOKAHEAD / SAMPLE_RATE
# Columns that are computed before the first one that is needed, and discarded: they contain the start of the slice,
# which the STFT reflects; pre-emphasis takes one sample more. (The first weight of a Hann window is 0, so one column
# less would suffice; nothing here relies on that.)
CONTEXT_COLUMNS = math.ceil((HALF_WINDOW + 1) / HOP_LENGTH)
# The window of silence, FP32 [80,16]: with it the mouth is closed. (The floor in decibels is lower, and is clipped.)
SILENT_WINDOW: Floats = np.full((MEL_BANDS, WINDOW_COLUMNS), -PEAK, np.float32)
# Samples that are taken at once, half a minute, so that a long piece is not held twice.
BLOCK_SAMPLES = 30 * SAMPLE_RATE


class MelStream:
    """The mel windows of speech that arrives in pieces. For one thread at a time.

    Frame i takes the 16 columns from `int(i · 80 / fps)`, as in `window_starts`; column c takes the samples from
    200·c - 400 up to 200·c + 400, exclusive. So the window of frame i is complete once 200·(its first column) + 3400
    samples were fed. Samples that no later frame takes are dropped: between two calls a stream holds a quarter of a
    second of audio, for speech of any length.

    Args:
        fps: frames per second of the result.

    Raises:
        InvalidInput: a frame rate that is not a positive number up to 1000.
    """

    def __init__(self, fps: float) -> None:
        self._step = columns_per_frame(fps)
        self._frames = self._samples = 0
        self._ended = False
        self._sound = np.empty(0, np.float32)  # samples from `_from` on
        self._from = 0
        self._mel = np.empty((MEL_BANDS, 0), np.float32)  # columns from `_column` on
        self._column = 0

    @property
    def frames(self) -> int:
        """Number of windows returned so far; the index of the next one."""
        return self._frames

    @property
    def samples(self) -> int:
        """Number of samples of speech fed so far."""
        return self._samples

    def feed(self, samples: Floats) -> Floats:
        """Take the next piece of the speech.

        Args:
            samples: FP32 [n], 16 kHz mono, full scale ±1, n from 0 on. NaN and infinities count as 0.

        Returns:
            FP32 [k,80,16], the windows that this piece completes, in order; often none.

        Raises:
            InvalidInput: `samples` is not one-dimensional, or the speech has ended.
        """
        if self._ended:
            raise InvalidInput("audio: the speech has already ended")
        if samples.ndim != 1:
            raise InvalidInput(f"audio: FP32 [n] expected, got {list(samples.shape)}")
        windows = [
            self._append(samples[first : first + BLOCK_SAMPLES]) for first in range(0, samples.size, BLOCK_SAMPLES)
        ]
        return np.concatenate(windows or [_NOTHING])

    def flush(self) -> Floats:
        """End the speech: silence follows.

        Returns:
            FP32 [k,80,16], at least one: the windows of the remaining frames that contain some of the speech, and one
            that contains only silence, so that the mouth closes.

        Raises:
            InvalidInput: it has already ended.
        """
        if self._ended:
            raise InvalidInput("audio: the speech has already ended")
        self._ended = True
        spoken = self._samples
        silent = math.ceil((spoken + HALF_WINDOW) / HOP_LENGTH) if spoken else 0  # the first column without speech
        rest = self._append(np.zeros(LOOKAHEAD + (silent - 1) * HOP_LENGTH - spoken, np.float32))
        self._samples = spoken
        self._frames += 1
        return np.concatenate((rest, SILENT_WINDOW[None]))

    def _append(self, samples: Floats) -> Floats:
        """Take a piece of bounded length; return the windows FP32 [k,80,16] that it completes."""
        self._sound = np.concatenate((self._sound, samples.astype(np.float32)))
        self._samples += samples.size
        starts = []
        while LOOKAHEAD + HOP_LENGTH * (start := self._start(self._frames)) <= self._samples:
            starts.append(start)
            self._frames += 1
        windows = self._windows(starts) if starts else _NOTHING
        self._trim(start)
        return windows

    def _windows(self, starts: list[int]) -> Floats:
        """Return the windows FP32 [k,80,16] that start at these columns, all of them complete."""
        have = self._column + self._mel.shape[1]
        new = self._columns(have, starts[-1] + WINDOW_COLUMNS)
        self._mel = np.concatenate((self._mel, new), axis=1)
        columns = (np.array(starts) - self._column)[:, None] + np.arange(WINDOW_COLUMNS)
        return np.ascontiguousarray(self._mel[:, columns].transpose(1, 0, 2))

    def _columns(self, first: int, after: int) -> Floats:
        """Compute the columns from `first` up to `after`, FP32 [80,n], from a slice with all of their samples."""
        # at the start of the speech, the reflection is part of the whole speech's spectrogram, too
        low = max(0, first - CONTEXT_COLUMNS)
        samples = slice(low * HOP_LENGTH - self._from, (after - 1) * HOP_LENGTH + HALF_WINDOW - self._from)
        return mel_spectrogram(self._sound[samples])[:, first - low : after - low]

    def _trim(self, start: int) -> None:
        """Drop what no window needs that starts at column `start` or later."""
        have = self._column + self._mel.shape[1]
        self._mel = self._mel[:, max(0, start - self._column) :].copy()
        self._column, computed = start, max(start, have)
        drop = (computed - CONTEXT_COLUMNS) * HOP_LENGTH - self._from
        drop = min(max(0, drop), self._sound.size)
        self._sound = self._sound[drop:].copy()
        self._from += drop

    def _start(self, frame: int) -> int:
        """Return the first column of a frame's window; source: `window_starts`."""
        return int(frame * self._step)


_NOTHING: Floats = np.empty((0, MEL_BANDS, WINDOW_COLUMNS), np.float32)
