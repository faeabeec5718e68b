"""Compute the mel spectrogram of speech as in the training of the published Wav2Lip weights.

librosa is imported where it is used: the gateway needs only the constants of this module, and librosa brings numba,
scipy and scikit-learn (450 MB).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .arrays import Floats
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

MIN_SAMPLES = N_FFT  # one whole column; librosa warns of anything shorter


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
    import librosa

    sound = np.nan_to_num(audio.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0).clip(-MAX_SAMPLE, MAX_SAMPLE)
    emphasized = np.concatenate((sound[:1], sound[1:] - np.float32(PRE_EMPHASIS) * sound[:-1]))
    spectrum = librosa.stft(emphasized, n_fft=N_FFT, hop_length=HOP_LENGTH, win_length=N_FFT, pad_mode="reflect")
    # column by column: in one product, a column's rounding would depend on its position (on AVX-512), and speech in
    # pieces would differ from the whole
    columns = np.ascontiguousarray(np.abs(spectrum).T)
    bands = np.matmul(columns[:, None], _filters().T)[:, 0].T
    decibels = 20.0 * np.log10(np.maximum(FLOOR, bands)) - REFERENCE_DB
    normalized = 2 * PEAK * (decibels + RANGE_DB) / RANGE_DB - PEAK
    mel: Floats = np.clip(normalized, -PEAK, PEAK).astype(np.float32)
    return mel


@cache
def _filters() -> Floats:
    """Return the Slaney mel filters, FP32 [80, 401]."""
    from librosa.filters import mel as slaney_filters

    filters: Floats = slaney_filters(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=MEL_BANDS, fmin=FMIN, fmax=FMAX)
    return filters
