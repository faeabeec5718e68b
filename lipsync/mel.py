"""Compute the mel spectrogram of speech as in the training of the published Wav2Lip weights.

The STFT and the mel filters are those of librosa, bit for bit (the tests compare them), without librosa itself: it
brings numba, scipy and scikit-learn (450 MB), and its import was half of the time in which Triton starts.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .arrays import Array, Floats
from .errors import InvalidInput
from .tensors import MEL_BANDS

SAMPLE_RATE = 16_000  # Hz, mono
HOP_LENGTH = 200  # samples between two mel columns
N_FFT = 800  # samples per column, 50 ms
MEL_STEPS_PER_SECOND = SAMPLE_RATE // HOP_LENGTH  # 80, by chance the same number as MEL_BANDS
FMIN, FMAX = 55.0, 7600.0
PRE_EMPHASIS = 0.97
FLOOR = 1e-5  # magnitude; -100 dB
REFERENCE_DB = 20.0
RANGE_DB = 100.0  # from the floor to full scale
PEAK = 4.0  # the result lies in ±PEAK

MAX_SAMPLE = np.float32(1e30)  # larger values would be infinite in the spectrum

# Columns that are computed at once, half a minute: the spectrum of longer speech would take 40 bytes per sample.
BLOCK_COLUMNS = 30 * MEL_STEPS_PER_SECOND

MIN_SAMPLES = N_FFT  # one whole column


def mel_spectrogram(audio: Floats) -> Floats:
    """Compute the mel spectrogram of speech.

    Steps: pre-emphasis, a centered Hann STFT with reflected ends, Slaney mel filters, decibels and normalization:
    `clip(2·4·(dB + 100)/100 - 4, -4, 4)`. Source: the audio front end of Rudrabha/Wav2Lip
    (`hparams.py`), which pins librosa 0.7 and thereby `pad_mode="reflect"`.

    Args:
        audio: FP32 [n], 16 kHz mono, full scale ±1. NaN and infinities count as 0.

    Returns:
        FP32 [80, n // 200 + 1], 80 columns per second, each value in ±4.

    Raises:
        InvalidInput: `audio` is not one-dimensional, or shorter than 800 samples (50 ms).
    """
    if audio.ndim != 1 or audio.size < MIN_SAMPLES:
        raise InvalidInput(f"audio: FP32 [n] with n >= {MIN_SAMPLES} samples expected, got {list(audio.shape)}")
    count = audio.size // HOP_LENGTH + 1
    mel = np.empty((MEL_BANDS, count), np.float32)
    for first in range(0, count, BLOCK_COLUMNS):
        after = min(first + BLOCK_COLUMNS, count)
        # A block has all samples of its columns. The STFT reflects both of its ends: at the start of a later block this
        # spoils columns that are discarded, and its end is where the last column ends, or the speech does.
        low = max(0, first - N_FFT // HOP_LENGTH)
        end = audio.size if after == count else (after - 1) * HOP_LENGTH + N_FFT // 2
        mel[:, first:after] = _block(audio[low * HOP_LENGTH : end])[:, first - low : after - low]
    return mel


def _block(audio: Floats) -> Floats:
    """Compute the columns FP32 [80,n] of a part of the speech."""
    sound = np.nan_to_num(audio.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0).clip(-MAX_SAMPLE, MAX_SAMPLE)
    emphasized = np.concatenate((sound[:1], sound[1:] - np.float32(PRE_EMPHASIS) * sound[:-1]))
    # column by column: in one product, a column's rounding would depend on its position (on AVX-512), and speech in
    # pieces would differ from the whole
    columns = magnitudes(emphasized)
    bands = np.matmul(columns[:, None], mel_filters().T)[:, 0].T
    decibels = 20.0 * np.log10(np.maximum(FLOOR, bands)) - REFERENCE_DB
    normalized = 2 * PEAK * (decibels + RANGE_DB) / RANGE_DB - PEAK
    mel: Floats = np.clip(normalized, -PEAK, PEAK).astype(np.float32)
    return mel


def magnitudes(sound: Floats) -> Floats:
    """Compute the magnitudes FP32 [n // 200 + 1, 401] of a centered STFT: periodic Hann window, ends reflected."""
    padded = np.pad(sound, N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP_LENGTH]
    # computed in double precision and rounded once, as librosa does
    spectrum: Floats = np.abs(np.fft.rfft(_hann() * frames, axis=-1).astype(np.complex64))
    return spectrum


@cache
def _hann() -> Array:
    """Return the periodic Hann window, FP64 [800]."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT))


@cache
def mel_filters() -> Floats:
    """Return the mel filters, FP32 [80, 401]: triangles of equal area, evenly spaced on Slaney's mel scale.

    Source: M. Slaney, Auditory Toolbox, Interval Research Technical Report 1998-010.
    """
    edges = _slaney_hz(np.linspace(_slaney_mel(FMIN), _slaney_mel(FMAX), MEL_BANDS + 2))
    widths = np.diff(edges)
    distances = np.subtract.outer(edges, np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE))
    rising, falling = -distances[:-2] / widths[:-1, None], distances[2:] / widths[1:, None]
    filters: Floats = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    filters *= (2 / (edges[2:] - edges[:-2]))[:, None]
    return filters


# Slaney's scale is linear up to 1000 Hz, which is 15 mel, and logarithmic above: 27 steps per factor of 6.4.
_LINEAR_HZ, _LINEAR_MEL = 1000.0, 15.0
_HZ_PER_MEL = 200.0 / 3
_LOG_STEP = np.log(6.4) / 27


def _slaney_mel(hz: float) -> float:
    if hz < _LINEAR_HZ:
        return hz / _HZ_PER_MEL
    return float(_LINEAR_MEL + np.log(hz / _LINEAR_HZ) / _LOG_STEP)


def _slaney_hz(mel: Array) -> Array:
    logarithmic = _LINEAR_HZ * np.exp(_LOG_STEP * (mel - _LINEAR_MEL))
    return np.asarray(np.where(mel >= _LINEAR_MEL, logarithmic, _HZ_PER_MEL * mel))
