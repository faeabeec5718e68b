"""Speech that can be recognized in what comes out of an adapter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 24_000
FPS = 25
Pcm = NDArray[np.int16]


def words(seconds: float, seed: int, rate: int = RATE) -> Pcm:
    """Return noise that swells like a voice: other words have other samples, and none of them is silence."""
    count = round(seconds * rate)
    level = 12_000 * np.abs(np.sin(np.arange(count) / rate * 3 * np.pi)) + 200
    noise = np.random.default_rng(seed).uniform(0.1, 1, count) * level
    return noise.astype(np.int16)


def tone(seconds: float, rate: int, channels: int = 1, hertz: float = 440.0) -> NDArray[np.int16]:
    """Return a tone [n], or [n, channels]."""
    wave = 12_000 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave.astype(np.int16)[:, None], channels, axis=1).squeeze()


def frequency(sound: Pcm, rate: int = RATE) -> float:
    """Return the strongest frequency in Hz."""
    return float(np.argmax(np.abs(np.fft.rfft(sound * np.hanning(len(sound))))) * rate / len(sound))


def assert_said(sound: Pcm, speech: Pcm) -> None:
    """All of the speech has come out, in order and unchanged, and after it at most one frame of silence."""
    np.testing.assert_array_equal(sound[: len(speech)], speech)
    assert len(sound) < len(speech) + RATE / FPS and not sound[len(speech) :].any()
